"""A corpus cut into windows of rows: read, compared with the scan, and tokenized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from monox_kit.corpora.corpus import Corpus
from monox_kit.corpora.marks import DocumentDigest, MarksByIndex
from monox_kit.data import Document
from monox_kit.errors import CorpusError
from monox_kit.models.scoring import Texts, tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import ShardRange

# Texts of similar length are batched, and equal texts computed once, within a window. More rows
# hardly pad less; fewer keep less in memory. A window ends early after this many characters.
WINDOW_ROWS = 16_384
_WINDOW_CHARS = 1 << 25


@dataclass(frozen=True, slots=True)
class ShardWindow:
    """Consecutive rows of one shard.

    Attributes:
        shard: the shard that they belong to.
        text_bytes: UTF-8 bytes of each text field in the whole shard.
        documents: the rows.
        texts: the same, tokenized.
    """

    shard: ShardRange
    text_bytes: Mapping[str, int]
    documents: Sequence[Document]
    texts: Texts

    @property
    def starts_shard(self) -> bool:
        """Whether the shard's first row is among the rows."""
        return self.documents[0].row == self.shard.start

    @property
    def ends_shard(self) -> bool:
        """Whether the shard's last row is among the rows."""
        return self.documents[-1].row == self.shard.stop - 1


def shard_windows(
    corpus: Corpus,
    missing: Iterable[ShardRange],
    marks: MarksByIndex,
    num_rows: int,
    tokenizer: Tokenizer,
) -> Iterator[ShardWindow]:
    """The rows of every missing shard; a shard's last window comes only if all is as scanned.

    Raises:
        CorpusError: the corpus has changed since the scan; shards before the change are kept.
    """
    documents: Iterator[Document] = iter(())
    next_row = -1
    for shard in missing:
        mark = marks[shard.index]
        if next_row != shard.start:
            documents = corpus.documents(mark.place)
            documents = islice(documents, shard.start - mark.place.row, None)
        digest, next_row = DocumentDigest(), shard.start
        for rows in _parts(documents, shard):
            for document in rows:
                digest.add_document(document)
            next_row += len(rows)
            if next_row == shard.stop:
                is_last = next_row == num_rows
                if digest.hexdigest() != mark.digest or (is_last and any(True for _ in documents)):
                    raise _changed(corpus, num_rows)
            yield ShardWindow(shard, mark.text_bytes, rows, tokenize(tokenizer, rows))
        if next_row < shard.stop:
            raise _changed(corpus, num_rows)


def _parts(documents: Iterator[Document], shard: ShardRange) -> Iterator[list[Document]]:
    """The shard's documents in lists within the limits of a window; fewer where the input ends."""
    part: list[Document] = []
    num_chars = 0
    for document in islice(documents, len(shard)):
        part.append(document)
        num_chars += len(document.text) + len(document.text_pair or "")
        if len(part) == WINDOW_ROWS or num_chars >= _WINDOW_CHARS or document.row == shard.stop - 1:
            yield part
            part, num_chars = [], 0
    if part:
        yield part


def _changed(corpus: Corpus, num_rows: int) -> CorpusError:
    return CorpusError(
        f"{', '.join(corpus.files)}: expected the {num_rows} rows that were checked before "
        "labelling, found other content. The corpus changed while it was labelled, or since the "
        "run that checked it: put it back, or run again with a new `store`."
    )
