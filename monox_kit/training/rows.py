"""Which rows a student learns from, and what each row's target is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple, Protocol

import numpy as np
import torch

from monox_kit.data import Document, Int64s, LabelSet, Logits
from monox_kit.errors import ConfigError
from monox_kit.problem import Labels, problem_of
from monox_kit.training.targets import Targets
from monox_kit.training.teachers import StoredTeacher

# Rows whose logits are read at once while rows are selected.
_BLOCK_ROWS = 65_536


class RowKey(NamedTuple):
    """What tells a row among others.

    Attributes:
        id: of its document.
        number: its position in its store or file.
        language: of its text; None where nothing tells it.
    """

    id: str
    number: int
    language: str | None


class TargetRows(Protocol):
    """Texts with targets, by position; nothing is read before it is asked for."""

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""

    def __len__(self) -> int: ...

    def texts(self, indices: Int64s) -> Sequence[str]:
        """B texts, or firsts of pairs."""

    def text_pairs(self, indices: Int64s) -> Sequence[str]:
        """B second texts of pairs."""

    def keys(self, indices: Int64s) -> Sequence[RowKey]:
        """Ids and languages of B rows."""

    def labels(self, indices: Int64s) -> Labels:
        """Labels of B rows, in the form of `problem`."""

    def teacher_logits(self, indices: Int64s) -> Logits | None:
        """[B, C] float32 logits to learn from; None where the labels are all there is."""


class LabelledRows:
    """Gold-labelled documents.

    The labelled set is the small one (the paper's is 10 to 78,000 rows): it is held in memory.
    """

    def __init__(self, documents: Sequence[Document], labels: LabelSet, where: str) -> None:
        self._documents = documents
        self._labels = problem_of(labels).encode(documents, where)

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return bool(self._documents) and self._documents[0].text_pair is not None

    def __len__(self) -> int:
        return len(self._documents)

    def texts(self, indices: Int64s) -> list[str]:
        """B texts, or firsts of pairs."""
        return [self._documents[index].text for index in indices]

    def text_pairs(self, indices: Int64s) -> list[str]:
        """B second texts of pairs."""
        return [self._documents[index].text_pair or "" for index in indices]

    def keys(self, indices: Int64s) -> list[RowKey]:
        """Ids and languages of B rows."""
        found = (self._documents[index] for index in indices)
        return [RowKey(document.id, document.row, document.lang) for document in found]

    def labels(self, indices: Int64s) -> Labels:
        """Gold labels of B rows."""
        return self._labels[indices]

    def teacher_logits(self, indices: Int64s) -> None:
        """Nothing: gold labels are all there is."""


class _StoreRows:
    """Texts of some rows of a stored teacher's corpus."""

    def __init__(self, teacher: StoredTeacher, rows: Int64s) -> None:
        self._teacher, self._store, self._rows = teacher, teacher.texts, rows

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return self._store.manifest.has_pairs

    def __len__(self) -> int:
        return len(self._rows)

    def texts(self, indices: Int64s) -> list[str]:
        """B texts, or firsts of pairs."""
        return self._store.texts(self._rows[indices])

    def text_pairs(self, indices: Int64s) -> list[str]:
        """B second texts of pairs."""
        return self._store.text_pairs(self._rows[indices]) or []

    def keys(self, indices: Int64s) -> list[RowKey]:
        """Ids and languages of B rows."""
        rows = self._rows[indices]
        found = zip(self._store.ids(rows), rows.tolist(), self._store.languages(rows))
        return list(starmap(RowKey, found))


class SoftRows(_StoreRows):
    """Rows with the teacher's logits, and the store's gold labels where it has any.

    Args:
        teacher: who labelled them.
        rows: [N] int64 positions in its stores; None for all of them.
        temperature: as `StoredTeacher.logits` takes it.
    """

    def __init__(
        self, teacher: StoredTeacher, rows: Int64s | None, temperature: float | None
    ) -> None:
        super().__init__(teacher, np.arange(len(teacher), dtype=np.int64) if rows is None else rows)
        self._temperature = temperature

    def labels(self, indices: Int64s) -> Labels:
        """Gold labels of B rows, -1 where the store has none."""
        return self._store.gold(self._rows[indices])

    def teacher_logits(self, indices: Int64s) -> Logits:
        """[B, C] float32 logits."""
        return self._teacher.logits(self._rows[indices], self._temperature)

    def num_gold(self) -> int:
        """The rows with a gold label, every one of which is checked to be of the store's classes.

        Raises:
            StoreCorrupt: the store holds a label that its label set has not.
        """
        count = 0
        for start in range(0, len(self), _BLOCK_ROWS):
            rows = self._rows[start : start + _BLOCK_ROWS]
            gold = self._store.gold(rows)
            self._store.require_gold(rows, gold)
            count += int(self._store.manifest.problem.are_given(gold).sum())
        return count


class PseudoLabelledRows(_StoreRows):
    """Rows with the teacher's hard labels.

    Args:
        teacher: who labelled them.
        selected: which rows, and their labels.
    """

    def __init__(self, teacher: StoredTeacher, selected: SelectedRows) -> None:
        super().__init__(teacher, selected.rows)
        self._labels = selected.labels

    def labels(self, indices: Int64s) -> Labels:
        """Pseudo-labels of B rows."""
        return self._labels[indices]

    def teacher_logits(self, indices: Int64s) -> None:
        """Nothing: the labels are all there is."""


class OtherTexts(Protocol):
    """Texts that rows are read as in place of their own; see `translations.Translations`."""

    def of(self, rows: Int64s, epoch: int) -> Iterable[tuple[int, str, str]]:
        """Places among [B] rows, each with the text and the second text that it is read as."""


class TrainingRows:
    """Several sources as one sequence of rows."""

    def __init__(
        self, sources: Sequence[TargetRows], other_texts: OtherTexts | None = None
    ) -> None:
        """Args: where the rows come from, and what some of them are read as instead."""
        self._other_texts = other_texts
        self._sources = [source for source in sources if len(source)]
        if len({source.has_pairs for source in self._sources}) > 1:
            raise ConfigError(
                "`store`, `labelled`: some rows are single texts, others text pairs. Label the "
                "stores again with the right `pair_column`."
            )
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)])

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return bool(self._sources) and self._sources[0].has_pairs

    def __len__(self) -> int:
        return int(self._starts[-1])

    def parts(self) -> Iterator[tuple[range, TargetRows]]:
        """Each source with the positions of its rows."""
        for number, source in enumerate(self._sources):
            yield range(int(self._starts[number]), int(self._starts[number + 1])), source

    def read_as(self, other_texts: OtherTexts) -> TrainingRows:
        """The same rows, some of which are read as other texts."""
        return TrainingRows(self._sources, other_texts)

    def batch(self, indices: Int64s, epoch: int = 0) -> tuple[list[str], list[str] | None, Targets]:
        """Texts, second texts (None for single texts) and targets of B rows, in their order.

        Args:
            indices: [B] int64 rows.
            epoch: that they are read in: it decides which of them are read as other texts.
        """
        which = np.searchsorted(self._starts, indices, side="right") - 1
        texts, pairs = [""] * len(indices), [""] * len(indices)
        labels: Labels | None = None
        logits: Logits | None = None
        for number in np.unique(which):
            source, places = self._sources[number], np.flatnonzero(which == number)
            local = indices[places] - self._starts[number]
            _put(texts, places, source.texts(local))
            if self.has_pairs:
                _put(pairs, places, source.text_pairs(local))
            found = source.labels(local)
            if labels is None:  # int64: PyTorch takes class indices of no other type
                labels = np.empty((len(indices), *found.shape[1:]), np.int64)
            labels[places] = found
            part = source.teacher_logits(local)
            if part is not None:
                if logits is None:
                    logits = np.empty((len(indices), part.shape[1]), np.float32)
                logits[places] = part
        assert labels is not None  # nobody asks for no rows
        if self._other_texts is not None:
            for place, text, pair in self._other_texts.of(indices, epoch):
                texts[place], pairs[place] = text, pair
        teacher = None if logits is None else torch.from_numpy(logits)
        targets = Targets(torch.from_numpy(labels), teacher)
        return texts, pairs if self.has_pairs else None, targets


def _put(values: list[str], places: Int64s, found: Sequence[str]) -> None:
    for place, value in zip(places, found):
        values[place] = value


@dataclass(frozen=True, slots=True)
class SelectedRows:
    """The rows of a teacher's corpus that are learned from, and how many are not, and why.

    Attributes:
        rows: [N] int64 positions in the stores.
        labels: the teacher's hard labels of these rows.
        num_kept: [C] int64, of each class as the teacher labels it; a row of several labels counts
            for each, one of none for no class.
        num_below: [C] int64, left out for too little confidence.
        num_gold_texts: [C] int64, left out for a text that is gold-labelled.
        num_rows_below: rows left out for too little confidence.
        num_rows_gold: rows left out for a text that is gold-labelled.
    """

    rows: Int64s
    labels: Labels
    num_kept: Int64s
    num_below: Int64s
    num_gold_texts: Int64s
    num_rows_below: int
    num_rows_gold: int


def select_rows(
    teacher: StoredTeacher,
    least_confidence: float,
    gold_texts: Collection[tuple[str, str | None]] = frozenset(),
) -> SelectedRows:
    """The rows to learn the teacher's labels from: MONOX-PL's D_U.

    Args:
        teacher: who labelled them; several are averaged as probabilities at T = 1.
        least_confidence: (`Problem.confidence`, T = 1) of a row that is kept.
        gold_texts: (text, text_pair) of the gold-labelled rows, whose gold labels win: a store
            that covers the labelled texts too does not bring them in a second time.
    """
    store, problem = teacher.texts, teacher.texts.manifest.problem
    kept: list[tuple[Int64s, Labels]] = []
    num_below, num_gold = (np.zeros(problem.num_classes, np.int64) for _ in range(2))
    num_rows_below = num_rows_gold = 0
    for start in range(0, len(teacher), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(teacher)), dtype=np.int64)
        logits = teacher.logits(rows, 1.0)
        labels, sure = problem.decide(logits), problem.confidence(logits) >= least_confidence
        num_below += problem.count(labels[~sure])
        num_rows_below += int((~sure).sum())
        rows, labels = rows[sure], labels[sure]
        if gold_texts:
            texts = store.texts(rows)
            pairs: Sequence[str | None] = store.text_pairs(rows) or [None] * len(texts)
            fresh = np.fromiter(
                (both not in gold_texts for both in zip(texts, pairs)), bool, len(texts)
            )
            num_gold += problem.count(labels[~fresh])
            num_rows_gold += int((~fresh).sum())
            rows, labels = rows[fresh], labels[fresh]
        kept.append((rows, labels))
    all_labels = np.concatenate([labels for _, labels in kept])
    return SelectedRows(
        rows=np.concatenate([rows for rows, _ in kept]),
        labels=all_labels,
        num_kept=problem.count(all_labels),
        num_below=num_below,
        num_gold_texts=num_gold,
        num_rows_below=num_rows_below,
        num_rows_gold=num_rows_gold,
    )
