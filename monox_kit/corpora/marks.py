"""Digests and sizes of a corpus block by block, so that a later pass can be checked as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monox_kit.data import Document
from monox_kit.digest import RowDigest


class DocumentDigest(RowDigest):
    """A running digest over documents, all five fields of each."""

    def add_document(self, document: Document) -> None:
        """Include the next document."""
        self.add(document.id, document.text, document.text_pair, document.label, document.lang)


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMark:
    """What a scan knows of one block of rows.

    Attributes:
        digest: `DocumentDigest` over all rows of the corpus up to the end of the block.
        text_bytes: UTF-8 bytes of the block's `ids`, `text` and, in a corpus of pairs,
            `text_pair`.
    """

    digest: str
    text_bytes: Mapping[str, int]


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
        self.text_bytes = 0
        self.marks: list[CorpusMark] = []
        self._block_rows = block_rows
        self._rows = 0
        self._ids = self._text = self._pair = 0
        self._has_pairs = False

    def add(self, document: Document) -> None:
        """Include the next row."""
        text, pair = document.text, document.text_pair
        self.digest.add_document(document)
        num_text, num_pair = _utf8_bytes(text), 0
        if pair is not None:
            self._has_pairs = True
            num_pair = _utf8_bytes(pair)
        self.text_bytes += num_text + num_pair
        if self._block_rows:
            self._ids += _utf8_bytes(document.id)
            self._text += num_text
            self._pair += num_pair
            self._rows += 1
            if self._rows == self._block_rows:
                self.end_block()

    def end_block(self) -> None:
        """Mark the rows since the last mark, where there are any."""
        if self._rows:
            sizes = {"ids": self._ids, "text": self._text}
            if self._has_pairs:
                sizes["text_pair"] = self._pair
            self.marks.append(CorpusMark(digest=self.digest.hexdigest(), text_bytes=sizes))
        self._rows = self._ids = self._text = self._pair = 0


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
