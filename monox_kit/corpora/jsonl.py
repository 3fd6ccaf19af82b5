"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from monox_kit.corpora.blocks import read_lines
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.plain import BlankLines
from monox_kit.corpora.rows import Columns, Meter, RawRow, Start, shown
from monox_kit.errors import CorpusError


def read_jsonl(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[RawRow]:
    """The rows of a JSONL file, by line number from 1.

    The keys of an object are its columns; a key that an object lacks is read as null, unless the
    user named the column. Empty lines may stand at the end of the file alone.

    Raises:
        CorpusError: a line is not a JSON object or lacks a needed column; or as for `read_lines`.
    """
    scan = json.JSONDecoder().raw_decode
    text, pair, label, key, lang = (
        columns.text,
        columns.pair,
        columns.label,
        columns.id,
        columns.lang,
    )
    required = tuple(column for _, column in columns.required)
    blank = BlankLines(file.name)
    for offset, first, lines in read_lines(file, meter):
        if not file.compression:
            meter.here = Start(first - 1, first, offset)
        for number, line in enumerate(lines, first):
            try:
                record, end = scan(line)
            except (ValueError, RecursionError):
                if blank.is_blank(line, number):
                    continue
                record, end = _parse(line, file.name, number), len(line)
            if blank.first is not None:
                raise blank.error()
            # "\r" is white space to JSON: with it the second test passes in almost all files.
            if end != len(line) and line[end:] != "\r":
                record = _parse(line, file.name, number)
            if type(record) is not dict:
                raise _not_an_object(record, line, file.name, number)
            get = record.get
            if text not in record or (required and not all(map(record.__contains__, required))):
                columns.check(record.keys(), f"{file.name}, line {number}")
            yield (
                number,
                record[text],
                None if pair is None else get(pair),
                get(label),
                get(key),
                get(lang),
            )


def _parse(line: str, name: str, number: int) -> Any:
    """The value of a line, by the slower function that accepts space around it and explains."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    # Numbers of thousands of digits and very deep nesting are refused by Python itself.
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
    raise CorpusError(
        f"{name}, line {number}: expected a JSON object, found {shown(line)} ({reason}). "
        "Write one JSON object a line."
    )


def _not_an_object(value: object, line: str, name: str, number: int) -> CorpusError:
    kind = {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number")
    kind = "true or false" if isinstance(value, bool) else kind
    return CorpusError(
        f"{name}, line {number}: expected a JSON object, found {kind}: {shown(line)}. "
        'Write one object a line, such as {"text": "..."}.'
    )
