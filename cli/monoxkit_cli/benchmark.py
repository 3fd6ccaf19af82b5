"""`monoxkit benchmark`: models side by side, and a server under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.benchmarking.load.report import Latencies, LoadFigures, LoadReport
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


def _load_tables(report: LoadReport) -> list[Table]:
    return [_steps(report), *(_parts(report, by) for by in ("by_rows", "by_length", "by_language"))]


def _steps(report: LoadReport) -> Table:
    from rich.table import Table

    table = Table(
        "requests/s", *_LOAD_HEADINGS, "429 p99", "Retry-After", "client late",
        f"p99 <= {report.p99_ms:g} ms", title=f"{report.url}, alone {report.alone_ms:.1f} ms",
    )  # fmt: skip
    for step in report.steps:
        asked = step.all.retry_after_s
        table.add_row(
            f"{step.rate_per_s:g}",
            *_load_cells(step.all),
            _ms(_slow(step.all.rejected)),
            _NONE if asked is None else f"{asked:g} s",
            _ms(step.lateness_p99_ms),
            "yes" if step.is_goal_met else "no",
        )
    return table


def _parts(report: LoadReport, by: str) -> Table:
    """The parts of the step at the capacity, or of the first one where none met the goal."""
    from rich.table import Table

    chosen = next(
        (one for one in report.steps if one.rate_per_s == report.capacity_per_s), report.steps[0]
    )
    name = {"by_rows": "texts", "by_length": "characters", "by_language": "language"}[by]
    table = Table(name, *_LOAD_HEADINGS, title=f"at {chosen.rate_per_s:g} requests/s")
    for part, figures in getattr(chosen, by).items():
        table.add_row(part, *_load_cells(figures))
    return table


_LOAD_HEADINGS = ("requests", "answers", "goodput/s", "texts/s", "p50", "p95", "p99")


def _load_cells(figures: LoadFigures) -> list[str]:
    return [
        f"{figures.num_requests:,}",
        ", ".join(f"{count:,} x {status}" for status, count in figures.statuses.items()),
        f"{figures.goodput_per_s:,.1f}",
        f"{figures.goodput_rows_per_s:,.1f}",
        *(_ms(getattr(figures.accepted, name)) for name in _LATENCIES),
    ]


def _slow(latencies: Latencies) -> float | None:
    return latencies.most_ms if latencies.p99_ms is None else latencies.p99_ms


def _load_notes(report: LoadReport) -> str:
    capacity = report.capacity_per_s
    found = "no rate met the goal" if capacity is None else f"{capacity:g} requests a second"
    late = max(one.lateness_p99_ms for one in report.steps)
    limited = (
        ""
        if late < report.p99_ms / 4
        else (
            f" This client sent requests up to {late:.0f} ms late (99th percentile), so its own "
            "speed is part of the figures: give it more of the processor."
        )
    )
    return (
        f"Capacity: {found}. Requests were sent at times that were fixed before, and latencies "
        "count from those times, so a server that holds requests up does not look faster. "
        "A percentile that so few answers do not have is left out." + limited
    )


COMMAND = Group(
    name="benchmark",
    help="""Measure models, or a server.

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
        Command(
            name="serve",
            stage="benchmark_server",
            help="""What a server answers, how fast and up to which rate.

            Requests of real texts are sent at fixed or random times, whether or not earlier ones
            were answered, at one rate after the other. Latency counts from the time at which a
            request was due. Answers with 200 and in time are goodput; 429 and all else is told
            apart, by the size and the language of requests too.

            Example: monoxkit benchmark serve http://127.0.0.1:8080 --test data/test.*.jsonl
            """,
            show=_load_tables,
            notes=_load_notes,
        ),
    ),
)
register = COMMAND.register
