"""A store at a URL made a folder, told about, and checked; every byte that is read is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monox_kit.durable import remove_folder
from monox_kit.errors import ConfigError, StoreCorrupt, StoreMismatch
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result
from monox_kit.store.address import require_local, store_url
from monox_kit.store.contents import check_shard
from monox_kit.store.folder import StoreFolder
from monox_kit.store.folder_writer import FolderWriter
from monox_kit.store.format import ShardRange
from monox_kit.store.record import corrupt
from monox_kit.store.remote.shard_object import ShardHead
from monox_kit.store.remote.staging import staging_folder, staging_root
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.remote.writer import require_same_record
from monox_kit.store.shard import ShardRecord, repair_step
from monox_kit.store.verify import VerifyReport, verify_records


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchReport(Result):
    """What a fetch did.

    Attributes:
        url: the store that was read.
        store: the folder that it is in now.
        num_bytes: bytes of the store's arrays.
        num_resumed_rows: rows that an earlier run had already fetched.
        store_digest: the store's digest, there as here.
    """

    url: str
    store: str
    num_rows: int
    num_shards: int
    num_bytes: int
    num_resumed_rows: int
    store_digest: str


def fetch_store(url: str, out: Path, progress: Progress | None = None) -> FetchReport:
    """Copy a finished store from a URL into a folder, as a local run would have written it.

    Run again, shards that are there are kept.

    Args:
        url: the store's.
        out: the folder; absent, or of an earlier fetch of the same store.
        progress: where progress is reported.

    Raises:
        ConfigError: `url` is none, or `out` is one; or the driver is not installed.
        StoreIncomplete: labelling has not finished.
        StoreMismatch: `out` holds another store.
        StoreCorrupt: an object is not as its record says, or a shard in `out` is not.
        StoreLocked: another process is writing to `out`.
        StorageError: the service or the disk refused.
    """
    require_local(out)
    address = store_url(url)
    if address is None:
        raise ConfigError(
            f"store fetch {url}: expected a URL, found a path. A store in a folder is read where "
            "it lies, and copied by any program."
        )
    store = RemoteStore.at(address)
    complete, totals = store.finished()
    with FolderWriter(out, store.manifest) as writer:
        require_same_record(store, writer, out)
        missing = set(writer.missing)
        there = {s: digest for s, digest in totals.digests.items() if s not in missing}
        _require_same_shards(out, there)
        listed = store.finished_shards()
        lost = [shard for shard in writer.missing if shard not in listed]
        if lost:
            raise _gone(store, lost[0])
        sizes = {shard: listed[shard] for shard in writer.missing}
        num_rows = store.manifest.num_rows
        resumed = num_rows - sum(map(len, missing))
        with (progress or Silent()).task("fetching", num_rows, "rows", done=resumed) as task:
            for head in store.heads(sizes):
                shard = head.record.shard
                if head.record.digest != totals.digests.get(shard):
                    where = store.objects.where(store.shard_name(shard))
                    raise corrupt(where, "the object as it was", "another", "Run it again.")
                _fetch_shard(store, head, writer)
                task.advance(len(shard))
        record = writer.complete(**complete.summary)
    assert record is not None and record.digest == complete.digest  # all of them are here
    return FetchReport(
        url=store.objects.url,
        store=str(out),
        num_rows=record.num_rows,
        num_shards=record.num_shards,
        num_bytes=totals.num_bytes,
        num_resumed_rows=resumed,
        store_digest=record.digest,
    )


def _fetch_shard(store: RemoteStore, head: ShardHead, writer: FolderWriter) -> None:
    writer.copy_shard(head.record.shard, head.content, store.files(head))


def _gone(store: RemoteStore, shard: ShardRange) -> StoreCorrupt:
    """The error about a shard's object that was there a moment ago."""
    where = store.objects.where(store.shard_name(shard))
    return corrupt(where, "the object that was listed", "none", store.step(shard))


def _require_same_shards(out: Path, digests: Mapping[ShardRange, str]) -> None:
    """Check that shards which stand in `out` have the digests of those at the URL."""
    local = StoreFolder(out)
    for shard, expected in digests.items():
        found = local.read_shard(shard).digest
        if found != expected:
            raise StoreMismatch(
                f"{local.shard_folder(shard)}: expected the digest "
                f"{expected[:16]}... as at the URL, found {found[:16]}.... Give another `out`."
            )


def verify_remote(
    url: str, progress: Progress | None = None, staging: Path | None = None
) -> VerifyReport:
    """Read every byte of a store at a URL, complete or not, and check it.

    Args:
        url: the store's.
        progress: where progress is reported.
        staging: a folder for one shard at a time; None for one in the cache.

    Raises:
        StoreError: there is no store, or its `store.json` cannot be read.
        StorageError: the service or the staging's disk refused.
    """
    store = RemoteStore.at(url)
    with (
        staging_folder(staging or staging_root()) as folder,
        FolderWriter(folder, store.manifest) as writer,
    ):
        require_same_record(store, writer, folder)
        local = StoreFolder(folder)

        def check(shard: ShardRange) -> ShardRecord:
            head = store.head(shard)
            if head is None:
                raise _gone(store, shard)
            _fetch_shard(store, head, writer)
            place = local.shard_folder(shard)
            try:
                return check_shard(local, shard)
            except StoreCorrupt as error:
                where = store.objects.where(store.shard_name(shard))
                message = str(error).replace(f"{place}/", f"{where}: ")
                step = store.step(shard)
                raise StoreCorrupt(message.replace(repair_step(shard), step)) from error
            finally:
                remove_folder(place)

        return verify_records(store, check, progress)
