"""Every byte and every value of a shard checked, in memory that does not grow with the shard."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from monox_kit.problem import Problem
from monox_kit.store.format import SHARD_FILE, ShardRange, StoreManifest, text_fields
from monox_kit.store.record import check_record, corrupt
from monox_kit.store.shard import Array, ShardFiles, ShardRecord, repair_step, text_error
from monox_kit.store.texts import decode_text, require_utf8

_BLOCK_BYTES = 4 << 20
_TEXT_ROWS = 4096


def check_shard(
    files: ShardFiles, manifest: StoreManifest, folder: Path, shard: ShardRange
) -> ShardRecord:
    """The shard's record after every byte and every value of the shard was checked.

    Args:
        files: access to the store's shards.
        manifest: the store's.
        folder: where the shard lies.
        shard: the rows that it must hold.

    Raises:
        StoreCorrupt: anything is not as recorded, or breaks a rule of the format.
        StorageError: the system refused to read a file.
    """
    record, step = files.read_record(folder, shard), repair_step(shard)
    extra = set(os.listdir(folder)) - record.files.keys() - {SHARD_FILE}
    if extra:
        raise corrupt(folder, "only the files of the format", repr(min(extra)), step)
    arrays = {
        name: files.map_array(folder, record, name, check_digest=True) for name in record.files
    }
    _check_rows(folder, shard, arrays["rows.npy"])
    _check_logits(folder, shard, arrays["logits.npy"])
    _check_labels(folder, record, arrays["labels.npy"], manifest.problem)
    _check_recomputed(folder, record, arrays["recomputed.npy"])
    for field in text_fields(manifest):
        offsets, content = arrays[f"{field}_offsets.npy"], arrays[f"{field}.npy"]
        _check_text(folder, shard, field, offsets, content)
    return record


def _blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """The first row and the values of each block of a mapped array, in order."""
    size = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
    for first in range(0, len(array), size):
        yield first, array[first : first + size]
        _release(array)


def _release(array: Array) -> None:
    """Take a mapped array's pages out of this process's memory; they come back when needed."""
    mapped: object = array.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _check_rows(folder: Path, shard: ShardRange, rows: Array) -> None:
    for first, block in _blocks(rows):
        start = shard.start + first
        if not np.array_equal(block, np.arange(start, start + len(block), dtype=np.int64)):
            wanted = f"the rows {shard.start} to {shard.stop - 1} in order"
            raise corrupt(folder / "rows.npy", wanted, "others", repair_step(shard))


def _check_logits(folder: Path, shard: ShardRange, logits: Array) -> None:
    for first, block in _blocks(logits):
        finite = np.isfinite(block)
        if not finite.all():
            row = shard.start + first + int(np.argmin(finite.all(axis=1)))
            step = repair_step(shard)
            raise corrupt(folder / "logits.npy", "finite logits", f"others in row {row}", step)


def _check_labels(folder: Path, record: ShardRecord, labels: Array, problem: Problem) -> None:
    found, step = 0, repair_step(record.shard)
    for first, block in _blocks(labels):
        valid = problem.are_valid(block)
        if not valid.all():
            others = f"others in row {record.shard.start + first + int(np.argmin(valid))}"
            raise corrupt(folder / "labels.npy", problem.wanted_labels, others, step)
        found += int(np.count_nonzero(problem.are_given(block)))
    check_record(folder / SHARD_FILE, "num_labelled", found, record.num_labelled, step)


def _check_recomputed(folder: Path, record: ShardRecord, recomputed: Array) -> None:
    found, step = 0, repair_step(record.shard)
    for first, block in _blocks(recomputed):
        if (block > 1).any():
            row = record.shard.start + first + int(np.argmax(block > 1))
            raise corrupt(folder / "recomputed.npy", "0 or 1", f"another value in row {row}", step)
        found += int(np.count_nonzero(block))
    check_record(folder / SHARD_FILE, "num_recomputed", found, record.num_recomputed, step)


def _check_text(
    folder: Path, shard: ShardRange, field: str, offsets: Array, content: Array
) -> None:
    last, is_ascending = 0, offsets[0] == 0
    for _, block in _blocks(offsets):
        # Neighbours are compared: their difference may overflow into a positive one.
        is_ascending &= block[0] >= last and bool((block[1:] >= block[:-1]).all())
        last = int(block[-1])
    if not is_ascending or last != len(content):
        wanted = f"ascending offsets from 0 to {len(content)}"
        raise corrupt(folder / f"{field}_offsets.npy", wanted, "others", repair_step(shard))
    for first in range(0, len(shard), _TEXT_ROWS):
        bounds = offsets[first : first + _TEXT_ROWS + 1]
        try:
            require_utf8(content, bounds)
        except ValueError as error:
            path = folder / f"{field}.npy"
            at, reason = _first_wrong(bounds, content) or (0, error)
            raise text_error(path, shard.start + first + at, shard, reason) from error
        _release(content)
        _release(offsets)


def _first_wrong(offsets: Array, content: Array) -> tuple[int, ValueError] | None:
    """The first of some texts that is wrong, and why."""
    for at in range(len(offsets) - 1):
        try:
            decode_text(content, int(offsets[at]), int(offsets[at + 1]))
        except ValueError as error:
            return at, error
    return None
