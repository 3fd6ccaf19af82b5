"""Which rows a student learns from, and what each row's target is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from monox_kit.data import Document, Int64s, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.objectives import confidence, hard_labels
from monox_kit.store import LogitStore

# Rows whose logits are read at once while pseudo-labels are selected.
_BLOCK_ROWS = 65_536

Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


class RowSource(Protocol):
    """Texts with targets, by position; nothing is read before it is asked for."""

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""

    def __len__(self) -> int: ...

    def text(self, index: int) -> str:
        """The text, or the first of a pair."""

    def text_pair(self, index: int) -> str:
        """The second text of a pair."""

    def targets(self, indices: Int64s) -> Targets:
        """[B] int64 class indices, or [B, C] float32 teacher logits."""


class LabelledRows:
    """Gold-labelled documents; targets are class indices.

    The labelled set is the small one (the paper's is 10 to 78,000 rows): it is held in memory.
    """

    def __init__(self, documents: Sequence[Document], labels: LabelSet, where: str) -> None:
        self._documents = documents
        self._targets = np.fromiter(
            (labels.index(d.label or "", f"{where}: row {d.row}") for d in documents),
            np.int64,
            len(documents),
        )

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return bool(self._documents) and self._documents[0].text_pair is not None

    def __len__(self) -> int:
        return len(self._documents)

    def text(self, index: int) -> str:
        """The text, or the first of a pair."""
        return self._documents[index].text

    def text_pair(self, index: int) -> str:
        """The second text of a pair."""
        return self._documents[index].text_pair or ""

    def targets(self, indices: Int64s) -> Targets:
        """[B] int64 class indices."""
        return self._targets[indices]


class StoreRows:
    """Rows of a logit store; targets are the teacher's logits, or its labels with `hard`.

    Args:
        store: an open store.
        rows: [N] int64 positions in it; None for all of them.
        hard: whether targets are class indices.
    """

    def __init__(self, store: LogitStore, rows: Int64s | None = None, *, hard: bool) -> None:
        self._store = store
        self._rows = np.arange(len(store), dtype=np.int64) if rows is None else rows
        self._hard = hard

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return self._store.manifest.has_pairs

    def __len__(self) -> int:
        return len(self._rows)

    def text(self, index: int) -> str:
        """The text, or the first of a pair."""
        return self._store.text(int(self._rows[index]))

    def text_pair(self, index: int) -> str:
        """The second text of a pair."""
        return self._store.text_pair(int(self._rows[index])) or ""

    def targets(self, indices: Int64s) -> Targets:
        """[B] int64 class indices, or [B, C] float32 logits."""
        logits = self._store.logits(self._rows[indices])
        return hard_labels(logits) if self._hard else logits


class TrainingRows:
    """Several sources as one sequence of rows."""

    def __init__(self, sources: Sequence[RowSource]) -> None:
        self._sources = [source for source in sources if len(source)]
        if len({source.has_pairs for source in self._sources}) > 1:
            raise ConfigError(
                "--store, --labelled: expected single texts everywhere or text pairs everywhere, "
                "found both. Label the stores again with the right --pair-column."
            )
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)])

    @property
    def has_pairs(self) -> bool:
        """Whether the rows are text pairs."""
        return bool(self._sources) and self._sources[0].has_pairs

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: Int64s) -> tuple[list[str], list[str] | None, Targets]:
        """Texts, second texts (None for single texts) and targets of B rows, in their order."""
        which = np.searchsorted(self._starts, indices, side="right") - 1
        local = indices - self._starts[which]
        texts = [self._sources[s].text(int(i)) for s, i in zip(which, local)]
        pairs = None
        if self.has_pairs:
            pairs = [self._sources[s].text_pair(int(i)) for s, i in zip(which, local)]
        parts = {s: self._sources[s].targets(local[which == s]) for s in np.unique(which)}
        first = next(iter(parts.values()))
        targets = np.empty((len(indices), *first.shape[1:]), first.dtype)
        for s, part in parts.items():
            targets[which == s] = part
        return texts, pairs, targets


@dataclass(frozen=True, slots=True)
class PseudoLabelled:
    """The rows of a store that pseudo-labelling keeps, and how many it leaves out and why."""

    rows: Int64s
    num_below_threshold: int
    num_gold_texts: int


def select_pseudo_labels(
    store: LogitStore, threshold: float, gold_texts: set[tuple[str, str | None]]
) -> PseudoLabelled:
    """The rows to learn the teacher's hard labels from: MONOX-PL's D_U.

    Args:
        store: an open store.
        threshold: the least confidence (largest softmax probability, T = 1) of a row that is kept.
        gold_texts: (text, text_pair) of the gold-labelled rows, whose gold labels win: a store
            that covers the labelled texts too does not bring them in a second time.
    """
    kept: list[Int64s] = []
    num_below = num_gold = 0
    for start in range(0, len(store), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(store)), dtype=np.int64)
        sure = confidence(store.logits(rows)) >= threshold
        num_below += int((~sure).sum())
        texts = store.texts(rows[sure])
        pairs: Sequence[str | None] = store.text_pairs(rows[sure]) or [None] * len(texts)
        fresh = np.fromiter(
            (both not in gold_texts for both in zip(texts, pairs)), bool, len(texts)
        )
        num_gold += int((~fresh).sum())
        kept.append(rows[sure][fresh])
    return PseudoLabelled(np.concatenate(kept), num_below, num_gold)
