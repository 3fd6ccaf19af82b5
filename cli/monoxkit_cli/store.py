"""`monoxkit store`: what is in a logit store, whether it is whole, and what can be made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.importing.config import ImportSummary
    from monox_kit.store import (
        ExportedStore,
        FetchReport,
        MergeReport,
        SelectReport,
        StoreInfo,
        StoreStats,
        VerifyReport,
    )
    from monox_kit.store.stats import LanguageCount, Spread

# A store may have a thousand classes.
_SHOWN_LABELS = 20


def _facts(title: str, *rows: tuple[str, str]) -> Table:
    """A table of what there is, and its value."""
    from rich.table import Table

    table = Table("what", "value", title=title)
    for what, value in rows:
        table.add_row(what, value)
    return table


def _megabytes(num_bytes: int) -> tuple[str, str]:
    return "size", f"{num_bytes / 1e6:.1f} MB"


def _info_table(found: StoreInfo) -> Table:
    state = "complete" if found.complete else "incomplete: run monoxkit label again to finish"
    labels = ", ".join(found.labels[:12]) + (", ..." if len(found.labels) > 12 else "")
    return _facts(
        found.path,
        ("state", state),
        ("rows", f"{found.num_rows_done:,} of {found.num_rows:,}"),
        ("shards", f"{found.num_shards_done:,} of {found.num_shards:,}"),
        ("rows with a gold label", f"{found.num_labelled:,}"),
        ("rows recomputed by the guard", f"{found.num_recomputed:,}"),
        ("labels", f"{found.num_classes}: {labels}"),
        ("problem type", found.problem_type.replace("_", " ")),
        ("logits", found.dtype),
        ("texts", "pairs" if found.has_pairs else "single"),
        *([("languages", "each row has its own")] if found.has_languages else []),
        _megabytes(found.num_bytes),
        ("digest", found.digest or "-"),
        *((key.replace("_", " "), str(value)) for key, value in found.fingerprint.items()),
    )


def _verify_table(report: VerifyReport) -> Table:
    state = "yes" if report.complete else "no: monoxkit label finishes it"
    return _facts(
        f"{report.path}: every byte read",
        ("intact shards", f"{report.num_shards:,}"),
        ("rows in them", f"{report.num_rows:,}"),
        _megabytes(report.num_bytes),
        ("complete", "no: see the problems" if report.problems else state),
        *(("problem", problem) for problem in report.problems),
    )


def _stats_tables(found: StoreStats) -> list[Table]:
    from rich.table import Table

    rows = max(found.num_rows_done, 1)
    state = "complete" if found.complete else "incomplete: the rows that are there are counted"
    gold = [] if found.agreement is None else [f"{found.agreement:.2%}"]
    table = _facts(
        found.path,
        ("state", state),
        ("rows", f"{found.num_rows_done:,} of {found.num_rows:,}"),
        ("rows with a gold label", f"{found.num_labelled:,}"),
        *(("of these with the gold label predicted", share) for share in gold),
        *((f"rows computed in {name}", f"{n:,}") for name, n in found.precision_rows.items()),
        ("rows recomputed by the guard", f"{found.num_recomputed:,}"),
        ("duplicates of an earlier row", f"{found.num_duplicates:,}"),
    )
    labels = Table("label", "predicted", "of rows", "gold", "both", title="Labels")
    ordered = sorted(found.labels, key=lambda label: -label.predicted)
    for label in ordered[:_SHOWN_LABELS]:
        shown = (label.predicted, f"{label.predicted / rows:.1%}", label.gold, label.agreeing)
        labels.add_row(label.label, *(f"{n:,}" if isinstance(n, int) else n for n in shown))
    if ordered[_SHOWN_LABELS:]:
        labels.add_row(f"{len(ordered) - _SHOWN_LABELS:,} more, see --json")
    spreads = {"confidence": found.confidence, "entropy, nats": found.entropy_nats}
    spread = _spread_table({k: s for k, s in spreads.items() if s is not None})
    return [table, labels, _languages_table(found.languages), spread]


def _languages_table(found: Sequence[LanguageCount]) -> Table:
    from rich.table import Table

    table = Table("language", "rows", "gold", "both", "confidence", title="Languages")
    for one in found[:_SHOWN_LABELS]:
        counts = (one.num_rows, one.num_labelled, one.num_agreeing)
        table.add_row(one.language, *(f"{n:,}" for n in counts), f"{one.mean_confidence:.4f}")
    if found[_SHOWN_LABELS:]:
        table.add_row(f"{len(found) - _SHOWN_LABELS:,} more, see --json")
    return table


def _spread_table(spreads: Mapping[str, Spread]) -> Table:
    from rich.table import Table

    fractions = [key for spread in spreads.values() for key in spread.quantiles]
    columns = ["mean", *dict.fromkeys(fractions)]
    table = Table("at T = 1", *columns, title="Mean and quantiles")
    for name, spread in spreads.items():
        values = (spread.mean, *spread.quantiles.values())
        table.add_row(name, *(f"{value:.4f}" for value in values))
    return table


def _merge_table(report: MergeReport) -> Table:
    kinds = {"shards": "parts of one store", "rows": "stores one after the other"}
    return _facts(
        report.store,
        ("made from", f"{len(report.parts)} {kinds[report.kind]}"),
        ("rows", f"{report.num_rows:,}"),
        ("shards", f"{report.num_shards:,}"),
        ("rows merged by an earlier run", f"{report.num_resumed_rows:,}"),
        ("digest", report.store_digest),
    )


def _fetch_table(report: FetchReport) -> Table:
    return _facts(
        report.store,
        ("fetched from", report.url),
        ("rows", f"{report.num_rows:,}"),
        ("shards", f"{report.num_shards:,}"),
        ("rows fetched by an earlier run", f"{report.num_resumed_rows:,}"),
        _megabytes(report.num_bytes),
        ("digest", report.store_digest),
    )


def _export_table(written: ExportedStore) -> Table:
    return _facts(
        written.path,
        ("format", written.format),
        ("rows", f"{written.num_rows:,}"),
        _megabytes(written.num_bytes),
        ("digest of the store", written.store_digest),
    )


def _import_tables(done: ImportSummary) -> list[Table]:
    from rich.table import Table

    table = _facts(
        str(done.store),
        ("answers", f"{done.answers} of {done.origin}"),
        ("rows", f"{done.num_rows:,}"),
        ("rows imported by an earlier run", f"{done.num_resumed_rows:,}"),
        ("rows with a gold label", f"{done.num_labelled:,}"),
        ("votes for no class, left out", f"{done.num_votes_left_out:,}"),
        *([("skipped rows are listed in", done.report)] if done.report is not None else []),
        ("digest", done.store_digest),
    )
    labels = Table("label", "answered", "of rows", title="Labels")
    ordered = sorted(done.labels.items(), key=lambda each: -each[1])
    for label, count in ordered[:_SHOWN_LABELS]:
        labels.add_row(label, f"{count:,}", f"{count / done.num_rows:.1%}")
    if not done.num_skipped:
        return [table, labels]
    skipped = Table("rows that are not in the store", "rows", title="Skipped")
    for kind, count in done.num_skipped.items():
        skipped.add_row(kind, f"{count:,}")
    return [table, labels, skipped]


def _select_tables(done: SelectReport) -> list[Table]:
    from rich.table import Table

    written = [] if done.digest is None else [("digest", done.digest)]
    table = _facts(
        done.path + (" (already there)" if done.reused else ""),
        ("form", done.form),
        ("chosen by", f"{done.order} {done.by}"),
        ("rows", f"{done.num_rows:,}"),
        ("rows with a gold label, passed over", f"{done.num_labelled:,}"),
        ("even share of a class", f"{done.even_share:,}"),
        *written,
    )
    languages = Table("language", "rows", "least", "most", "short classes", title="Languages")
    for one in done.languages[:_SHOWN_LABELS]:
        least, most = min(one.labels.values()), max(one.labels.values())
        counts = (one.num_rows, least, most, len(one.short))
        languages.add_row(one.language, *(f"{n:,}" for n in counts))
    if done.languages[_SHOWN_LABELS:]:
        languages.add_row(f"{len(done.languages) - _SHOWN_LABELS:,} more, see --json")
    labels = Table("label", "rows", "short in", title="Labels")
    names = list(dict.fromkeys(name for one in done.languages for name in one.labels))
    for name in names[:_SHOWN_LABELS]:
        rows = sum(one.labels.get(name, 0) for one in done.languages)
        short = ", ".join(
            f"{o.language} {o.short[name]:,}" for o in done.languages if name in o.short
        )
        labels.add_row(name, f"{rows:,}", short)
    if names[_SHOWN_LABELS:]:
        labels.add_row(f"{len(names) - _SHOWN_LABELS:,} more, see --json")
    return [table, languages, labels]


COMMAND = Group(
    name="store",
    help="""Look into logit stores, put them together, export them.

    Example: monoxkit store verify runs/store
    """,
    commands=(
        Command(
            name="info",
            stage="store_info",
            help="""Rows, labels, teacher and settings of a store.

            Works on unfinished stores too, and says so.

            Example: monoxkit store info runs/store
            """,
            show=_info_table,
        ),
        Command(
            name="verify",
            stage="verify_store",
            help="""Read every byte of a store and check its digests.

            Exits with 4 and names the file where something differs. A store at a URL is read
            through the staging folder, one shard at a time.

            Example: monoxkit store verify runs/store
            """,
            show=_verify_table,
            check=lambda report: report.require_intact(),
        ),
        Command(
            name="stats",
            stage="store_stats",
            help="""Labels, languages, confidence, entropy and duplicates of a store.

            Reads every byte and checks its digest. Works on unfinished stores too, and says so.
            Takes 8 bytes of memory a row.

            Example: monoxkit store stats runs/store
            """,
            show=_stats_tables,
        ),
        Command(
            name="merge",
            stage="merge_stores",
            help="""Merge stores into a new one.

            Parts of one store (label --shard-range on machines without a shared disk) become the
            store that labelling at once would have given. Finished stores of different corpora
            under one teacher become one store with their rows one after the other. Parts are only
            read.

            Example: monoxkit store merge runs/part-a runs/part-b --out runs/store
            """,
            show=_merge_table,
        ),
        Command(
            name="fetch",
            stage="fetch_store",
            help="""Copy a store that was labelled to a URL into a folder.

            The folder is what labelling into it would have given. Every byte is checked against
            its digest. Run again after an interruption, shards that are there are kept.

            Example: monoxkit store fetch s3://bucket/store --out runs/store
            """,
            show=_fetch_table,
        ),
        Command(
            name="import",
            stage="import_store",
            help="""Write what a file says of every row of a corpus to a new store.

            The answers of a language model, an API, rules or people become a store like any other.
            Give the column that holds them: labels, probabilities, logits, log-probabilities of the
            top classes, or votes. Every row and answer is checked before anything is written; run
            again after an interruption, finished shards are kept.

            Example: monoxkit store import ROWS --out DIR --labels FILE --origin X --votes-column C
            """,
            show=_import_tables,
        ),
        Command(
            name="select",
            stage="select_store",
            help="""Choose rows of a store, with a share for each language and class.

            The chosen rows become a store for the next training, or a file for annotators with what
            the teacher says of each row. Rows with gold labels are not annotated again. The same
            store and settings choose the same rows.

            Example: monoxkit store select runs/store --per-class 100 --out runs/chosen
            """,
            show=_select_tables,
        ),
        Command(
            name="export",
            stage="export_store",
            help="""Write a store's rows for other programs.

            Columns: row, id, text, text_pair (of pairs), label by name and by index, lang (where
            the store tells languages), recomputed, logits.

            Example: monoxkit store export runs/store --out store.parquet
            """,
            show=_export_table,
        ),
    ),
)
