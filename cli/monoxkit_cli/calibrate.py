"""`monoxkit calibrate`: temperatures and thresholds by language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command
from monoxkit_cli.evaluate import shown_range

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.evaluation.calibration import CalibrateSummary

_SHOWN_TEMPERATURES = 4


def _tables(summary: CalibrateSummary) -> list[Table]:
    from rich.table import Table

    again = " (calibrated before)" if summary.reused else ""
    errors = Table(
        *("language", "rows", "temperature", "error before", "95 %", "error after", "95 %"),
        title=f"{summary.path}: expected calibration error in points{again}",
    )
    for language, one in summary.languages.items():
        more = ", ..." if len(one.temperatures) > _SHOWN_TEMPERATURES else ""
        temperatures = ", ".join(f"{each:.3g}" for each in one.temperatures[:_SHOWN_TEMPERATURES])
        errors.add_row(
            language,
            f"{one.num_rows:,}",
            temperatures + more,
            f"{100 * one.error_before:.1f}",
            shown_range(one.error_before_interval),
            f"{100 * one.error_after:.1f}",
            shown_range(one.error_after_interval),
        )
    risks = Table("language", "accuracy", "of the surest half", "mean risk", title="Risk, coverage")
    for language, one in summary.languages.items():
        half = dict(one.risk_coverage)[0.5]
        numbers = (one.accuracy, 1 - half, one.area_under_risk)
        risks.add_row(language, *(f"{100 * number:.1f}" for number in numbers))
    if summary.wanted_precision is None:
        return [errors, risks]
    answers = Table(
        *("language", "threshold", "answered", "right of these", "95 %"),
        title=f"Thresholds for {100 * summary.wanted_precision:g} % right answers",
    )
    for language, one in summary.languages.items():
        interval = one.precision_interval
        answers.add_row(
            language,
            "none" if one.threshold is None else f"{one.threshold:.3f}",
            f"{100 * (one.coverage or 0):.1f} %",
            "-" if one.precision is None else f"{100 * one.precision:.1f} %",
            "-" if interval is None else shown_range(interval),
        )
    return [errors, risks, answers]


def _notes(summary: CalibrateSummary) -> str:
    """What stands in, and what the figures are not."""
    return (
        f"Other languages have the values of {', '.join(summary.stand_in)}, which are optimistic "
        "for languages unlike it. These figures are of the rows that the values were chosen on: "
        "`monoxkit evaluate` gives those of others."
    )


COMMAND = Command(
    name="calibrate",
    stage="calibrate",
    help="""Say how sure a model is, in each language.

    Each language with labels gets a temperature, under which its probabilities are as often right
    as they say, and with --precision a threshold. predict and evaluate then use both. Languages
    without labels have the values of the source language.

    Example: monoxkit calibrate student-onnx --dev dev.*.jsonl --precision 0.95 --out student-sure
    """,
    show=_tables,
    notes=_notes,
)
