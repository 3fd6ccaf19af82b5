"""`monoxkit advise`: how far a teacher leads, before it labels anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command
from monoxkit_cli.evaluate import shown_range

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.advice.advise import Advice


def _tables(found: Advice) -> list[Table]:
    """What the teacher scores, and what was gained on other tasks."""
    from rich.table import Table

    from monox_kit.problem import MEASURES

    rows = f"{found.num_rows:,} rows in {found.language}"
    scores = Table("", "%", "95 %", title=f"{MEASURES[found.measure]} on {rows}")
    teacher = found.teacher_interval
    scores.add_row(
        "teacher",
        f"{100 * found.teacher_value:.1f}",
        "" if teacher is None else shown_range(teacher),
    )
    if found.baseline_value is not None:
        scores.add_row("baseline", f"{100 * found.baseline_value:.1f}", "")
    if found.lead is not None and found.lead_interval is not None:
        scores.add_row("lead", f"{100 * found.lead:+.1f}", shown_range(found.lead_interval))
    seen = Table("lead", "gain over ce", "teacher", "seeds", "task", title="observed so far")
    for one in found.observed:
        gains = ", ".join(f"{method} {gain}" for method, gain in one.gains.items())
        seen.add_row(f"{one.lead:+.1f}", gains, one.teacher, str(one.seeds), one.task)
    return [scores, seen]


def _notes(found: Advice) -> str:
    return found.said


COMMAND = Command(
    name="advise",
    stage="advise",
    help="""Tell how far a teacher leads, before it labels.

    Scores the teacher and a student that learned from the labels alone on rows in the source
    language, gives the teacher's lead with its interval, and shows what distilling gained at such
    leads as far as it was measured.

    Example: monoxkit advise runs/teacher --baseline runs/ce --test data/dev.jsonl
    """,
    show=_tables,
    notes=_notes,
)
