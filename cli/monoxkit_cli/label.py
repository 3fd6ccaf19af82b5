"""`monoxkit label`: the teacher's pass over a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.labelling import LabelSummary


def _table(summary: LabelSummary) -> Table:
    from rich.table import Table

    table = Table("what", "value", title=str(summary.store))
    table.add_row("rows", f"{summary.num_rows:,}")
    if not summary.complete:
        rest = summary.num_rows - summary.num_rows_done
        table.add_row("rows that other runs have to label", f"{rest:,}")
    table.add_row("shards", f"{summary.num_shards:,}")
    table.add_row("rows of earlier runs", f"{summary.num_resumed_rows:,}")
    if summary.rows_per_s is not None:
        table.add_row("rows per second", f"{summary.rows_per_s:,.1f}")
        table.add_row("real tokens per second", f"{summary.tokens_per_s:,.0f}")
        table.add_row("padding", f"{summary.padding_fraction:.1%}")
        table.add_row("rows settled by an equal text", f"{summary.num_repeated_rows:,}")
        lost = summary.num_truncated_tokens / max(summary.num_document_tokens, 1)
        table.add_row("rows truncated", f"{summary.num_truncated_rows:,}, {lost:.1%} of all tokens")
    if summary.plan:
        session = summary.plan["session"]
        cores = f"{session['sessions']} x {session['threads']} threads, " if session else ""
        table.add_row(
            "run plan",
            f"{cores}batches of {summary.plan['batch_tokens']:,} tokens "
            f"({summary.plan['chosen_by']})",
        )
    if summary.guard is not None:
        _add_guard(table, summary, summary.guard)
    if summary.cluster is not None:
        lost = summary.cluster["num_lost_workers"]
        table.add_row("workers", f"{summary.cluster['num_workers']} at once, {lost} lost")
    table.add_row("digest", summary.store_digest or "-")
    return table


def _add_guard(table: Table, summary: LabelSummary, guard: Mapping[str, Any]) -> None:
    share = summary.num_recomputed_rows / max(summary.num_rows_done, 1)
    table.add_row("guard: margin threshold", f"{guard['guard_threshold']:.4g}")
    table.add_row(
        f"guard: computed again in {guard['guard_precision']}",
        f"{summary.num_recomputed_rows:,} rows ({share:.1%})",
    )
    if guard["guard_max_kl"] is not None:
        table.add_row("guard: mean KL asked for", f"{guard['guard_max_kl']:.1e}")
    table.add_row("guard: estimated agreement", f"{guard['guard_estimated_agreement']:.3%}")
    for name, prefix in (("guarded", "guard_audit"), ("unguarded", "guard_audit_plain")):
        table.add_row(
            f"guard: audit on {guard['guard_audit_rows']:,} rows, {name}",
            f"agreement {guard[f'{prefix}_agreement']:.2%}, "
            f"mean KL {guard[f'{prefix}_mean_kl']:.1e}",
        )
    if guard["price"] is not None:
        price = f"{guard['price']:.1%} more computing than without it"
        table.add_row("guard: price in this run", price)


COMMAND = Command(
    name="label",
    stage="label",
    help="""Write a teacher's logits for every row of a corpus.

    Every row, exactly once and in order; run again after an interruption, finished shards are
    kept. The corpus is checked whole before the first batch. Several machines can fill one store on
    a shared disk or at a URL of an object store: run the command once with --begin, then one job
    with each --shard-range; the last one completes the store. Read a store at a URL after `monoxkit
    store fetch`.

    Example: monoxkit label --teacher onnx --model BUNDLE --corpus data/*.jsonl --store runs/store
    """,
    show=_table,
)
