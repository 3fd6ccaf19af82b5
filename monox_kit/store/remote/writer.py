"""Writing a store at a URL: each shard is committed here, put there, and then removed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from monox_kit.durable import remove_folder
from monox_kit.errors import StorageError, StoreCorrupt, StoreError, StoreMismatch
from monox_kit.overlap import Behind
from monox_kit.store.builder import ShardBuilder
from monox_kit.store.folder import StoreFolder
from monox_kit.store.folder_writer import FolderWriter
from monox_kit.store.format import (
    COMPLETE_FILE,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
    StoreManifest,
)
from monox_kit.store.record import encode_record
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.shard_object import ShardHead, pack_shard
from monox_kit.store.remote.staging import remove_dead_folders, staging_folder
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.shard import ShardRecord
from monox_kit.store.writer import StoreWriter

# What may differ between two labellings of the same rows: the last bits of a product depend on the
# machine and on the batch.
_COMPUTED = frozenset({"logits.npy", "recomputed.npy"})
_DISK_STEP = "Check the disk of the staging folder, then run the same command again."


class RemoteWriter(StoreWriter):
    """Begins the store that `manifest` describes at a URL, or continues it; alone or beside others.

    Nobody is locked out: of two that label the same shard, the first
    to put it wins, and the other one's is dropped.
    """

    def __init__(
        self, objects: ObjectFolder, manifest: StoreManifest, shards: range | None, staging: Path
    ) -> None:
        """Touches nothing yet.

        Args:
            objects: what lies at the URL.
            manifest: what the store is a store of.
            shards: indices of the shards to write, with step 1; None for all.
            staging: a folder for the shards that are on their way.

        Raises:
            ConfigError: the store has no such shards.
        """
        super().__init__(manifest, shards)
        self._objects = objects
        self._staging = staging
        self._stack = ExitStack()
        self._store: RemoteStore | None = None

    def __enter__(self) -> Self:
        """Begin or resume the store; see `StoreWriter`."""
        store = self._store = begin_remote(self._objects, self.manifest)
        store.manifest.require_equal(self.manifest, self._objects.where(STORE_FILE))
        if store.read_complete() is not None:
            store.checked_complete()
        present = store.finished_shards(of=self._claimed)
        shards = map(store.manifest.shard, self._claimed)
        self._missing = {shard.index: shard for shard in shards if shard not in present}
        with ExitStack() as stack:
            if self._missing:
                folder = stack.enter_context(staging_folder(self._staging))
                local = FolderWriter(folder, store.manifest, self._claimed)
                self._local = stack.enter_context(local)
                require_same_record(store, local, folder)
            else:  # a run that was killed after its last shard was put
                remove_dead_folders(self._staging)
            self._behind = stack.enter_context(Behind())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        self._store = None

    @contextmanager
    def shard(self, shard: ShardRange, text_bytes: Mapping[str, int]) -> Iterator[ShardBuilder]:
        """Write one of the missing shards; see `StoreWriter.shard`.

        When the block ends without an error the shard is committed to the staging, and put while
        the next one is written; what the one before met is raised then.

        Raises:
            StoreMismatch: another writer has put a shard with other rows.
            StoreCorrupt: another writer has put a shard that is damaged.
            StorageError: the service or the disk refused.
        """
        store = self._begun()
        self._require_missing(shard)
        with self._local.shard(shard, text_bytes) as builder:
            yield builder
        self._behind.do(partial(self._publish, store, shard))
        del self._missing[shard.index]

    def complete(self, **summary: Any) -> CompleteRecord | None:
        """Declare the store finished; see `StoreWriter.complete`.

        Raises:
            StoreIncomplete: one of the claimed shards is missing.
            StoreCorrupt: a record at the URL is damaged, or its `complete.json` belongs to other
                shards.
            StorageError: the service refused.
        """
        store = self._begun()
        self._behind.wait()
        self._require_none_missing()
        if len(store.finished_shards()) < self.manifest.num_shards:
            return None  # before any record is read: there may be many
        complete, totals = store.checked_complete()
        if complete is not None:
            return complete
        record = CompleteRecord(
            num_rows=self.manifest.num_rows,
            num_shards=self.manifest.num_shards,
            digest=store.digest_of(totals.digests.values()),
            summary=summary,
        )
        where = self._objects.where(COMPLETE_FILE)
        self._objects.put(COMPLETE_FILE, encode_record(record.to_json(), where))
        found = store.read_complete()
        if found is None:
            raise _lost(where, "nothing.")
        store.require_complete(found, totals.digests, totals.digests.values())
        return found

    def _publish(self, store: RemoteStore, shard: ShardRange) -> None:
        """Put a committed shard unless another is there, read back what is there, and clean up."""
        local = StoreFolder(self._local.folder)
        folder = local.shard_folder(shard)
        ours = local.read_shard(shard)
        name = store.shard_name(shard)
        is_ours = self._objects.put(name, pack_shard(folder, ours, _DISK_STEP))
        where = self._objects.where(name)
        try:
            head = store.head(shard)
            if head is None:
                raise _lost(where, "nothing.")
            for _ in store.files(head):
                pass  # their digests are checked as they go by
        except StoreCorrupt as error:
            if is_ours:
                raise _lost(where, str(error)) from error
            raise
        _require_same_rows(ours, head, where)
        remove_folder(folder)

    def _begun(self) -> RemoteStore:
        if self._store is None:
            raise StoreError(
                f"{self._objects.url}: expected a store that has been begun, found none. "
                "Use RemoteWriter in a with statement."
            )
        return self._store


def begin_remote(objects: ObjectFolder, manifest: StoreManifest) -> RemoteStore:
    """The store at the URL, begun where there is none.

    Raises:
        StoreCorrupt: its `store.json` is damaged, or lost.
        StorageError: the service refused.
    """
    store = RemoteStore.begun(objects)
    if store is None:
        where = objects.where(STORE_FILE)
        objects.put(STORE_FILE, encode_record(manifest.to_json(), where))
        store = RemoteStore.begun(objects)
        if store is None:
            raise _lost(where, "nothing.")
    return store


def require_same_record(store: RemoteStore, local: FolderWriter, folder: Path) -> None:
    """Check that a local copy's `store.json` has the bytes of the URL's: shards name its digest.

    Raises:
        StoreMismatch: the values are the same, in another order or with other spaces.
    """
    if local.digest != store.digest:
        raise StoreMismatch(
            f"{folder / STORE_FILE}: expected the record_digest {store.digest[:16]}... as at "
            f"{store.where}, found {local.digest[:16]}.... Give another folder; where it is a new "
            "one, the URL's store.json was not written by monoxkit: begin a store elsewhere."
        )


def _require_same_rows(ours: ShardRecord, there: ShardHead, where: str) -> None:
    """Check that the shard which is there holds the rows, texts and gold labels of ours."""
    for name, file in ours.files.items():
        found = there.record.files[name]
        if name not in _COMPUTED and found != file:
            raise StoreMismatch(
                f"{where}: expected {name} with SHA-256 {file.sha256[:16]}... as this run wrote "
                f"it, found {found.sha256[:16]}... of another run. Find out which of the two read "
                "another corpus; delete the object if it is wrong, and run again."
            )


def _lost(where: str, found: str) -> StorageError:
    return StorageError(
        f"{where}: expected the service to give back what was put, found: {found} "
        "Delete the object if it is there, then run the same command again."
    )
