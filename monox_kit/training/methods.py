"""The objectives a student can be trained with: add one by adding a row to `METHODS`.

`self-training` is no objective of its own: its rounds are `ce` and `pl`, see `self_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.objectives import logit_mse, mixed
from monox_kit.problem import Problem, problem_of
from monox_kit.store import LogitStore
from monox_kit.training.config import ObjectiveConfig
from monox_kit.training.rows import (
    LabelledRows,
    PseudoLabelledRows,
    SelectedRows,
    SoftRows,
    TrainingRows,
    select_rows,
)
from monox_kit.training.targets import Loss, Targets
from monox_kit.training.teachers import StoredTeacher


@dataclass(frozen=True, slots=True)
class Sources:
    """What a student can learn from.

    Attributes:
        labels: the classes of everything below.
        labelled: gold-labelled documents; empty where none were given.
        labelled_name: how the user referred to them.
        teachers: each with the rows that it labelled; one after the other.
        objective: temperatures, weights and thresholds.
    """

    labels: LabelSet
    labelled: Sequence[Document]
    labelled_name: str = ""
    teachers: Sequence[StoredTeacher] = ()
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def problem(self) -> Problem:
        """What labels and logits mean."""
        return problem_of(self.labels)

    @property
    def stores(self) -> list[LogitStore]:
        """All stores of the teachers, in their order."""
        return [store for teacher in self.teachers for store in teacher.stores]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Rows and objective, and what the training record keeps of them.

    Attributes:
        rows: what to learn from.
        loss: student logits and targets to the batch's loss.
        counts: rows by what they are.
        classes: rows by class, as the teacher labels them, and by what became of them; empty where
            none were chosen by confidence.
        settings: what the objective depends on beside the rows, flat, for the run's fingerprint.
    """

    rows: TrainingRows
    loss: Loss
    counts: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def build_task(method: str, sources: Sources) -> Task:
    """The rows and the objective of `method`.

    Raises:
        ConfigError: the method is unknown, or needs what was not given.
    """
    if method not in METHODS:
        raise ConfigError(
            f"`method`: expected one of {', '.join(METHODS)}, found {method!r}. Choose one."
        )
    task = METHODS[method](sources)
    if len(task.rows) == 0:
        raise ConfigError(
            f"`method` {method}: there is no row to train on ({dict(task.counts)}). "
            "Give more data, or a lower `threshold` or `min_confidence`."
        )
    return task


def _gold(sources: Sources, method: str) -> LabelledRows:
    if not sources.labelled:
        raise ConfigError(
            f"`labelled`: `method` {method} needs gold-labelled text. Give `labelled` FILE."
        )
    return LabelledRows(sources.labelled, sources.labels, sources.labelled_name)


def _require_teachers(sources: Sources, method: str) -> None:
    if not sources.teachers:
        raise ConfigError(
            f"`store`: `method` {method} needs a logit store. Make one with monoxkit label, then "
            "give `store` DIR."
        )


def _cross_entropy(sources: Sources) -> Task:
    """The paper's MBERT: cross-entropy on the gold-labelled rows; stores are not used."""
    gold = _gold(sources, "ce")
    counts = {"gold_rows": len(gold)}
    return Task(rows=TrainingRows([gold]), loss=_LabelLoss(sources.problem), counts=counts)


def _pseudo_labels(sources: Sources) -> Task:
    """The paper's MONOX-PL: gold rows and the teacher's confident hard labels together."""
    _require_teachers(sources, "pl")
    gold = _gold(sources, "pl")
    threshold = sources.objective.threshold
    gold_texts = {(d.text, d.text_pair) for d in sources.labelled}
    selected = [select_rows(teacher, threshold, gold_texts) for teacher in sources.teachers]
    pseudo = [PseudoLabelledRows(*both) for both in zip(sources.teachers, selected)]
    if not any(map(len, pseudo)):
        raise ConfigError(
            f"`threshold` {threshold:g}: it leaves no row: of "
            f"{sum(each.num_rows_below for each in selected)} the teacher is less confident, "
            f"{sum(each.num_rows_gold for each in selected)} have gold labels. Lower it, or use "
            "`method` ce."
        )
    return Task(
        rows=TrainingRows([gold, *pseudo]),
        loss=_LabelLoss(sources.problem),
        counts={
            "gold_rows": len(gold),
            "pseudo_labelled_rows": sum(map(len, pseudo)),
            "below_threshold_rows": sum(each.num_rows_below for each in selected),
            "store_rows_with_gold_text": sum(each.num_rows_gold for each in selected),
        },
        classes=_by_class(sources.labels, selected),
        settings={"threshold": threshold},
    )


def _knowledge_distillation(sources: Sources) -> Task:
    """The paper's MONOX-KD: soft targets for every row of the stores.

    Gold labels count where `alpha` says so, and then those that the stores hold.
    """
    _require_teachers(sources, "kd")
    objective = sources.objective
    least = objective.min_confidence
    selected = [select_rows(teacher, least) for teacher in sources.teachers] if least > 0 else []
    # Teachers that are averaged give probabilities at T; logits are compared with logits.
    temperature = None if objective.kd_loss == "mse" else objective.temperature
    soft = [
        SoftRows(teacher, selected[index].rows if selected else None, temperature)
        for index, teacher in enumerate(sources.teachers)
    ]
    counts = {"soft_rows": sum(map(len, soft))}
    if selected:
        counts["below_min_confidence_rows"] = sum(each.num_rows_below for each in selected)
    if objective.alpha > 0:
        counts["of_them_gold_rows"] = _num_gold(soft)
    return Task(
        rows=TrainingRows(soft),
        loss=_Distillation(objective, sources.problem),
        counts=counts,
        classes=_by_class(sources.labels, selected),
        settings={
            "temperature": temperature,
            "temperature_on": objective.temperature_on,
            "kd_loss": objective.kd_loss,
            "alpha": objective.alpha,
            "min_confidence": least,
        },
    )


METHODS: Mapping[str, Callable[[Sources], Task]] = {
    "ce": _cross_entropy,
    "pl": _pseudo_labels,
    "kd": _knowledge_distillation,
}


class _LabelLoss:
    """Cross-entropy with the labels, gold ones and pseudo-labels alike."""

    def __init__(self, problem: Problem) -> None:
        self._hard = problem.losses.hard

    def __call__(self, student_logits: Tensor, targets: Targets) -> Tensor:
        return self._hard(student_logits, targets.labels).mean()


class _Distillation:
    """The loss of `kd`: of its soft targets, mixed with that of gold labels."""

    def __init__(self, objective: ObjectiveConfig, problem: Problem) -> None:
        self._objective, self._problem = objective, problem

    def __call__(self, student_logits: Tensor, targets: Targets) -> Tensor:
        assert targets.teacher is not None  # rows of `kd` have one
        losses = self._soft(student_logits, targets.teacher)
        alpha = self._objective.alpha
        if alpha > 0:
            hard = self._problem.losses.hard(student_logits, targets.labels)
            losses = mixed(hard, losses, self._problem.are_given(targets.labels), alpha)
        return losses.mean()

    def _soft(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        objective = self._objective
        if objective.kd_loss == "mse":
            return logit_mse(student_logits, teacher_logits)
        losses = self._problem.losses
        loss = losses.soft if objective.kd_loss == "ce" else losses.divergence
        both = objective.temperature_on == "both"
        return loss(
            student_logits,
            teacher_logits,
            objective.temperature,
            student_temperature=objective.temperature if both else 1.0,
        )


def _num_gold(sources: Sequence[SoftRows]) -> int:
    count = sum(source.num_gold() for source in sources)
    if not count:
        raise ConfigError(
            "`alpha`: no row of the stores that is learned from has a gold label. Label the "
            "gold-labelled text too, with its labels, or leave `alpha` out."
        )
    return count


def _by_class(labels: LabelSet, selected: Sequence[SelectedRows]) -> dict[str, dict[str, int]]:
    """Rows kept and left out, of each class as the teachers label them."""
    if not selected:
        return {}
    table = {
        "kept": np.sum([each.num_kept for each in selected], axis=0),
        "too little confidence": np.sum([each.num_below for each in selected], axis=0),
        "text is gold-labelled": np.sum([each.num_gold_texts for each in selected], axis=0),
    }
    return {
        name: {what: int(counts[index]) for what, counts in table.items()}
        for index, name in enumerate(labels.names)
    }
