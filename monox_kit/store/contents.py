"""A finished shard read from one row to another in parts, with everything checked on the way.

Digests are compared before any value is used, and the format's rules on the rows that are asked
for: reading a whole shard so is verifying it. The memory is that of a part.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from monox_kit.data import Document, Int64s, Logits
from monox_kit.errors import StoreCorrupt
from monox_kit.problem import Bools, Labels
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import HEADER_BYTES, SHARD_FILE, ShardRange, text_fields
from monox_kit.store.record import check_record, corrupt
from monox_kit.store.rules import VALUE_RULES, are_offsets, broken_rule
from monox_kit.store.shard import Array, ShardRecord, repair_step, text_error
from monox_kit.store.texts import decode_run, decode_text, require_utf8

# 4,096 texts of 10 KB are 40 MB.
_PART_ROWS = 4096


@dataclass(frozen=True, slots=True)
class TextBlock:
    """The texts of some rows in UTF-8, mapped.

    Attributes:
        content: the shard's bytes of text.
        offsets: [n + 1] int64, where each text begins in them, and where the last one ends.
    """

    content: Array
    offsets: Int64s

    def texts(self) -> list[bytes]:
        """Each text by itself, as a copy."""
        first = int(self.offsets[0])
        block = self.content[first : self.offsets[-1]].tobytes()
        return [block[start:stop] for start, stop in pairwise((self.offsets - first).tolist())]


@dataclass(frozen=True, slots=True)
class RowsPart:
    """n consecutive rows of a shard, as copies but for the texts.

    Attributes:
        rows: their positions in the store.
        logits: [n, C] float32.
        gold: the n rows' gold labels, in the form of `problem`.
        recomputed: [n] whether the fidelity guard recomputed the logits.
        texts: by text field, n texts.
    """

    rows: range
    logits: Logits
    gold: Labels
    recomputed: Bools
    texts: Mapping[str, TextBlock]


class ShardContents:
    """One finished shard with all of its files mapped, until the object is dropped.

    Attributes:
        record: the shard's record.
        arrays: by file, its mapped values.
    """

    def __init__(self, store: StoreFolder, shard: ShardRange) -> None:
        """Map every file and compare every digest.

        Raises:
            StoreCorrupt: a file is not as its record says.
            StorageError: the system refused to read a file.
        """
        self.record = store.read_shard(shard)
        self._shard = shard
        self._folder = store.shard_folder(shard)
        self._problem = store.manifest.problem
        self._fields = text_fields(store.manifest)
        self._language = store.manifest.language
        self.arrays = {
            name: store.shards.map_array(self._folder, self.record, name, check_digest=True)
            for name in self.record.files
        }

    def parts(self, first: int, stop: int) -> Iterator[RowsPart]:
        """The rows [first, stop) of the store, some thousand at a time.

        Raises:
            StoreCorrupt: a value breaks a rule of the format, or the values of the whole shard are
                not as many as its record counts.
        """
        num_labelled = num_recomputed = 0
        for start in range(first, stop, _PART_ROWS):
            part = self._part(range(start, min(start + _PART_ROWS, stop)))
            num_labelled += int(self._problem.are_given(part.gold).sum())
            num_recomputed += int(part.recomputed.sum())
            yield part
            for array in self.arrays.values():
                _release(array)
        if (first, stop) == (self._shard.start, self._shard.stop):
            path, step = self._folder / SHARD_FILE, repair_step(self._shard)
            check_record(path, "num_labelled", num_labelled, self.record.num_labelled, step)
            check_record(path, "num_recomputed", num_recomputed, self.record.num_recomputed, step)

    def require_utf8(self, part: RowsPart) -> None:
        """Check that the part's texts are UTF-8, without making them.

        Raises:
            StoreCorrupt: one is not.
        """
        for field in part.texts:
            self._decode(part, field, require_utf8)

    def documents(self, part: RowsPart, first_row: int) -> list[Document]:
        """The part's texts as documents of the rows from `first_row` on, without labels.

        Each has its language, where the store tells it.

        Raises:
            StoreCorrupt: a text is not UTF-8.
        """
        fields = {field: self._decode(part, field, decode_run) for field in part.texts}
        pairs = fields.get("text_pair", [None] * len(part.rows))
        languages = self.languages(part)
        rows = range(first_row, first_row + len(part.rows))
        return [
            Document(row=row, id=name, text=text, text_pair=pair, lang=lang)
            for row, name, text, pair, lang in zip(
                rows, fields["ids"], fields["text"], pairs, languages
            )
        ]

    def languages(self, part: RowsPart) -> list[str | None]:
        """The part's n languages; None for rows whose language nothing tells.

        Raises:
            StoreCorrupt: one is not UTF-8.
        """
        if "lang" not in part.texts:
            return [self._language] * len(part.rows)
        return [tag or None for tag in self._decode(part, "lang", decode_run)]

    def _decode(self, part: RowsPart, field: str, read: Callable[[Array, Int64s], Any]) -> Any:
        """What `read` makes of a field's texts."""
        block = part.texts[field]
        try:
            return read(block.content, block.offsets)
        except ValueError as error:
            at, reason = _first_wrong(block) or (0, error)
            path = self._folder / f"{field}.npy"
            raise text_error(path, part.rows[at], self._shard, reason) from error

    def _part(self, rows: range) -> RowsPart:
        at = slice(rows.start - self._shard.start, rows.stop - self._shard.start)
        values = {name: self.arrays[name][at] for name in VALUE_RULES}
        broken = broken_rule(values, rows, self._problem)
        if broken is not None:
            wanted = f"{broken.wanted} in row {rows[broken.at]}"
            raise self._corrupt(broken.file, wanted, "another value")
        texts = {}
        for field in self._fields:
            content, offsets = self.arrays[f"{field}.npy"], self.arrays[f"{field}_offsets.npy"]
            mine = slice(at.start, at.stop + 1)
            if not are_offsets(offsets, mine, len(content)):
                wanted = f"ascending offsets from 0 to {len(content)}"
                raise self._corrupt(f"{field}_offsets.npy", wanted, "others")
            texts[field] = TextBlock(content, offsets[mine])
        logits = values["logits.npy"].astype(np.float32)
        gold, recomputed = values["labels.npy"].copy(), values["recomputed.npy"].astype(np.bool_)
        return RowsPart(rows, logits, gold, recomputed, texts)

    def _corrupt(self, name: str, expected: str, found: str) -> StoreCorrupt:
        return corrupt(self._folder / name, expected, found, repair_step(self._shard))


def check_shard(store: StoreFolder, shard: ShardRange) -> ShardRecord:
    """The shard's record after every byte and every value of the shard was checked.

    Raises:
        StoreCorrupt: anything is not as recorded, or breaks a rule of the format.
        StorageError: the system refused to read a file.
    """
    return checked_contents(store, shard).record


def checked_contents(store: StoreFolder, shard: ShardRange) -> ShardContents:
    """The shard, of which every byte and every value was checked; see `check_shard`."""
    contents, folder = ShardContents(store, shard), store.shard_folder(shard)
    extra = set(os.listdir(folder)) - contents.record.files.keys() - {SHARD_FILE}
    if extra:
        wanted = "only the files of the format"
        raise corrupt(folder, wanted, repr(min(extra)), repair_step(shard))
    for part in contents.parts(shard.start, shard.stop):
        contents.require_utf8(part)
    return contents


def text_bytes(store: StoreFolder, shard: ShardRange, first: int, stop: int) -> dict[str, int]:
    """The UTF-8 bytes of each text field in the rows [first, stop) of a finished shard.

    Only offsets are read, and nothing for all of a shard's rows.

    Raises:
        StoreCorrupt: a file is not as its record says.
    """
    record = store.read_shard(shard)
    is_whole = (first, stop) == (shard.start, shard.stop)
    sizes = {}
    for field in text_fields(store.manifest):
        sizes[field] = record.files[f"{field}.npy"].num_bytes - HEADER_BYTES
        if not is_whole:
            offsets = store.shards.map_array(
                store.shard_folder(shard), record, f"{field}_offsets.npy", check_digest=True
            )
            sizes[field] = int(offsets[stop - shard.start] - offsets[first - shard.start])
    return sizes


def _release(array: Array) -> None:
    """Take a mapped array's pages out of this process's memory; they come back when needed."""
    mapped: object = array.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _first_wrong(block: TextBlock) -> tuple[int, ValueError] | None:
    """The first of some texts that is wrong, and why."""
    for at in range(len(block.offsets) - 1):
        try:
            decode_text(block.content, int(block.offsets[at]), int(block.offsets[at + 1]))
        except ValueError as error:
            return at, error
    return None
