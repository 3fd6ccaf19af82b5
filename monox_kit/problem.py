"""What depends on whether classes exclude each other: labels as arrays, decisions, losses.

`problem_of` is the only place that asks for a label set's problem type; everything else calls the
`Problem` that it gives. Gold labels, hard labels and decisions have one form, `Labels`: [n] class
indices where a row has one class, [n, C] of 1 and 0 where it has any number; -1 (throughout) where
a row has none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from monox_kit import objectives
from monox_kit.data import MULTI_LABEL, SINGLE_LABEL, Document, Int64s, Label, LabelSet, Logits

if TYPE_CHECKING:
    from torch import Tensor

Labels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Names of the measures that choose weights and that languages are averaged by, for people.
MEASURES: Mapping[str, str] = {"accuracy": "accuracy", "micro_f1": "micro-F1"}


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of a problem, see `objectives`; each gives [B] float64.

    Attributes:
        hard: of student logits and labels.
        soft: of student logits and teacher logits at a temperature, cross-entropy.
        divergence: the same less the teacher's entropy.
    """

    hard: Callable[[Tensor, Tensor], Tensor]
    soft: Callable[..., Tensor]
    divergence: Callable[..., Tensor]


class Problem(ABC):
    """A problem type over C classes.

    Attributes:
        losses: of its objectives.
        measure: what chooses weights, a key of `MEASURES`.
        label_descr: numpy type of `Labels` in a store.
        labels: the classes.
        num_classes: C.
    """

    losses: ClassVar[Losses]
    measure: ClassVar[str]
    label_descr: ClassVar[str]

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self.num_classes = len(labels)

    @property
    @abstractmethod
    def wanted_labels(self) -> str:
        """What may stand in a store's labels, for messages."""

    @property
    @abstractmethod
    def max_entropy(self) -> float:
        """The largest value of `entropy`, in nats."""

    @abstractmethod
    def label_shape(self, num_rows: int) -> tuple[int, ...]:
        """The shape of the labels of n rows."""

    def encode(self, documents: Sequence[Document], where: str, *, ignore: bool = False) -> Labels:
        """The documents' gold labels in a store's type, -1 where one has none.

        Args:
            documents: n of them.
            where: what they are of, for messages.
            ignore: whether their labels are left out.

        Raises:
            CorpusError: a label is not one of the classes.
        """
        encoded = np.full(self.label_shape(len(documents)), -1, self.label_descr)
        for at, document in enumerate(documents):
            if document.label is not None and not ignore:
                indices = self.labels.indices(document.label, f"{where}: row {document.row}")
                encoded[at] = self._encoded(indices)
        return encoded

    @abstractmethod
    def _encoded(self, indices: list[int]) -> Any:
        """One row of labels of a document's class indices."""

    @abstractmethod
    def decode(self, labels: Labels) -> list[Label | None]:
        """The names of n valid labels; the inverse of `encode`."""

    @abstractmethod
    def are_valid(self, labels: Labels) -> Bools:
        """[n] whether each row's label is one that a store may hold."""

    @abstractmethod
    def are_given(self, labels: Any) -> Any:
        """[n] bool, whether each row has a label; of a tensor a tensor."""

    @abstractmethod
    def indicators(self, labels: Labels) -> Bools:
        """[n, C] whether each row has each class; none where it has no label."""

    @abstractmethod
    def decide(self, logits: Logits) -> Labels:
        """The labels that [N, C] logits decide for."""

    @abstractmethod
    def probabilities(self, logits: Logits) -> Floats:
        """[N, C] the probability of each class at T = 1."""

    @abstractmethod
    def logits_of(self, probabilities: Floats) -> Logits:
        """[N, C] float32 logits with these [N, C] probabilities; see `objectives.logits_of`."""

    @abstractmethod
    def confidence(self, logits: Logits) -> Floats:
        """[N] in (0, 1], how sure [N, C] logits are of their decisions at T = 1."""

    @abstractmethod
    def entropy(self, logits: Logits) -> Floats:
        """[N] in nats, of the distributions of [N, C] logits at T = 1."""

    @abstractmethod
    def lead(self, logits: Logits, decisions: Labels) -> Floats:
        """[N] by how much the decisions lead in [N, C] logits; below 0 where these decide else."""

    @abstractmethod
    def divergence(self, expected: Logits, found: Logits) -> Floats:
        """[N] KL divergence in nats of the distributions of `found` from `expected`, at T = 1."""

    @abstractmethod
    def averaged(
        self, logits: Sequence[Logits], weights: Sequence[float], temperature: float | None
    ) -> Logits:
        """Several teachers' logits as those of one; see `objectives.averaged_logits`."""

    @abstractmethod
    def are_equal(self, labels: Labels, others: Labels) -> Bools:
        """[n] whether two labels of a row are the same in every class."""

    def count(self, labels: Labels) -> Int64s:
        """[C] int64, the rows that have each class."""
        return np.asarray(self.indicators(labels).sum(axis=0), np.int64)

    def overlap(self, gold: Labels, decisions: Labels) -> tuple[Floats, Floats]:
        """[n] classes that are gold and decided for, and [n] those that are gold plus decided for.

        `f1` of their sums is the micro-averaged F1 over n rows; where a row has one class it is the
        accuracy.
        """
        expected, found = self.indicators(gold), self.indicators(decisions)
        both = (expected & found).sum(axis=1, dtype=np.float64)
        return both, expected.sum(axis=1, dtype=np.float64) + found.sum(axis=1)


class _SingleLabel(Problem):
    """Classes exclude each other: the largest logit decides."""

    losses = Losses(
        hard=objectives.cross_entropy,
        soft=objectives.soft_cross_entropy,
        divergence=objectives.kl_divergence,
    )
    measure = "accuracy"
    label_descr = "<i4"

    @property
    def wanted_labels(self) -> str:
        return f"labels from -1 to {self.num_classes - 1}"

    @property
    def max_entropy(self) -> float:
        return math.log(self.num_classes)

    def label_shape(self, num_rows: int) -> tuple[int, ...]:
        return (num_rows,)

    def _encoded(self, indices: list[int]) -> int:
        return indices[0]

    def decode(self, labels: Labels) -> list[Label | None]:
        names = self.labels.names
        return [None if index < 0 else names[index] for index in labels.tolist()]

    def are_valid(self, labels: Labels) -> Bools:
        return np.asarray((labels >= -1) & (labels < self.num_classes))

    def are_given(self, labels: Any) -> Any:
        return labels >= 0

    def indicators(self, labels: Labels) -> Bools:
        return np.equal.outer(labels, np.arange(self.num_classes))

    decide = staticmethod(objectives.hard_labels)
    probabilities = staticmethod(objectives.probabilities)
    logits_of = staticmethod(objectives.logits_of)
    confidence = staticmethod(objectives.confidence)
    entropy = staticmethod(objectives.entropy)
    averaged = staticmethod(objectives.averaged_logits)

    def lead(self, logits: Logits, decisions: Labels) -> Floats:
        """The decision's logit less the largest other one."""
        rows, others = np.arange(len(logits)), logits.astype(np.float64)
        own = others[rows, decisions]
        others[rows, decisions] = -np.inf
        return np.asarray(own - others.max(axis=1))

    def divergence(self, expected: Logits, found: Logits) -> Floats:
        p, q = log_softmax(expected), log_softmax(found)
        return np.asarray((np.exp(p) * (p - q)).sum(axis=1))

    def are_equal(self, labels: Labels, others: Labels) -> Bools:
        return np.asarray(labels == others)

    def count(self, labels: Labels) -> Int64s:
        return np.bincount(labels[labels >= 0], minlength=self.num_classes).astype(np.int64)

    def overlap(self, gold: Labels, decisions: Labels) -> tuple[Floats, Floats]:
        return (gold == decisions).astype(np.float64), np.full(len(gold), 2.0)


class _MultiLabel(Problem):
    """A row has any number of classes: every logit above 0 decides for its class."""

    losses = Losses(
        hard=objectives.binary_cross_entropy,
        soft=objectives.binary_soft_cross_entropy,
        divergence=objectives.binary_kl_divergence,
    )
    measure = "micro_f1"
    label_descr = "|i1"

    @property
    def wanted_labels(self) -> str:
        return "labels of 0 and 1, or -1 throughout a row"

    @property
    def max_entropy(self) -> float:
        return self.num_classes * math.log(2)

    def label_shape(self, num_rows: int) -> tuple[int, ...]:
        return (num_rows, self.num_classes)

    def _encoded(self, indices: list[int]) -> Labels:
        row = np.zeros(self.num_classes, self.label_descr)
        row[indices] = 1
        return row

    def decode(self, labels: Labels) -> list[Label | None]:
        names = self.labels.names
        return [
            None if row[0] < 0 else tuple(names[index] for index in np.flatnonzero(row))
            for row in labels
        ]

    def are_valid(self, labels: Labels) -> Bools:
        is_set = (labels == 0) | (labels == 1)
        return np.asarray(is_set.all(axis=1) | (labels == -1).all(axis=1))

    def are_given(self, labels: Any) -> Any:
        return labels[:, 0] >= 0

    def indicators(self, labels: Labels) -> Bools:
        return np.asarray(labels > 0)

    decide = staticmethod(objectives.binary_hard_labels)
    probabilities = staticmethod(objectives.binary_probabilities)
    logits_of = staticmethod(objectives.binary_logits_of)
    confidence = staticmethod(objectives.binary_confidence)
    entropy = staticmethod(objectives.binary_entropy)
    averaged = staticmethod(objectives.binary_averaged_logits)

    def lead(self, logits: Logits, decisions: Labels) -> Floats:
        """The least distance of a logit from 0, on the side that was decided for."""
        signs = np.where(decisions > 0, 1.0, -1.0)
        return np.asarray((signs * logits.astype(np.float64)).min(axis=1))

    def divergence(self, expected: Logits, found: Logits) -> Floats:
        """Classes are independent: the sum of theirs."""
        z, s = expected.astype(np.float64), found.astype(np.float64)
        present = np.exp(log_sigmoid(z)) * (log_sigmoid(z) - log_sigmoid(s))
        absent = np.exp(log_sigmoid(-z)) * (log_sigmoid(-z) - log_sigmoid(-s))
        return np.asarray((present + absent).sum(axis=1))

    def are_equal(self, labels: Labels, others: Labels) -> Bools:
        return np.asarray((labels == others).all(axis=1))


_PROBLEMS: Mapping[str, type[Problem]] = {SINGLE_LABEL: _SingleLabel, MULTI_LABEL: _MultiLabel}


def problem_of(labels: LabelSet) -> Problem:
    """The problem of a label set."""
    return _PROBLEMS[labels.problem_type](labels)


def f1(both: Any, either: Any) -> Floats:
    """F1 of sums as `Problem.overlap` gives them, of any shape; 0 where nothing is gold or decided.

    Source of the zero: scikit-learn's default for `zero_division`.
    """
    both, either = np.asarray(both, np.float64), np.asarray(either, np.float64)
    return np.asarray(np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0))


def measure_of(result: Mapping[str, Any]) -> str:
    """The measure, a key of `MEASURES`, that a dev result holds."""
    return next(name for name in MEASURES if name in result)


def shown_measure(result: Mapping[str, Any], prefix: str = "") -> str:
    """A dev result's measure in percent, with its name, for people.

    Args:
        result: holds it by its key.
        prefix: of that key.
    """
    key = next(prefix + name for name in MEASURES if prefix + name in result)
    return f"{MEASURES[key.removeprefix(prefix)]} {100 * result[key]:.1f} %"


def log_softmax(logits: Logits) -> Floats:
    """[N, C] logarithms of what exclusive classes share, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_sigmoid(values: Floats) -> Floats:
    """Logarithms of the logistic function, element by element."""
    return np.asarray(-np.logaddexp(0, -values))
