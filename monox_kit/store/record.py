"""JSON records that notice their own damage, and the strict reading of small and mapped files.

A record is an indented JSON object. Its last key, `record_digest`, has a line of its own and holds
the SHA-256 of all bytes before that line: checking it needs no canonical form of JSON.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from monox_kit.digest import digest_bytes
from monox_kit.errors import StorageError, StoreCorrupt, StoreError

DIGEST_KEY = "record_digest"
# Above what a run writes (10,000 label names of 60 letters are 0.7 MB). Parsed, hostile JSON takes
# up to 31 bytes of memory for each of its own.
MAX_RECORD_BYTES = 1 << 20
_MAX_BRACKETS = 100_000
LATER_STEP = "Upgrade monoxkit: it was written by a later version."

T = TypeVar("T")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the value {name}")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):  # readers of JSON differ in which of two they take
        raise ValueError("a key that is given twice")
    return value


# Made once: a store may have 10,000 records to open.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_distinct
)


def encode_record(value: Mapping[str, Any], where: Path | str) -> bytes:
    """The bytes of a record's file.

    Raises:
        StoreError: a value is no JSON, or the record could not be read back: it is too large, or
            holds a key twice or too many objects and lists.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        body = (text.removesuffix("\n}") + ",\n").encode()
        content = body + _digest_lines(body)
        if len(content) <= MAX_RECORD_BYTES:
            _decoded(content)  # the reader has limits and dislikes of its own
    except (TypeError, ValueError, RecursionError) as error:
        found = str(error) or "too deep a nesting"
        raise StoreError(
            f"{where}: expected plain JSON values, found: {found}. Give text and finite numbers, "
            "fewer of them or less nested."
        ) from error
    if len(content) > MAX_RECORD_BYTES:
        raise StoreError(
            f"{where}: expected a record of at most {MAX_RECORD_BYTES} bytes, found "
            f"{len(content)}. Give fewer or shorter values."
        )
    return content


def read_record(path: Path, step: str) -> bytes:
    """The bytes of the record's file at `path`, for `parse_record`.

    Raises:
        StoreCorrupt: it is absent, not a plain file or too large to be one.
        StorageError: the system refused to read it.
    """
    with PlainFolder(path.parent, step, may_be_link=True) as folder:
        return folder.read_small(path.name)


def parse_record(
    content: bytes,
    path: Path | str,
    names: frozenset[str],
    version: int,
    step: str,
    *,
    oldest: int | None = None,
) -> dict[str, Any]:
    """The values of a record's file, `record_digest` included, which is checked.

    Args:
        content: the file's bytes.
        path: the file, for messages.
        names: exactly the keys that it must have, `DIGEST_KEY` among them.
        version: the latest `format_version` that it may state.
        step: what the user should do about a damaged file, for the message.
        oldest: the first that it may state; None for `version` alone.

    Raises:
        StoreError: the file states another format version.
        StoreCorrupt: anything else about it is not as written.
    """
    try:
        value = _decoded(content)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, "a JSON record", str(error) or "too deep a nesting", step) from error
    if not isinstance(value, dict):
        raise corrupt(path, "a JSON object", type(value).__name__, step)
    found = value.get("format_version")
    if type(found) is int and found > version:
        raise StoreError(f"{path}: expected format_version {version}, found {found}. {LATER_STEP}")
    if type(found) is not int or found < (oldest or version):
        check_record(path, "format_version", oldest or version, found, step)
    if value.keys() != names:
        missing, unknown = names - value.keys(), value.keys() - names
        what = f"no key {min(missing)!r}" if missing else f"an unknown key {min(unknown)!r}"
        raise corrupt(path, "the keys of the format", what, step)
    body = content[:-_DIGEST_BYTES]
    if content[-_DIGEST_BYTES:] != _digest_lines(body):
        raise corrupt(path, f"the content that {DIGEST_KEY} belongs to", "another", step)
    return value


def _decoded(content: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or holds what no record is written with.
    """
    if content.count(b"{") + content.count(b"[") > _MAX_BRACKETS:  # each costs time and memory
        raise ValueError(f"more than {_MAX_BRACKETS} objects and lists")
    if not content.strip(b"\0"):
        raise ValueError("zeros alone" if content else "an empty file")
    value = _DECODER.decode(content.decode())
    if b"\\u" in content:  # an escape may stand for half of a surrogate pair, which is no text
        json.dumps(value, ensure_ascii=False).encode()
    return value


def typed(value: Mapping[str, Any], key: str, kind: type[T], path: Path | str, step: str) -> T:
    """`value[key]`, which must be exactly of type `kind`.

    Raises:
        StoreCorrupt: it is of another type.
    """
    found = value[key]
    if type(found) is not kind:
        raise corrupt(path, f"{key} of type {kind.__name__}", repr(found)[:60], step)
    return found


def check_record(path: Path | str, key: str, expected: object, found: object, step: str) -> None:
    """Check one value of a record.

    Raises:
        StoreCorrupt: it is not the expected one, or of another type.
    """
    if type(found) is not type(expected) or found != expected:
        raise corrupt(path, f"{key} {expected!r}", repr(found)[:80], step)


def corrupt(path: Path | str, expected: str, found: str, step: str) -> StoreCorrupt:
    """The error for a file that is not as it was written."""
    return StoreCorrupt(f"{path}: expected {expected}, found {found}. {step}")


class PlainFolder:
    """A folder of a store, held open: its files are found by name inside it, links not followed.

    Use as a context manager. All files are surely those of one folder, and a name costs the system
    less than a path, of which a store of 10,000 shards would have it walk 90,000.

    Attributes:
        path: the folder, for messages.
    """

    __slots__ = ("_descriptor", "_step", "path")

    def __init__(self, path: Path | str, step: str, *, may_be_link: bool = False) -> None:
        """Open the folder.

        Args:
            path: the folder.
            step: what the user should do about a damaged file, for messages.
            may_be_link: whether `path` itself may be a link, as the user's own may.

        Raises:
            StoreCorrupt: it is absent, a link or no folder.
            StorageError: the system refused to open it.
        """
        self.path = path
        self._step = step
        try:
            # O_PATH needs no permission to list the folder, and is no opening to a file server.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._descriptor = os.open(path, flags if may_be_link else flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise corrupt(path, "a folder", "a link or a file", step) from error
            raise_unreadable(path, error, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def require_sizes(self, sizes: Mapping[str, int]) -> None:
        """Check that plain files of exactly these sizes in bytes, by name, are there.

        Raises:
            StoreCorrupt: one is absent, of another size, a link or another special file.
            StorageError: the system refused to look.
        """
        descriptor = self._descriptor
        for name, num_bytes in sizes.items():
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError as error:
                raise_unreadable(f"{self.path}/{name}", error, self._step)
            if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
                where, found = f"{self.path}/{name}", status.st_size
                _require_plain(where, status, self._step)
                cut = "The file was cut short. " if found < num_bytes else ""
                raise corrupt(where, f"{num_bytes} bytes", str(found), cut + self._step)

    def open_file(self, name: str, num_bytes: int) -> io.FileIO:
        """An unbuffered stream over a plain file of exactly this size.

        Raises:
            StoreCorrupt: it is absent, of another size, a link or another special file.
            StorageError: the system refused to look.
        """
        self.require_sizes({name: num_bytes})
        return open(self._open(name), "rb", buffering=0)

    def read_small(self, name: str) -> bytes:
        """The bytes of a record's file.

        Raises:
            StoreCorrupt: it is absent, not a plain file or too large to be one.
            StorageError: the system refused to read it.
        """
        descriptor = self._open(name)
        try:
            status = os.fstat(descriptor)
            _require_plain(f"{self.path}/{name}", status, self._step)
            if status.st_size > MAX_RECORD_BYTES:
                most = f"a record of at most {MAX_RECORD_BYTES} bytes"
                found = f"{status.st_size} bytes"
                raise corrupt(f"{self.path}/{name}", most, found, self._step)
            return os.read(descriptor, status.st_size)
        except OSError as error:
            raise_unreadable(f"{self.path}/{name}", error, self._step)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        """A descriptor to read the file by; neither a link is followed nor a pipe waited for."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            path = f"{self.path}/{name}"
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                _require_plain(path, status, self._step)
            raise_unreadable(path, error, self._step)


def _require_plain(path: str, status: os.stat_result, step: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        is_link = stat.S_ISLNK(status.st_mode)
        raise corrupt(path, "a plain file", "a link" if is_link else "something else", step)


def is_there(path: Path) -> bool:
    """Whether anything stands at `path`, a broken link too; unlike `os.path.lexists`, no guess.

    Raises:
        StorageError: the system refused to look.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise_unreadable(path, error, "")
    return True


def raise_unreadable(path: Path | str, error: OSError, step: str) -> NoReturn:
    """Raise what a failed look at a file of the store means.

    Raises:
        StoreCorrupt: the file is absent.
        StorageError: the system refused.
    """
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        raise corrupt(path, "the file", "none", step) from error
    raise StorageError(
        f"{path}: expected to read the file, found: {os.strerror(error.errno or 0)}. "
        "Check its permissions and the disk."
    ) from error


def _digest_lines(body: bytes) -> bytes:
    """The last two lines of a record's file, after `body`."""
    return f'  "{DIGEST_KEY}": "{digest_bytes(body)}"\n}}\n'.encode()


_DIGEST_BYTES = len(_digest_lines(b""))
