"""A finished shard read from one row to another in parts, with everything checked on the way.

Digests are compared before any value is used, and the format's rules on the rows that are asked
for: reading a whole shard so is verifying it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from monox_kit.data import Document, Logits
from monox_kit.errors import StoreCorrupt
from monox_kit.problem import Bools, Labels
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import HEADER_BYTES, SHARD_FILE, ShardRange, text_fields
from monox_kit.store.record import check_record, corrupt
from monox_kit.store.shard import repair_step, text_error

# 4,096 texts of 10 KB are 40 MB.
_PART_ROWS = 4096


@dataclass(frozen=True, slots=True)
class RowsPart:
    """n consecutive rows of a shard, as copies.

    Attributes:
        rows: their positions in the store.
        logits: [n, C] float32.
        gold: the n rows' gold labels, in the form of `problem`.
        recomputed: [n] whether the fidelity guard recomputed the logits.
        texts: by text field, n texts in UTF-8.
    """

    rows: range
    logits: Logits
    gold: Labels
    recomputed: Bools
    texts: Mapping[str, Sequence[bytes]]


class ShardView:
    """One finished shard with all of its files mapped, until the object is dropped.

    Attributes:
        record: the shard's record.
    """

    def __init__(self, store: StoreFolder, shard: ShardRange) -> None:
        """Map every file and compare every digest.

        Raises:
            StoreCorrupt: a file is not as its record says.
        """
        self.record = store.read_shard(shard)
        self._shard = shard
        self._folder = store.shard_folder(shard)
        self._problem = store.manifest.problem
        self._fields = text_fields(store.manifest)
        self._arrays = {
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
            part = self._rows_part(range(start, min(start + _PART_ROWS, stop)))
            num_labelled += int(self._problem.are_given(part.gold).sum())
            num_recomputed += int(part.recomputed.sum())
            yield part
        if (first, stop) == (self._shard.start, self._shard.stop):
            path, step = self._folder / SHARD_FILE, repair_step(self._shard)
            check_record(path, "num_labelled", num_labelled, self.record.num_labelled, step)
            check_record(path, "num_recomputed", num_recomputed, self.record.num_recomputed, step)

    def documents(self, part: RowsPart, first_row: int) -> list[Document]:
        """The part's texts as documents of the rows from `first_row` on, without labels.

        Raises:
            StoreCorrupt: a text is not UTF-8.
        """
        ids, texts = self._decoded(part, "ids"), self._decoded(part, "text")
        pairs: Sequence[str | None] = [None] * len(texts)
        if "text_pair" in part.texts:
            pairs = self._decoded(part, "text_pair")
        return [
            Document(row=first_row + at, id=ids[at], text=texts[at], text_pair=pairs[at])
            for at in range(len(texts))
        ]

    def _rows_part(self, rows: range) -> RowsPart:
        at = slice(rows.start - self._shard.start, rows.stop - self._shard.start)
        logits = self._arrays["logits.npy"][at].astype(np.float32)
        gold = self._arrays["labels.npy"][at].copy()
        recomputed = self._arrays["recomputed.npy"][at]
        numbers = np.arange(rows.start, rows.stop)
        for name, good, wanted in (
            ("rows.npy", self._arrays["rows.npy"][at] == numbers, "the row's own number"),
            ("logits.npy", np.isfinite(logits).all(axis=1), "finite logits"),
            ("labels.npy", self._problem.are_valid(gold), self._problem.wanted_labels),
            ("recomputed.npy", recomputed <= 1, "0 or 1"),
        ):
            if not good.all():
                row = rows[int(np.argmin(good))]
                raise self._corrupt(name, f"{wanted} in row {row}", "another value")
        texts = {field: self._texts(field, rows) for field in self._fields}
        return RowsPart(rows, logits, gold, recomputed.astype(np.bool_), texts)

    def _texts(self, field: str, rows: range) -> list[bytes]:
        content = self._arrays[f"{field}.npy"]
        offsets = self._arrays[f"{field}_offsets.npy"]
        first = rows.start - self._shard.start
        mine = offsets[first : first + len(rows) + 1]
        bounds = np.concatenate([[0], offsets[:1], mine, offsets[-1:], [len(content)]])
        if (np.diff(bounds) < 0).any() or offsets[0] != 0 or offsets[-1] != len(content):
            wanted = f"ascending offsets from 0 to {len(content)}"
            raise self._corrupt(f"{field}_offsets.npy", wanted, "others")
        block = content[mine[0] : mine[-1]].tobytes()
        return [block[start:stop] for start, stop in pairwise((mine - mine[0]).tolist())]

    def _decoded(self, part: RowsPart, field: str) -> list[str]:
        texts = []
        for row, text in zip(part.rows, part.texts[field]):
            try:
                texts.append(text.decode())
            except UnicodeDecodeError as error:
                path = self._folder / f"{field}.npy"
                raise text_error(path, row, self._shard, error) from error
        return texts

    def _corrupt(self, name: str, expected: str, found: str) -> StoreCorrupt:
        return corrupt(self._folder / name, expected, found, repair_step(self._shard))


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
