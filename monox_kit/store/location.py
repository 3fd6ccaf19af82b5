"""Where a store lies: a folder or a URL, which answer the same questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from monox_kit.errors import ConfigError
from monox_kit.progress import Progress
from monox_kit.store.address import store_url
from monox_kit.store.folder import begun_manifest, require_own_folder
from monox_kit.store.folder_writer import FolderWriter, begin_store
from monox_kit.store.format import SCAN_FILE, StoreManifest
from monox_kit.store.reader import LogitStore, StoreInfo
from monox_kit.store.remote.fetch import verify_remote
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.staging import staging_root
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.remote.writer import RemoteWriter, begin_remote
from monox_kit.store.verify import VerifyReport, verify_store
from monox_kit.store.writer import StoreWriter


class StoreLocation(ABC):
    """Where a store lies, whether it has been begun or not; `str` of it is what people call it.

    Attributes:
        scan_file: where a begun store keeps the scan of its corpus; None at a URL, where nothing is
            ever replaced or removed.
    """

    scan_file: Path | None

    @abstractmethod
    def require_writable(self) -> None:
        """Check what can be checked before any work.

        Raises:
            StoreError: something else is there.
            StorageError: no store can be written there.
        """

    @abstractmethod
    def begun(self) -> StoreManifest | None:
        """What the store was begun as; None where none has been begun.

        Raises:
            StoreCorrupt: its `store.json` is damaged.
        """

    @abstractmethod
    def begin(self, manifest: StoreManifest, scan: bytes | None) -> None:
        """Begin the store, unless one has been begun; see `begin_store`."""

    @abstractmethod
    def writer(self, manifest: StoreManifest, shards: range | None = None) -> StoreWriter:
        """A writer of these shards, or of all."""

    @abstractmethod
    def info(self) -> StoreInfo:
        """What is in the store, complete or not."""

    @abstractmethod
    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every byte of the store, complete or not, and check it."""


class _Folder(StoreLocation):
    def __init__(self, path: Path) -> None:
        self.scan_file = path / SCAN_FILE
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def require_writable(self) -> None:
        require_own_folder(self._path)

    def begun(self) -> StoreManifest | None:
        return begun_manifest(self._path)

    def begin(self, manifest: StoreManifest, scan: bytes | None) -> None:
        begin_store(self._path, manifest, scan)

    def writer(self, manifest: StoreManifest, shards: range | None = None) -> StoreWriter:
        return FolderWriter(self._path, manifest, shards)

    def info(self) -> StoreInfo:
        return LogitStore.open(self._path, allow_incomplete=True).info()

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        return verify_store(self._path, progress)


class _Url(StoreLocation):
    def __init__(self, url: str, staging: Path | None) -> None:
        self.scan_file = None
        self._objects = ObjectFolder(url)
        self._staging = staging  # None for one in the cache, which is made when it is needed

    def __str__(self) -> str:
        return self._objects.url

    def require_writable(self) -> None:
        self._objects.require_put_if_absent()

    def begun(self) -> StoreManifest | None:
        store = RemoteStore.begun(self._objects)
        return None if store is None else store.manifest

    def begin(self, manifest: StoreManifest, scan: bytes | None) -> None:
        assert scan is None  # none is kept
        begin_remote(self._objects, manifest)

    def writer(self, manifest: StoreManifest, shards: range | None = None) -> RemoteWriter:
        return RemoteWriter(self._objects, manifest, shards, self._staging or staging_root())

    def info(self) -> StoreInfo:
        store = RemoteStore.at(self._objects.url)
        return StoreInfo.of(store, *store.checked_complete())

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        return verify_remote(self._objects.url, progress, self._staging)


def store_location(store: Path | str, staging: str | None = None) -> StoreLocation:
    """The location that a path or a URL stands for.

    Args:
        store: a folder, or a URL.
        staging: a folder on this machine for shards on their way to or from a URL; None for one in
            the cache. With a folder it must be None.

    Raises:
        ConfigError: no store may lie at the URL, or its driver is not installed; or a staging is
            given with a folder, or is none itself.
    """
    url = store_url(store)
    if url is not None:
        return _Url(url, None if staging is None else staging_root(staging))
    if staging is not None:
        raise ConfigError(
            f"`staging` {staging}: only a store at a URL has one, and {store} is a folder. Leave "
            "it out."
        )
    return _Folder(Path(store))


def store_info(folder: Path | str) -> StoreInfo:
    """What is in a store, complete or not.

    Args:
        folder: a folder, or a URL.

    Raises:
        StoreError: no store is there, or its records are damaged.
    """
    return store_location(folder).info()


def verify_location(
    folder: Path | str, staging: str | None = None, progress: Progress | None = None
) -> VerifyReport:
    """Read every byte of a store, complete or not, and check it.

    Args:
        folder: a folder, or a URL.
        staging: as of `store_location`.
        progress: where progress is reported.

    Raises:
        StoreError: no store is there, or its records are damaged.
    """
    return store_location(folder, staging).verify(progress)
