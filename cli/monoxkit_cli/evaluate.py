"""`monoxkit evaluate`: accuracy, micro-F1 and macro-F1 per language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.evaluation import EvalReport


def _notes(report: EvalReport) -> str:
    """How many rows a difference takes."""
    rows = max(one.rows_for_3_points or 0 for one in report.languages.values())
    fewest = min(report.languages, key=lambda name: report.languages[name].num_rows)
    seen = ""
    if report.seen_languages:
        seen = (
            f"Not zero-shot, as the model's card says: {', '.join(report.seen_languages)} (marked "
            "*).\n"
        )
    return (
        f"{seen}A difference of 3 points to another model shows on about {rows:,} rows of a "
        f"language (5 % level, 80 % power); {fewest} has {report.languages[fewest].num_rows:,}. "
        "See `monoxkit compare`."
    )


def _tables(report: EvalReport) -> list[Table]:
    from rich.table import Table

    # The one that the target average is of comes first.
    columns = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
    if report.measure == "micro_f1":
        columns = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "accuracy": "subset accuracy"}
    headings = [heading for name in columns.values() for heading in (name, "95 %")]
    table = Table("language", "rows", *headings, title=report.model)
    for language, result in report.languages.items():
        cells = [
            shown
            for name in columns
            for shown in (
                f"{100 * getattr(result, name):.1f}",
                shown_range(getattr(result, f"{name}_interval")),
            )
        ]
        mark = " *" if language in report.seen_languages else ""
        table.add_row(f"{language}{mark}", f"{result.num_rows:,}", *cells)
    if report.target_average is not None and report.target_average_interval is not None:
        table.add_row(
            "target average",
            "",
            f"{100 * report.target_average:.1f}",
            shown_range(report.target_average_interval),
        )
    if report.wanted_precision is None:
        return [table]
    return [table, _answers(report)]


def _answers(report: EvalReport) -> Table:
    """What a calibrated model answers, and how far its probabilities are off."""
    from rich.table import Table

    table = Table(
        *("language", "calibration error", "95 %", "answered", "accuracy of these", "95 %"),
        title=f"Thresholds for {100 * (report.wanted_precision or 0):g} % right answers",
    )
    for language, one in report.languages.items():
        error, interval = one.calibration_error_interval, one.answered_accuracy_interval
        table.add_row(
            language,
            f"{100 * (one.calibration_error or 0):.1f}",
            "-" if error is None else shown_range(error),
            f"{100 * (one.coverage or 0):.1f} %",
            "-" if one.answered_accuracy is None else f"{100 * one.answered_accuracy:.1f}",
            "-" if interval is None else shown_range(interval),
        )
    return table


def shown_range(interval: tuple[float, float]) -> str:
    """An interval in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


COMMAND = Command(
    name="evaluate",
    stage="evaluate",
    help="""Accuracy and macro-F1 per language, with intervals.

    Where a row has any number of labels: micro-F1, macro-F1 and subset accuracy.

    A row's language is its lang column, else what its file's name says (test.de.jsonl). Rows of an
    unknown language are reported as und and count into no average. Languages that the model has
    seen in training, as its card says, are marked: their results are not zero-shot.

    Example: monoxkit evaluate runs/student --test data/test.*.jsonl
    """,
    show=_tables,
    notes=_notes,
)
