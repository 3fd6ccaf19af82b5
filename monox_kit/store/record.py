"""JSON records that notice their own damage, and the strict reading of small and mapped files.

A record is an indented JSON object. Its last key, `record_digest`, has a line of its own and holds
the SHA-256 of all bytes before that line: checking it needs no canonical form of JSON.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from monox_kit.digest import digest_bytes
from monox_kit.errors import StorageError, StoreCorrupt, StoreError

DIGEST_KEY = "record_digest"
# Far above what a run writes (100,000 label names are 2 MB); keeps hostile files out of memory.
MAX_RECORD_BYTES = 4 << 20

T = TypeVar("T")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the value {name}")


# Made once: a store may have 10,000 records to open.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def encode_record(value: Mapping[str, Any], where: Path) -> bytes:
    """The bytes of a record's file.

    Raises:
        StoreError: a value is no JSON, or the record is too large to be read back.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        body = (text.removesuffix("\n}") + ",\n").encode()
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{where}: expected plain JSON values, found: {error}. Give text and finite numbers."
        ) from error
    content = body + _digest_lines(body)
    if len(content) > MAX_RECORD_BYTES:
        raise StoreError(
            f"{where}: expected a record of at most {MAX_RECORD_BYTES} bytes, found "
            f"{len(content)}. Give fewer or shorter values."
        )
    return content


def read_record(path: Path, names: frozenset[str], version: int, step: str) -> dict[str, Any]:
    """The values of a record's file, `record_digest` included, which is checked.

    Args:
        path: the file.
        names: exactly the keys that it must have, the digest's aside.
        version: the `format_version` that it must state.
        step: what the user should do about a damaged file, for the message.

    Raises:
        StoreError: the file states another format version.
        StoreCorrupt: anything else about it is not as written.
    """
    try:
        content = read_small(path, step)
        value = _DECODER.decode(content.decode())
    except (ValueError, RecursionError) as error:
        raise corrupt(path, "a JSON record", str(error) or "too deep a nesting", step) from error
    if not isinstance(value, dict):
        raise corrupt(path, "a JSON object", type(value).__name__, step)
    found = value.get("format_version")
    if type(found) is int and found > version:
        raise StoreError(
            f"{path}: expected format_version {version}, found {found}. "
            "Upgrade monoxkit: the store was written by a later version."
        )
    check_record(path, "format_version", version, found, step)
    missing, unknown = (names | {DIGEST_KEY}) - value.keys(), value.keys() - names - {DIGEST_KEY}
    if missing or unknown:
        what = f"no key {min(missing)!r}" if missing else f"an unknown key {min(unknown)!r}"
        raise corrupt(path, "the keys of the format", what, step)
    if content[-_DIGEST_BYTES:] != _digest_lines(content[:-_DIGEST_BYTES]):
        raise corrupt(path, f"the content that {DIGEST_KEY} belongs to", "another", step)
    return value


def typed(value: Mapping[str, Any], key: str, kind: type[T], path: Path, step: str) -> T:
    """`value[key]`, which must be exactly of type `kind`.

    Raises:
        StoreCorrupt: it is of another type.
    """
    found = value[key]
    if type(found) is not kind:
        raise corrupt(path, f"{key} of type {kind.__name__}", repr(found)[:60], step)
    return found


def check_record(path: Path, key: str, expected: object, found: object, step: str) -> None:
    """Check one value of a record.

    Raises:
        StoreCorrupt: it is not the expected one, or of another type.
    """
    if type(found) is not type(expected) or found != expected:
        raise corrupt(path, f"{key} {expected!r}", repr(found)[:80], step)


def corrupt(path: Path | str, expected: str, found: str, step: str) -> StoreCorrupt:
    """The error for a file that is not as it was written."""
    return StoreCorrupt(f"{path}: expected {expected}, found {found}. {step}")


def read_small(path: Path, step: str) -> bytes:
    """The bytes of a record's file.

    Raises:
        StoreCorrupt: it is absent, not a plain file or too large to be one.
        StorageError: the system refused to read it.
    """
    with open_plain(path, step) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            content = stream.read(min(size, MAX_RECORD_BYTES)) or b""
        except OSError as error:
            raise_unreadable(path, error, step)
    if size > MAX_RECORD_BYTES:
        most = f"a record of at most {MAX_RECORD_BYTES} bytes"
        raise corrupt(path, most, f"{size} bytes", step)
    return content


def open_plain(path: Path | str, step: str) -> io.FileIO:
    """An unbuffered stream over a plain file; links are not followed.

    Raises:
        StoreCorrupt: it is absent, a link, a folder or another special file.
        StorageError: the system refused to open it.
    """
    plain_size(path, step)
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise_unreadable(path, error, step)


def plain_size(path: Path | str, step: str) -> int:
    """The size of a plain file in bytes.

    Raises:
        StoreCorrupt: it is absent, a link, a folder or another special file.
        StorageError: the system refused to look.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise_unreadable(path, error, step)
    if not stat.S_ISREG(status.st_mode):
        is_link = stat.S_ISLNK(status.st_mode)
        raise corrupt(path, "a plain file", "a link" if is_link else "something else", step)
    return status.st_size


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
