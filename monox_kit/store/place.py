"""Where a store is labelled to: a folder, or a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from monox_kit.errors import ConfigError
from monox_kit.progress import Progress
from monox_kit.store.folder import begun_manifest, require_own_folder, store_url
from monox_kit.store.format import SCAN_FILE, StoreManifest
from monox_kit.store.reader import LogitStore, StoreInfo
from monox_kit.store.remote.fetch import remote_info, verify_remote
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.staging import staging_root
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.remote.writer import RemoteWriter, begin_remote
from monox_kit.store.verify import VerifyReport, verify_store
from monox_kit.store.writer import StoreWriter, begin_store


class StorePlace(Protocol):
    """What can be asked of the place of a store; `str` of it is what people call it.

    Attributes:
        scan_file: where a begun store keeps the scan of its corpus; None at a URL, where nothing is
            ever replaced or removed.
    """

    scan_file: Path | None

    def require_writable(self) -> None:
        """Check what can be checked before any work.

        Raises:
            StoreError: something else is there.
            StorageError: no store can be written there.
        """

    def begun(self) -> StoreManifest | None:
        """What the store was begun as; None where none has been begun.

        Raises:
            StoreCorrupt: its `store.json` is damaged.
        """

    def begin(self, manifest: StoreManifest, scan: bytes | None) -> None:
        """Begin the store, unless one has been begun; see `begin_store`."""

    def writer(
        self, manifest: StoreManifest, shards: range | None = None
    ) -> StoreWriter | RemoteWriter:
        """A writer of these shards, or of all."""

    def info(self) -> StoreInfo:
        """What is in the store, complete or not."""

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every byte of the store, complete or not, and check it."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self.scan_file: Path | None = path / SCAN_FILE
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
        return StoreWriter(self._path, manifest, shards)

    def info(self) -> StoreInfo:
        return LogitStore.open(self._path, allow_incomplete=True).info()

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        return verify_store(self._path, progress)


class _Url:
    def __init__(self, url: str, staging: Path) -> None:
        self.scan_file: Path | None = None
        self._objects = ObjectFolder(url)
        self._staging = staging

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
        return RemoteWriter(self._objects, manifest, shards, self._staging)

    def info(self) -> StoreInfo:
        return remote_info(self._objects.url)

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        return verify_remote(self._objects.url, progress, self._staging)


def store_place(store: Path | str, staging: Path) -> StorePlace:
    """The place that a path or a URL stands for.

    Args:
        store: a folder, or a URL.
        staging: a folder for shards on their way to a URL; not looked at for a folder.

    Raises:
        ConfigError: no store may lie at the URL, or its driver is not installed.
    """
    url = store_url(store)
    return _Folder(Path(store)) if url is None else _Url(url, staging)


def staged_place(store: Path | str, staging: str | None) -> StorePlace:
    """The place that a path or a URL stands for, with what was asked for as `--staging`.

    Args:
        store: a folder, or a URL.
        staging: a folder on this machine for shards on their way to or from a URL; None for one in
            the cache. With a folder it must be None.

    Raises:
        ConfigError: no store may lie at the URL, or its driver is not installed; or a staging is
            given with a folder, or is none itself.
    """
    if store_url(store) is not None:
        return store_place(store, staging_root(staging))
    if staging is not None:
        raise ConfigError(
            f"--staging {staging}: expected with a store at a URL only, found the folder {store}. "
            "Leave it out."
        )
    return _Folder(Path(store))


def store_info(store: Path | str) -> StoreInfo:
    """What is in a store, complete or not, in a folder or at a URL.

    Raises:
        StoreError: there is none, or it is damaged.
        StorageError: the disk or the service refused.
    """
    url = store_url(store)
    return _Folder(Path(store)).info() if url is None else remote_info(url)
