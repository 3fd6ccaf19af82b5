"""The types that flow between stages.

Dimension letters, used in every shape of this package: N documents, B batch, L sequence length,
C classes, V vocabulary, H hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from monox_kit.digest import digest_json
from monox_kit.errors import CorpusError, LabelMismatchError

Logits = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

SINGLE_LABEL = "single_label_classification"


@dataclass(frozen=True, slots=True)
class Document:
    """One row of a corpus.

    Attributes:
        row: position in the corpus, from 0, counted across its files.
        id: the document's key; the row number as text where the input has none.
        text: the text, or the premise of a pair; never empty.
        text_pair: the hypothesis of a pair; None for single texts.
        label: the gold label's name; None where the input has none.
        lang: language tag such as `de`; None where the input has none.
    """

    row: int
    id: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes in their order: the only converter between a label's name and its index.

    Attributes:
        names: C distinct names; the index of a class is its position here.
        problem_type: as in `transformers` model configurations.
    """

    names: tuple[str, ...]
    problem_type: str = SINGLE_LABEL

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            raise CorpusError(
                f"labels: expected at least 2 distinct names, found {list(self.names)}. "
                "Check the label column or labels.json."
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """A digest that is equal for equal names in equal order and equal problem type."""
        return digest_json(self.to_json())

    def index(self, name: str, where: str) -> int:
        """The class index of `name`.

        Raises:
            CorpusError: the name is not one of the set; the message starts with `where`.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise CorpusError(
                f"{where}: expected one of the {len(self)} labels {_shown(self.names)}, "
                f"found {name!r}. Correct the row or use the label set that it belongs to."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The content of `labels.json`."""
        return {"names": list(self.names), "problem_type": self.problem_type}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> LabelSet:
        """The inverse of `to_json`.

        Raises:
            CorpusError: `value` has another form.
        """
        names = value.get("names")
        problem_type = value.get("problem_type", SINGLE_LABEL)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CorpusError(
                f'{where}: expected {{"names": ["...", "..."]}}, found {str(value)[:80]}. '
                "Write the class names in their order."
            )
        if problem_type != SINGLE_LABEL:
            raise CorpusError(
                f"{where}: expected problem_type {SINGLE_LABEL!r}, found {problem_type!r}. "
                "Other problem types are not supported."
            )
        return cls(tuple(names), problem_type)

    @classmethod
    def read(cls, path: Path) -> LabelSet:
        """The label set in a `labels.json`.

        Raises:
            CorpusError: the file is absent or has another form.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{path}: expected a JSON file of label names, found: {error}. "
                'Write {"names": ["...", "..."]}.'
            ) from error
        if not isinstance(value, dict):
            raise CorpusError(
                f'{path}: expected {{"names": [...]}}, found {type(value).__name__}. '
                "Write the class names in their order."
            )
        return cls.from_json(value, str(path))

    @classmethod
    def from_names(cls, names: Sequence[str]) -> LabelSet:
        """The distinct `names` in sorted order, by value where all are whole numbers."""
        distinct = set(names)
        if all(re.fullmatch(r"-?[0-9]+", name) for name in distinct):
            return cls(tuple(sorted(distinct, key=int)))
        return cls(tuple(sorted(distinct)))

    def require_equal(self, other: LabelSet, here: str, there: str) -> None:
        """Check that two label sets agree in names and order.

        Raises:
            LabelMismatchError: they differ; the message names both owners and the difference.
        """
        if self == other:
            return
        if len(self) != len(other):
            found = f"{len(other)} labels in {there}"
            raise LabelMismatchError(
                f"{here}: expected the same labels as {there}, found {len(self)} labels here and "
                f"{found}. Use a model and data of one label set."
            )
        index = next(i for i, pair in enumerate(zip(self.names, other.names)) if len({*pair}) > 1)
        raise LabelMismatchError(
            f"{here}: expected the same labels as {there}, found label {index} "
            f"{self.names[index]!r} here and {other.names[index]!r} there. "
            "Use a model and data of one label set."
        )


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One padded batch, ready for a model.

    Attributes:
        rows: [B] int64, positions in the sequence that was tokenized.
        input_ids: [B, L] int64.
        attention_mask: [B, L] int64, 1 for real tokens.
        token_type_ids: [B, L] int64, or None where the model has no segment embedding.
    """

    rows: Int64s
    input_ids: Int64s
    attention_mask: Int64s
    token_type_ids: Int64s | None = None

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.attention_mask.sum())


class Classifier(Protocol):
    """A model that scores token batches; both backends implement it."""

    @property
    def labels(self) -> LabelSet:
        """What the columns of the logits mean."""

    @property
    def concurrency(self) -> int:
        """How many calls of `logits`, each from its own thread, fill the device; at least 1."""

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch."""


def _shown(names: Sequence[str], most: int = 20) -> str:
    """The names for an error message, cut after `most`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names) - most} more)"
