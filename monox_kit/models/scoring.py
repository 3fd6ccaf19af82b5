"""Logits for documents, in order, from any backend: what labelling, evaluation and checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from monox_kit.data import Classifier, Document, Int64s, Logits
from monox_kit.errors import CorpusError
from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.tokenizer import Encoded, Tokenizer

# Padded tokens per batch. On CPUs larger batches leave the cache and run slower, see
# benchmarks/LOG.md; a GPU wants 32 times as many.
DEFAULT_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Texts:
    """N documents, tokenized; equal ones stand once.

    Attributes:
        encoded: the M distinct texts or pairs.
        distinct: [N] int64, which of them each document is.
        pad_id: the token that fills a batch.
    """

    encoded: Encoded
    distinct: Int64s
    pad_id: int

    def __len__(self) -> int:
        return len(self.distinct)

    @property
    def document_lengths(self) -> Int64s:
        """[N] int64, the number of tokens of each document."""
        return self.encoded.lengths[self.distinct]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What one batch was.

    Attributes:
        num_rows: documents that it settled, equal ones included.
        num_tokens: real tokens in it.
        num_padded_tokens: the same with padding.
    """

    num_rows: int
    num_tokens: int
    num_padded_tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What a pass over N documents gave.

    Attributes:
        logits: [N, C] float32, in the order of the documents.
        num_tokens: real tokens that went through the model; equal documents went once.
        num_padded_tokens: the same with padding.
        num_repeated: documents that an equal one had settled.
    """

    logits: Logits
    num_tokens: int
    num_padded_tokens: int
    num_repeated: int = 0


def tokenize(tokenizer: Tokenizer, documents: Sequence[Document]) -> Texts:
    """N documents as the tokens of the distinct ones among them.

    Raises:
        CorpusError: single texts and pairs are mixed.
    """
    num_pairs = sum(document.text_pair is not None for document in documents)
    if num_pairs not in (0, len(documents)):
        raise CorpusError(
            f"{len(documents)} documents: expected all or none to be text pairs, found "
            f"{num_pairs} pairs. Keep single texts and pairs in separate runs."
        )
    first: dict[tuple[str, str | None], int] = {}
    distinct = np.fromiter(
        (first.setdefault((d.text, d.text_pair), len(first)) for d in documents),
        np.int64,
        len(documents),
    )
    pairs = [pair or "" for _, pair in first] if num_pairs else None
    return Texts(tokenizer.encode([text for text, _ in first], pairs), distinct, tokenizer.pad_id)


def score_texts(
    classifier: Classifier,
    texts: Texts,
    *,
    rows: Int64s | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    on_batch: Callable[[BatchDone], None] | None = None,
) -> Scored:
    """Logits of tokenized documents, computed in batches of similar length, longest first.

    Args:
        classifier: either backend; as many batches run at once as it can take.
        texts: N documents.
        rows: [n] int64, the documents to score; None for all of them.
        batch_tokens: padded tokens per batch.
        on_batch: called in the caller's thread after every batch.
    """
    wanted = texts.distinct if rows is None else texts.distinct[rows]
    chosen, inverse, counts = np.unique(wanted, return_inverse=True, return_counts=True)
    logits = np.empty((len(chosen), len(classifier.labels)), np.float32)
    encoded = texts.encoded
    padded = 0

    def run(batch_rows: Int64s) -> BatchDone:
        batch = pad_batch(encoded, chosen[batch_rows], texts.pad_id)
        logits[batch_rows] = classifier.logits(batch)
        settled = int(counts[batch_rows].sum())
        return BatchDone(settled, batch.num_tokens, batch.input_ids.size)

    with _running(classifier.concurrency, run) as start:
        for done in start(plan_batches(encoded.lengths[chosen], batch_tokens)):
            padded += done.num_padded_tokens
            if on_batch is not None:
                on_batch(done)
    num_tokens = int(encoded.lengths[chosen].sum())
    return Scored(logits[inverse], num_tokens, padded, len(wanted) - len(chosen))


def score(
    classifier: Classifier,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    on_batch: Callable[[BatchDone], None] | None = None,
) -> Scored:
    """Logits of N documents, in their order; see `score_texts`.

    Raises:
        CorpusError: single texts and pairs are mixed.
    """
    texts = tokenize(tokenizer, documents)
    return score_texts(classifier, texts, batch_tokens=batch_tokens, on_batch=on_batch)


@contextmanager
def _running(
    concurrency: int, run: Callable[[Int64s], BatchDone]
) -> Iterator[Callable[[Sequence[Int64s]], Iterator[BatchDone]]]:
    """Yield a function that runs batches and gives each when it is done.

    Leaving the block early, by an error or a signal, starts no further batch.
    """
    if concurrency == 1:
        yield lambda batches: map(run, batches)
        return
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="batch")

    def start(batches: Sequence[Int64s]) -> Iterator[BatchDone]:
        for future in as_completed([pool.submit(run, batch) for batch in batches]):
            yield future.result()

    try:
        yield start
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
