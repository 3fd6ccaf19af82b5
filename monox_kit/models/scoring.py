"""Logits for documents, in order, from any backend: what labelling, evaluation and checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from monox_kit.data import Classifier, Document, Int64s, Logits, TokenBatch
from monox_kit.errors import CorpusError, ModelError, MonoxError, NotFinite, first_line
from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.long_texts import HEAD, Long, reduced
from monox_kit.models.tokenizer import Encoded, Tokenizer
from monox_kit.models.tokenizer_files import Padding
from monox_kit.progress import Progress
from monox_kit.results import Result

# Padded tokens per batch. On CPUs larger batches leave the cache and run slower, see
# benchmarks/LOG.md; a GPU wants 32 times as many.
DEFAULT_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Truncation(Result):
    """What the cut took from some rows.

    Attributes:
        num_rows: all of them.
        num_truncated_rows: those that lost tokens.
        num_truncated_tokens: the tokens that they lost; see `Encoded.truncated`.
        num_tokens: those of all rows before the cut.
    """

    num_rows: int = 0
    num_truncated_rows: int = 0
    num_truncated_tokens: int = 0
    num_tokens: int = 0

    @classmethod
    def of(cls, truncated: Int64s, lengths: Int64s) -> Truncation:
        """Of N rows, by the tokens [N] that each lost and those [N] that each kept."""
        lost = int(truncated.sum())
        return cls(len(truncated), int((truncated > 0).sum()), lost, lost + int(lengths.sum()))

    def __add__(self, other: Truncation) -> Truncation:
        return Truncation(
            self.num_rows + other.num_rows,
            self.num_truncated_rows + other.num_truncated_rows,
            self.num_truncated_tokens + other.num_truncated_tokens,
            self.num_tokens + other.num_tokens,
        )

    def tell(self, progress: Progress, max_length: int, rows: str = "rows") -> None:
        """Say how many rows were truncated, and which shares; nothing where none were."""
        if not self.num_truncated_rows:
            return
        progress.note(
            f"{self.num_truncated_rows:,} of {self.num_rows:,} {rows} were truncated to "
            f"{max_length} tokens and lost {self.num_truncated_tokens:,} tokens: "
            f"{self.num_truncated_rows / self.num_rows:.1%} of the rows, "
            f"{self.num_truncated_tokens / max(self.num_tokens, 1):.1%} of the tokens; "
            "`max_length` sets the limit, `long` says what is read of such texts"
        )


@dataclass(frozen=True, slots=True)
class Texts:
    """N documents, tokenized; equal ones stand once.

    Attributes:
        encoded: the M distinct texts or pairs.
        distinct: [N] int64, which of them each document is.
        padding: how a batch is filled.
        rows: [N] int64, where each document stands in its corpus, for messages.
        long: how logits of a text's windows become its own, where it has some.
    """

    encoded: Encoded
    distinct: Int64s
    padding: Padding
    rows: Int64s
    long: Long = HEAD

    @property
    def truncation(self) -> Truncation:
        """What the cut took from the documents."""
        return Truncation.of(self.encoded.truncated[self.distinct], self.document_lengths)

    def __len__(self) -> int:
        return len(self.distinct)

    @property
    def document_lengths(self) -> Int64s:
        """[N] int64, the number of tokens of each document, over all of its windows."""
        return self.encoded.text_lengths[self.distinct]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What one batch was.

    Attributes:
        num_rows: documents that it settled, equal ones included; one that is read in windows
            counts with its first.
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
        truncated: [N] int64, tokens that the cut took from each document.
        document_lengths: [N] int64, tokens of each document that were read.
    """

    logits: Logits
    num_tokens: int
    num_padded_tokens: int
    num_repeated: int
    truncated: Int64s
    document_lengths: Int64s

    @property
    def truncation(self) -> Truncation:
        """What the cut took from the documents."""
        return Truncation.of(self.truncated, self.document_lengths)


def tokenize(tokenizer: Tokenizer, documents: Sequence[Document]) -> Texts:
    """N documents as the tokens of the distinct ones among them.

    Raises:
        ConfigError: pairs are to be read in windows.
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
    encoded = tokenizer.encode([text for text, _ in first], pairs)
    rows = np.fromiter((document.row for document in documents), np.int64, len(documents))
    return Texts(encoded, distinct, tokenizer.padding, rows, tokenizer.long)


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

    Raises:
        ModelError: the model breaks off, or gives logits of another shape or that are not finite;
            the message names the rows.
    """
    wanted = texts.distinct if rows is None else texts.distinct[rows]
    chosen, first, inverse, counts = np.unique(
        wanted, return_index=True, return_inverse=True, return_counts=True
    )
    # Of equal documents the first one, for messages.
    places = (texts.rows if rows is None else texts.rows[rows])[first]
    encoded = texts.encoded
    # The rows of tokens, and which of the chosen texts each is of.
    token_rows, owners = encoded.rows_of(chosen)
    logits = np.empty((len(token_rows), len(classifier.labels)), np.float32)
    settles = np.where(np.diff(owners, prepend=-1) > 0, counts[owners], 0)
    padded = 0

    def run(batch_rows: Int64s) -> BatchDone:
        batch = pad_batch(encoded, token_rows[batch_rows], texts.padding)
        logits[batch_rows] = checked_logits(classifier, batch, places[owners[batch_rows]])
        settled = int(settles[batch_rows].sum())
        return BatchDone(settled, batch.num_tokens, batch.input_ids.size)

    with _running(classifier.concurrency, run) as start:
        for done in start(plan_batches(encoded.lengths[token_rows], batch_tokens)):
            padded += done.num_padded_tokens
            if on_batch is not None:
                on_batch(done)
    num_tokens, num_repeated = int(encoded.lengths[token_rows].sum()), len(wanted) - len(chosen)
    if encoded.windows is not None:
        logits = reduced(logits, encoded.windows[chosen], texts.long, classifier.labels)
    kept = (encoded.truncated[wanted], encoded.text_lengths[wanted])
    return Scored(logits[inverse], num_tokens, padded, num_repeated, *kept)


def checked_logits(classifier: Classifier, batch: TokenBatch, rows: Int64s) -> Logits:
    """[B, C] finite float32 logits of a batch: the one place where logits come in.

    Args:
        classifier: either backend.
        batch: of B texts.
        rows: [B] int64, where these stand in their corpus.

    Raises:
        ModelError: the model breaks off, or gives logits of another shape.
        NotFinite: some are NaN or infinite.
    """
    try:
        logits = classifier.logits(batch)
    except MonoxError:
        raise
    except Exception as error:  # whatever a model's own code or a runtime raises
        raise ModelError(
            f"{_shown_rows(rows)}: the model broke off on a batch of {len(rows)} texts, up to "
            f"{batch.input_ids.shape[1]} tokens each: {type(error).__name__}: {first_line(error)}. "
            "Give a smaller `batch_tokens` if memory ran out; else look for what sets these rows "
            "apart."
        ) from error
    wanted = (len(rows), len(classifier.labels))
    if logits.shape != wanted:
        raise ModelError(
            f"{_shown_rows(rows)}: expected logits of shape {list(wanted)}, texts by labels, found "
            f"{list(logits.shape)}. Export the model with a dynamic batch axis, with one column "
            "for each label."
        )
    broken = ~np.isfinite(logits).all(axis=1)
    if broken.any():
        found = np.asarray(logits)[broken][0].tolist()
        raise NotFinite(
            f"{_shown_rows(rows[broken])}: expected finite logits, found {found[:8]}. Check the "
            "model's weights, or use a higher precision."
        )
    return logits


def _shown_rows(rows: Int64s, most: int = 8) -> str:
    """Such as `rows 3, 7, 9`."""
    ordered = sorted(rows.tolist())
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"row{'s' * (len(ordered) > 1)} {', '.join(map(str, ordered[:most]))}{more}"


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
