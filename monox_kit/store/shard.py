"""Reading the shards of one store: records, mapped arrays, and what is checked about them."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monox_kit.errors import StoreCorrupt
from monox_kit.store.format import (
    FORMAT_VERSION,
    HEADER_BYTES,
    SHARD_FILE,
    ShardRange,
    StoreManifest,
    array_bytes,
    array_header,
    array_layout,
)
from monox_kit.store.record import (
    DIGEST_KEY,
    PlainFolder,
    check_record,
    corrupt,
    parse_record,
    raise_unreadable,
    typed,
)

_KEYS = frozenset(
    ("format_version", "store", "index", "start", "stop", "num_labelled", "num_recomputed")
) | {"files", DIGEST_KEY}
_FILE_KEYS = {"bytes", "sha256"}

Array = npt.NDArray[Any]


class FileRecord(NamedTuple):
    """Size and SHA-256 of one file of a shard; a tuple, as opening a store makes 80,000 of them."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """The content of a `shard.json`.

    Attributes:
        shard: the rows that the shard holds.
        num_labelled: how many of them have a gold label.
        num_recomputed: how many have logits of the fidelity guard's reference graph.
        files: every array file's size and digest, by name.
        digest: over all of the above and the manifest's digest.
    """

    shard: ShardRange
    num_labelled: int
    num_recomputed: int
    files: Mapping[str, FileRecord]
    digest: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the shard's arrays, headers included."""
        return sum(file.num_bytes for file in self.files.values())


@dataclass(kw_only=True, slots=True)
class ShardTotals:
    """What the records of some shards come to, added one by one.

    A record takes 3.6 kB of memory, what is kept of it 0.3 kB: a store may have 1,000,000.

    Attributes:
        digests: of each shard's record, in the order in which they were added.
    """

    num_rows: int = 0
    num_labelled: int = 0
    num_recomputed: int = 0
    num_bytes: int = 0
    digests: dict[ShardRange, str] = field(default_factory=dict)

    def add(self, record: ShardRecord) -> None:
        """Count one more shard."""
        self.num_rows += len(record.shard)
        self.num_labelled += record.num_labelled
        self.num_recomputed += record.num_recomputed
        self.num_bytes += record.num_bytes
        self.digests[record.shard] = record.digest


def shard_json(
    manifest_digest: str,
    shard: ShardRange,
    num_labelled: int,
    num_recomputed: int,
    files: Mapping[str, FileRecord],
) -> dict[str, Any]:
    """The content of `shard.json`, its own digest aside."""
    return {
        "format_version": FORMAT_VERSION,
        "store": manifest_digest,
        "index": shard.index,
        "start": shard.start,
        "stop": shard.stop,
        "num_labelled": num_labelled,
        "num_recomputed": num_recomputed,
        "files": {
            name: {"bytes": file.num_bytes, "sha256": file.sha256} for name, file in files.items()
        },
    }


class ShardFiles:
    """Access to the shard folders of one store. Holds no open files itself.

    Every method takes the shard's folder, so that a folder under construction is read by the same
    code as a finished one.
    """

    def __init__(self, manifest: StoreManifest, manifest_digest: str) -> None:
        """Args: the store's manifest, and the `record_digest` of its file."""
        self._digest = manifest_digest
        # Only the last shard has another number of rows than the others.
        last = manifest.shard(manifest.num_shards - 1)
        self._layouts = {
            num_rows: array_layout(manifest, num_rows)
            for num_rows in {len(manifest.shard(0)), len(last)}
        }
        self._sizes = {
            num_rows: {
                name: None if None in shape else array_bytes(descr, _known(shape, 0))
                for name, (descr, shape) in layout.items()
            }
            for num_rows, layout in self._layouts.items()
        }

    def read_record(self, folder: Path | str, shard: ShardRange) -> ShardRecord:
        """The shard's record, its own digest checked, and every file found with its exact size.

        Raises:
            StoreCorrupt: the record or a file is absent, damaged or of another store or shard.
        """
        step = repair_step(shard)
        with PlainFolder(folder, step) as opened:
            content = opened.read_small(SHARD_FILE)
            record = self.parse_record(content, f"{folder}/{SHARD_FILE}", shard, step)
            opened.require_sizes({name: file.num_bytes for name, file in record.files.items()})
        return record

    def parse_record(self, content: bytes, path: str, shard: ShardRange, step: str) -> ShardRecord:
        """The record in the bytes of a `shard.json`, its own digest checked.

        Args:
            content: the bytes.
            path: where they come from, for messages.
            shard: the rows that it must be of.
            step: what the user should do about a damaged shard, for messages.

        Raises:
            StoreCorrupt: the record is damaged or of another store or shard.
        """
        value = parse_record(content, path, _KEYS, FORMAT_VERSION, step)
        check_record(path, "store", self._digest, value["store"], step)
        check_record(path, "index", shard.index, value["index"], step)
        check_record(path, "start", shard.start, value["start"], step)
        check_record(path, "stop", shard.stop, value["stop"], step)
        num_labelled = typed(value, "num_labelled", int, path, step)
        num_recomputed = typed(value, "num_recomputed", int, path, step)
        listed = typed(value, "files", dict, path, step)
        sizes = self._sizes[len(shard)]
        if listed.keys() != sizes.keys():
            odd = min(listed.keys() ^ sizes.keys())
            raise corrupt(path, f"the files {', '.join(sizes)}", f"a difference in {odd!r}", step)
        files = {}
        for name, exact in sizes.items():
            entry = listed[name]
            if type(entry) is not dict or entry.keys() != _FILE_KEYS:
                raise corrupt(path, f"bytes and sha256 of {name}", repr(entry)[:60], step)
            num_bytes, sha256 = entry["bytes"], entry["sha256"]
            if type(num_bytes) is not int or type(sha256) is not str:  # `typed` names which
                typed(entry, "bytes", int, path, step)
                typed(entry, "sha256", str, path, step)
            if num_bytes != exact and (exact is not None or num_bytes < HEADER_BYTES):
                least = exact or f"at least {HEADER_BYTES}"
                raise corrupt(path, f"{least} bytes of {name}", str(num_bytes), step)
            files[name] = FileRecord(num_bytes, sha256)
        return ShardRecord(shard, num_labelled, num_recomputed, files, value[DIGEST_KEY])

    def map_array(
        self, folder: Path, record: ShardRecord, name: str, *, check_digest: bool
    ) -> Array:
        """A read-only view of one array on disk; its size and header are checked first.

        Raises:
            StoreCorrupt: size, header or (with `check_digest`) any byte is not as recorded.
        """
        path, step, file = folder / name, repair_step(record.shard), record.files[name]
        descr, shape = self._layouts[len(record.shard)][name]
        exact = _known(shape, file.num_bytes - HEADER_BYTES)
        with PlainFolder(folder, step) as opened, opened.open_file(name, file.num_bytes) as stream:
            try:
                mapped = mmap.mmap(stream.fileno(), file.num_bytes, access=mmap.ACCESS_READ)
                # Read, not taken from the map: mapped pages stay in this process's memory.
                found = hashlib.file_digest(stream, "sha256").hexdigest() if check_digest else None
            except OSError as error:
                raise_unreadable(path, error, step)
        if mapped[:HEADER_BYTES] != array_header(descr, exact):
            wanted = f"the .npy header of {descr} {exact}"
            raise corrupt(path, wanted, "other bytes", step)
        if found is not None and found != file.sha256:
            raise corrupt(path, f"SHA-256 {file.sha256[:16]}...", f"{found[:16]}...", step)
        return np.ndarray(exact, descr, buffer=mapped, offset=HEADER_BYTES)


def repair_step(shard: ShardRange) -> str:
    """What the user should do about a damaged shard."""
    return (
        f"Delete shards/{shard.name} (and complete.json, if there is one) and run "
        "`monoxkit label` again; finished shards are kept."
    )


def text_error(path: Path, row: int, shard: ShardRange, error: ValueError) -> StoreCorrupt:
    """The error for a text that `decode_text` refused."""
    return corrupt(path, f"UTF-8 text in row {row}", str(error), repair_step(shard))


def _known(shape: tuple[int | None, ...], num_bytes: int) -> tuple[int, ...]:
    """The shape with its unknown length filled in."""
    return tuple(num_bytes if size is None else size for size in shape)
