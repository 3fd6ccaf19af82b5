"""A store's folder as a whole: which records and shards stand in it, and whether they agree."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from pathlib import Path

from monox_kit.durable import disk_errors
from monox_kit.errors import ConfigError, StoreError
from monox_kit.store.format import (
    COMPLETE_FILE,
    FORMAT_VERSION,
    LOCK_FILE,
    MANIFEST_KEYS,
    SCAN_FILE,
    SHARDS_FOLDER,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
    StoreManifest,
    store_digest,
)
from monox_kit.store.record import (
    DIGEST_KEY,
    corrupt,
    is_there,
    parse_record,
    raise_unreadable,
    read_record,
)
from monox_kit.store.shard import ShardFiles, ShardRecord

MANIFEST_STEP = "Restore it from a copy, or delete the store and run `monoxkit label` again."
COMPLETE_STEP = "Delete complete.json and run `monoxkit label` again: finished shards are kept."
# `Path` makes one slash of two. A drive's letter is no scheme.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.:-]+)://?(?P<rest>.*)", re.DOTALL)


def store_url(path: Path | str) -> str | None:
    """The URL that a store's path stands for; None for one of a file system."""
    url = _URL.fullmatch(str(path))
    if url is None or os.path.lexists(Path(path).parts[0]):
        return None
    return f"{url['scheme']}://{url['rest'].rstrip('/')}"


def require_local(path: Path | str) -> None:
    """Check that a store's path is one of a file system, and no URL.

    Raises:
        ConfigError: it is a URL. Objects can be neither mapped nor locked nor renamed.
    """
    url = store_url(path)
    if url is not None:
        raise ConfigError(
            f"{url}: expected a store's folder, found a URL. Copy a store that was labelled to a "
            f"URL into a folder first: `monoxkit store fetch {url} --out DIR`."
        )


class StoreRecords(ABC):
    """A store that has been begun, wherever it lies. Reads records when asked, and keeps none.

    Attributes:
        where: the folder or URL, for messages.
        manifest: the content of its `store.json`.
        digest: the `record_digest` of its `store.json`.
        shards: access to its shards.
    """

    def __init__(self, where: Path | str, content: bytes) -> None:
        """Args: the folder or URL, and the bytes of its `store.json`.

        Raises:
            StoreError: it is of a later format.
            StoreCorrupt: `store.json` is damaged.
        """
        file = f"{where}/{STORE_FILE}"
        value = parse_record(content, file, MANIFEST_KEYS, FORMAT_VERSION, MANIFEST_STEP)
        self.where = where
        self.manifest = StoreManifest.from_json(value, file, MANIFEST_STEP)
        self.digest: str = value[DIGEST_KEY]
        self.shards = ShardFiles(self.manifest, self.digest)

    @abstractmethod
    def read_complete(self) -> CompleteRecord | None:
        """The completion record; None where labelling has not finished.

        Raises:
            StoreCorrupt: it is damaged or belongs to another store.
        """

    @abstractmethod
    def finished_shards(
        self, problems: list[str] | None = None, of: range | None = None
    ) -> Collection[ShardRange]:
        """The shards that are there, in order.

        Args:
            problems: where entries that are no shards are noted; None raises them.
            of: the only indices to look for; None for all.

        Raises:
            StoreCorrupt: something else lies among them.
            StorageError: the system refused to list it.
        """

    def digest_of(self, shard_digests: Iterable[str]) -> str:
        """The digest of the store with these shard records, in shard order."""
        return store_digest(self.digest, shard_digests)

    def require_complete(
        self, complete: CompleteRecord, shards: Collection[ShardRange], digests: Iterable[str]
    ) -> None:
        """Check that every shard is there, each as it was when the store was completed.

        Raises:
            StoreCorrupt: one is absent or differs.
        """
        path = f"{self.where}/{COMPLETE_FILE}"
        if len(shards) < self.manifest.num_shards:
            present = {shard.index for shard in shards}
            absent = next(index for index in range(len(shards) + 1) if index not in present)
            wanted = f"all {self.manifest.num_shards} shards"
            found = f"no shards/{self.manifest.shard(absent).name}"
            raise corrupt(path, wanted, found, COMPLETE_STEP)
        found = self.digest_of(digests)
        if found != complete.digest:
            wanted = f"shards with the digest {complete.digest[:16]}..."
            raise corrupt(path, wanted, f"{found[:16]}...: one was written later", COMPLETE_STEP)


class StoreFolder(StoreRecords):
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

    def read_complete(self) -> CompleteRecord | None:
        """The completion record; None where labelling has not finished.

        Raises:
            StoreCorrupt: it is damaged or belongs to another store.
        """
        path = self.path / COMPLETE_FILE
        if not is_there(path):
            return None
        content = read_record(path, COMPLETE_STEP)
        return CompleteRecord.parse(content, path, self.manifest, COMPLETE_STEP)

    def finished_shards(
        self, problems: list[str] | None = None, of: range | None = None
    ) -> list[ShardRange]:
        """The shards whose folders stand in place, in order.

        A writer's temporary folders are passed over; it may be at work.

        Args:
            problems: where entries that are no shards are noted; None raises them.
            of: the only indices to look for; None for all. Each is looked for by its name, where
                they are not most of the store: listing 100,000 names takes a tenth of a second.

        Raises:
            StoreCorrupt: `shards/` is lost, or holds an entry that is no shard of this store.
            StorageError: the system refused to list it.
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
        last = self.manifest.shard(self.manifest.num_shards - 1)
        shards = []
        for name in sorted(names):
            index = int(name) if len(name) == 6 and name.isascii() and name.isdigit() else -1
            if 0 <= index <= last.index:
                if of is None or index in of:
                    shards.append(self.manifest.shard(index))
            elif not name.startswith(".tmp-"):
                wanted = f"only shards 000000 to {last.name}"
                problem = corrupt(parent, wanted, repr(name), "Move it elsewhere.")
                if problems is None:
                    raise problem
                problems.append(str(problem))
        return shards


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
