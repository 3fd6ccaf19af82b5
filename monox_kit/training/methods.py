"""The objectives a student can be trained with: add one by adding a row to `METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.objectives import cross_entropy, soft_cross_entropy
from monox_kit.store import LogitStore
from monox_kit.training.rows import LabelledRows, StoreRows, TrainingRows, select_pseudo_labels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sources:
    """What a student can learn from.

    Attributes:
        labels: the classes of everything below.
        labelled: gold-labelled documents; empty where none were given.
        labelled_name: how the user referred to them.
        stores: open, complete logit stores.
        temperature: of the teacher's soft targets.
        threshold: least confidence of a pseudo-label.
    """

    labels: LabelSet
    labelled: Sequence[Document]
    labelled_name: str
    stores: Sequence[LogitStore]
    temperature: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Task:
    """Rows, objective and the counts that the training record keeps."""

    rows: TrainingRows
    loss: Callable[[Tensor, Tensor], Tensor]
    counts: Mapping[str, int]


def build_task(method: str, sources: Sources) -> Task:
    """The rows and the objective of `method`.

    Raises:
        ConfigError: the method is unknown, or needs what was not given.
    """
    if method not in METHODS:
        raise ConfigError(
            f"--method: expected one of {', '.join(METHODS)}, found {method!r}. Choose one."
        )
    task = METHODS[method](sources)
    if len(task.rows) == 0:
        raise ConfigError(
            f"--method {method}: expected rows to train on, found none ({dict(task.counts)}). "
            "Give more data or a lower --threshold."
        )
    return task


def _gold(sources: Sources, method: str) -> LabelledRows:
    if not sources.labelled:
        raise ConfigError(
            f"--labelled: expected gold-labelled text for --method {method}, found none. "
            "Give --labelled FILE."
        )
    return LabelledRows(sources.labelled, sources.labels, sources.labelled_name)


def _require_stores(sources: Sources, method: str) -> None:
    if not sources.stores:
        raise ConfigError(
            f"--store: expected a logit store for --method {method}, found none. Make one with "
            "monoxkit label, then give --store DIR."
        )


def _cross_entropy(sources: Sources) -> Task:
    """The paper's MBERT: cross-entropy on the gold-labelled rows; stores are not used."""
    gold = _gold(sources, "ce")
    return Task(TrainingRows([gold]), cross_entropy, {"gold_rows": len(gold)})


def _pseudo_labels(sources: Sources) -> Task:
    """The paper's MONOX-PL: gold rows and the teacher's confident hard labels together."""
    _require_stores(sources, "pl")
    gold = _gold(sources, "pl")
    gold_texts = {(d.text, d.text_pair) for d in sources.labelled}
    kept = [select_pseudo_labels(s, sources.threshold, gold_texts) for s in sources.stores]
    pseudo = [StoreRows(s, k.rows, hard=True) for s, k in zip(sources.stores, kept)]
    counts = {
        "gold_rows": len(gold),
        "pseudo_labelled_rows": sum(len(rows) for rows in pseudo),
        "below_threshold_rows": sum(k.num_below_threshold for k in kept),
        "store_rows_with_gold_text": sum(k.num_gold_texts for k in kept),
    }
    return Task(TrainingRows([gold, *pseudo]), cross_entropy, counts)


def _knowledge_distillation(sources: Sources) -> Task:
    """The paper's MONOX-KD: soft targets for every row of the stores; gold labels are not used."""
    _require_stores(sources, "kd")
    soft = [StoreRows(store, hard=False) for store in sources.stores]
    loss = partial(soft_cross_entropy, temperature=sources.temperature)
    return Task(TrainingRows(soft), loss, {"soft_rows": sum(len(rows) for rows in soft)})


METHODS: Mapping[str, Callable[[Sources], Task]] = {
    "ce": _cross_entropy,
    "pl": _pseudo_labels,
    "kd": _knowledge_distillation,
}
