"""`monoxkit run`: a recipe, which is a pipeline of the commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command, as_words

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.recipes.run import RunReport, StepReport
    from monox_kit.stage_call import Stage


def _run(stage: Stage, given: dict[str, Any]) -> RunReport | None:
    """Run the recipe; the commands of a plan are written as they are, for a shell to read."""
    import sys

    from monox_kit.cache import keep_fonts
    from monox_kit.foreign import shown_lines
    from monoxkit_cli.render import RichProgress

    if not (given.get("dry_run") or given.get("print_commands")):
        keep_fonts()  # the report's plots
    report: RunReport = stage.run(given, RichProgress())
    if not given.get("print_commands"):
        return report
    sys.stdout.write("".join(f"{shown_lines(line)}\n" for line in _commands(report)))
    sys.stdout.flush()
    return None


def _commands(report: RunReport) -> Iterator[str]:
    """The plan as lines of a shell's script, in order."""
    from pathlib import Path

    from monox_kit.door import STAGES
    from monox_kit.recipes.plan import COMMANDS

    yield "set -e"
    made: set[Path] = set()
    for step in report.steps:
        stage = STAGES[COMMANDS[step.command]]
        words = ["monoxkit", *step.command.split(), *as_words(stage, step.settings)]
        line = shlex.join(words)
        if stage.output is None:
            folder = Path(step.output).parent
            if folder not in made:
                made.add(folder)
                yield shlex.join(["mkdir", "-p", str(folder)])
            # An error with --json is JSON too; one that is kept must be no result. The brackets let
            # `set -e` see how it ends, which it does not of what stands before &&.
            part = f"{step.output}.part"
            line = (
                f"({line} --json > {shlex.quote(part)} && {shlex.join(['mv', part, step.output])})"
            )
        yield line


def _table(report: RunReport) -> Table:
    """Each step with its state, the rows that it reads, its time and what came out."""
    from rich.table import Table

    has_rows = any(step.rows for step in report.steps)
    columns = ["step", "command", "state", "time", "result"]
    if has_rows:
        columns.insert(3, "rows")
    table = Table(*columns, title=f"{report.recipe}: {report.out}")
    for step in report.steps:
        cells = [step.name, step.command, step.state, _time(step), _outcome(step.result or {})]
        if has_rows:
            counts = (f"{name} {_count(rows)}" for name, rows in step.rows.items())
            cells.insert(3, ", ".join(counts))
        table.add_row(*cells)
    return table


def _count(rows: int | None) -> str:
    return "?" if rows is None else f"{rows:,}"


def _time(step: StepReport) -> str:
    """What a step took; of one to do what others of its stage took, where some are finished."""
    if step.seconds is None:
        return ""
    return f"{'about ' if step.state == 'to do' else ''}{step.seconds:,.1f} s"


def _outcome(result: Any) -> str:
    """The number that a step's result is read for; nothing where there is none."""
    for key, form in (
        ("target_average", "target average {:.1%}"),
        ("target_difference", "difference {:+.1%}"),
        ("dev_accuracy", "dev {:.1%}"),
    ):
        if result.get(key) is not None:
            low_high = result.get(f"{key}_interval")
            interval = "" if not low_high else " [{:+.1%}, {:+.1%}]".format(*low_high)
            return form.format(result[key]) + interval.replace("+", "" if "average" in key else "+")
    if result.get("target_average", 0) is None and (tag := result["source_language"]) in (
        found := result["languages"]
    ):  # a model that was tested in the source language alone
        return f"{tag} {found[tag][result['measure']]:.1%}"
    rows = result.get("num_rows")
    return f"{rows:,} rows" if isinstance(rows, int) else ""


def _notes(report: RunReport) -> str:
    """What a question mark stands for, or where the report is."""
    if all(step.state in ("done", "reused") for step in report.steps):
        return f"report: {report.out}/report.html, {report.out}/report.md"
    unknown = any(None in step.rows.values() for step in report.steps)
    return "?: known once the files are written" if unknown else ""


COMMAND = Command(
    name="run",
    stage="run",
    help="""Run a recipe: a pipeline of the commands.

    A recipe is a TOML file with stages, which refer to each other, and a matrix of settings to run
    them under; some come along, such as debian and own. Everything in it is checked before the
    first step. Run again, finished steps are reused, and what was interrupted goes on. Writes
    report.html and report.md.

    Example: monoxkit run debian --set seed=[1,2,3] --dry-run
    """,
    run=_run,
    show=_table,
    notes=_notes,
)
register = COMMAND.register
