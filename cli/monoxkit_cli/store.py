"""`monoxkit store`: what is in a logit store, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.store import StoreInfo, VerifyReport

Folder = Annotated[str, typer.Argument(metavar="DIR", help="The store's folder.")]


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("info")(info)
    group.command("verify")(verify)

    @group.callback()
    def store() -> None:
        """Look into a logit store.

        Example: monoxkit store verify runs/store
        """

    app.add_typer(group, name="store")


def info(folder: Folder, as_json: AsJson = False) -> None:
    """Rows, labels, teacher and settings of a store.

    Works on unfinished stores too, and says so.

    Example: monoxkit store info runs/store
    """
    from pathlib import Path

    from monox_kit.store import LogitStore
    from monoxkit_cli.render import emit

    found = LogitStore.open(Path(folder), allow_incomplete=True).info()
    emit(found, as_json, lambda: _info_table(found))


def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Read every byte of a store and check its digests.

    Exits with 4 and names the file where something differs.

    Example: monoxkit store verify runs/store
    """
    from pathlib import Path

    from monox_kit.store import verify_store
    from monoxkit_cli.render import RichProgress, emit

    report = verify_store(Path(folder), RichProgress())
    emit(report, as_json, lambda: _verify_table(report))
    report.require_intact()


def _info_table(found: StoreInfo) -> Table:
    from rich.table import Table

    table = Table("what", "value", title=found.path)
    state = "complete" if found.complete else "incomplete: run monoxkit label again to finish"
    labels = ", ".join(found.labels[:12]) + (", ..." if len(found.labels) > 12 else "")
    for what, value in (
        ("state", state),
        ("rows", f"{found.num_rows_done:,} of {found.num_rows:,}"),
        ("shards", f"{found.num_shards_done:,} of {found.num_shards:,}"),
        ("rows with a gold label", f"{found.num_labelled:,}"),
        ("rows recomputed by the guard", f"{found.num_recomputed:,}"),
        ("labels", f"{found.num_classes}: {labels}"),
        ("logits", found.dtype),
        ("texts", "pairs" if found.has_pairs else "single"),
        ("size", f"{found.num_bytes / 1e6:.1f} MB"),
        ("digest", found.digest or "-"),
        *((key.replace("_", " "), str(value)) for key, value in found.fingerprint.items()),
    ):
        table.add_row(what, value)
    return table


def _verify_table(report: VerifyReport) -> Table:
    from rich.table import Table

    table = Table("what", "value", title=f"{report.path}: every byte read")
    table.add_row("intact shards", f"{report.num_shards:,}")
    table.add_row("rows in them", f"{report.num_rows:,}")
    table.add_row("size", f"{report.num_bytes / 1e6:.1f} MB")
    table.add_row("complete", "yes" if report.complete else "no: monoxkit label finishes it")
    for problem in report.problems:
        table.add_row("problem", problem)
    return table
