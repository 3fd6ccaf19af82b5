"""Writing a store in a folder: a durable shard at a time, resumable, never complete by accident."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from monox_kit.durable import (
    disk_errors,
    fsync_folder,
    make_folder,
    remove_all_leftovers,
    remove_file,
    write_file,
)
from monox_kit.errors import StoreError
from monox_kit.locks import RangeLocks
from monox_kit.store.builder import ShardBuilder, copy_shard, new_shard
from monox_kit.store.claims import WHOLE, shard_bytes, store_locks
from monox_kit.store.folder import (
    StoreFolder,
    require_no_folder,
    require_own_folder,
    require_own_shards,
)
from monox_kit.store.format import (
    COMPLETE_FILE,
    SCAN_FILE,
    SHARDS_FOLDER,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
    StoreManifest,
)
from monox_kit.store.record import encode_record, is_there
from monox_kit.store.writer import StoreWriter


class FolderWriter(StoreWriter):
    """Creates the store that `manifest` describes, or continues it; alone or beside others.

    Use as a context manager: entering claims the writer's shards, removes what a killed writer left
    half-built of them, and checks what is there; leaving gives them back and completes nothing.
    Writers of different shards work side by side, in any process on any machine that shares the
    file system and its locks.
    """

    def __init__(self, folder: Path, manifest: StoreManifest, shards: range | None = None) -> None:
        """Touches nothing yet.

        Args:
            folder: the store's folder; created with its parents where absent.
            manifest: what the store is a store of.
            shards: indices of the shards to write, with step 1; None for all.

        Raises:
            ConfigError: the store has no such shards.
        """
        super().__init__(manifest, shards)
        self.folder = folder
        self._locks: RangeLocks | None = None
        self._store: StoreFolder | None = None

    def __enter__(self) -> Self:
        """Claim the shards, and create or resume the store; see `StoreWriter`.

        Raises:
            StoreLocked: another writer has claimed one of them.
            StoreError: the folder holds something else.
        """
        with disk_errors(self.folder):
            require_own_folder(self.folder)
            self._locks = store_locks(self.folder)
            try:
                self._store = self._begin(self._locks.__enter__())
            except BaseException:
                self._locks.__exit__()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._locks is not None:
            self._locks.__exit__()
        self._locks = self._store = None

    @property
    def digest(self) -> str:
        """The `record_digest` of the store's `store.json`, which its shards name."""
        return self._begun().digest

    @contextmanager
    def shard(self, shard: ShardRange, text_bytes: Mapping[str, int]) -> Iterator[ShardBuilder]:
        """Write one of the missing shards; see `StoreWriter.shard`.

        Raises:
            StoreLockLost: the lock file was removed meanwhile; nothing is written.
            ConfigError: a folder came to the shard's place by another way than a writer.
        """
        store = self._require_own(shard)
        with new_shard(store, shard, text_bytes, lambda: self._require_own(shard)) as builder:
            yield builder
            self._require_own(shard)  # the block may have given the shards back
        del self._missing[shard.index]

    def copy_shard(
        self, shard: ShardRange, content: bytes, files: Iterable[tuple[str, bytes]]
    ) -> None:
        """Write one of the missing shards as it stands in another copy of the same store.

        Args:
            shard: one of `missing`.
            content: the bytes of its `shard.json` there.
            files: names of array files with their next bytes, in order.

        Raises:
            StoreLockLost: the lock file was removed meanwhile; nothing is written.
            StorageError: the disk refused, or gave back other bytes than `content` states.
        """
        store = self._require_own(shard)
        copy_shard(store, shard, content, files, lambda: self._require_own(shard))
        del self._missing[shard.index]

    def complete(self, **summary: Any) -> CompleteRecord | None:
        """Declare the store finished; see `StoreWriter.complete`.

        Raises:
            StoreLockLost: the lock file was removed since the shards were claimed.
        """
        store = self._begun()
        self._require_none_missing()
        assert self._locks is not None  # held as long as the store
        with self._locks.turn(WHOLE):
            record = store.read_complete()
            if record is not None:
                _remove_scan(self.folder)
                _fsync_names(self.folder)
            else:
                # As they lie on disk now: nobody may have touched them since they were written.
                shards = store.finished_shards()
                if len(shards) < self.manifest.num_shards:
                    return None
                _fsync_names(self.folder / SHARDS_FOLDER)
                digests = [store.read_shard(shard).digest for shard in shards]
                record = CompleteRecord(
                    num_rows=self.manifest.num_rows,
                    num_shards=self.manifest.num_shards,
                    digest=store.digest_of(digests),
                    summary=summary,
                )
                _remove_scan(self.folder)
                self._locks.require_current()  # reading 100,000 records takes a while
                path = self.folder / COMPLETE_FILE
                write_file(path, encode_record(record.to_json(), path))
        return record

    def _begin(self, locks: RangeLocks) -> StoreFolder:
        """Claim the shards and bring the folder into a state to write them in."""
        with locks.turn(WHOLE):
            require_own_folder(self.folder)
            locks.take(*shard_bytes(self._claimed), _shown(self._claimed))
            names = {self.manifest.shard(index).name for index in self._claimed}
            _put_manifest(self.folder, self.manifest, names)
            store = StoreFolder(self.folder)
            store.manifest.require_equal(self.manifest, self.folder / STORE_FILE)
        # In this order: another writer may commit the last shard and complete the store meanwhile.
        record = store.read_complete()
        done = store.finished_shards(None, self._claimed if record is None else None)
        digests = [store.read_shard(shard).digest for shard in done]
        if record is not None:
            store.require_complete(record, done, digests)
        indices = {shard.index for shard in done}
        self._missing = {
            index: self.manifest.shard(index) for index in self._claimed if index not in indices
        }
        return store

    def _require_own(self, shard: ShardRange) -> StoreFolder:
        """The folder, in which the shard is still this writer's to commit."""
        store = self._begun()
        self._require_missing(shard)
        assert self._locks is not None  # held as long as the store
        self._locks.require_current()
        return store

    def _begun(self) -> StoreFolder:
        """The folder, whose claimed shards are held."""
        if self._store is None or self._locks is None or not self._locks.held:
            raise StoreError(
                f"{self.folder}: expected to hold the store's shards, found none. "
                "Use FolderWriter in a with statement."
            )
        return self._store


def begin_store(folder: Path, manifest: StoreManifest, scan: bytes | None) -> None:
    """Begin a store, unless one has been begun: put what it is a store of, and no shard.

    Args:
        folder: the store's folder; created with its parents where absent.
        manifest: what the store is a store of; a `store.json` that is there stays.
        scan: what a scan of the corpus has found, kept beside the shards until the store is
            complete; no part of the store. None keeps what is there.

    Raises:
        StoreError: the folder holds something else.
        StorageError: the disk refused.
    """
    with disk_errors(folder):
        require_own_folder(folder)
        with store_locks(folder) as locks, locks.turn(WHOLE):
            require_own_folder(folder)
            if scan is not None and not is_there(folder / COMPLETE_FILE):
                # Before store.json, so that a store which has been begun has it.
                write_file(folder / SCAN_FILE, scan)
            _put_manifest(folder, manifest, frozenset())


def _put_manifest(folder: Path, manifest: StoreManifest, shards: Collection[str]) -> None:
    """Put `store.json` and `shards/` where absent; hold the whole store's lock.

    What killed writers have left of the store's records and of these shards is removed.
    """
    require_own_shards(folder / SHARDS_FOLDER)
    parent = make_folder(folder / SHARDS_FOLDER)
    remove_all_leftovers(folder)  # written by whoever has this turn
    remove_all_leftovers(parent, shards)
    path = folder / STORE_FILE
    if not is_there(path):
        write_file(path, encode_record(manifest.to_json(), path))
    # A killed writer may have made names without its fsync of the folder they are in.
    for each in (parent, folder, folder.absolute().parent):
        fsync_folder(each)


def _remove_scan(folder: Path) -> None:
    """Remove the kept scan; hold the whole store's lock.

    Raises:
        StoreError: a folder stands there.
        StorageError: the disk refused.
    """
    with disk_errors(folder / SCAN_FILE):
        require_no_folder(folder / SCAN_FILE)
    remove_file(folder / SCAN_FILE)


def _shown(claimed: range) -> str:
    return f"shards {claimed.start} to {claimed.stop - 1}"


def _fsync_names(folder: Path) -> None:
    """Make durable what another writer, since killed, may have renamed without its fsync."""
    with disk_errors(folder):
        fsync_folder(folder)
