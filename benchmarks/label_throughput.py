"""Labelling programs side by side on Debian's descriptions, through `monoxkit benchmark label`.

Prepares the corpus where `--corpus` names none (it needs apt and the network), takes the teacher of
a finished demo unless `--model` names another, and writes label_throughput.json and .png into
`benchmarks/results/`. Whatever else is given goes to `monoxkit benchmark label` as it is.

    python benchmarks/label_throughput.py --model runs/demo/teacher --bundle runs/bundle \\
        --python optimum-onnx=OTHER/bin/python --slice pipeline=400 pipeline-sorted-bf16=200
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monox_kit.tasks.debian.prepare import UNLABELLED, DebianConfig, prepare_debian
from monoxkit_cli.app import main as monoxkit
from monoxkit_cli.render import RichProgress

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
# 6,000 texts in all.
ROWS_PER_ROUND = 2000
# Texts that are in no round, to warm up and to calibrate, and some to spare.
EXTRA_ROWS = 1000


def main() -> int:
    """Prepare what is missing and run the command; its exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        allow_abbrev=False,  # --rows is the command's own
    )
    parser.add_argument("--model", default="runs/demo/teacher")
    parser.add_argument("--corpus", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("runs/benchmark-data"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows-per-round", type=int, default=ROWS_PER_ROUND)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-work"))
    arguments, others = parser.parse_known_args()
    corpus = arguments.corpus
    if corpus is None:
        # Labelled and test rows are not read here, but the corpus has them: the fewest.
        wanted = DebianConfig(
            labelled=20,
            dev=20,
            unlabelled=arguments.rounds * arguments.rows_per_round + EXTRA_ROWS,
            languages=("de",),
        )
        prepare_debian(wanted, arguments.data, progress=RichProgress())
        corpus = [str(arguments.data / UNLABELLED)]
    command = ["benchmark", "label", "--model", arguments.model, "--corpus", *corpus]
    for name in ("rounds", "rows_per_round", "max_length", "out", "work"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    return monoxkit([*command, *others])


if __name__ == "__main__":
    sys.exit(main())
