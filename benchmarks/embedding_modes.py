"""What training word embeddings costs: frozen or full, side by side.

Each mode takes the same steps in a process of its own, in alternating rounds; the largest resident
memory is the process's. With one thread, seconds are those of the processor, which hold on a
machine that does other work too; with several they are the clock's. With `--data` each mode also
trains a student on a folder of the demo's form, and its accuracy per language is reported; with
`--store` by `kd`, else by `ce`.

    python benchmarks/embedding_modes.py
    python benchmarks/embedding_modes.py --data demo/data --store demo/store --train-steps 280
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from harness import (
    by_way,
    each_round,
    last_line,
    median_of_each,
    note,
    parser,
    peak_bytes,
    positive,
    publish,
    ratios,
    take_turns,
)
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.models.folder import open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import new_classifier
from monox_kit.training.batches import Batches
from monox_kit.training.config import EmbeddingMode, LoopConfig, StudentConfig
from monox_kit.training.loop import resolve_precision
from monox_kit.training.order import Position
from monox_kit.training.run import train_student
from train_tokenizing import LABELS, student_step, training_rows

MODES: tuple[EmbeddingMode, ...] = get_args(EmbeddingMode)
PARTS = ("forward", "backward", "clip", "optimizer")
WARM_UP_STEPS = 2  # the optimizer's state is made in the first


def take_steps(mode: EmbeddingMode, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the parts of a step, means over the steps after the warm-up, and memory."""
    torch.set_num_threads(arguments.threads)
    folder = open_folder(arguments.model)
    tokenizer = Tokenizer(folder.path, arguments.max_length)
    rows = training_rows(arguments.text, arguments.rows)
    config = LoopConfig(batch_size=arguments.batch_size, embeddings=mode)
    batches = Batches(rows, tokenizer, config)
    model = new_classifier(folder, LABELS, 1)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    marks: list[float] = []
    step = student_step(model, config, lambda: marks.append(clock()))
    walls = []
    with closing(batches.after(Position())) as stream:
        for batch in itertools.islice(stream, arguments.steps + WARM_UP_STEPS):
            started = time.perf_counter()
            step(batch)
            walls.append(time.perf_counter() - started)
    each = len(PARTS) + 1
    steps = [marks[at : at + each] for at in range(each * WARM_UP_STEPS, len(marks), each)]
    parts = {
        f"{name}_s": sum(at[part + 1] - at[part] for at in steps) / len(steps)
        for part, name in enumerate(PARTS)
    }
    return {
        **{name: round(seconds, 4) for name, seconds in parts.items()},
        "step_s": round(sum(parts.values()), 4),
        "wall_s": round(sum(walls[WARM_UP_STEPS:]) / len(steps), 4),
        "peak_rss_bytes": peak_bytes(),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "precision": resolve_precision(config),
    }


def compare(rounds: int) -> dict[str, Any]:
    """Every mode's medians over the rounds, and its times as multiples of frozen ones."""

    def run(mode: str) -> dict[str, Any]:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", mode]
        found: dict[str, Any] = last_line(command)
        return found

    runs = take_turns({mode: each_round(partial(run, mode)) for mode in MODES}, rounds)
    steps = by_way(runs, "step_s")
    return {"modes": median_of_each(runs), "step_to_frozen": ratios(steps, to="frozen", digits=3)}


def accuracies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Dev accuracy, and test accuracy per language, of students trained in each mode, by seed."""
    data = arguments.data
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in arguments.trained}
    loop = LoopConfig(
        learning_rate=arguments.learning_rate,
        head_factor=10.0,
        batch_size=arguments.batch_size,
        max_steps=arguments.train_steps,
        max_length=arguments.max_length,
        eval_every=max(arguments.train_steps // 4, 1),
    )
    with tempfile.TemporaryDirectory() as scratch:
        for seed, mode in itertools.product(arguments.seeds, arguments.trained):
            out = Path(scratch) / f"{mode}-{seed}"
            config = StudentConfig(
                model=arguments.model,
                method="kd" if arguments.store else "ce",
                store=tuple(arguments.store),
                labelled=CorpusConfig(paths=(str(data / "labelled.jsonl"),)),
                dev=CorpusConfig(paths=(str(data / "dev.jsonl"),)),
                labels=data / "labels.json",
                loop=replace(loop, embeddings=mode, seed=seed),
            )
            summary = train_student(config, out)
            tests = CorpusConfig(paths=tuple(str(p) for p in sorted(data.glob("test.*.jsonl"))))
            report = evaluate(EvaluateConfig(model=str(out), test=tests))
            found[mode].append(
                {
                    "seed": seed,
                    "dev_accuracy": summary.dev_accuracy,
                    "trained_s": summary.trained_s,
                    "target_average": report.target_average,
                    "accuracy": {lang: r.accuracy for lang, r in report.languages.items()},
                }
            )
            note(str({"mode": mode, **found[mode][-1]}))
    return found


def main() -> None:
    """Measure, print and write the result."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("--model", default="packaged:e5-small")
    made.add_argument("--text", nargs="+", default=[], help="corpus; default: made-up texts")
    made.add_argument("--rows", type=positive, default=4000)
    made.add_argument("--max-length", type=positive, default=128)
    made.add_argument("--batch-size", type=positive, default=16)
    made.add_argument("--steps", type=positive, default=8)
    made.add_argument("--threads", type=positive, default=1, help="1: processor seconds; else wall")
    made.add_argument("--data", type=Path, help="folder of the demo's form: accuracies too")
    made.add_argument("--store", type=Path, nargs="+", default=[], help="for kd on --data")
    made.add_argument("--train-steps", type=positive, default=280)
    made.add_argument("--learning-rate", type=float, default=2e-4)
    made.add_argument("--seeds", type=int, nargs="+", default=[1], help="of --data's students")
    made.add_argument("--trained", nargs="+", choices=MODES, default=MODES, help="with --data")
    made.add_argument("--only", choices=MODES, help="take the steps of one mode and say how long")
    arguments = made.parse_args()
    if arguments.only:
        print(json.dumps(take_steps(arguments.only, arguments)))
        return
    result = {
        "steps": arguments.steps,
        "threads": arguments.threads,
        "seconds_of": "processor" if arguments.threads == 1 else "clock",
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        **compare(arguments.rounds),
    }
    if arguments.data:
        result["accuracies"] = accuracies(arguments)
    bars = {mode: found["step_s"] for mode, found in result["modes"].items()}
    publish(arguments, result, bars=bars, unit="seconds a step")


if __name__ == "__main__":
    main()
