"""What a store's rows are like: labels, confidence, precision, duplicates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monox_kit.data import UNKNOWN_LANGUAGE, Int64s
from monox_kit.problem import Problem
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result
from monox_kit.store.contents import RowsPart, ShardContents
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import ANSWERS_KEY, GUARD_PRECISION_KEY

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Quantiles are right to half a millionth of the range, in 8 MiB each, however many rows there are.
_BINS = 2**20
# A column of another meaning may hold a value for each row.
_MOST_LANGUAGES = 1000
OTHER_LANGUAGES = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCount:
    """Rows of one class.

    Attributes:
        label: its name.
        predicted: rows that the logits decide for the class: whose largest logit is its (the first
            class in a tie), or, of several labels a row, whose logit of the class is above 0.
        gold: rows that the corpus gives the label.
        agreeing: rows of which both hold.
    """

    label: str
    predicted: int
    gold: int
    agreeing: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageCount:
    """Rows of one language.

    Attributes:
        language: its tag; `und` for rows whose language nothing tells.
        num_rows: rows of it.
        num_labelled: rows of it with a gold label.
        num_agreeing: rows of it whose gold label is the predicted one.
        mean_confidence: as `StoreStats.confidence`, over its rows.
        labels: by class, in the order of the logits, the rows that the logits decide for it.
    """

    language: str
    num_rows: int
    num_labelled: int
    num_agreeing: int
    mean_confidence: float
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How a number is spread over the rows.

    Attributes:
        mean: over all rows.
        quantiles: by fraction (`0.05` to `0.95`), the least value that so many rows do not exceed,
            right to 2**-21 of the number's range.
    """

    mean: float
    quantiles: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreStats(Result):
    """What the rows of a store are like, as far as it is labelled.

    Attributes:
        path: the store's folder.
        complete: whether labelling has finished.
        num_rows: rows of the finished store.
        num_rows_done: rows that are there; everything below counts these.
        labels: by class, in the order of the logits.
        num_labelled: rows with a gold label.
        num_agreeing: rows whose gold label is the predicted one, of several labels all of them.
        agreement: the second over the first; None without gold labels.
        confidence: the largest softmax probability at T = 1, or, of several labels a row, the least
            over the classes of max(q_k, 1 - q_k); None without rows.
        entropy_nats: of the softmax at T = 1, or of all sigmoids together, in nats; None without
            rows.
        num_recomputed: rows whose logits the fidelity guard's fp32 graph gave, in fp32 or bf16.
        num_fast: rows whose logits the run's own graph gave.
        precision_rows: by precision, rows computed in it.
        num_duplicates: rows whose text, and pair if there is one, equal an earlier row's.
        languages: the most frequent first; the first 1,000 that occur, and `other` for those of
            more.
    """

    path: str
    complete: bool
    num_rows: int
    num_rows_done: int
    labels: tuple[LabelCount, ...]
    num_labelled: int
    num_agreeing: int
    agreement: float | None
    confidence: Spread | None
    entropy_nats: Spread | None
    num_recomputed: int
    num_fast: int
    precision_rows: Mapping[str, int]
    num_duplicates: int
    languages: tuple[LanguageCount, ...] = ()


def store_stats(folder: Path, progress: Progress | None = None) -> StoreStats:
    """Read a store, complete or not, and count.

    Every file's digest is checked on the way. Shards are read one at a time and in parts; what
    grows with the store is 8 bytes of memory a row, for the texts' digests: 8 GB for 10**9 rows.
    Digests have 64 bits: that two texts share one, and one too many counts as a duplicate, is
    expected N**2 / 2**65 times, once in 37 stores of 10**9 rows.

    Args:
        folder: the store's folder.
        progress: where progress is reported.

    Raises:
        StoreCorrupt: a file is not as its record says.
        StoreError: the folder is no store.
    """
    store = StoreFolder(folder)
    complete, totals = store.checked_complete()
    num_rows = totals.num_rows
    counts = _Counts(store.manifest.problem, num_rows)
    with (progress or Silent()).task("counting", num_rows, "rows") as task:
        for shard in totals.digests:
            contents = ShardContents(store, shard)
            for part in contents.parts(shard.start, shard.stop):
                counts.add(part, contents.languages(part))
                task.advance(len(part.rows))
    num_fast = num_rows - counts.num_recomputed
    precision_rows = {}
    if ANSWERS_KEY not in store.manifest.fingerprint:  # nothing was computed of what a file said
        precision = str(store.manifest.fingerprint.get("precision") or "unknown")
        precision_rows = {precision: num_fast}
    if counts.num_recomputed:
        again = str(store.manifest.fingerprint.get(GUARD_PRECISION_KEY, "fp32"))
        precision_rows[again] = precision_rows.get(again, 0) + counts.num_recomputed
    num_labelled, num_agreeing = counts.num_labelled, counts.num_agreeing
    return StoreStats(
        path=str(folder),
        complete=complete is not None,
        num_rows=store.manifest.num_rows,
        num_rows_done=num_rows,
        labels=tuple(
            LabelCount(
                label=name,
                predicted=int(counts.predicted[index]),
                gold=int(counts.gold[index]),
                agreeing=int(counts.agreeing[index]),
            )
            for index, name in enumerate(store.manifest.labels.names)
        ),
        num_labelled=num_labelled,
        num_agreeing=num_agreeing,
        agreement=num_agreeing / num_labelled if num_labelled else None,
        confidence=counts.confidence.spread(),
        entropy_nats=counts.entropy.spread(),
        num_recomputed=counts.num_recomputed,
        num_fast=num_fast,
        precision_rows=precision_rows,
        num_duplicates=counts.num_duplicates(),
        languages=counts.languages(),
    )


class _Counts:
    """Running counts over the rows of a store."""

    def __init__(self, problem: Problem, num_rows: int) -> None:
        self._problem = problem
        self.predicted = np.zeros(problem.num_classes, np.int64)
        self.gold = np.zeros(problem.num_classes, np.int64)
        self.agreeing = np.zeros(problem.num_classes, np.int64)
        self.num_labelled = self.num_agreeing = 0
        self.confidence = _Histogram(1.0)
        self.entropy = _Histogram(problem.max_entropy)
        self.num_recomputed = 0
        self._text_digests = np.empty(num_rows, np.uint64)
        self._num_texts = 0
        self._languages: dict[str, _OfLanguage] = {}

    def add(self, part: RowsPart, languages: Sequence[str | None]) -> None:
        """Count some rows, each in its language."""
        problem, predicted = self._problem, self._problem.decide(part.logits)
        self.predicted += problem.count(predicted)
        self.gold += problem.count(part.gold)
        self.agreeing += (problem.indicators(predicted) & problem.indicators(part.gold)).sum(axis=0)
        self.num_labelled += int(problem.are_given(part.gold).sum())
        agreeing, confidence = (
            problem.are_equal(predicted, part.gold),
            problem.confidence(part.logits),
        )
        self.num_agreeing += int(agreeing.sum())
        self.confidence.add(confidence)
        for tag, at in self._places(languages):
            found = self._languages.setdefault(tag, _OfLanguage(problem.num_classes))
            found.num_rows += len(at)
            found.num_labelled += int(problem.are_given(part.gold[at]).sum())
            found.num_agreeing += int(agreeing[at].sum())
            found.confidence += float(confidence[at].sum())
            found.labels += problem.count(predicted[at])
        self.entropy.add(problem.entropy(part.logits))
        self.num_recomputed += int(part.recomputed.sum())
        fields = [field for field in ("text", "text_pair") if field in part.texts]
        texts = zip(*(part.texts[field].texts() for field in fields))
        digests = b"".join(_short_digest(*text) for text in texts)
        until = self._num_texts + len(part.rows)
        self._text_digests[self._num_texts : until] = np.frombuffer(digests, np.uint64)
        self._num_texts = until

    def _places(self, languages: Sequence[str | None]) -> Iterator[tuple[str, Int64s]]:
        """Each language of some rows with their places."""
        places: dict[str, list[int]] = {}
        for at, tag in enumerate(languages):
            places.setdefault(tag or UNKNOWN_LANGUAGE, []).append(at)
        for name, found in places.items():
            is_kept = name in self._languages or len(self._languages) < _MOST_LANGUAGES
            yield name if is_kept else OTHER_LANGUAGES, np.array(found, np.int64)

    def languages(self) -> tuple[LanguageCount, ...]:
        """The rows by language, the most frequent first."""
        ordered = sorted(self._languages.items(), key=lambda each: (-each[1].num_rows, each[0]))
        return tuple(found.count(tag) for tag, found in ordered)

    def num_duplicates(self) -> int:
        """Rows whose texts an earlier row had. Orders the digests in place."""
        self._text_digests.sort()
        return int((self._text_digests[1:] == self._text_digests[:-1]).sum())


class _OfLanguage:
    """Running counts over the rows of a language; see `LanguageCount`."""

    def __init__(self, num_classes: int) -> None:
        self.num_rows = self.num_labelled = self.num_agreeing = 0
        self.confidence = 0.0
        self.labels = np.zeros(num_classes, np.int64)

    def count(self, language: str) -> LanguageCount:
        """What was counted."""
        return LanguageCount(
            language=language,
            num_rows=self.num_rows,
            num_labelled=self.num_labelled,
            num_agreeing=self.num_agreeing,
            mean_confidence=self.confidence / self.num_rows,
            labels=tuple(self.labels.tolist()),
        )


class _Histogram:
    """Numbers from 0 to `most`, as counts in narrow bins."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._counts = np.zeros(_BINS, np.int64)
        self._sum = 0.0
        self._least, self._largest = math.inf, -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count some numbers."""
        bins = np.clip(values / self._most * _BINS, 0, _BINS - 1).astype(np.int64)
        np.add.at(self._counts, bins, 1)
        self._sum += float(values.sum())
        self._least = min(self._least, float(values.min()))
        self._largest = max(self._largest, float(values.max()))

    def spread(self) -> Spread | None:
        """Mean and quantiles; None of nothing."""
        up_to = np.cumsum(self._counts)
        number = int(up_to[-1])
        if not number:
            return None
        quantiles = {}
        for fraction in QUANTILES:
            index = int(np.searchsorted(up_to, max(1, math.ceil(fraction * number))))
            middle = (index + 0.5) / _BINS * self._most
            quantiles[str(fraction)] = min(max(middle, self._least), self._largest)
        return Spread(mean=self._sum / number, quantiles=quantiles)


def _short_digest(text: bytes, pair: bytes = b"") -> bytes:
    """8 bytes that equal texts share."""
    content = len(text).to_bytes(8, "little") + text + pair
    return hashlib.blake2b(content, digest_size=8).digest()
