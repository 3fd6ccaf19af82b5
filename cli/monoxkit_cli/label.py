"""`monoxkit label`: the teacher's pass over a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monoxkit_cli.options import (
    AsJson,
    Device,
    Format,
    IdColumn,
    LabelColumn,
    LangColumn,
    MaxLength,
    Pair,
    PairColumn,
    TextColumn,
)

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.labelling import LabelSummary


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("label")(label)


def label(
    model: Annotated[str, typer.Option("--model", help="Teacher: ONNX bundle, or model folder.")],
    corpus: Annotated[list[str], typer.Option("--corpus", help="Text files, globs or URLs.")],
    store: Annotated[
        str, typer.Option("--store", help="Logit store to write or to finish: a folder or a URL.")
    ],
    teacher: Annotated[
        str, typer.Option("--teacher", help="Backend: onnx, or torch, the reference.")
    ] = "onnx",
    max_length: MaxLength = None,
    shard_rows: Annotated[
        int, typer.Option("--shard-rows", help="Rows per shard, the unit of resuming.")
    ] = 16_384,
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", help="Padded tokens per batch [default: measured]."),
    ] = None,
    sessions: Annotated[
        int | None,
        typer.Option("--sessions", help="Batches at once, onnx only [default: measured]."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="Threads of each, onnx only [default: measured]."),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Of the stored logits: float32 or float16.")
    ] = "float32",
    ignore_labels: Annotated[
        bool, typer.Option("--ignore-labels", help="Leave gold labels out of the store.")
    ] = False,
    provider: Annotated[
        str,
        typer.Option(
            "--provider",
            help="Execution provider: cpu, cuda, tensorrt or openvino; auto: the bundle's own.",
        ),
    ] = "auto",
    guard: Annotated[
        float | None,
        typer.Option(
            "--guard",
            help="Part of rows to have the fp32 label, as 0.999: close calls are computed again.",
        ),
    ] = None,
    guard_rows: Annotated[
        int | None,
        typer.Option(
            "--guard-rows",
            help="Rows of each half of the guard's sample, 50 or more [default: by size].",
        ),
    ] = None,
    guard_precision: Annotated[
        str,
        typer.Option(
            "--guard-precision", help="Of computing again: fp32, or bf16 on OpenVINO's provider."
        ),
    ] = "fp32",
    guard_kl: Annotated[
        float | None,
        typer.Option(
            "--guard-kl", help="With --guard: mean KL from fp32 to stay within, in nats, as 0.001."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="PyTorch's: fp32, or bf16 autocast [default: fp32]."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let PyTorch compile the model first.")
    ] = False,
    device: Device = "cpu",
    begin: Annotated[
        bool,
        typer.Option(
            "--begin", help="Check the corpus, learn the guard, begin the store; label no row."
        ),
    ] = False,
    shard_range: Annotated[
        str | None,
        typer.Option(
            "--shard-range",
            metavar="A:B",
            help="Label shards A to B - 1 of a begun store [default: all].",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="local, or ray: workers of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of the cluster, such as auto [default: this machine]."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Of the cluster at once [default: all it has room for]."),
    ] = None,
    staging: Annotated[
        str | None,
        typer.Option(
            "--staging", help="Folder for shards on their way to a URL [default: in the cache]."
        ),
    ] = None,
    format: Format = "auto",
    text_column: TextColumn = "text",
    pair_column: PairColumn = "text_pair",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    lang_column: LangColumn = "lang",
    pair: Pair = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a teacher's logits for every row of a corpus.

    Every row, exactly once and in order; run again after an interruption, finished shards are
    kept. The corpus is checked whole before the first batch. Several machines can fill one store on
    a shared disk or at a URL of an object store: run the command once with --begin, then one job
    with each --shard-range; the last one completes the store. Read a store at a URL after `monoxkit
    store fetch`.

    Example: monoxkit label --teacher onnx --model BUNDLE --corpus data/*.jsonl --store runs/store
    """
    from monox_kit.labelling import LabelConfig, label_corpus
    from monoxkit_cli.options import corpus_config, shard_bounds
    from monoxkit_cli.render import RichProgress, emit

    config = LabelConfig(
        teacher=teacher,  # type: ignore[arg-type]  # checked by the library
        model=model,
        corpus=corpus_config(
            corpus,
            format=format,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
            id_column=id_column,
            lang_column=lang_column,
            pair=pair,
        ),
        max_length=max_length,
        shard_rows=shard_rows,
        batch_tokens=batch_tokens,
        sessions=sessions,
        threads=threads,
        dtype=dtype,  # type: ignore[arg-type]
        ignore_labels=ignore_labels,
        provider=provider,
        guard=guard,
        guard_rows=guard_rows,
        guard_precision=guard_precision,  # type: ignore[arg-type]  # checked by the library
        guard_kl=guard_kl,
        precision=precision,  # type: ignore[arg-type]
        compiled=compiled,
        device=device,
        begin=begin,
        shard_range=shard_bounds(shard_range),
        engine=engine,  # type: ignore[arg-type]
        address=address,
        workers=workers,
        staging=staging,
    )
    summary = label_corpus(config, store, progress=RichProgress())
    emit(summary, as_json, lambda: _table(summary))


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
