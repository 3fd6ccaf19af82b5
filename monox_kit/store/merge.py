"""Putting stores together: the parts of one store, or finished stores of several corpora."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monox_kit.errors import ConfigError, StoreMismatch
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.results import Result
from monox_kit.store.contents import ShardContents, text_bytes
from monox_kit.store.folder import begun_manifest
from monox_kit.store.folder_writer import FolderWriter
from monox_kit.store.format import STORE_FILE, ShardRange, StoreManifest, begun_otherwise
from monox_kit.store.merge_plan import Piece, merge_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport(Result):
    """What a merge did.

    Attributes:
        store: the merged store's folder.
        parts: the folders that it was made from, in order.
        kind: `shards` for the parts of one store, `rows` for stores one after the other.
        num_rows: rows of the merged store.
        num_shards: its shards.
        num_resumed_rows: rows that an earlier run had already merged.
        store_digest: the merged store's digest.
    """

    store: str
    parts: tuple[str, ...]
    kind: Literal["shards", "rows"]
    num_rows: int
    num_shards: int
    num_resumed_rows: int
    store_digest: str


def merge_stores(
    parts: Sequence[Path],
    out: Path,
    shard_rows: int | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Put stores together into one new store; the parts are only read.

    Parts whose `store.json` is the same are parts of one store: `out` is the store that labelling
    it at once would have given, with the same digest. Other parts are stores of different corpora
    under one teacher: their rows stand one after the other, in the parts' order.

    Every byte that is copied is checked against its digest first. The memory is that of some
    thousand rows. Run again, merged shards are kept.

    Args:
        parts: at least two folders.
        out: the merged store's folder; absent, or of an earlier merge of the same parts.
        shard_rows: of the merged store, where the parts are of different corpora; None for those
            of the first part.
        progress: where progress is reported.

    Raises:
        ConfigError: there are too few parts, or `out` is one of them.
        StoreIncomplete: a shard is in none of the parts, or one of several corpora's stores has
            not been finished.
        StoreMismatch: the parts do not belong together, two of them hold a shard with different
            content, or `out` was begun as something else.
        StoreCorrupt: a file of a part is not as its record says.
        StoreLocked: another process is writing to `out`.
        StorageError: the disk refused.
    """
    _require_parts(parts, out)
    plan = merge_plan(parts, shard_rows)
    _require_same_begun(out, plan.manifest)
    plan.check(out)
    with FolderWriter(out, plan.manifest) as writer:
        missing = writer.missing
        num_rows = plan.manifest.num_rows
        resumed = num_rows - sum(map(len, missing))
        with (progress or Silent()).task("merging", num_rows, "rows", done=resumed) as task:
            pieces = ((shard, list(plan.pieces(shard))) for shard in missing)
            _copy(writer, pieces, task)
        plan.check(out)
        record = writer.complete(merged=plan.kind, parts=[part.resolve().name for part in parts])
    assert record is not None  # this writer claimed all shards
    return MergeReport(
        store=str(out),
        parts=tuple(map(str, parts)),
        kind=plan.kind,
        num_rows=record.num_rows,
        num_shards=record.num_shards,
        num_resumed_rows=resumed,
        store_digest=record.digest,
    )


def _require_parts(parts: Sequence[Path], out: Path) -> None:
    """Check that there are some, and that `out` is none of them."""
    if len(parts) < 2:
        raise ConfigError(
            f"store merge: expected at least 2 parts, found {len(parts)}. Give the folders of the "
            "stores to put together."
        )
    for part in parts:
        if part.resolve() == out.resolve():
            raise ConfigError(
                f"`out` {out}: it is one of the parts, which are only read. Give a new folder."
            )


def _require_same_begun(out: Path, manifest: StoreManifest) -> None:
    """Check that a store which stands in `out` was begun as the merged one."""
    begun = begun_manifest(out)
    if begun is not None and (differing := begun.differences(manifest)):
        raise StoreMismatch(
            f"{out / STORE_FILE}: {begun_otherwise(*differing[0])} Give another `out`, or the "
            "parts it was begun from."
        )


def _copy(
    writer: FolderWriter, shards: Iterable[tuple[ShardRange, Sequence[Piece]]], task: ProgressTask
) -> None:
    """Write shards out of pieces of others; one shard of a part is open at a time."""
    opened: Path | None = None
    contents: ShardContents | None = None
    for shard, pieces in shards:
        sizes: Counter[str] = Counter()
        for piece in pieces:
            sizes.update(text_bytes(piece.source.store, piece.shard, piece.first, piece.stop))
            if writer.manifest.has_languages and not piece.source.manifest.has_languages:
                tag = (piece.source.manifest.language or "").encode()
                sizes["lang"] += len(tag) * (piece.stop - piece.first)
        with writer.shard(shard, sizes) as builder:
            for piece in pieces:
                folder = piece.source.store.shard_folder(piece.shard)
                if contents is None or opened != folder:
                    contents = None  # unmapped before the next one is mapped
                    contents, opened = ShardContents(piece.source.store, piece.shard), folder
                for part in contents.parts(piece.first, piece.stop):
                    builder.append(
                        logits=part.logits,
                        documents=contents.documents(part, builder.next_row),
                        labels=part.gold,
                        recomputed=part.recomputed,
                    )
                    task.advance(len(part.rows))
