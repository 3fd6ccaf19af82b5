"""What a training step waits for its tokens: tokenized in line, ahead in threads, or kept on disk.

Every way makes the same batches, and takes the same steps with them, in alternating rounds. The
steps are those of the real student on this machine, and stand-ins for those of an accelerator: the
processor is left alone for so many milliseconds. Tokens on disk are 4 bytes each, mapped; making
them is timed apart.

    python benchmarks/train_tokenizing.py
    python benchmarks/train_tokenizing.py --text unlabelled.jsonl --step-ms 5 20
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import ROOT, each_round, medians, parser, positive, publish, ratios, take_turns
from monox_kit.data import Document, LabelSet
from monox_kit.models.folder import open_folder
from monox_kit.models.tokenizer import Encoded, Tokenizer
from monox_kit.models.torch_backend import autocast, model_inputs, new_classifier
from monox_kit.objectives import cross_entropy
from monox_kit.training.batches import Batch, Batches, Window
from monox_kit.training.config import LoopConfig
from monox_kit.training.loop import resolve_precision
from monox_kit.training.optimizer import freeze, new_optimizer
from monox_kit.training.order import Position
from monox_kit.training.rows import LabelledRows, TrainingRows
from texts import first_documents

LABELS = LabelSet(("one", "other"))
Step = Callable[[Batch], None]


class CachedBatches(Batches):
    """The same batches with their tokens from two mapped files instead of the tokenizer."""

    def __init__(
        self, rows: TrainingRows, tokenizer: Tokenizer, config: LoopConfig, folder: Path
    ) -> None:
        super().__init__(rows, tokenizer, config)
        started = time.perf_counter()
        lengths = []
        with (folder / "ids").open("wb") as stream:
            for start in range(0, len(rows), 1024):
                part = np.arange(start, min(start + 1024, len(rows)))
                encoded = tokenizer.encode(rows.batch(part)[0])
                encoded.input_ids.astype(np.uint32).tofile(stream)
                lengths.append(encoded.lengths)
        starts = np.cumsum(np.concatenate([[0], *lengths]))
        np.save(folder / "starts.npy", starts)
        self.making_s = time.perf_counter() - started
        self.num_tokens = int(starts[-1])
        self._ids = np.memmap(folder / "ids", np.uint32, "r")
        self._starts = np.load(folder / "starts.npy", mmap_mode="r")

    def window(self, at: Position) -> Window:
        """Look the window's tokens up."""
        rows = self._order.rows(at.epoch, at.window)
        starts, lengths = self._starts[rows], self._starts[rows + 1] - self._starts[rows]
        ids = np.concatenate([self._ids[s : s + n] for s, n in zip(starts, lengths)])
        encoded = Encoded(ids.astype(np.int64), None, np.asarray(lengths), np.zeros_like(lengths))
        _, _, targets = self._rows.batch(rows)
        batches = self._order.batches(encoded.lengths, at.epoch, at.window)
        first = Position(at.epoch, at.window)
        return Window(first, rows, encoded, targets, batches, self._tokenizer.padding)


def student_step(model: Any, config: LoopConfig, mark: Callable[[], object] = lambda: None) -> Step:
    """One step of the student's training on this machine.

    Args:
        model: its frozen parameters are frozen here.
        config: of the loop.
        mark: called before the step and after each part of it: forward, backward, clip, optimizer.
    """
    freeze(model, config)
    model.train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = new_optimizer(parameters, config, model)
    precision = resolve_precision(config)

    def step(batch: Batch) -> None:
        mark()
        with autocast("cpu", precision):
            logits = model(**model_inputs(model, batch.tokens(), "cpu")).logits
        loss: Any = cross_entropy(logits, batch.targets.labels).mean()
        mark()
        loss.backward()
        mark()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        mark()
        optimizer.step()
        optimizer.zero_grad()
        mark()

    return step


def accelerator_step(seconds: float) -> Step:
    """What a step on another device is to this machine: padding, then waiting."""

    def step(batch: Batch) -> None:
        batch.tokens()
        time.sleep(seconds)

    return step


def seconds_per_step(batches: Batches, step: Step, num_steps: int, skip: int) -> float:
    """Mean over `num_steps` steps, once `skip` others are done."""
    with closing(batches.after(Position())) as stream:
        for batch in itertools.islice(stream, skip):
            step(batch)
        started = time.perf_counter()
        for batch in itertools.islice(stream, num_steps):
            step(batch)
        return (time.perf_counter() - started) / num_steps


def made_up_texts(count: int) -> Iterator[str]:
    """Texts of 5 to 90 words, drawn from the documentation."""
    words = [w for page in sorted((ROOT / "docs").glob("*.md")) for w in page.read_text().split()]
    generator = random.Random(1)
    for _ in range(count):
        yield " ".join(generator.choices(words, k=generator.randint(5, 90)))


def training_rows(paths: Sequence[str], count: int) -> TrainingRows:
    """The first texts of the files, or made-up ones; the labels mean nothing."""
    if paths:
        texts = [document.text for document in first_documents(paths, count)]
    else:
        texts = list(made_up_texts(count))
    documents = [
        Document(row, str(row), text, label=LABELS.names[row % 2]) for row, text in enumerate(texts)
    ]
    return TrainingRows([LabelledRows(documents, LABELS, "texts")])


def main() -> None:
    """Measure every way with every step, print and write the result."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("--model", default="packaged:e5-small")
    made.add_argument("--text", nargs="+", default=[], help="corpus; default: made-up texts")
    made.add_argument("--rows", type=positive, default=1600)
    made.add_argument("--max-length", type=positive, default=128)
    made.add_argument("--batch-size", type=positive, default=16)
    made.add_argument("--step-ms", type=float, nargs="*", default=[5.0, 20.0])
    arguments = made.parse_args()
    folder = open_folder(arguments.model)
    tokenizer = Tokenizer(folder.path, arguments.max_length)
    rows = training_rows(arguments.text, arguments.rows)
    config = LoopConfig(batch_size=arguments.batch_size, embeddings="frozen")
    window_steps = len(Batches(rows, tokenizer, config).window(Position()).batches)
    with tempfile.TemporaryDirectory() as scratch:
        cached = CachedBatches(rows, tokenizer, config, Path(scratch))
        ways: dict[str, Batches] = {
            "in line": Batches(rows, tokenizer, config),
            "1 thread ahead": Batches(rows, tokenizer, replace(config, workers=1)),
            "2 threads ahead": Batches(rows, tokenizer, replace(config, workers=2)),
            "on disk": cached,
        }
        steps = {f"{ms:g} ms elsewhere": accelerator_step(ms / 1000) for ms in arguments.step_ms}
        steps["student here"] = student_step(new_classifier(folder, LABELS, 1), config)
        seconds = {}
        for kind, step in steps.items():
            # Long enough to take a window from its start to the next one's.
            num_steps = window_steps * (1 if kind == "student here" else 3)
            taken = {
                way: each_round(partial(seconds_per_step, batches, step, num_steps, 2))
                for way, batches in ways.items()
            }
            seconds[kind] = take_turns(taken, arguments.rounds)
    middle = {kind: medians(by_way, 5) for kind, by_way in seconds.items()}
    result = {
        "rows": len(rows),
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        "window_steps": window_steps,
        "mean_tokens": round(cached.num_tokens / len(rows), 1),
        "tokens_per_s_of_tokenizing": round(cached.num_tokens / cached.making_s),
        "rounds": arguments.rounds,
        "s_per_step": middle,
        "to_in_line": {
            kind: ratios(by_way, to="in line", digits=3) for kind, by_way in seconds.items()
        },
    }
    kind = next(iter(steps))
    publish(arguments, result, bars=middle[kind], unit=f"seconds a step, {kind}")


if __name__ == "__main__":
    main()
