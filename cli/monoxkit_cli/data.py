"""`monoxkit data`: corpora to start with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from monoxkit_cli.derive import AsJson, Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.tasks.folder import TaskSummary


def _table(of: str) -> Callable[[TaskSummary], Table]:
    """Draws what a corpus has, under a title that says what it is of."""

    def table(summary: TaskSummary) -> Table:
        from rich.table import Table

        table = Table("file", "rows", title=f"{summary.folder}: {of}{summary.release}")
        for name, rows in summary.rows.items():
            table.add_row(name, f"{rows:,}")
        return table

    return table


def _left_out(summary: TaskSummary) -> str:
    """How many rows of the release were not written, and why."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in summary.left_out.items())
    return f"left out: {counts}" if counts else ""


def _list_tasks(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tasks, unless one of them is called."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from monox_kit.tasks.catalogue import CATALOGUE
    from monoxkit_cli.render import emit

    def tables() -> list[Table]:
        drawn = []
        for task in CATALOGUE.tasks:
            table = Table("", "", title=f"monoxkit data {task.name}", show_header=False)
            for name in ("what", "needs", "licence", "size", "languages"):
                table.add_row(name, getattr(task, name))
            drawn.append(table)
        return drawn

    emit(CATALOGUE, as_json, tables, notes="Each command's --help lists its options.")


COMMAND = Group(
    name="data",
    help="""List the corpora to start with, or prepare one.

    Without a name it lists what each needs, its licence, its size and its languages.

    Example: monoxkit data debian --out data/debian
    """,
    alone=_list_tasks,
    commands=(
        Command(
            name="debian",
            stage="data_debian",
            help="""Package descriptions of Debian, translated by people.

            Reads the package lists with apt, labels each description with its section, and writes
            labelled.jsonl, unlabelled.jsonl, dev.jsonl, test.LANG.jsonl, labels.json and
            provenance.json.

            Example: monoxkit data debian --out data/debian --languages de,fr,ja
            """,
            show=_table("Debian "),
        ),
        Command(
            name="manpages",
            stage="data_manpages",
            help="""Manual pages of Debian, which are long, translated by people.

            Fetches Debian's packages of manual pages with apt, labels each page with its section of
            the manual, and writes labelled.jsonl, unlabelled.jsonl, dev.jsonl, test.LANG.jsonl,
            labels.json and provenance.json. A page's translations are held out with it.

            Example: monoxkit data manpages --out data/manpages --languages de,fr,ja
            """,
            show=_table("Debian "),
            notes=_left_out,
        ),
        Command(
            name="xnli",
            stage="data_xnli",
            help="""Sentence pairs of XNLI in 15 languages.

            Reads the released archives as they are: XNLI 1.0, and MultiNLI 1.0 or XNLI-MT 1.0 for
            the English training pairs, a fifth of which keep their labels. Writes labelled.jsonl,
            unlabelled.jsonl, dev.jsonl, test.LANG.jsonl, labels.json and provenance.json.

            Example: monoxkit data xnli --source XNLI-1.0.zip multinli_1.0.zip --out data/xnli
            """,
            show=_table(""),
            notes=_left_out,
        ),
        Command(
            name="cls",
            stage="data_cls",
            help="""Reviews of CLS in four languages, of one domain.

            Reads the released archive as it is. A fifth of the English training reviews becomes the
            dev set. Writes labelled.jsonl, unlabelled.jsonl, dev.jsonl, test.LANG.jsonl,
            labels.json and provenance.json.

            Example: monoxkit data cls --source cls-acl10-unprocessed.tar.gz --domain books --out c
            """,
            show=_table(""),
            notes=_left_out,
        ),
    ),
)
