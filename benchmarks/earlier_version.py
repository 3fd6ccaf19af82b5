"""Labelling and training by this version and by an earlier one, through their commands.

Both run the same commands on the same files under the same interpreter and take turns. The figures
are seconds of the two whole commands, and of training alone as the command tells it. What they
wrote is compared: the logits of each row, and the student's weights by their digest.

    python benchmarks/earlier_version.py --checkout ../monoxkit-0.1.0 --teacher runs/teacher-onnx \\
        --corpus runs/data/unlabelled.jsonl --dev runs/data/dev.jsonl --rounds 3
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import harness


def main() -> None:
    """Let both versions label and train in turn, compare what they wrote, publish the ratios."""
    made = harness.parser(__file__, __doc__, rounds=3)
    made.add_argument("--checkout", type=Path, required=True, help="the earlier version's")
    made.add_argument("--teacher", required=True, help="an ONNX bundle that both versions read")
    made.add_argument("--corpus", required=True)
    made.add_argument("--dev", required=True)
    made.add_argument("--model", default="packaged:e5-small")
    made.add_argument("--steps", type=harness.positive, default=60)
    made.add_argument("--max-length", type=harness.positive, default=64)
    arguments = made.parse_args()
    checkouts = {"earlier": arguments.checkout.resolve(), "this": harness.ROOT}
    with tempfile.TemporaryDirectory() as scratch:
        ways = {
            name: partial(_run, checkout, Path(scratch) / name, arguments)
            for name, checkout in checkouts.items()
        }
        runs = harness.take_turns(ways, arguments.rounds)
        apart = _largest_difference(*(Path(scratch) / name / "store" for name in checkouts))
    figures = [key for key in runs["this"][0] if key.endswith("_s")]
    harness.publish(
        arguments,
        {
            "steps": arguments.steps,
            "max_length": arguments.max_length,
            "largest_logit_difference": apart,
            "equal_student": runs["this"][-1]["weights"] == runs["earlier"][-1]["weights"],
            "medians": harness.median_of_each(runs),
            "seconds_of_earlier_over_this": {
                key: harness.ratios(harness.by_way(runs, key), "this")["earlier"] for key in figures
            },
            "runs": runs,
        },
        hidden=("runs",),
    )


def _run(checkout: Path, folder: Path, arguments: Any, _round: int) -> dict[str, Any]:
    """One version's labelling and training, each begun anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store, student = folder / "store", folder / "student"
    cut = ("--max-length", str(arguments.max_length))
    label_s, _ = harness.timed(
        lambda: _command(
            checkout, "label", "--teacher", "onnx", "--model", arguments.teacher, "--corpus",
            arguments.corpus, "--store", str(store), *cut,
        )
    )  # fmt: skip
    train_s, trained = harness.timed(
        lambda: _command(
            checkout, "train-student", "--method", "kd", "--model", arguments.model, "--store",
            str(store), "--dev", arguments.dev, "--out", str(student), "--max-steps",
            str(arguments.steps), *cut,
        )
    )  # fmt: skip
    weights = hashlib.sha256((student / "model.safetensors").read_bytes()).hexdigest()
    return {
        "label_command_s": label_s,
        "train_command_s": train_s,
        "steps_s": trained["trained_s"],
        "weights": weights,
    }


def _command(checkout: Path, *words: str) -> Any:
    """A command of a checkout, with `--json`: what it printed."""
    line = [sys.executable, "-m", "monoxkit_cli", *words, "--json"]
    done = harness.printed(line, env=harness.environment(checkout), cwd=checkout)
    return json.loads(done)


def _largest_difference(earlier: Path, this: Path) -> float:
    """The largest difference of a logit between two stores of the same rows in the same order."""
    stores = [
        np.concatenate([np.load(path) for path in sorted(store.glob("shards/*/logits.npy"))])
        for store in (earlier, this)
    ]
    return float(np.abs(stores[0].astype(np.float64) - stores[1]).max())


if __name__ == "__main__":
    main()
