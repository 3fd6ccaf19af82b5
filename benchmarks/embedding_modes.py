"""What training word embeddings costs: frozen, sparse (tokens that occur) or full, side by side.

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
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.hardware import read_hardware
from monox_kit.models.folder import open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import autocast, model_inputs, new_classifier
from monox_kit.objectives import cross_entropy
from monox_kit.progress import Silent
from monox_kit.training.batches import Batches
from monox_kit.training.config import EmbeddingMode, LoopConfig
from monox_kit.training.embeddings import install
from monox_kit.training.loop import resolve_precision
from monox_kit.training.optimizer import freeze, new_optimizer
from monox_kit.training.order import Position
from monox_kit.training.run import StudentConfig, train_student
from train_tokenizing import LABELS, training_rows

RESULT = Path(__file__).parent / "results" / "embedding_modes.json"
MODES: tuple[EmbeddingMode, ...] = get_args(EmbeddingMode)
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
    freeze(model, config)
    started, num_occurring = time.perf_counter(), 0
    if mode == "sparse":
        ids = batches.occurring_tokens(10**9, Silent())
        install(model, ids)
        num_occurring = len(ids)
    finding_s = time.perf_counter() - started
    model.train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = new_optimizer(parameters, config, model)
    precision = resolve_precision(config)
    parts = {"forward": 0.0, "backward": 0.0, "clip": 0.0, "optimizer": 0.0}
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    wall_s = 0.0
    with closing(batches.after(Position())) as stream:
        for step, batch in enumerate(itertools.islice(stream, arguments.steps + WARM_UP_STEPS)):
            started = time.perf_counter()
            at = [clock()]
            with autocast("cpu", precision):
                logits = model(**model_inputs(batch.tokens(), "cpu")).logits
            loss = cross_entropy(logits, batch.targets.labels).mean()
            at.append(clock())
            loss.backward()
            at.append(clock())
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            at.append(clock())
            optimizer.step()
            optimizer.zero_grad()
            at.append(clock())
            if step >= WARM_UP_STEPS:
                wall_s += (time.perf_counter() - started) / arguments.steps
                for name, seconds in zip(parts, [b - a for a, b in itertools.pairwise(at)]):
                    parts[name] += seconds / arguments.steps
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        **{f"{name}_s": round(seconds, 4) for name, seconds in parts.items()},
        "step_s": round(sum(parts.values()), 4),
        "wall_s": round(wall_s, 4),
        "peak_rss_bytes": int(lines["VmHWM"].split()[0]) * 1024,
        "trained_parameters": sum(p.numel() for p in parameters.values()),
        "occurring_tokens": num_occurring,
        "finding_tokens_s": round(finding_s, 2) if num_occurring else 0.0,
        "precision": precision,
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every mode's medians over the rounds, and its times as multiples of frozen ones."""
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for round_ in range(arguments.rounds):
        turn = round_ % len(MODES)
        for mode in MODES[turn:] + MODES[:turn]:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", mode]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[mode].append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps({"mode": mode, **runs[mode][-1]}), flush=True)
    medians = {
        mode: {
            key: value if isinstance(value, str) else _median([run[key] for run in found])
            for key, value in found[0].items()
        }
        for mode, found in runs.items()
    }
    ratios = {
        mode: round(median(r["step_s"] / f["step_s"] for r, f in zip(found, runs["frozen"])), 3)
        for mode, found in runs.items()
    }
    return {"modes": medians, "step_to_frozen": ratios}


def _median(values: list[float]) -> float:
    """The median, whole where all values are."""
    middle = median(values)
    return int(middle) if all(isinstance(value, int) for value in values) else round(middle, 4)


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
                stores=tuple(arguments.store),
                labelled=CorpusConfig(paths=(str(data / "labelled.jsonl"),)),
                dev=CorpusConfig(paths=(str(data / "dev.jsonl"),)),
                labels=data / "labels.json",
                loop=replace(loop, embeddings=mode, seed=seed),
            )
            summary = train_student(config, out)
            tests = CorpusConfig(paths=tuple(str(p) for p in sorted(data.glob("test.*.jsonl"))))
            report = evaluate(str(out), EvaluateConfig(test=tests))
            found[mode].append(
                {
                    "seed": seed,
                    "dev_accuracy": summary.dev_accuracy,
                    "trained_s": summary.trained_s,
                    "target_average": report.target_average,
                    "accuracy": {lang: r.accuracy for lang, r in report.languages.items()},
                }
            )
            print(json.dumps({"mode": mode, **found[mode][-1]}), flush=True)
    return found


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="packaged:e5-small")
    parser.add_argument("--text", nargs="+", default=[], help="corpus; default: made-up texts")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="1: processor seconds; else wall")
    parser.add_argument("--data", type=Path, help="folder of the demo's form: accuracies too")
    parser.add_argument("--store", type=Path, nargs="+", default=[], help="for kd on --data")
    parser.add_argument("--train-steps", type=int, default=280)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of --data's students")
    parser.add_argument("--trained", nargs="+", choices=MODES, default=MODES, help="with --data")
    parser.add_argument("--only", choices=MODES, help="take the steps of one mode and say how long")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
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
        **compare(arguments),
    }
    if arguments.data:
        result["accuracies"] = accuracies(arguments)
    result["hardware"] = read_hardware().to_json()
    result["versions"] = {name: version(name) for name in ("torch", "transformers")}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["step_to_frozen"]))


if __name__ == "__main__":
    main()
