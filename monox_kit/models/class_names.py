"""The names of a model's classes, as `config.json` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monox_kit.data import PROBLEM_TYPES, SINGLE_LABEL, LabelSet
from monox_kit.errors import CorpusError, ModelError

# More would be a mistake; XMC data sets have a million.
_MAX_CLASSES = 1 << 20


def declared_labels(config: Mapping[str, Any], path: Path, count: Callable[[], int]) -> LabelSet:
    """The classes that a configuration declares.

    Raises:
        ModelError: they cannot be read, or are no classes.
    """
    problem_type = config.get("problem_type") or SINGLE_LABEL
    if problem_type not in PROBLEM_TYPES:
        raise ModelError(
            f"{path}: expected problem_type {' or '.join(PROBLEM_TYPES)}, "
            f"found {problem_type!r}. Regression is not supported: give a classifier."
        )
    id2label = config.get("id2label")
    if id2label is None:
        # transformers leaves out what its configuration class says by default.
        names = placeholders(_num_labels(config, path, count))
    else:
        names = _names(id2label, path)
    if len(names) < 2:
        raise ModelError(
            f"{path}: expected at least 2 classes, found {len(names)}. A model of one output is "
            "for regression: fine-tune a classifier with monoxkit train-teacher."
        )
    try:
        return LabelSet(names, str(problem_type))
    except CorpusError as error:
        raise ModelError(f"{path}: id2label: {error}") from error


def placeholders(num_labels: int) -> tuple[str, ...]:
    """The names that transformers gives classes without names."""
    return tuple(f"LABEL_{index}" for index in range(num_labels))


def are_named(names: Sequence[str]) -> bool:
    """Whether classes have names: not LABEL_0, LABEL_1, ... and not their own numbers alone."""
    return tuple(names) not in (placeholders(len(names)), tuple(map(str, range(len(names)))))


def _num_labels(config: Mapping[str, Any], path: Path, count: Callable[[], int]) -> int:
    given = config.get("num_labels")
    if given is None:
        return count()
    if type(given) is not int or not 0 < given <= _MAX_CLASSES:
        raise ModelError(
            f"{path}: expected num_labels from 1 to {_MAX_CLASSES}, found {given!r}. Correct it."
        )
    return given


def _names(id2label: Any, path: Path) -> tuple[str, ...]:
    """The names in the order of their indices."""
    form = 'Write it as {"0": "first name", "1": "second name"}.'
    if not isinstance(id2label, dict):
        raise ModelError(
            f"{path}: expected id2label as an object of indices and names, found "
            f"{type(id2label).__name__}. {form}"
        )
    by_index: dict[int, Any] = {}
    for key, value in id2label.items():
        if not key.isascii() or not key.isdecimal():
            kind = "a name as key" if isinstance(value, int) else "a key that is no index"
            raise ModelError(f"{path}: id2label has {kind}: {key[:60]!r}. {form}")
        if len(key) > len(str(_MAX_CLASSES)) or int(key) in by_index:
            raise ModelError(f"{path}: id2label has the index {key[:60]!r} twice. {form}")
        by_index[int(key)] = value
    if sorted(by_index) != list(range(len(by_index))):
        raise ModelError(
            f"{path}: expected the indices 0 to {len(by_index) - 1} in id2label, found "
            f"{sorted(by_index)[:8]}. {form}"
        )
    return tuple(_name(by_index[index], index, path, form) for index in range(len(by_index)))


def _name(value: Any, index: int, path: Path, form: str) -> str:
    """A name as text; a whole number as readers of corpora take one for a label."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ModelError(
            f"{path}: expected a name for class {index} in id2label, found {value!r}. {form}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ModelError(
            f"{path}: the name of class {index} in id2label is no valid text: {value!r}. {form}"
        ) from None
    return value
