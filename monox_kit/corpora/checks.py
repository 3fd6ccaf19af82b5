"""Raw rows become documents: every rule about what a row may hold stands here."""

from __future__ import annotations

from typing import Any

from monox_kit.corpora.rows import Columns, RawRow, RowSource, shown
from monox_kit.data import Document, Label, LabelSet
from monox_kit.errors import CorpusError

# A column of free text may hold as many "labels" as rows; no more than these are remembered.
_MOST_PASSED = 10_000


class DocumentCheck:
    """Checks the rows of one pass, in order; it remembers whether the first one had a pair."""

    def __init__(
        self,
        columns: Columns,
        *,
        is_paired: bool = False,
        labels: LabelSet | None = None,
        is_labelled: bool = False,
    ) -> None:
        """Choose what is checked.

        Args:
            columns: the columns' names, for messages.
            is_paired: whether a row without a pair is an error; without it the first row decides.
            labels: every label must be one of these; None accepts any.
            is_labelled: whether a row without a label is an error.
        """
        self._columns = columns
        self._labels = labels
        self._is_labelled = is_labelled
        self._is_paired = is_paired
        self._has_pairs: bool | None = True if is_paired else None
        # Labels that have passed: most corpora have few, and each is checked once.
        self._passed: set[Label] = set()

    def document(self, row: int, raw: RawRow, source: RowSource) -> Document:
        """The document of a raw row.

        Args:
            row: its position in the corpus.
            raw: what the reader yielded.
            source: where it was read, for messages.

        Raises:
            CorpusError: a value has another type or no content, is not encodable, an unknown
                label, or a pair where the rows before have none, or the reverse.
        """
        position, text, pair, label, key, lang = raw
        columns = self._columns
        if not _is_text(text):
            raise _text_error(text, columns.text, source.where(position))
        if pair is not None and pair != "":
            if not _is_text(pair):
                raise _text_error(pair, columns.pair, source.where(position))
        else:
            pair = None
        if (pair is not None) is not self._has_pairs:
            self._settle_pairs(pair is not None, source.where(position))
        if type(label) is not str or label not in self._passed:
            label = self._label(label, source, position)
        if key is None or key == "":
            key = str(row)
        elif type(key) is not str or not _is_text(key):
            key = _key(key, columns.id, source.where(position))
        if lang is not None and not _is_text(lang):
            lang = _lang(lang, columns.lang, source.where(position))
        return Document(row, key, text, pair, label, lang)

    def _settle_pairs(self, has_pair: bool, where: str) -> None:
        """Take the first row's word on pairs, or refuse a row that differs from it."""
        if self._has_pairs is None:
            self._has_pairs = has_pair
            return
        column = self._columns.pair
        if has_pair:
            raise CorpusError(
                f"{where}: expected no {column!r} as in the rows before, found one. "
                "Give every row a pair, or use --pair none to leave pairs unread."
            )
        since = "" if self._is_paired else " as in the rows before"
        raise CorpusError(
            f"{where}: expected a {column!r}{since}, found none. "
            "Give every row a pair, or use --pair none to leave pairs unread."
        )

    def _label(self, value: Any, source: RowSource, position: int) -> Label | None:
        """A label's name, or the names of a list of them, which may be empty."""
        if value is None or (isinstance(value, str) and value == ""):
            if self._is_labelled:
                raise CorpusError(
                    f"{source.where(position)}: expected a label in column "
                    f"{self._columns.label!r}, found none. Label the row or use "
                    "--label-column."
                )
            return None
        label: Label
        if isinstance(value, list):
            label = tuple(self._name(each, source, position) for each in value)
            if len(set(label)) < len(label):
                twice = next(name for name in label if label.count(name) > 1)
                raise CorpusError(
                    f"{source.where(position)}: expected every label once in column "
                    f"{self._columns.label!r}, found {shown(twice)} {label.count(twice)} times. "
                    "Correct the row."
                )
            label = tuple(sorted(label))  # a set: its order is nothing that a digest should see
        else:
            label = self._name(value, source, position)
        if self._labels is not None and label not in self._passed:
            self._labels.indices(label, source.where(position))
        if len(self._passed) < _MOST_PASSED:
            self._passed.add(label)
        return label

    def _name(self, value: Any, source: RowSource, position: int) -> str:
        """A label's name: text as it is, whole numbers and true/false as numbers."""
        if isinstance(value, int):
            return str(int(value))
        if _is_text(value):
            return str(value)
        raise _value_error(value, self._columns.label, source.where(position), "label", _NAMES)


_NAMES = "text, a whole number, true or false, or where any number of classes apply a list of these"


def _is_text(value: Any) -> bool:
    """Whether a value is text with content that UTF-8 can hold."""
    if type(value) is not str or not value or value.isspace() or "\0" in value:
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
    raise _value_error(value, column, where, "id", "text or a whole number")


def _lang(value: Any, column: str | None, where: str) -> str | None:
    if value == "" and isinstance(value, str):
        return None
    raise _value_error(value, column, where, "language tag", "text")


def _text_error(value: Any, column: str | None, where: str) -> CorpusError:
    if value is None:
        return CorpusError(
            f"{where}: expected text in column {column!r}, found null. Give it text or leave the "
            "row out."
        )
    return _value_error(value, column, where, "text", "text")


def _value_error(
    value: Any, column: str | None, where: str, what: str, allowed: str
) -> CorpusError:
    """The error for a value that `_is_text` refused and no other rule accepts."""
    expected = f"{where}: expected {what if what == 'text' else f'a {what}'} in column {column!r}"
    if not isinstance(value, str):
        # Lists and objects may be large and deep; their type says enough.
        content = f" {shown(value)}" if isinstance(value, (int, float)) else ""
        return CorpusError(
            f"{expected}, found {type(value).__name__}{content}. Write {allowed}, or use another "
            "column."
        )
    if not value or value.isspace():
        found = "an empty one" if not value else f"white space alone: {shown(value)}"
        return CorpusError(f"{expected}, found {found}. Give it content or leave the row out.")
    if "\0" in value:
        return CorpusError(
            f"{expected}, found a NUL character at position {value.index(chr(0))}. "
            "Remove it; many of them mean that the file is not UTF-8 text."
        )
    bad = next(i for i, character in enumerate(value) if "\ud800" <= character <= "\udfff")
    return CorpusError(
        f"{expected}, found the lone surrogate {shown(value[bad])} at position {bad}, which UTF-8 "
        "cannot hold. Correct the text."
    )
