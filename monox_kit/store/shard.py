"""Reading the shards of one store: records, mapped arrays, and what is checked about them."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    text_fields,
)
from monox_kit.store.record import (
    DIGEST_KEY,
    check_record,
    corrupt,
    open_plain,
    plain_size,
    raise_unreadable,
    read_record,
    typed,
)

_KEYS = frozenset(
    {
        "format_version",
        "store",
        "index",
        "start",
        "stop",
        "num_labelled",
        "num_recomputed",
        "files",
    }
)
_FILE_KEYS = {"bytes", "sha256"}
_UTF8_ROWS = 4096  # texts decoded at once while checking

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 of one file of a shard."""

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
        self._manifest = manifest
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

    def read_record(self, folder: Path, shard: ShardRange) -> ShardRecord:
        """The shard's record, its own digest checked, and every file found with its exact size.

        Raises:
            StoreCorrupt: the record or a file is absent, damaged or of another store or shard.
        """
        path, step = folder / SHARD_FILE, repair_step(shard)
        _require_real_folder(folder, step)
        value = read_record(path, _KEYS, FORMAT_VERSION, step)
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
            num_bytes = typed(entry, "bytes", int, path, step)
            if num_bytes < HEADER_BYTES or exact not in (None, num_bytes):
                least = exact or f"at least {HEADER_BYTES}"
                raise corrupt(path, f"{least} bytes of {name}", str(num_bytes), step)
            _require_size(f"{folder}/{name}", num_bytes, step)
            files[name] = FileRecord(num_bytes, typed(entry, "sha256", str, path, step))
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
        with open_plain(path, step) as stream:
            _require_size(path, file.num_bytes, step)
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

    def check(self, folder: Path, shard: ShardRange) -> ShardRecord:
        """The shard's record after every byte and every value of the shard was checked.

        Raises:
            StoreCorrupt: anything is not as recorded, or breaks a rule of the format.
        """
        record, step = self.read_record(folder, shard), repair_step(shard)
        extra = set(os.listdir(folder)) - record.files.keys() - {SHARD_FILE}
        if extra:
            raise corrupt(folder, "only the files of the format", repr(min(extra)), step)
        arrays = {
            name: self.map_array(folder, record, name, check_digest=True) for name in record.files
        }
        rows = np.arange(shard.start, shard.stop, dtype=np.int64)
        if not np.array_equal(arrays["rows.npy"], rows):
            wanted = f"the rows {shard.start} to {shard.stop - 1} in order"
            raise corrupt(folder / "rows.npy", wanted, "others", step)
        finite = np.isfinite(arrays["logits.npy"]).all(axis=1)
        if not finite.all():
            row = shard.start + int(np.argmin(finite))
            raise corrupt(folder / "logits.npy", "finite logits", f"others in row {row}", step)
        self._check_labels(folder, record, arrays["labels.npy"])
        _check_recomputed(folder, record, arrays["recomputed.npy"])
        for field in text_fields(self._manifest):
            offsets, content = arrays[f"{field}_offsets.npy"], arrays[f"{field}.npy"]
            _check_text(folder, shard, field, offsets, content)
        return record

    def _check_labels(self, folder: Path, record: ShardRecord, labels: Array) -> None:
        step, num_classes = repair_step(record.shard), self._manifest.num_classes
        if ((labels < -1) | (labels >= num_classes)).any():
            wanted = f"labels from -1 to {num_classes - 1}"
            raise corrupt(folder / "labels.npy", wanted, "others", step)
        found = int((labels >= 0).sum())
        check_record(folder / SHARD_FILE, "num_labelled", found, record.num_labelled, step)


def repair_step(shard: ShardRange) -> str:
    """What the user should do about a damaged shard."""
    return (
        f"Delete shards/{shard.name} (and complete.json, if there is one) and run "
        "`monoxkit label` again; finished shards are kept."
    )


def decode_text(content: Array, start: int, stop: int) -> str:
    """The text in bytes [start, stop) of a shard's `content`.

    Raises:
        ValueError: there are no such bytes, or they are not UTF-8. Callers name file and row.
    """
    if not 0 <= start <= stop <= len(content):
        raise ValueError(f"offsets {start} and {stop} into {len(content)} bytes")
    return content[start:stop].tobytes().decode()


def text_error(path: Path, row: int, shard: ShardRange, error: ValueError) -> StoreCorrupt:
    """The error for a text that `decode_text` refused."""
    return corrupt(path, f"UTF-8 text in row {row}", str(error), repair_step(shard))


def _check_recomputed(folder: Path, record: ShardRecord, recomputed: Array) -> None:
    step = repair_step(record.shard)
    if (recomputed > 1).any():
        row = record.shard.start + int(np.argmax(recomputed > 1))
        raise corrupt(folder / "recomputed.npy", "0 or 1", f"another value in row {row}", step)
    found = int(recomputed.sum(dtype=np.int64))
    check_record(folder / SHARD_FILE, "num_recomputed", found, record.num_recomputed, step)


def _check_text(
    folder: Path, shard: ShardRange, field: str, offsets: Array, content: Array
) -> None:
    where, step = folder / f"{field}_offsets.npy", repair_step(shard)
    # Neighbours are compared: their difference may overflow into a positive one.
    is_ascending = (offsets[1:] >= offsets[:-1]).all()
    if offsets[0] != 0 or offsets[-1] != len(content) or not is_ascending:
        wanted = f"ascending offsets from 0 to {len(content)}"
        raise corrupt(where, wanted, "others", step)
    for first in range(0, len(shard), _UTF8_ROWS):
        bounds = offsets[first : first + _UTF8_ROWS + 1]
        block = content[bounds[0] : bounds[-1]]
        starts = bounds[:-1][np.diff(bounds) > 0] - bounds[0]
        # Valid as a whole and no row begins within a character: then every row is valid.
        inside = (block[starts] & 0xC0) == 0x80
        try:
            str(block.data, "utf-8")
            whole = not inside.any()
        except UnicodeDecodeError:
            whole = False
        if not whole:  # find the row: a concatenation is only invalid where a part is
            for at in range(first, first + len(bounds) - 1):
                try:
                    decode_text(content, int(offsets[at]), int(offsets[at + 1]))
                except ValueError as error:
                    path = folder / f"{field}.npy"
                    raise text_error(path, shard.start + at, shard, error) from error


def _known(shape: tuple[int | None, ...], num_bytes: int) -> tuple[int, ...]:
    """The shape with its unknown length filled in."""
    return tuple(num_bytes if size is None else size for size in shape)


def _require_real_folder(folder: Path, step: str) -> None:
    try:
        mode = os.lstat(folder).st_mode
    except OSError as error:
        raise_unreadable(folder, error, step)
    if not stat.S_ISDIR(mode):
        raise corrupt(folder, "a folder", "a link or a file", step)


def _require_size(path: Path | str, num_bytes: int, step: str) -> None:
    found = plain_size(path, step)
    if found != num_bytes:
        cut = "The file was cut short. " if found < num_bytes else ""
        raise corrupt(path, f"{num_bytes} bytes", str(found), cut + step)
