"""JSON lines, one object a line; and a JSON array of objects, as `DataFrame.to_json` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from monox_kit.corpora.blocks import read_lines
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.plain import BlankLines
from monox_kit.corpora.rows import (
    MAX_VALUE_BYTES,
    Columns,
    Meter,
    ReadRow,
    Start,
    place,
    shown,
)
from monox_kit.errors import CorpusError

# A row of more values than this is none: 64 MiB of empty objects take more than 1 GB of memory.
_MOST_VALUES = 2_000_000
_LONG_CHARS = 1 << 20
_SPACE = " \t\r\n"
_Block: TypeAlias = tuple[int | None, int, list[str]]


def read_jsonl(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    """The rows of a JSONL file, or of one JSON array, by line number from 1.

    The keys of an object are its columns; a key that an object lacks is read as null, unless the
    user named the column (but see `Columns.answer_may_lack`). Empty lines may stand at the end of
    the file alone.

    Raises:
        CorpusError: an array is broken; or as for `read_lines`.
    """
    picked = _Picker(columns, file.name, meter)
    blank = BlankLines(file.name)
    scan = json.JSONDecoder().raw_decode
    blocks = read_lines(file, meter)
    is_top = not meter.start.row
    for offset, first, lines in blocks:
        if is_top and _begins_array(lines):
            entries = _of_array(first, lines, blocks, file.name)
            for entry, (number, record) in enumerate(entries, 1):
                # All of them may stand in one line.
                yield picked.row(record, f"line {number}, entry {entry}", "")
            return
        is_top = is_top and not any(line.strip(_SPACE) for line in lines)
        if offset is not None:
            meter.here = Start(first - 1, first, offset)
        for number, line in enumerate(lines, first):
            if len(line) > _LONG_CHARS and _num_values(line) > _MOST_VALUES:
                yield _too_many(file.name, number)
                continue
            try:
                record, end = scan(line)
                # "\r" is white space to JSON: with it the second test passes in almost all files.
                if end != len(line) and line[end:] != "\r":
                    record = json.loads(line)
            except (ValueError, RecursionError):
                if blank.is_blank(line, number):
                    continue
                try:  # accepts space around it, and explains
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield _not_json(line, file.name, number, error)
                    continue
            if blank.first is not None:
                yield blank.error()
            yield picked.row(record, number, line)


class _Picker:
    """Takes the columns out of objects, and knows which sets of keys have been checked."""

    # Objects of many different keys are each checked anew, not remembered.
    _MOST_KEYS = 1000

    def __init__(self, columns: Columns, name: str, meter: Meter) -> None:
        self._columns, self._fields, self._name = columns, columns.fields, name
        self._meter = meter
        self._passed: set[tuple[str, ...]] = set()

    def row(self, record: Any, position: int | str, line: str) -> ReadRow:
        """The row of an object at a line's number or another place, or what is wrong with it."""
        if type(record) is not dict:
            return _not_an_object(record, line, place(self._name, "line", position))
        keys = tuple(record)
        if keys not in self._passed:
            try:
                where = place(self._name, "line", position)
                self._columns.check(record.keys(), where, self._meter, is_row=True)
            except CorpusError as error:
                return error
            if len(self._passed) < self._MOST_KEYS:
                self._passed.add(keys)
        text, pair, label, key, lang, answer = map(record.get, self._fields)
        return position, text, pair, label, key, lang, answer


def _begins_array(lines: list[str]) -> bool:
    """Whether a file's first lines begin an array that goes on: one of one line alone is a row."""
    opening = next((line for line in lines if line.strip(_SPACE)), "").lstrip(_SPACE)
    return opening.startswith("[") and opening[1:].lstrip(_SPACE)[:1] in ("", "{", "]")


def _of_array(
    first: int, lines: list[str], blocks: Iterator[_Block], name: str
) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array in several blocks, each with the number of its line."""
    scan = json.JSONDecoder().raw_decode
    text, at, line, is_first = "\n".join(lines), 0, first, True
    _require_few(text, name, line)

    def skip() -> str:
        """Move behind white space; the character there, or nothing at the end of the file."""
        nonlocal at, line, text
        while True:
            while at < len(text) and text[at] in _SPACE:
                line += text[at] == "\n"
                at += 1
            if at < len(text):
                return text[at]
            more = next(blocks, None)
            if more is None:
                return ""
            text, at = "\n" + "\n".join(more[2]), 0

    skip()
    at += 1
    while (character := skip()) != "]":
        if not is_first:
            if character != ",":
                raise _broken(name, line, f"expected , or ], found {character!r}")
            at += 1
            skip()
        is_first = False
        while True:
            try:
                value, end = scan(text, at)
                break
            except RecursionError as error:
                raise _broken(name, line, one_line(error)) from None
            except ValueError as error:
                more_text = _more(blocks, text[at:]) if _is_unfinished(error, text) else None
                if more_text is None:
                    raise _broken(name, line, one_line(error)) from None
                text, at = more_text, 0
                _require_few(text, name, line)
        yield line, value
        line += text.count("\n", at, end)
        at = end
    at += 1
    if skip():
        raise _broken(name, line, f"found {text[at]!r} behind the array's end")


def _more(blocks: Iterator[_Block], text: str) -> str | None:
    """A text with so many further blocks that it is twice as long; None where there are no more."""
    parts, length = [text], 0
    while length <= len(text) and (block := next(blocks, None)) is not None:
        parts.append("\n".join(block[2]))
        length += len(parts[-1]) + 1
    return None if len(parts) == 1 else "\n".join(parts)


def _is_unfinished(error: ValueError, text: str) -> bool:
    """Whether a value was read to the text's end: more of it may put it right."""
    return isinstance(error, json.JSONDecodeError) and len(text[error.pos :].strip(_SPACE)) <= 2


def _require_few(text: str, name: str, line: int) -> None:
    """Check that what is held of an array is no more than a row may be."""
    if len(text) > 2 * MAX_VALUE_BYTES or (
        len(text) > _LONG_CHARS and _num_values(text) > _MOST_VALUES
    ):
        raise _broken(
            name,
            line,
            f"one line or one row of it has more than {MAX_VALUE_BYTES >> 20} MiB or "
            f"{_MOST_VALUES:,} values",
        )


def _num_values(text: str) -> int:
    """At least as many values as the text of a JSON value can hold."""
    return text.count(",") + text.count("{") + text.count("[")


def _too_many(name: str, number: int) -> CorpusError:
    return CorpusError.of_row(
        f"{name}, line {number}",
        f"an object of more than {_MOST_VALUES:,} values is no row",
        "Write one document a line.",
        kind="too many values in an object",
    )


def _broken(name: str, line: int, reason: str) -> CorpusError:
    return CorpusError(
        f"{name}, line {line}: the JSON array of rows cannot be read: {reason}. Write it again, or "
        "write one JSON object a line."
    )


def _not_json(line: str, name: str, number: int, error: Exception) -> CorpusError:
    # Numbers of thousands of digits and very deep nesting are refused by Python itself.
    reason = one_line(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg} at column {error.colno}"
    return CorpusError.of_row(
        f"{name}, line {number}",
        f"expected a JSON object, found {shown(line)} ({reason})",
        "Write one JSON object a line.",
        kind="not JSON",
        found=reason,
    )


def _not_an_object(value: object, line: str, where: str) -> CorpusError:
    kind = {list: "an array", dict: "an object", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )
    kind = "true or false" if isinstance(value, bool) else kind
    content = f": {shown(line)}" if line else ""
    return CorpusError.of_row(
        where,
        f"expected a JSON object, found {kind}{content}",
        'Write one object a line, such as {"text": "..."}.',
        kind="not an object",
        found=kind,
    )
