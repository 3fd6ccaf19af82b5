"""`monoxkit trim`: a model without the tokens that some languages do not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.trimming import TrimSummary


def _tables(summary: TrimSummary) -> list[Table]:
    from rich.table import Table

    again = " (trimmed before)" if summary.reused else ""
    title = f"{summary.path}: {summary.num_tokens:,} of {summary.num_tokens_before:,} tokens{again}"
    languages = Table(
        "language",
        "rows",
        "tokens",
        "kept",
        "coverage",
        "same rows",
        "unknown",
        "tokens per text",
        title=title,
    )
    for language, one in summary.languages.items():
        languages.add_row(
            language,
            f"{one.num_rows:,}",
            f"{one.num_tokens:,}",
            f"{one.num_kept_tokens:,}",
            f"{100 * one.coverage:.2f} %",
            f"{one.num_same_rows:,}",
            f"{100 * one.unknown_before:.3f} -> {100 * one.unknown_after:.3f} %",
            f"{one.tokens_per_text_before:.1f} -> {one.tokens_per_text_after:.1f}",
        )
    return [languages, bytes_table(summary.bytes, "MB before", "MB after")]


def bytes_table(sizes: Mapping[str, tuple[int, int]], *columns: str) -> Table:
    """The bytes of each part, before and after."""
    from rich.table import Table

    table = Table("part", *columns)
    for part, pair in sizes.items():
        table.add_row(part, *(f"{size / 1e6:.1f}" for size in pair))
    totals = (sum(column) / 1e6 for column in zip(*sizes.values()))
    table.add_row("all", *(f"{total:.1f}" for total in totals))
    return table


def _notes(summary: TrimSummary) -> str:
    """What was compared."""
    same = sum(one.num_same_rows for one in summary.languages.values())
    return (
        f"{same:,} rows have all of their tokens and are read as before; the outputs of both "
        f"models were compared on {summary.num_rows_compared:,} of them and are equal."
    )


COMMAND = Command(
    name="trim",
    stage="trim",
    help="""Remove the tokens that no text of yours uses.

    Tokenizer and word embeddings lose them together. For every text whose tokens all survive, the
    model stays what it was: the same tokens, and in PyTorch the same logits in every bit. Give
    texts in every language that the model is to read. An encoder can be trimmed before it is
    trained.

    Example: monoxkit trim runs/student --corpus "data/text.*.jsonl" --out runs/student-small
    """,
    show=_tables,
    notes=_notes,
)
