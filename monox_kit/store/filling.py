"""Filling a begun store from a corpus: its rows again in windows, as the scan has found them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

from monox_kit.corpora.marks import DocumentDigest, MarksByIndex
from monox_kit.data import Document, LabelSet, Logits
from monox_kit.errors import CorpusError
from monox_kit.problem import Bools, problem_of
from monox_kit.store.builder import ShardBuilder
from monox_kit.store.format import ShardRange, text_fields
from monox_kit.store.writer import StoreWriter

# Texts of similar length are batched, and equal texts computed once, within a window. More rows
# hardly pad less; fewer keep less in memory. A window ends early after this many characters.
WINDOW_ROWS = 16_384
_WINDOW_CHARS = 1 << 25

# A document as it stands in its file, and the language that its column or its file tells.
DocumentWithLanguage: TypeAlias = tuple[Document, str | None]


@dataclass(frozen=True, slots=True)
class RowWindow:
    """Consecutive rows of one shard.

    Attributes:
        shard: the shard that they belong to.
        text_bytes: UTF-8 bytes of each text field in the whole shard, and of the rows' languages.
        documents: the rows, each with its language where it is known.
    """

    shard: ShardRange
    text_bytes: Mapping[str, int]
    documents: Sequence[Document]

    @property
    def starts_shard(self) -> bool:
        """Whether the shard's first row is among the rows."""
        return self.documents[0].row == self.shard.start

    @property
    def ends_shard(self) -> bool:
        """Whether the shard's last row is among the rows."""
        return self.documents[-1].row == self.shard.stop - 1


def row_windows(
    documents_from: Callable[[ShardRange], Iterator[DocumentWithLanguage]],
    missing: Iterable[ShardRange],
    marks: MarksByIndex,
    num_rows: int,
    changed: Callable[[], CorpusError],
) -> Iterator[RowWindow]:
    """The rows of every missing shard; a shard's last window comes only if all is as scanned.

    Args:
        documents_from: the corpus's documents from a shard's first row on, as they stand in its
            files, each with its language.
        missing: the shards, in order.
        marks: what the scan found of each shard's rows, by index.
        num_rows: rows of the corpus.
        changed: makes the error of a corpus that is not as it was scanned.

    Raises:
        CorpusError: the corpus has changed since the scan; shards before the change are kept.
    """
    documents: Iterator[DocumentWithLanguage] = iter(())
    next_row = -1
    for shard in missing:
        mark = marks[shard.index]
        if next_row != shard.start:
            documents = documents_from(shard)
        digest, next_row = DocumentDigest(), shard.start
        for rows in _parts(documents, shard):
            for document, _ in rows:
                digest.add_document(document)
            next_row += len(rows)
            if next_row == shard.stop:
                is_last = next_row == num_rows
                if digest.hexdigest() != mark.digest or (is_last and any(True for _ in documents)):
                    raise changed()
            yield RowWindow(shard, mark.text_bytes, [_in_language(*both) for both in rows])
        if next_row < shard.stop:
            raise changed()


def _in_language(document: Document, language: str | None) -> Document:
    """A document that names its language where it is known."""
    return document if document.lang == language else replace(document, lang=language)


def _parts(
    documents: Iterator[DocumentWithLanguage], shard: ShardRange
) -> Iterator[list[DocumentWithLanguage]]:
    """The shard's documents in lists within the limits of a window; fewer where the input ends."""
    part: list[DocumentWithLanguage] = []
    num_chars = 0
    for document, language in islice(documents, len(shard)):
        part.append((document, language))
        num_chars += len(document.text) + len(document.text_pair or "")
        if len(part) == WINDOW_ROWS or num_chars >= _WINDOW_CHARS or document.row == shard.stop - 1:
            yield part
            part, num_chars = [], 0
    if part:
        yield part


class ShardSink:
    """Puts windows with their logits into shards; a shard is committed with its last window.

    Use as a context manager: left by an error, the shard at hand is given up.
    """

    def __init__(self, writer: StoreWriter, labels: LabelSet, *, ignore_labels: bool) -> None:
        """Args: the store's writer, its labels, and whether gold labels are left out."""
        self._writer = writer
        self._problem = problem_of(labels)
        self._ignore_labels = ignore_labels
        self._open = ExitStack()
        self._builder: ShardBuilder | None = None

    def add(self, window: RowWindow, logits: Logits, recomputed: Bools) -> None:
        """Write one window, which follows the one before."""
        if window.starts_shard:
            fields = text_fields(self._writer.manifest)
            text_bytes = {field: window.text_bytes[field] for field in fields}
            self._builder = self._open.enter_context(self._writer.shard(window.shard, text_bytes))
        assert self._builder is not None  # a shard's first window comes first
        self._builder.append(
            logits=logits,
            documents=window.documents,
            labels=self._problem.encode(window.documents, "corpus", ignore=self._ignore_labels),
            recomputed=recomputed,
        )
        if window.ends_shard:
            self._builder = None
            self._open.close()

    def __enter__(self) -> ShardSink:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
