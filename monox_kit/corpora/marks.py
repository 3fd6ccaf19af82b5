"""Digests and sizes of a corpus block by block, so that a later pass can be checked as it goes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

from monox_kit.corpora.rows import Meter, Start
from monox_kit.data import Document
from monox_kit.digest import RowDigest, encode_row


class DocumentDigest(RowDigest):
    """A running digest over documents, all five fields of each."""

    def add_document(self, document: Document) -> None:
        """Include the next document."""
        self.add_encoded(_encoded(document))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pass over a corpus can begin.

    Attributes:
        file: position of the file in `Corpus.files`.
        first_row: the corpus's row that is the file's first.
        start: the place in the file.
    """

    file: int
    first_row: int
    start: Start

    @property
    def row(self) -> int:
        """The corpus's row that reading begins with."""
        return self.first_row + self.start.row


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMark:
    """What a scan knows of one block of rows.

    Attributes:
        place: the last one at or before the block's first row.
        digest: `DocumentDigest` over the block's rows.
        text_bytes: UTF-8 bytes of the block's `ids`, `text`, `lang` (each row's language, its own
            or its file's) and, in a corpus of pairs, `text_pair`.
    """

    place: Place
    digest: str
    text_bytes: Mapping[str, int]


class Marks(Sequence[CorpusMark]):
    """The marks of a scan in 100 bytes each: a corpus may have a million blocks.

    As a sequence it makes each mark when it is asked for.
    """

    # File, its first row; row, line and offset of the start; digest; bytes of ids, text, languages
    # and pairs, -1 for a corpus without pairs.
    _FORM = struct.Struct("<iqqqq32sqqqq")

    def __init__(self, packed: bytes = b"") -> None:
        """Args: what `packed` gave.

        Raises:
            ValueError: it is not that.
        """
        if len(packed) % self._FORM.size:
            raise ValueError(f"{len(packed)} bytes, no multiple of {self._FORM.size}")
        self._packed = bytearray(packed)

    @property
    def packed(self) -> bytes:
        """All marks as bytes."""
        return bytes(self._packed)

    def append(self, mark: CorpusMark) -> None:
        """Add the mark of the next block."""
        place, sizes = mark.place, mark.text_bytes
        start = place.start
        numbers = (place.file, place.first_row, start.row, start.line, start.offset)
        texts = (sizes["ids"], sizes["text"], sizes["lang"], sizes.get("text_pair", -1))
        self._packed += self._FORM.pack(*numbers, bytes.fromhex(mark.digest), *texts)

    def __len__(self) -> int:
        return len(self._packed) // self._FORM.size

    @overload
    def __getitem__(self, index: int) -> CorpusMark: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CorpusMark]: ...
    def __getitem__(self, index: int | slice) -> CorpusMark | Sequence[CorpusMark]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index] * self._FORM.size
        file, first, row, line, offset, digest, *texts = self._FORM.unpack_from(self._packed, at)
        sizes = dict(zip(("ids", "text", "lang", "text_pair"), texts))
        if sizes["text_pair"] < 0:
            del sizes["text_pair"]
        place = Place(file, first, Start(row, line, offset))
        return CorpusMark(place=place, digest=digest.hex(), text_bytes=sizes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marks) and self._packed == other._packed

    __hash__ = None  # type: ignore[assignment]  # it grows


# Marks by the index of a block; those of a whole scan, or of some blocks.
MarksByIndex: TypeAlias = Mapping[int, CorpusMark] | Sequence[CorpusMark]


class Marker:
    """Digests every row of a scan, and leaves a mark after every block.

    Attributes:
        digest: over all rows so far.
        text_bytes: UTF-8 bytes of all texts and pairs so far.
        marks: of the blocks so far.
    """

    def __init__(self, block_rows: int | None) -> None:
        """Args: rows of a block; None leaves no marks."""
        self.digest = DocumentDigest()
        self._block = DocumentDigest()
        self._place: Place | None = None
        self.text_bytes = 0
        self.marks = Marks()
        self._block_rows = block_rows
        self._rows = 0
        self._ids = self._text = self._pair = self._lang = 0
        self._has_pairs = False

    def add(self, document: Document, language: str | None, meter: Meter) -> None:
        """Include the next row with its language; the meter tells where reading could begin."""
        text, pair = document.text, document.text_pair
        encoded = _encoded(document)
        self.digest.add_encoded(encoded)
        num_text, num_pair = _utf8_bytes(text), 0
        if pair is not None:
            self._has_pairs = True
            num_pair = _utf8_bytes(pair)
        self.text_bytes += num_text + num_pair
        if self._block_rows:
            if not self._rows:
                self._place = Place(meter.file, meter.first_row, meter.here)
            self._block.add_encoded(encoded)
            self._ids += _utf8_bytes(document.id)
            self._text += num_text
            self._pair += num_pair
            self._lang += _utf8_bytes(language or "")
            self._rows += 1
            if self._rows == self._block_rows:
                self.end_block()

    def end_block(self) -> None:
        """Mark the rows since the last mark, where there are any."""
        if self._place is not None:
            sizes = {"ids": self._ids, "text": self._text, "lang": self._lang}
            if self._has_pairs:
                sizes["text_pair"] = self._pair
            self.marks.append(
                CorpusMark(place=self._place, digest=self._block.hexdigest(), text_bytes=sizes)
            )
        self._block, self._place = DocumentDigest(), None
        self._rows = self._ids = self._text = self._pair = self._lang = 0


def _encoded(document: Document) -> bytes:
    return encode_row(document.id, document.text, document.text_pair, document.label, document.lang)


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
