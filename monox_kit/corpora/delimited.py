"""CSV and TSV with a header, quoted as Python's `csv` module does (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from monox_kit.corpora.blocks import MAX_LINE_BYTES, read_lines
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.plain import BlankLines
from monox_kit.corpora.rows import Columns, Meter, RawRow, Start
from monox_kit.errors import CorpusError


def read_csv(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[RawRow]:
    """The rows of a comma-separated file; see `read_delimited`."""
    return read_delimited(file, columns, meter, delimiter=",")


def read_tsv(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[RawRow]:
    """The rows of a tab-separated file; see `read_delimited`."""
    return read_delimited(file, columns, meter, delimiter="\t")


def read_delimited(
    file: SourceFile, columns: Columns, meter: Meter, *, delimiter: str
) -> Iterator[RawRow]:
    """The rows below the header, by the number of the line from 1 that each begins at.

    Fields with delimiters, quotes or line ends in them stand in double quotes, quotes inside are
    doubled. Empty lines may stand at the end of the file alone.

    Raises:
        CorpusError: the quoting is wrong, a row has another number of fields than the header, or
            a needed column is missing; or as for `read_lines`.
    """
    # The module's only limit is for the whole process (131,072 characters at first); it is only
    # ever raised, to where a longer line is refused anyway.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    start = meter.start
    picked: list[int] = []
    num_fields = 0
    if start.offset:  # the header stands above
        header = next(csv.reader(_lines(file, Meter(), Start(), {}), delimiter=delimiter), [])
        picked, num_fields = _positions(header, columns, file.name), len(header)
    block: dict[int, int] = {}
    reader = csv.reader(_lines(file, meter, start, block), delimiter=delimiter, strict=True)
    blank = BlankLines(file.name)
    row, begins_at = start.row, start.line
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{file.name}, line {begins_at}: expected fields separated by {delimiter!r} and "
                f'quoted with ", found: {one_line(error)}. Put fields that hold quotes or line '
                "ends in quotes and double the quotes inside."
            ) from error
        if fields is None:
            return
        if not fields:
            blank.is_blank("", begins_at)
        elif blank.first is not None:
            raise blank.error()
        elif not picked:
            picked = _positions(fields, columns, file.name)
            num_fields = len(fields)
        else:
            if len(fields) != num_fields:
                raise CorpusError(
                    f"{file.name}, line {begins_at}: expected {num_fields} fields as in the "
                    f"header, found {len(fields)}. Quote fields that hold the delimiter."
                )
            # Position `num_fields` stands for a column that the file lacks.
            fields.append("")
            text, pair, label, key, lang = [fields[position] for position in picked]
            if begins_at in block and not file.compression:
                meter.here = Start(row, begins_at, block[begins_at])
            yield begins_at, text, pair, label, key, lang
            row += 1
        begins_at = start.line + reader.line_num


def _lines(file: SourceFile, meter: Meter, start: Start, block: dict[int, int]) -> Iterator[str]:
    """The file's lines; `block` holds the number of the current block's first one and its offset.

    Only there is a line's offset known; a row that begins there can be begun with.
    """
    for offset, number, lines in read_lines(file, meter, start):
        block.clear()
        block[number] = offset
        for line in lines:
            yield f"{line}\n"


def _positions(header: list[str], columns: Columns, name: str) -> list[int]:
    """The positions of text, pair, label, id and lang; `len(header)` for an absent one."""
    columns.check(header, f"{name}, line 1")
    for column in columns.names:
        if header.count(column) > 1:
            raise CorpusError(
                f"{name}, line 1: expected one column {column!r}, found {header.count(column)}. "
                "Give each column another name."
            )
    wanted = (columns.text, columns.pair, columns.label, columns.id, columns.lang)
    return [header.index(c) if c is not None and c in header else len(header) for c in wanted]
