"""An object store for tests: objects are files of a folder, put in one step, with faults on demand.

`objects:///tmp/x/store` is the folder `/tmp/x/store`, which outlives a killed process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from monox_kit.store import StoreManifest
from monox_kit.store.remote import drivers, objects
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.writer import RemoteWriter
from tests.store_samples import build_shard, manifest

PROTOCOL = "objects"
_UPLOAD = ".upload-"

# Does what is asked of the store itself, or something else instead.
Fault = Callable[["DiskObjects", str, Callable[[], Any]], Any]


class DiskObjects(AbstractFileSystem):  # type: ignore[misc]
    """Objects in a folder.

    Attributes:
        faults: what happens instead of a `put` or a `read` of an object whose name ends so; the
            first that fits is taken out and used.
        ignores_mode: whether `mode="create"` is passed over, as some drivers do.
    """

    protocol = PROTOCOL
    cachable = False
    faults: list[tuple[str, str, Fault]] = []  # noqa: RUF012  # reset by `object_store`
    ignores_mode = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        assert not kwargs
        is_exclusive = mode == "create" and not self.ignores_mode
        self._faulty("put", path, lambda: self.put_whole(path, value, is_exclusive))

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        def read() -> bytes:
            return Path(path).read_bytes()[start:end]

        found: bytes = self._faulty("read", path, read)
        return found

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        is_file = os.path.isfile(path)
        if not is_file and not os.path.isdir(path):
            raise FileNotFoundError(path)
        kind = "file" if is_file else "directory"
        return {"name": path, "size": os.path.getsize(path), "type": kind}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        names = [name for name in os.listdir(path) if not name.startswith(_UPLOAD)]
        return [self.info(f"{path}/{name}") for name in names]

    def put_whole(self, path: str, value: bytes, is_exclusive: bool = True) -> None:
        """Put an object in one step."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, upload = tempfile.mkstemp(prefix=_UPLOAD, dir=os.path.dirname(path))
        os.write(descriptor, value)
        os.close(descriptor)
        if is_exclusive:
            try:
                os.link(upload, path)
            finally:
                os.unlink(upload)
        else:
            os.replace(upload, path)

    def _faulty(self, what: str, path: str, act: Callable[[], Any]) -> Any:
        for fault in self.faults:
            operation, ending, happen = fault
            if operation == what and path.endswith(ending):
                self.faults.remove(fault)
                return happen(self, path, act)
        return act()


def do(service: DiskObjects, path: str, act: Callable[[], Any]) -> Any:
    return act()


def lose_answer(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
    act()
    raise TimeoutError("no answer")


def refuse(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
    raise ConnectionError("connection reset")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@contextmanager
def object_store() -> Iterator[type[DiskObjects]]:
    """Let stores lie at `objects://` and `memory://` for the block."""
    fsspec.register_implementation(PROTOCOL, DiskObjects, clobber=True)
    driver = drivers.Driver({"fsspec": "2025.3"}, {}, 1 << 20)
    before = dict(drivers.DRIVERS), objects._PAUSE_S
    drivers.DRIVERS.update({PROTOCOL: driver, "memory": driver})
    objects._PAUSE_S = 0.0
    DiskObjects.faults, DiskObjects.ignores_mode = [], False
    try:
        yield DiskObjects
    finally:
        drivers.DRIVERS.clear()
        drivers.DRIVERS.update(before[0])
        objects._PAUSE_S = before[1]
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


def url_writer(
    url: str, staging: Path, store: StoreManifest | None = None, shards: range | None = None
) -> RemoteWriter:
    """A writer of a sample store at a URL."""
    return RemoteWriter(ObjectFolder(url), store or manifest(), shards, staging)


def write_url(
    url: str, staging: Path, store: StoreManifest | None = None, shards: range | None = None
) -> str:
    """Write what is missing of a sample store at a URL, complete it and give the URL back."""
    with url_writer(url, staging, store, shards) as writer:
        for shard in writer.missing:
            build_shard(writer, shard, ())
        writer.complete(command="label")
    return url
