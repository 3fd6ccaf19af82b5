"""A recorder of everything a process does to one folder's disk, down to single writes of a file.

Calls of `os` and `io.open` are recorded and carried out, fsync aside, which is recorded alone. What
the recorder missed would show: `Trace.tree` at the end of a run is compared with the real folder.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

# Path below the root to bytes, or to None for a folder.
Tree = Mapping[str, bytes | None]
ROOT = 0
_CALLS = (
    "open", "mkdir", "unlink", "remove", "rmdir", "rename", "replace", "fsync", "truncate",
    "ftruncate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Make:
    """A new entry for a new, empty node."""

    parent: int
    name: str
    node: int
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Rename:
    """A node's entry moves within its folder; what had the new name loses its own."""

    parent: int
    old: str
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Remove:
    """An entry goes."""

    parent: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes of a file at an offset."""

    node: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file's new length."""

    node: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file's bytes, or a folder's entries, are on the disk from here on."""

    node: int


@dataclass(frozen=True, slots=True)
class Promise:
    """The writer has returned from a call after which `what` must survive."""

    what: str


Entry = Make | Rename | Remove
Operation = Entry | Write | Resize | Sync | Promise


@dataclass
class Trace:
    """What happened to a folder, in order; it was empty before."""

    operations: list[Operation] = field(default_factory=list)

    @classmethod
    def leaving(cls, tree: Tree, promised: Iterable[str] = ()) -> Trace:
        """A trace that leaves the tree durable."""
        operations: list[Operation] = []
        nodes = {"": ROOT}
        for path, content in tree.items():  # parents come before what is in them
            parent, _, name = path.rpartition("/")
            nodes[path] = len(nodes)
            operations.append(Make(nodes[parent], name, nodes[path], content is None))
            if content is not None:
                operations.append(Write(nodes[path], 0, content))
        operations += [Sync(node) for node in nodes.values()]
        return cls([*operations, *map(Promise, promised)])

    def tree(self) -> Tree:
        """The folder as processes see it after all of it."""
        folders: dict[int, dict[str, int]] = {ROOT: {}}
        files: dict[int, bytes] = {}
        for operation in self.operations:
            match operation:
                case Make(_, _, node, is_folder):
                    if is_folder:
                        folders[node] = {}
                    else:
                        files[node] = b""
                    change_entries(folders[operation.parent], operation)
                case Rename() | Remove():
                    change_entries(folders[operation.parent], operation)
                case Write() | Resize():
                    files[operation.node] = changed_bytes(files[operation.node], operation)
        return tree_of(folders, files)


def change_entries(entries: dict[str, int], operation: Entry) -> None:
    """Carry out an operation on a folder's entries; an earlier one may have been lost."""
    match operation:
        case Make(_, name, node, _):
            entries[name] = node
        case Rename(_, old, name, node):
            if entries.get(old) == node:
                del entries[old]
            entries[name] = node
        case Remove(_, name, node):
            if entries.get(name) == node:
                del entries[name]


def changed_bytes(content: bytes, operation: Write | Resize) -> bytes:
    """A file's bytes after the operation; a gap reads as zeros."""
    if isinstance(operation, Resize):
        return content[: operation.num_bytes].ljust(operation.num_bytes, b"\0")
    start, stop = operation.offset, operation.offset + len(operation.content)
    return content.ljust(start, b"\0")[:start] + operation.content + content[stop:]


def tree_of(folders: Mapping[int, Mapping[str, int]], files: Mapping[int, bytes]) -> Tree:
    """Everything that can be reached from the root."""
    found: dict[str, bytes | None] = {}

    def add(node: int, path: str) -> None:
        for name, child in folders[node].items():
            found[path + name] = files.get(child)
            if child in folders:
                add(child, f"{path}{name}/")

    add(ROOT, "")
    return found


def real_tree(root: Path) -> Tree:
    """The same of a real folder."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


class Killed(BaseException):
    """The process ends here; whatever its handlers try to change afterwards ends it again."""


class Recorder:
    """Records into `trace` while it is entered.

    Args:
        root: a folder that holds what the trace leaves. What happens elsewhere is left alone.
        trace: continued.
    """

    def __init__(self, root: Path, trace: Trace) -> None:
        self._root = str(root.resolve())
        self._operations = trace.operations
        self._left: int | None = None
        self._nodes: dict[str, int] = {self._root: ROOT}
        self._next = 1
        for operation in trace.operations:
            self._follow(operation)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        for name in _CALLS:
            patch.setattr(os, name, self._wrapped(getattr(self, f"_{name}"), getattr(os, name)))
        patch.setattr(io, "open", self._wrapped(self._stream, io.open))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def killed_after(self, num_operations: int | None) -> Iterator[None]:
        """End the block like a kill after so many operations; None lets it run.

        Locks are given back and buffered bytes are lost, as the kernel would have it.
        """
        self._left = num_operations
        try:
            with suppress(Killed):
                yield
        finally:
            self._left = None

    def promise(self, what: str) -> None:
        """Note that `what` must survive from here on."""
        self._operations.append(Promise(what))

    def add(self, operation: Operation) -> None:
        """Record what happens next, or be killed before it."""
        if self._left is not None:
            if self._left == 0:
                raise Killed
            self._left -= 1
        self._operations.append(operation)
        self._follow(operation)

    def _follow(self, operation: Operation) -> None:
        """Keep up with which node stands at which path."""
        if not isinstance(operation, Entry):
            return
        paths = {node: path for path, node in self._nodes.items()}
        path = f"{paths[operation.parent]}/{operation.name}"
        match operation:
            case Make(_, _, node, _):
                self._nodes[path] = node
                self._next = max(self._next, node + 1)
            case Rename(_, _, _, node):
                before = paths[node]
                for old in [each for each in self._nodes if f"{each}/".startswith(f"{before}/")]:
                    self._nodes[path + old.removeprefix(before)] = self._nodes.pop(old)
            case Remove():
                del self._nodes[path]

    @staticmethod
    def _wrapped(ours: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: ours(real, *args, **options)

    def _place(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The absolute path; None outside of the root."""
        if isinstance(path, int):
            absolute = os.readlink(f"/proc/self/fd/{path}")
        else:
            base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
            absolute = os.path.normpath(os.path.join(base, os.fspath(path)))
        return absolute if f"{absolute}/".startswith(f"{self._root}/") else None

    def _parent(self, place: str) -> tuple[int, str]:
        folder, _, name = place.rpartition("/")
        return self._nodes[folder], name

    def _made(self, place: str, *, is_folder: bool) -> None:
        self.add(Make(*self._parent(place), self._next, is_folder))

    def _open(
        self, real: Any, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        place = self._place(path, dir_fd)
        if place is not None:
            if flags & os.O_CREAT and not os.path.lexists(place):
                self._made(place, is_folder=False)
            assert not flags & os.O_TRUNC, "expected no file to be emptied in place"
        return int(real(path, flags, mode, dir_fd=dir_fd))

    def _stream(self, real: Any, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        place = self._place(file)
        if place is None or not set(mode) & set("wxa+"):
            return real(file, mode, *args, **options)
        assert mode in ("wb", "xb"), f"expected a mode the recorder knows, found {mode}"
        if not isinstance(file, int):
            assert not os.path.lexists(place), "expected no file to be emptied in place"
            self._made(place, is_folder=False)
        return io.BufferedWriter(_RecordedFile(file, mode, self.add, lambda: self._nodes[place]))

    def _mkdir(self, real: Any, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        exists = place is None or os.path.lexists(place)
        if place is not None and not exists and os.path.isdir(os.path.dirname(place)):
            self._made(place, is_folder=True)
        real(path, mode, dir_fd=dir_fd)

    def _unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        if place in self._nodes:
            self.add(Remove(*self._parent(place), self._nodes[place]))
        real(path, dir_fd=dir_fd)

    _remove = _rmdir = _unlink

    def _rename(self, real: Any, source: Any, target: Any) -> None:
        old, new = self._place(source), self._place(target)
        if old is not None and new is not None:
            (parent, name), (other, new_name) = self._parent(old), self._parent(new)
            assert parent == other, "expected a rename within one folder: the model knows no other"
            self.add(Rename(parent, name, new_name, self._nodes[old]))
        real(source, target)

    _replace = _rename

    def _truncate(self, real: Any, file: Any, length: int) -> None:
        place = self._place(file)
        if place is not None:
            self.add(Resize(self._nodes[place], length))
        real(file, length)

    _ftruncate = _truncate

    def _fsync(self, real: Any, descriptor: int) -> None:
        place = self._place(descriptor)
        if place is not None:
            self.add(Sync(self._nodes[place]))


class _RecordedFile(io.FileIO):
    """A file whose every write is recorded with its offset."""

    def __init__(
        self, file: Any, mode: str, add: Callable[[Operation], None], node: Callable[[], int]
    ) -> None:
        super().__init__(file, mode)
        self._add, self._node = add, node()

    def write(self, content: Any) -> int:
        self._add(Write(self._node, self.tell(), bytes(content)))
        return super().write(content)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self._add(Resize(self._node, size))
        return super().truncate(size)
