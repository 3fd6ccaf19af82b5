"""`monoxkit data`: corpora to start with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.tasks.debian.prepare import DebianSummary


def _table(summary: DebianSummary) -> Table:
    from rich.table import Table

    table = Table("file", "rows", title=f"{summary.folder}: Debian {summary.release}")
    for name, rows in summary.rows.items():
        table.add_row(name, f"{rows:,}")
    return table


COMMAND = Group(
    name="data",
    help="""Prepare a corpus.

    Example: monoxkit data debian --out data/debian
    """,
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
            show=_table,
        ),
    ),
)
