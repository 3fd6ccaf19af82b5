"""`monoxkit reproduce`: the paper's tables and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.paper.reproduce import Reproduction
    from monox_kit.stage_call import Stage


def _table(made: Reproduction) -> Table:
    from rich.table import Table

    header, *rows = made.rows
    table = Table(*header, title=made.title)
    for row in rows:
        table.add_row(*row)
    return table


def _notes(made: Reproduction) -> str:
    """What was found, what is missing, and where the files are."""
    from monox_kit.paper.item import listed

    lines = list(made.said)
    if made.missing:
        lines.append(f"Not finished, and not in it: {listed(made.missing)}.")
    lines.append(f"Written: {', '.join(made.files)}")
    return "\n".join(lines)


def _run(stage: Stage, given: dict[str, Any]) -> Reproduction:
    """Make the item; what matplotlib knows of fonts is kept in the cache."""
    from monox_kit.cache import keep_fonts
    from monoxkit_cli.render import RichProgress

    keep_fonts()
    made: Reproduction = stage.run(given, RichProgress())
    return made


COMMAND = Command(
    name="reproduce",
    stage="reproduce",
    help="""Make a table or figure of the paper.

    Runs the recipe, or takes what of it is finished (--finished), and writes the item as Markdown,
    HTML, LaTeX, JSON, SVG and PNG, with the paper's own numbers where they are known. ITEM is
    table1 (encoders in English), table2 or table3 (the four systems on CLS or XNLI), figure2
    (labelled rows) or figure3 (temperature). --recipe takes other texts.

    Example: monoxkit reproduce figure3 --set seed=[1,2,3] --run runs/figure3
    """,
    run=_run,
    show=_table,
    notes=_notes,
)
