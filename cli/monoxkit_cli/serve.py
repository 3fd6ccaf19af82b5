"""`monoxkit serve`: bundles behind an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.serving.config import ServeSummary


def _table(summary: ServeSummary) -> Table:
    from rich.table import Table

    table = Table("status", "requests", title=f"{summary.address}, ended by {summary.ended_by}")
    for status, count in summary.answered.items():
        table.add_row(status, f"{count:,}")
    return table


COMMAND = Command(
    name="serve",
    stage="serve",
    help="""Serve bundles over HTTP.

    Clients of text-embeddings-inference, Hugging Face, KServe v2 and vLLM find their own routes; a
    browser finds a page. Each bundle passes its self test before the server listens. Requests that
    would wait too long are refused with 429 and the time to wait. SIGTERM ends the server once it
    has answered what it accepted; SIGHUP reads keys and bundles again.

    Example: monoxkit serve runs/student-onnx --port 8080
    """,
    show=_table,
)
