"""`monoxkit demo`: the whole pipeline on real text, in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.demo.result import DemoReport
    from monox_kit.stage_call import Stage


def _tables(report: DemoReport) -> list[Table]:
    """Accuracy by language and system, and what the run cost."""
    from rich.table import Table

    from monox_kit.report import accuracy_rows, fact_rows

    header, *rows = accuracy_rows(report.scores)
    accuracy = Table(*header, title="accuracy in %, with 95 % bootstrap intervals")
    for row in rows:
        accuracy.add_row(*row)
    facts = Table("what", "measured", title=report.out)
    for row in fact_rows(report):
        facts.add_row(*row)
    return [accuracy, facts]


def _run(stage: Stage, given: dict[str, Any]) -> DemoReport:
    """Run the demo and write its report."""
    from pathlib import Path

    from monox_kit.cache import keep_fonts
    from monox_kit.report import write_report
    from monoxkit_cli.render import RichProgress

    keep_fonts()
    report: DemoReport = stage.run(given, RichProgress())
    write_report(report, Path(given["out"]))
    return report


def _notes(report: DemoReport) -> str:
    """Where the report is."""
    return f"report: {report.out}/report.md, {report.out}/report.html"


COMMAND = Command(
    name="demo",
    stage="demo",
    help="""The whole pipeline on real text, in one command.

    Fine-tunes an English teacher, exports it, labels English text with it, trains three students
    on the same number of steps, evaluates each in every language, exports the best. Writes
    report.md and report.html. Run again, finished stages are reused.

    Example: monoxkit demo --languages de,fr,ja
    """,
    run=_run,
    show=_tables,
    notes=_notes,
    defaults={"out": "runs/demo"},
)
