"""A corpus cut into windows of rows: read, compared with the scan, and tokenized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from monox_kit.corpora.corpus import Corpus
from monox_kit.corpora.marks import MarksByIndex
from monox_kit.errors import CorpusError
from monox_kit.models.scoring import Texts, tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import ShardRange
from monox_kit.store.filling import DocumentWithLanguage, RowWindow, row_windows


@dataclass(frozen=True, slots=True)
class ShardWindow:
    """Consecutive rows of one shard.

    Attributes:
        rows: the documents.
        texts: the same, tokenized.
    """

    rows: RowWindow
    texts: Texts


def shard_windows(
    corpus: Corpus,
    missing: Iterable[ShardRange],
    marks: MarksByIndex,
    num_rows: int,
    tokenizer: Tokenizer,
) -> Iterator[ShardWindow]:
    """The rows of every missing shard, tokenized; see `row_windows`.

    Raises:
        CorpusError: the corpus has changed since the scan; shards before the change are kept.
    """

    def documents_from(shard: ShardRange) -> Iterator[DocumentWithLanguage]:
        place = marks[shard.index].place
        return islice(corpus.with_languages(place), shard.start - place.row, None)

    def changed() -> CorpusError:
        return CorpusError(
            f"{', '.join(corpus.files)}: expected the {num_rows} rows that were checked before "
            "labelling, found other content. The corpus changed while it was labelled, or since "
            "the run that checked it: put it back, or run again with a new `store`."
        )

    for rows in row_windows(documents_from, missing, marks, num_rows, changed):
        yield ShardWindow(rows, tokenize(tokenizer, rows.documents))
