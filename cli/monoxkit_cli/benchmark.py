"""`monoxkit benchmark`: models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.benchmarking.report import BenchmarkReport, Figures

_NONE = "-"


def _tables(report: BenchmarkReport) -> list[Table]:
    return [_contenders(report), _groups(report, "languages"), _groups(report, "lengths")]


def _contenders(report: BenchmarkReport) -> Table:
    from rich.table import Table

    against = report.contenders[0].name
    table = Table(
        "model", "size", "first answer", "peak memory", *_HEADINGS, "best batch", "times as fast",
        title=f"agreement with {report.reference}; times as fast as {against}",
    )  # fmt: skip
    for one in report.contenders:
        best = one.times_as_fast[one.best_batch]
        table.add_row(
            one.name,
            _megabytes(one.total_bytes),
            f"{one.first_answer.total_s.median:.2f} s",
            _megabytes(one.peak_bytes),
            *_cells(one.all, one.best_batch),
            str(one.best_batch),
            f"{best.median:.2f} ({best.least:.2f} to {best.most:.2f})",
        )
    return table


def _groups(report: BenchmarkReport, by: str) -> Table:
    from rich.table import Table

    name = {"languages": "language", "lengths": "tokens"}[by]
    table = Table(name, "model", "rows", "tokens/text", "tokens/character", *_HEADINGS)
    for group in getattr(report.contenders[0], by):
        for one in report.contenders:
            figures = getattr(one, by)[group]
            table.add_row(
                group,
                one.name,
                f"{figures.num_rows:,}",
                f"{figures.tokens_per_text:.1f}",
                f"{figures.tokens_per_character:.2f}",
                *_cells(figures, one.best_batch),
            )
    return table


_HEADINGS = ("accuracy", "agreement", "KL", "p50", "p95", "p99", "rows/s", "tokens/s")


def _cells(figures: Figures, best: int) -> list[str]:
    """Latency of the smallest batch, and what goes through in the best one."""
    found = figures.fidelity
    least = figures.timings.get(min(figures.timings, default=0))
    fastest = figures.timings.get(best)
    return [
        _percent(found.accuracy),
        _percent(found.agreement),
        _NONE if found.mean_kl is None else f"{found.mean_kl:.1e}",
        *(_ms(None if least is None else getattr(least, name)) for name in _LATENCIES),
        _NONE if fastest is None else f"{fastest.rows_per_s:,.1f}",
        _NONE if fastest is None else f"{fastest.tokens_per_s:,.0f}",
    ]


_LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.2f} %"


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} ms"


def _megabytes(count: int | None) -> str:
    return _NONE if count is None else f"{count / 1e6:,.1f} MB"


def _notes(report: BenchmarkReport) -> str:
    smallest = min(report.contenders[0].all.timings)
    rows = min(figures.num_rows for figures in report.contenders[0].languages.values())
    return (
        f"Latencies are of {smallest} text{'s' * (smallest > 1)} at a time, rows and tokens a "
        "second of each model's best batch, memory is a process's own. A percentile that so few "
        f"batches do not have is left out. With {rows} rows of a language an agreement of 99 % is "
        f"known to +-{100 * 1.96 * (0.99 * 0.01 / rows) ** 0.5:.1f} points; the JSON has intervals."
    )


COMMAND = Group(
    name="benchmark",
    help="""Measure models side by side.

    Example: monoxkit benchmark model student student-onnx --test data/test.*.jsonl
    """,
    commands=(
        Command(
            name="model",
            stage="benchmark",
            help="""Latency, speed, size, memory and agreement by language.

            Every model runs in a process of its own and takes turns with the others on the same
            texts: PyTorch folders in float32 and bfloat16, ONNX bundles on every execution
            provider. Before it is timed, each is compared with the float32 reference: the first
            PyTorch folder, else a bundle's fp32 graph.

            Example: monoxkit benchmark model student student-onnx --test data/test.*.jsonl
            """,
            show=_tables,
            notes=_notes,
        ),
    ),
)
register = COMMAND.register
