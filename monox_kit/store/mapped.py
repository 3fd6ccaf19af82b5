"""The arrays of a store's shards, mapped when they are first used and looked up by row."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np

from monox_kit.data import Int64s
from monox_kit.errors import StoreError, StoreIncomplete
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import ShardRange
from monox_kit.store.shard import Array, text_error
from monox_kit.store.texts import decode_run, decode_text, decode_texts

Places = Int64s | slice

# A batch of random rows has its texts in any shard. A record is about 3 KB in memory; each mapped
# file holds a descriptor.
_CACHED_RECORDS = 4096
_MOST_MAPPED_FILES = 16_384


class MappedArrays:
    """Reads values of rows; a file is checked and mapped when a first row of it is asked for.

    Every method raises what `array` and `shard_of` raise.
    """

    def __init__(self, folder: StoreFolder, done: frozenset[int], *, check_digests: bool) -> None:
        """Args: the store, its finished shards, and whether a file's SHA-256 is checked first."""
        self._folder = folder
        self._manifest = folder.manifest
        self._done = done
        self._check_digests = check_digests
        self._digested: set[tuple[int, str]] = set()
        self._record = lru_cache(_CACHED_RECORDS)(
            lambda index: folder.read_shard(folder.manifest.shard(index))
        )
        self._mapped = lru_cache(_num_mapped_files())(self._map_array)

    def array(self, index: int, name: str) -> Array:
        """The array of one file of finished shard number `index`.

        Raises:
            StoreCorrupt: the file is not as its record says.
            StorageError: the system refused to read it.
        """
        return self._mapped(index, name)

    def count(self, rows: Int64s | slice) -> int:
        """n, how many rows are asked for."""
        if isinstance(rows, slice):
            return len(range(*rows.indices(self._manifest.num_rows)))
        return len(rows)

    def text(self, field: str, row: int) -> str:
        """The field's text of one row."""
        shard = self.shard_of(row)
        at = row - shard.start
        offsets = self.array(shard.index, f"{field}_offsets.npy")
        content = self.array(shard.index, f"{field}.npy")
        try:
            return decode_text(content, int(offsets[at]), int(offsets[at + 1]))
        except ValueError as error:
            path = self._folder.shard_folder(shard) / f"{field}.npy"
            raise text_error(path, row, shard, error) from error

    def texts(self, field: str, rows: Int64s | slice) -> list[str]:
        """The field's texts of n rows."""
        out = [""] * self.count(rows)
        for where, shard, inside in self._parts(rows):
            offsets = self.array(shard.index, f"{field}_offsets.npy")
            content = self.array(shard.index, f"{field}.npy")
            try:
                if isinstance(inside, slice):
                    found = decode_run(content, offsets[inside.start : inside.stop + 1])
                else:
                    found = decode_texts(content, offsets[inside], offsets[inside + 1])
            except ValueError:
                # One of them is wrong; reading them one by one names it.
                at = range(len(shard))[inside] if isinstance(inside, slice) else inside.tolist()
                found = [self.text(field, shard.start + row) for row in at]
            if isinstance(where, slice):
                out[where] = found
            else:
                for place, text in zip(where.tolist(), found):
                    out[place] = text
        return out

    def text_bytes(self, field: str, rows: Int64s) -> int:
        """The UTF-8 bytes of the field's texts of n rows."""
        total = 0
        for _, shard, inside in self._parts(rows):
            offsets = self.array(shard.index, f"{field}_offsets.npy")
            starts = np.arange(len(shard))[inside]
            total += int((offsets[starts + 1] - offsets[starts]).sum())
        return total

    def gather(self, name: str, rows: Int64s | slice, out: Array) -> None:
        """Fill `out` [n, ...] with the array's values of n rows."""
        for where, shard, inside in self._parts(rows):
            out[where] = self.array(shard.index, name)[inside]

    def shard_of(self, row: int) -> ShardRange:
        """The finished shard that holds the row.

        Raises:
            StoreError: there is no such row.
            StoreIncomplete: its shard has not been labelled yet.
        """
        if not 0 <= row < self._manifest.num_rows:
            raise StoreError(
                f"{self._folder.path}: expected a row from 0 to {self._manifest.num_rows - 1}, "
                f"found {row}. Rows are positions in the corpus."
            )
        shard = self._manifest.shard(row // self._manifest.shard_rows)
        if shard.index not in self._done:
            raise StoreIncomplete(
                f"{self._folder.path}: expected row {row} to be labelled, found no shard "
                f"{shard.name}. Run the same `monoxkit label` command again to finish the store."
            )
        return shard

    def _parts(self, rows: Int64s | slice) -> Iterator[tuple[Places, ShardRange, Places]]:
        """What every shard has to give: the places in the result, the shard, the places in it."""
        size = self._manifest.shard_rows
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self._manifest.num_rows)
            if step == 1:
                for index in range(start // size, -(-stop // size) if stop > start else 0):
                    shard = self.shard_of(index * size)
                    first, last = max(start, shard.start), min(stop, shard.stop)
                    inside = slice(first - shard.start, last - shard.start)
                    yield slice(first - start, last - start), shard, inside
                return
            rows = np.arange(start, stop, step, dtype=np.int64)
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise StoreError(
                f"{self._folder.path}: expected whole-numbered rows [n], found {rows.dtype} "
                f"{rows.shape}. Give a one-dimensional integer array or a slice."
            )
        if not len(rows):
            return
        # In the files' order: what lies together is read together.
        order = np.argsort(rows, kind="stable")
        ordered = rows[order].astype(np.int64, copy=False)
        self.shard_of(int(ordered[0]))  # the extremes decide whether all rows exist
        self.shard_of(int(ordered[-1]))
        indices = ordered // size
        borders = np.flatnonzero(indices[1:] != indices[:-1]) + 1
        for first, last in pairwise([0, *borders.tolist(), len(rows)]):
            shard = self.shard_of(int(ordered[first]))
            yield order[first:last], shard, ordered[first:last] - shard.start

    def _map_array(self, index: int, name: str) -> Array:
        record = self._record(index)
        folder = self._folder.shard_folder(record.shard)
        fresh = self._check_digests and (index, name) not in self._digested
        array = self._folder.shards.map_array(folder, record, name, check_digest=fresh)
        self._digested.add((index, name))
        return array


def _num_mapped_files() -> int:
    """How many files to keep mapped: a quarter of the descriptors that the process may have."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    part = _MOST_MAPPED_FILES if most == resource.RLIM_INFINITY else most // 4
    return max(16, min(part, _MOST_MAPPED_FILES))
