"""Raw rows become documents: every rule about what a row may hold stands here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from monox_kit.corpora.rows import MAX_LABELS, MAX_VALUE_BYTES, RawRow, RowSource, shown
from monox_kit.data import Document, Label, LabelSet
from monox_kit.errors import CorpusError
from monox_kit.unseen import is_blank, look

# A column of free text may hold as many "labels" as rows; no more than these are remembered.
_MOST_PASSED = 10_000

# What is made of a teacher's answer; it is told the row's place by the function that it is given.
ReadAnswer: TypeAlias = Callable[[Any, Callable[[], str]], Any]


class DocumentCheck:
    """Checks the rows of one pass, in order; it remembers whether the first one had a pair."""

    def __init__(
        self,
        *,
        is_paired: bool = False,
        labels: LabelSet | None = None,
        label_names: Sequence[str] = (),
        is_labelled: bool = False,
        read_answer: ReadAnswer | None = None,
        needs_id: bool = False,
    ) -> None:
        """Choose what is checked.

        Args:
            is_paired: whether a row without a pair is an error; without it the first row decides.
            labels: every label must be one of these; None accepts any.
            label_names: what whole numbers stand for, from 0; none leaves them as they are.
            is_labelled: whether a row without a label is an error.
            read_answer: what makes a document's `answer`; None leaves it as it is.
            needs_id: whether a row without an id is an error.
        """
        self._needs_id = needs_id
        self._labels = labels
        self._label_names = tuple(label_names)
        self._is_labelled = is_labelled
        self._read_answer = read_answer
        self._is_paired = is_paired
        self._has_pairs: bool | None = True if is_paired else None
        # Labels that have passed: most corpora have few, and each is checked once.
        self._passed: set[Label] = set()
        # What each label looks like, with its name and where it was first seen.
        self._looks: dict[str, tuple[str, str]] = {}

    def document(self, row: int, raw: RawRow, source: RowSource) -> Document:
        """The document of a raw row.

        Raises:
            CorpusError: a value has another type, no content or too much, is not encodable, an
                unknown label or one that looks like another, or a pair where the rows before have
                none, or the reverse.
        """
        position, text, pair, label, key, lang, answer = raw
        columns = source.columns
        if not _is_text(text):
            raise _text_error(text, columns.text, source.where(position))
        if pair is not None and pair != "":
            if not _is_text(pair):
                raise _text_error(pair, columns.pair, source.where(position))
        else:
            pair = None
        if (pair is not None) is not self._has_pairs:
            self._settle_pairs(pair is not None, columns.pair, source.where(position))
        if type(label) is not str or label not in self._passed:
            label = self._label(label, source, position)
        if key is None or key == "":
            if self._needs_id:
                raise _no_id(columns.id, source.where(position))
            key = str(row)
        elif type(key) is not str or not _is_text(key):
            key = _key(key, columns.id, source.where(position))
        if lang is not None and not _is_text(lang):
            lang = _lang(lang, columns.lang, source.where(position))
        if self._read_answer is not None:
            answer = self._read_answer(answer, partial(source.where, position))
        return Document(row, key, text, pair, label, lang, answer)

    def _settle_pairs(self, has_pair: bool, column: str | None, where: str) -> None:
        """Take the first row's word on pairs, or refuse a row that differs from it."""
        if self._has_pairs is None:
            self._has_pairs = has_pair
            return
        step = "Give every row a pair, or use `pair` none to leave pairs unread."
        if has_pair:
            problem = f"expected no {column!r} as in the rows before, found one"
            raise CorpusError.of_row(
                where, problem, step, kind=f"a {column!r}, and none in other rows"
            )
        since = "" if self._is_paired else " as in the rows before"
        problem = f"expected a {column!r}{since}, found none"
        raise CorpusError.of_row(where, problem, step, kind=f"no {column!r}")

    def _label(self, value: Any, source: RowSource, position: int | str) -> Label | None:
        """A label's name, or the names of a list of them, which may be empty."""
        if isinstance(value, float) and math.isnan(value):  # a gap in a column, as pandas has it
            value = None
        label: Label | None = None
        if isinstance(value, list):
            label = self._names(value, source, position)
        elif value is not None and value != "":
            label = self._name(value, source, position)
        if label is None:
            if self._is_labelled:
                column = source.columns.label
                raise CorpusError.of_row(
                    source.where(position),
                    f"expected a label in column {column!r}, found none",
                    "Label the row or use `label_column`.",
                    kind=f"no label in column {column!r}",
                )
            return None
        if label not in self._passed:
            where = source.where(position)
            if self._labels is not None:
                self._labels.indices(label, where)
            for name in (label,) if isinstance(label, str) else label:
                self._require_seen(name, where)
            if len(self._passed) < _MOST_PASSED:
                self._passed.add(label)
        return label

    def _names(self, values: list[Any], source: RowSource, position: int | str) -> tuple[str, ...]:
        where, column = source.where(position), source.columns.label
        if len(values) > MAX_LABELS:
            raise CorpusError.of_row(
                where,
                f"a list of {len(values):,} labels, where {MAX_LABELS:,} are the most",
                "Correct the row.",
                kind="too many labels",
            )
        names = [self._name(each, source, position) for each in values]
        distinct = tuple(sorted({name for name in names if name is not None}))
        if len(distinct) < len(names) and None not in names:
            twice = next(name for name in names if names.count(name) > 1)
            raise CorpusError.of_row(
                where,
                f"expected every label once in column {column!r}, found {shown(str(twice))} "
                f"{names.count(twice)} times",
                "Correct the row.",
                kind="a label twice in a list",
                found=shown(str(twice)),
            )
        return distinct  # a set: its order is nothing that a digest should see

    def _name(self, value: Any, source: RowSource, position: int | str) -> str | None:
        """A label's name: text as it is, whole numbers and true/false as numbers.

        None stands for -1 where numbers have names.
        """
        if isinstance(value, float) and value.is_integer():  # pandas, where a column has gaps
            value = int(value)
        if isinstance(value, int):
            value = str(int(value))
        if not _is_text(value):
            raise _value_error(value, source.columns.label, source.where(position), "label", _NAMES)
        if self._label_names and value not in self._label_names:
            return self._by_number(value, source.where(position))
        return str(value)

    def _by_number(self, value: str, where: str) -> str | None:
        names = self._label_names
        if value == "-1":
            return None
        if value.isascii() and value.isdigit() and len(value) < 10 and int(value) < len(names):
            return names[int(value)]
        raise CorpusError.of_row(
            where,
            f"label {shown(value)} is neither one of the {len(names)} `label_names` nor the number "
            "of one, from 0",
            "Correct the row or the names.",
            kind="a label that `label_names` has not",
            found=shown(value),
        )

    def _require_seen(self, name: str, where: str) -> None:
        """Refuse a label that differs from an earlier one by nothing that can be seen."""
        if len(self._looks) >= _MOST_PASSED:
            return
        other, first = self._looks.setdefault(look(name), (name, where))
        if other != name:
            raise CorpusError.of_row(
                where,
                f"label {name!a} looks like label {other!a} of {first}, and is another one",
                "Write both alike.",
                kind="a label that looks like another one",
                found=f"{name!a}, {other!a} ({first})",
            )


_NAMES = "text, a whole number, true or false, or where any number of classes apply a list of these"


def _is_text(value: Any) -> bool:
    """Whether a value is text that somebody can see, and that UTF-8 can hold."""
    if type(value) is not str or not value or "\0" in value or len(value) > MAX_VALUE_BYTES:
        return False
    if is_blank(value):
        return False
    return value.isascii() or _is_encodable(value)


def _is_encodable(text: str) -> bool:
    r"""Whether the text has no lone surrogate, which JSON can write as "\ud800"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(value: Any, column: str | None, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise _value_error(value, column, where, "id", "text or a whole number")


def _lang(value: Any, column: str | None, where: str) -> str | None:
    if value == "" and isinstance(value, str):
        return None
    raise _value_error(value, column, where, "language tag", "text")


def _no_id(column: str, where: str) -> CorpusError:
    return CorpusError.of_row(
        where,
        f"expected an id in column {column!r}, found none",
        "Give the row the id of the document that it is a translation of, or leave it out.",
        kind=f"no id in column {column!r}",
    )


def _text_error(value: Any, column: str | None, where: str) -> CorpusError:
    if value is None:
        return CorpusError.of_row(
            where,
            f"expected text in column {column!r}, found null",
            "Give it text or leave the row out.",
            kind=f"no text in column {column!r}",
        )
    return _value_error(value, column, where, "text", "text")


def _value_error(
    value: Any, column: str | None, where: str, what: str, allowed: str
) -> CorpusError:
    """The error for a value that `_is_text` refused and no other rule accepts."""
    kind, found, step = _fault(value, allowed)
    what = what if what == "text" else f"a {what}"
    return CorpusError.of_row(
        where,
        f"expected {what} in column {column!r}, found {found}",
        step,
        kind=f"{kind} for {what} in column {column!r}",
        found=found,
    )


def _fault(value: Any, allowed: str) -> tuple[str, str, str]:
    """What kind of fault a value has, what was found, and what to do about it."""
    if not isinstance(value, str):
        # Lists and objects may be large and deep; their type says enough.
        content = f" {shown(value)}" if isinstance(value, (int, float)) else ""
        step = f"Write {allowed}, or use another column."
        return "another type", f"{type(value).__name__}{content}", step
    if "\0" in value:
        found = f"a NUL character at position {value.index(chr(0))}"
        step = "Remove it; many of them mean that the file is not UTF-8 text."
        return "a NUL character", found, step
    if is_blank(value):
        found = "characters that nobody sees alone"
        if value.isspace() or not value:
            found = "white space alone" if value else "an empty one"
        content = f": {shown(value)}" if value else ""
        return "nothing", f"{found}{content}", "Give it content or leave the row out."
    if len(value) > MAX_VALUE_BYTES:
        found = f"one of {len(value):,} characters, where {MAX_VALUE_BYTES:,} are the most"
        return "too much", found, "Split the text, or leave the row out."
    bad = next(i for i, character in enumerate(value) if "\ud800" <= character <= "\udfff")
    found = f"the lone surrogate {shown(value[bad])} at position {bad}, which UTF-8 cannot hold"
    return "a lone surrogate", found, "Correct the text."
