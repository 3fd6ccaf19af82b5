"""A store's folder: what may stand in it, which shards do, and their records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from monox_kit.durable import disk_errors
from monox_kit.errors import StoreError
from monox_kit.store.address import require_local
from monox_kit.store.begun import COMPLETE_STEP, MANIFEST_STEP, BegunStore
from monox_kit.store.format import (
    COMPLETE_FILE,
    LOCK_FILE,
    SCAN_FILE,
    SHARDS_FOLDER,
    STORE_FILE,
    ShardRange,
    StoreManifest,
)
from monox_kit.store.record import corrupt, is_there, raise_unreadable, read_record
from monox_kit.store.shard import ShardRecord


class StoreFolder(BegunStore):
    """The folder of a store that has been begun.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        """Read `store.json`.

        Raises:
            StoreError: there is no store at `path`, or one of a later format.
            StoreCorrupt: `store.json` is lost or damaged.
            ConfigError: `path` is a URL.
            StorageError: the disk refused.
        """
        require_local(path)
        file = path / STORE_FILE
        with disk_errors(path):
            if not os.path.lexists(file) and not (path / SHARDS_FOLDER).is_dir():
                what = "no store.json" if path.is_dir() else "a file"
                raise StoreError(
                    f"{path}: expected a logit store, found {what if path.exists() else 'nothing'}."
                    " Give the folder that `monoxkit label --store` wrote."
                )
        super().__init__(path, read_record(file, MANIFEST_STEP))
        self.path = path
        self._parent = str(path / SHARDS_FOLDER)

    def shard_folder(self, shard: ShardRange) -> Path:
        """Where the shard lies."""
        return self.path / SHARDS_FOLDER / shard.name

    def read_shard(self, shard: ShardRange) -> ShardRecord:
        """The shard's record; see `ShardFiles.read_record`."""
        return self.shards.read_record(f"{self._parent}/{shard.name}", shard)

    def finished_records(self) -> Iterator[ShardRecord]:
        """The records of the shards in place, and every file found with its size."""
        return map(self.read_shard, self.finished_shards())

    def _complete_content(self) -> bytes | None:
        path = self.path / COMPLETE_FILE
        return read_record(path, COMPLETE_STEP) if is_there(path) else None

    def finished_shards(
        self, problems: list[str] | None = None, of: range | None = None
    ) -> list[ShardRange]:
        """The shards whose folders stand in place; see `BegunStore`.

        A writer's temporary folders are passed over; it may be at work. A part of the store is
        looked for by name: listing 100,000 takes a tenth of a second.
        """
        parent = self.path / SHARDS_FOLDER
        require_own_shards(parent)
        if of is not None and 2 * len(of) < self.manifest.num_shards:
            ranges = map(self.manifest.shard, of)
            return [shard for shard in ranges if os.path.lexists(parent / shard.name)]
        try:
            names = os.listdir(parent)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise_unreadable(parent, error, MANIFEST_STEP)
            found = os.strerror(error.errno or 0)
            raise corrupt(parent, "a folder", found, MANIFEST_STEP) from error
        shown = (name for name in names if not name.startswith(".tmp-"))
        shards = self._shards_named(shown, "", parent, problems)
        return shards if of is None else [shard for shard in shards if shard.index in of]


def require_own_shards(path: Path) -> None:
    """Check that `shards/` is a folder of the store itself; absent is fine.

    Raises:
        StoreCorrupt: it is a link to somewhere else, or a file.
        StorageError: the disk refused.
    """
    with disk_errors(path):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            found = "a link" if path.is_symlink() else "a file"
            raise corrupt(path, "a folder of the store itself", found, MANIFEST_STEP)


def require_own_folder(folder: Path) -> None:
    """Check that a store may be created or continued in `folder`; absent and empty are fine.

    Raises:
        StoreCorrupt: it holds shards without a `store.json`.
        StoreError: it holds something else, also where a store has files of its own, or is a file.
        ConfigError: it is a URL.
        StorageError: the disk refused.
    """
    require_local(folder)
    with disk_errors(folder):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise StoreError(f"{folder}: expected a folder, found a file. Give another folder.")
        require_no_folder(folder / SCAN_FILE)
        if os.path.lexists(folder / STORE_FILE):
            return  # listing 100,000 shards takes 50 ms
        # Shards are looked for first: another writer may create the store meanwhile, them last.
        shards = folder / SHARDS_FOLDER
        holds_shards = shards.is_dir() and any(
            not name.startswith(".tmp-") for name in os.listdir(shards)
        )
        names = {name for name in os.listdir(folder) if not name.startswith(".tmp-")}
        foreign = names - {STORE_FILE, COMPLETE_FILE, SHARDS_FOLDER, LOCK_FILE, SCAN_FILE}
        if STORE_FILE in names:
            return
        if foreign:
            raise StoreError(
                f"{folder}: expected an empty folder or a logit store, found {min(foreign)!r}. "
                "Give another folder."
            )
        if COMPLETE_FILE in names or holds_shards:
            step = "Restore it from a copy, or delete the folder and run `monoxkit label` again."
            raise corrupt(folder / STORE_FILE, "the file", "none", step)


def require_no_folder(scan: Path) -> None:
    """Check that no folder stands where a store keeps its scan: it is somebody's.

    Raises:
        StoreError: one does.
    """
    if scan.is_dir() and not scan.is_symlink():
        raise StoreError(
            f"{scan}: expected no folder of this name in a store, found one. Move it elsewhere."
        )


def begun_manifest(path: Path) -> StoreManifest | None:
    """What the store at `path` was begun as; None where none has been begun.

    Raises:
        StoreCorrupt: its `store.json` is damaged.
        ConfigError: `path` is a URL.
    """
    require_local(path)
    if not is_there(path / STORE_FILE):
        return None
    return StoreFolder(path).manifest
