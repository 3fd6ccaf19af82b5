"""`monoxkit data`: corpora to start with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.tasks.debian.prepare import DebianSummary


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("debian")(debian)

    @group.callback()
    def data() -> None:
        """Prepare a corpus.

        Example: monoxkit data debian --out data/debian
        """

    app.add_typer(group, name="data")


def debian(
    out: Annotated[str, typer.Option("--out", help="Folder to write the corpus to.")],
    labelled: Annotated[
        int, typer.Option("--labelled", help="Number of labelled English rows.")
    ] = 1000,
    unlabelled: Annotated[
        int, typer.Option("--unlabelled", help="Number of English rows without labels.")
    ] = 4000,
    dev: Annotated[
        int, typer.Option("--dev", help="Number of labelled English rows that choose the weights.")
    ] = 500,
    test_rows: Annotated[
        int, typer.Option("--test-rows", help="Largest number of rows of each test set.")
    ] = 200,
    languages: Annotated[
        str | None,
        typer.Option("--languages", help="Target languages: de,fr,... [default: the 12 largest]."),
    ] = None,
    sections: Annotated[
        str | None,
        typer.Option(
            "--sections", help="Sections that become labels: games,mail,... [default: 20]."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of which rows are held out.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Package descriptions of Debian, translated by people.

    Reads the package lists with apt, labels each description with its section, and writes
    labelled.jsonl, unlabelled.jsonl, dev.jsonl, test.LANG.jsonl, labels.json and provenance.json.

    Example: monoxkit data debian --out data/debian --languages de,fr,ja
    """
    from pathlib import Path

    from monox_kit.tasks.debian.prepare import LANGUAGES, TOPICS, DebianConfig, prepare_debian
    from monoxkit_cli.render import RichProgress, emit

    config = DebianConfig(
        labelled=labelled,
        unlabelled=unlabelled,
        dev=dev,
        test_rows=test_rows,
        languages=tuple(languages.split(",")) if languages else LANGUAGES,
        sections=tuple(sections.split(",")) if sections else TOPICS,
        seed=seed,
    )
    summary = prepare_debian(config, Path(out), progress=RichProgress())
    emit(summary, as_json, lambda: _table(summary))


def _table(summary: DebianSummary) -> Table:
    from rich.table import Table

    table = Table("file", "rows", title=f"{summary.folder}: Debian {summary.release}")
    for name, rows in summary.rows.items():
        table.add_row(name, f"{rows:,}")
    return table
