"""Labelling programs side by side: the same model, the same real texts, in alternating rounds.

Every program is a process of its own, under its own interpreter where `--python` names one, and all
take turns on the same slices of the corpus. Logits are compared with those of PyTorch in fp32. What
is not installed is listed with the reason. Writes label_throughput.json and .png into `--out`.

The corpus is Debian's descriptions where `--corpus` names none (preparing it needs apt and the
network), and the model is the teacher of a finished demo unless `--model` names another.

    python benchmarks/label_throughput.py --model runs/demo/teacher --bundle runs/bundle \\
        --python optimum-onnx=OTHER/bin/python --slice pipeline=400 pipeline-sorted-bf16=200
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from harness import RESULTS, parser, positive
from labelling_race.plan import CONTENDERS, LabelBenchmarkConfig
from labelling_race.result import LabelBenchmark, RowResult, write_label_benchmark
from labelling_race.run import benchmark_labelling
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import MonoxError
from monox_kit.tasks.debian.prepare import DebianConfig, prepare_debian
from monox_kit.tasks.folder import UNLABELLED
from monoxkit_cli.render import RichProgress, emit

# Texts that are in no round, to warm up and to calibrate, and some to spare.
EXTRA_ROWS = 1000


def main(given: Sequence[str] | None = None) -> int:
    """Prepare what is missing, let the programs take turns, show and write the result."""
    arguments = parsed(given)
    try:
        config = LabelBenchmarkConfig(
            model=arguments.model,
            corpus=CorpusConfig(
                paths=tuple(arguments.corpus or [debian(arguments)]),
                format=arguments.format,
                text_column=arguments.text_column,
                pair="none",
            ),
            bundle=arguments.bundle,
            bundles=dict(arguments.bundle_of),
            graph=arguments.graph,
            rows=tuple(arguments.rows) if arguments.rows else None,
            rounds=arguments.rounds,
            rows_per_round=arguments.rows_per_round,
            slices=dict(arguments.slice),
            max_length=arguments.max_length,
            guard=arguments.guard,
            interpreters=dict(arguments.python),
            threads=arguments.threads,
            round_limit_s=arguments.round_limit,
        )
        found = benchmark_labelling(config, arguments.work, progress=RichProgress())
        paths = write_label_benchmark(found, arguments.out)
    except MonoxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    emit(found, arguments.json, lambda: tables(found), notes="\n".join(map(str, paths)))
    return 0


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    made = parser(__file__, __doc__, out=RESULTS)
    made.add_argument("--model", default="runs/demo/teacher", help="fine-tuned PyTorch folder")
    made.add_argument("--corpus", nargs="+", help="text files, globs or URLs")
    made.add_argument("--data", type=Path, default=Path("runs/benchmark-data"), help="of Debian's")
    made.add_argument("--rounds", type=positive, default=3, help="rounds, in turn")
    made.add_argument("--rows-per-round", type=positive, default=2000, help="no text is in two")
    made.add_argument("--max-length", type=positive, default=256, help="tokens of a text, at most")
    made.add_argument("--work", type=Path, default=Path("runs/benchmark-work"), help="kept graphs")
    made.add_argument("--bundle", help="ONNX bundle of our rows; without it, one in fp32 is made")
    made.add_argument("--graph", help="fp32 ONNX file of OpenVINO rows; without it, one is made")
    made.add_argument("--rows", nargs="+", choices=CONTENDERS, help="programs; without it, all")
    made.add_argument("--guard", type=fraction, help="agreement that monoxkit-guard keeps")
    made.add_argument("--threads", type=positive, help="of each program; without it, the cores")
    made.add_argument("--round-limit", type=float, default=900.0, help="seconds of a pass, at most")
    made.add_argument("--format", default="auto", help="of the corpus: jsonl, csv, text, ...")
    made.add_argument("--text-column", default="text")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    for name, kind, form, what in (
        ("--bundle-of", by_row, "ROW=DIR", "other bundles of our rows"),
        ("--slice", count_by_row, "ROW=COUNT", "fewer texts a round for slow rows"),
        ("--python", by_row, "ROW=PATH", "interpreters of rows with other needs"),
    ):
        made.add_argument(
            name, nargs="+", action="extend", type=kind, default=[], metavar=form, help=what
        )
    arguments = made.parse_args(given)
    if arguments.guard is None and "monoxkit-guard" in (arguments.rows or ()):
        made.error("--rows monoxkit-guard: this row needs --guard, such as --guard 0.999")
    return arguments


def by_row(text: str) -> tuple[str, str]:
    """A row's name and its value, as an option's type.

    Raises:
        ArgumentTypeError: the text has another form, or there is no such row.
    """
    row, separator, value = text.partition("=")
    if not (separator and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ROW=VALUE")
    if row not in CONTENDERS:
        raise argparse.ArgumentTypeError(f"{row!r} is no row; the rows are {', '.join(CONTENDERS)}")
    return row, value


def count_by_row(text: str) -> tuple[str, int]:
    """A row's name and a number of texts, as an option's type.

    Raises:
        ArgumentTypeError: the text has another form, or there is no such row.
        ValueError: it is no number of texts.
    """
    row, value = by_row(text)
    return row, positive(value)


def fraction(text: str) -> float:
    """A number between 0 and 1, as an option's type.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


def debian(arguments: argparse.Namespace) -> str:
    """The path of Debian's English descriptions, prepared."""
    # Labelled and test rows are not read here, but the corpus has them: the fewest.
    wanted = DebianConfig(
        labelled=20,
        dev=20,
        unlabelled=arguments.rounds * arguments.rows_per_round + EXTRA_ROWS,
        languages=("de",),
    )
    prepare_debian(wanted, arguments.data, progress=RichProgress())
    return str(arguments.data / UNLABELLED)


def tables(found: LabelBenchmark) -> list[Table]:
    """The rows, and the machine's limits."""
    limits = found.limits["tokens_per_s"]
    table = Table(
        "row",
        "tokens/s",
        *(f"of {name}" for name in limits),
        "texts",
        "peak MB",
        "same label",
        "mean KL",
        "note",
        title=f"{found.model['name']}: real tokens per second, median of rounds",
    )
    for name, row in found.rows.items():
        table.add_row(name, *cells(row, list(limits)))
    machine = Table("matrix product", "10^9 operations/s", "tokens/s", title="The machine's limits")
    for name, rate in found.limits["rates"].items():
        machine.add_row(name, f"{rate:,.0f}", f"{limits[name]:,.0f}")
    return [table, machine]


def cells(row: RowResult, limits: Sequence[str]) -> list[str]:
    """A row's cells after its name."""
    rate, compared, memory = row.tokens_per_s, row.agreement, row.peak_rss_bytes
    num_over = sum(found.over_limit for found in row.rounds.values())
    notes = [row.reason or "", f"over the limit in {num_over} rounds" if num_over else ""]
    fractions = (row.limit_fractions.get(name) for name in limits)
    return [
        "-" if rate is None else f"{rate:,.0f}",
        *("-" if fraction is None else f"{fraction:.0%}" for fraction in fractions),
        f"{sum(found.num_texts for found in row.rounds.values()):,}",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
        "-" if compared is None else f"{compared.argmax:.2%}",
        "-" if compared is None else f"{compared.mean_kl:.1e}",
        "; ".join(filter(None, notes)),
    ]


if __name__ == "__main__":
    sys.exit(main())
