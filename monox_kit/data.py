"""The types that flow between stages.

Dimension letters, used in every shape of this package: N documents, B batch, L sequence length,
C classes, V vocabulary, H hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from monox_kit.digest import digest_json
from monox_kit.errors import CorpusError, LabelMismatchError
from monox_kit.unseen import look

Logits = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

UNKNOWN_LANGUAGE = "und"  # BCP 47's tag for an undetermined language
# As in `transformers` model configurations.
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL)

# The gold label of a row: one name; where classes do not exclude each other, the names of all that
# apply, of which there may be none.
Label: TypeAlias = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One row of a corpus.

    Attributes:
        row: position in the corpus, from 0, counted across its files.
        id: the document's key; the row number as text where the input has none.
        text: the text, or the premise of a pair; never empty.
        text_pair: the hypothesis of a pair; None for single texts.
        label: the gold label's name, or several names; None where the input has none.
        lang: language tag such as `de`; None where the input has none.
        answer: what was made of a teacher's answer in the input; None where it is not read.
    """

    row: int
    id: str
    text: str
    text_pair: str | None = None
    label: Label | None = None
    lang: str | None = None
    answer: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes in their order: the only converter between a label's name and its index.

    Attributes:
        names: C distinct names; the index of a class is its position here.
        problem_type: one of `PROBLEM_TYPES`: whether a row has one class, or any number of them.
        origin: the file or model that they are of, for messages; no part of what is compared.
        is_of_user: whether `origin` is a file that the user writes, where a class can be added; a
            model's record is none. For messages too.
    """

    names: tuple[str, ...]
    problem_type: str = SINGLE_LABEL
    origin: str = field(default="", compare=False, kw_only=True)
    is_of_user: bool = field(default=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        where = self.origin or "labels"
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            found = f"{twice[0]!r} twice" if twice else f"{list(self.names)}"
            raise CorpusError(
                f"{where}: expected at least 2 distinct names, found {found}. Check the label "
                "column or the file of labels."
            )
        looks: dict[str, str] = {}
        for name in self.names:
            other = looks.setdefault(look(name), name)
            if other != name:
                raise CorpusError(
                    f"{where}: label {name!a} looks like label {other!a}, and is another "
                    "one. Write both alike, and each once."
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
            of = f" of {self.origin}" if self.origin else ""
            alike = next((each for each in self.names if look(each) == look(name)), None)
            hint = "" if alike is None else f", which only looks like {alike!a}"
            found = repr(name) if alike is None else ascii(name)
            raise CorpusError.of_row(
                where,
                f"expected one of the {len(self)} labels {_shown(self.names)}{of}, found "
                f"{found[:200]}{hint}",
                f"Correct the rows{self._new_class_step()}",
                kind=f"none of the {len(self)} labels {_shown(self.names)}{of}",
                found=f"{found[:60]}{hint}",
                is_step_of_all=True,
            ) from None

    def _new_class_step(self) -> str:
        """What to do where an unknown class is a new one, behind `Correct the rows`."""
        if self.is_of_user:
            return f", or add the class to {self.origin} if it is a new one."
        file = "" if self.origin else "add it to the file of the label set or "
        return (
            f". If the class is a new one, {file}train a new teacher with rows of it "
            '(docs/own-data.md, "A week later").'
        )

    @property
    def is_multi(self) -> bool:
        """Whether a row may have any number of the classes."""
        return self.problem_type == MULTI_LABEL

    def indices(self, label: Label, where: str) -> list[int]:
        """The class indices of a row's gold label: one of them unless the set `is_multi`.

        Raises:
            CorpusError: the label has the other form, or a name that is not one of the set; the
                message starts with `where`.
        """
        if isinstance(label, str) and self.is_multi:
            raise CorpusError.of_row(
                where,
                f"expected a list of labels, as {self.problem_type} has them, found {label[:60]!r}",
                f'Write a list such as ["{self.names[0]}"], or [] where no class applies; in CSV '
                "and TSV too.",
                kind="one label in place of a list",
                found=repr(label[:60]),
            )
        if not isinstance(label, str) and not self.is_multi:
            raise CorpusError.of_row(
                where,
                f"expected one label, found a list of {len(label)}",
                "Give the row one of the classes, or write "
                f'"problem_type": "{MULTI_LABEL}" into labels.json.',
                kind="a list in place of one label",
            )
        names = (label,) if isinstance(label, str) else label
        return [self.index(name, where) for name in names]

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
        if unknown := sorted(set(value) - {"names", "problem_type"}):
            raise CorpusError(
                f"{where}: expected the keys names and problem_type, found {unknown[0]!r}. Correct "
                "its name, or leave it out."
            )
        if problem_type not in PROBLEM_TYPES:
            raise CorpusError(
                f"{where}: expected problem_type {' or '.join(PROBLEM_TYPES)}, found "
                f"{problem_type!r}. Regression is not supported: give one of the two."
            )
        return cls(tuple(names), problem_type, origin=where)

    @classmethod
    def read(cls, path: Path) -> LabelSet:
        """The label set in a `labels.json`.

        Raises:
            CorpusError: the file is absent or has another form.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CorpusError(
                f"{path}: expected a JSON file of label names, found: {reason}. "
                'Write {"names": ["...", "..."]}.'
            ) from error
        if not isinstance(value, dict):
            raise CorpusError(
                f'{path}: expected {{"names": [...]}}, found {type(value).__name__}. '
                "Write the class names in their order."
            )
        return replace(cls.from_json(value, str(path)), is_of_user=True)

    @classmethod
    def from_documents(cls, documents: Sequence[Document], where: str) -> LabelSet:
        """The distinct gold labels in sorted order, by value where all are whole numbers.

        Raises:
            CorpusError: all rows have the same label, or none has one; or a row has a list of
                labels: which classes there are is then to be said.
        """
        distinct: set[str] = set()
        for document in documents:
            if isinstance(document.label, tuple):
                raise CorpusError(
                    f"{where}: row {document.row}: expected one label, found a list of "
                    f"{len(document.label)}. For any number of labels a row give `labels` "
                    f'labels.json with {{"names": [...], "problem_type": "{MULTI_LABEL}"}}.'
                )
            if document.label is not None:
                distinct.add(document.label)
        if len(distinct) < 2:
            found = f"the label {min(distinct)!r}" if distinct else "no label"
            raise CorpusError(
                f"{where}: all {len(documents):,} rows have {found}, where a classifier needs two "
                "classes or more. Give rows of the others, or another `label_column`."
            )
        if all(re.fullmatch(r"-?[0-9]+", name) for name in distinct):
            return cls(tuple(sorted(distinct, key=int)), origin=where, is_of_user=True)
        return cls(tuple(sorted(distinct)), origin=where, is_of_user=True)

    def require_equal(self, other: LabelSet, here: str, there: str) -> None:
        """Check that two label sets agree in names and order.

        Raises:
            LabelMismatchError: they differ; the message names both owners and the difference.
        """
        if self == other:
            return
        if self.problem_type != other.problem_type:
            raise LabelMismatchError(
                f"{here}: expected problem_type {other.problem_type} as in {there}, found "
                f"{self.problem_type}. Use a model and data of one problem type."
            )
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
        token_type_ids: [B, L] int64, or None where the tokenizer makes none.
    """

    rows: Int64s
    input_ids: Int64s
    attention_mask: Int64s
    token_type_ids: Int64s | None = None

    @property
    def arrays(self) -> dict[str, Int64s]:
        """All that there is to feed, by the names that models and graphs take it under."""
        arrays = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            arrays["token_type_ids"] = self.token_type_ids
        return arrays

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
