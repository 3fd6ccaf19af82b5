"""A shard as one object: a magic, the length of shard.json, shard.json, the files one by one.

See docs/store-format.md. The files follow each other in the order in which the format lists them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from monox_kit.store.format import SHARD_FILE, ShardRange
from monox_kit.store.record import MAX_RECORD_BYTES, PlainFolder, corrupt
from monox_kit.store.shard import ShardFiles, ShardRecord

MAGIC = b"\x93MXSHARD"
_LENGTH_BYTES = 8
PREFIX_BYTES = len(MAGIC) + _LENGTH_BYTES


class ShardHead(NamedTuple):
    """The first part of a shard's object.

    Attributes:
        content: the bytes of `shard.json`.
        record: what they say.
    """

    content: bytes
    record: ShardRecord

    @property
    def num_bytes(self) -> int:
        """Bytes before the first file."""
        return PREFIX_BYTES + len(self.content)

    @property
    def object_bytes(self) -> int:
        """Bytes of the whole object."""
        return self.num_bytes + self.record.num_bytes


def pack_shard(folder: Path, record: ShardRecord, step: str) -> bytes:
    """The object of a shard that was committed to a folder; every file's digest is checked.

    Raises:
        StoreCorrupt: a file is not as the record says.
        StorageError: the system refused to read it.
    """
    with PlainFolder(folder, step) as opened:
        content = opened.read_small(SHARD_FILE)
        parts = [MAGIC, len(content).to_bytes(_LENGTH_BYTES, "little"), content]
        for name, file in record.files.items():
            with opened.open_file(name, file.num_bytes) as stream:
                part = stream.readall()
            _require_digest(folder / name, hashlib.sha256(part).hexdigest(), file.sha256, step)
            parts.append(part)
    return b"".join(parts)


def head_bytes(head: bytes, where: str, step: str) -> int:
    """The bytes before the first file, as the object's first `PREFIX_BYTES` tell.

    Raises:
        StoreCorrupt: it is no object of a shard.
    """
    if head[: len(MAGIC)] != MAGIC or len(head) < PREFIX_BYTES:
        raise corrupt(where, f"a shard's object, which begins with {MAGIC!r}", "none", step)
    length = int.from_bytes(head[len(MAGIC) : PREFIX_BYTES], "little")
    if length > MAX_RECORD_BYTES:
        wanted = f"a shard.json of at most {MAX_RECORD_BYTES} bytes"
        raise corrupt(where, wanted, f"one of {length}", step)
    return PREFIX_BYTES + length


def parse_head(
    head: bytes, num_bytes: int, *, files: ShardFiles, shard: ShardRange, where: str, step: str
) -> ShardHead:
    """The record of an object, its digest checked.

    Args:
        head: the object's first `head_bytes`, or as many as there are.
        num_bytes: of the whole object.
        files: access to the store's shards.
        shard: the rows that it must hold.
        where: the object, for messages.
        step: what the user should do about a damaged object, for messages.

    Raises:
        StoreCorrupt: the record is damaged or of another store or shard, or the object has
            another length than it says.
    """
    content = head[PREFIX_BYTES : head_bytes(head, where, step)]
    found = ShardHead(content, files.parse_record(content, f"{where}: {SHARD_FILE}", shard, step))
    if num_bytes != found.object_bytes:
        cut = "The object was cut short. " if num_bytes < found.object_bytes else ""
        raise corrupt(where, f"{found.object_bytes} bytes", str(num_bytes), cut + step)
    return found


def split_files(
    head: ShardHead, blocks: Iterable[bytes], where: str, step: str
) -> Iterator[tuple[str, bytes]]:
    """Names of the object's files with their next bytes; a file's digest is checked at its end.

    Args:
        head: of the object.
        blocks: all bytes after the head, cut anywhere.
        where: the object, for messages.
        step: what the user should do about a damaged object, for messages.

    Raises:
        StoreCorrupt: a file is not as the record says.
    """
    source, block = iter(blocks), memoryview(b"")
    for name, file in head.record.files.items():
        digest, missing = hashlib.sha256(), file.num_bytes
        while missing:
            block = block or memoryview(next(source, b""))
            if not block:
                found = str(file.num_bytes - missing)
                raise corrupt(f"{where}: {name}", f"{file.num_bytes} bytes", found, step)
            part, block = block[:missing], block[missing:]
            missing -= len(part)
            digest.update(part)
            yield name, bytes(part)
        _require_digest(f"{where}: {name}", digest.hexdigest(), file.sha256, step)


def _require_digest(where: Path | str, found: str, expected: str, step: str) -> None:
    if found != expected:
        raise corrupt(where, f"SHA-256 {expected[:16]}...", f"{found[:16]}...", step)
