"""CSV and TSV with a header, with quotes as RFC 4180 has them or with none."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from monox_kit.corpora.blocks import read_lines
from monox_kit.corpora.detection import delimiter_of
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.plain import BlankLines
from monox_kit.corpora.rows import MAX_VALUE_BYTES, Columns, Meter, ReadRow, Start
from monox_kit.errors import CorpusError

# Lines of swallowed rows that a note names.
_MOST_TOLD = 5


def read_csv(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    """The rows of a comma-separated file; see `read_delimited`."""
    return read_delimited(file, columns, meter, default=",")


def read_tsv(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    """The rows of a tab-separated file; see `read_delimited`."""
    return read_delimited(file, columns, meter, default="\t")


def read_delimited(
    file: SourceFile, columns: Columns, meter: Meter, *, default: str
) -> Iterator[ReadRow]:
    """The rows below the header, by the number of the line from 1 that each begins at.

    The delimiter is the one that was given, else the one under which the header has the text's
    column. With quotes, fields with delimiters, quotes or line ends in them stand in double quotes,
    and quotes inside are doubled; without, a line is a row and a quote a character. Empty lines may
    stand at the end of the file alone. A label that is a JSON array is a list of labels.

    Args:
        file: what to read.
        columns: those that are read.
        meter: told the position, what was guessed, and lines that quotes seem to have swallowed.
        default: the delimiter that the format's name says.

    Raises:
        CorpusError: the quoting is wrong, a record exceeds `MAX_VALUE_BYTES`, or a needed column is
            missing; or as for `read_lines`.
    """
    # The module's only limit is for the whole process (131,072 characters at first); it is only
    # ever raised, to where a longer record is refused anyway.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_VALUE_BYTES))
    start = meter.start
    # Where reading begins inside, the header stands above, in a pass of its own.
    header_lines = _Lines(file, Meter() if start.offset else meter, Start())
    layout = _layout(header_lines, columns, file, default, meter)
    if layout is None:
        return
    lines, row = header_lines, 0
    if start.offset:
        lines, row = _Lines(file, meter, start), start.row
    swallowed = _Swallowed(file.name, layout, meter)
    blank = BlankLines(file.name)
    for begins_at, fields in _records(lines, layout, file.name):
        if not fields:
            blank.is_blank("", begins_at)
            continue
        if blank.first is not None:
            yield blank.error()
        if len(fields) != layout.num_fields:
            yield CorpusError.of_row(
                f"{file.name}, line {begins_at}",
                f"expected {layout.num_fields} fields as in the header, found {len(fields)}",
                "Quote fields that hold the delimiter, or see `delimiter` and `quoting`.",
                kind=f"not {layout.num_fields} fields as in the header",
                found=str(len(fields)),
            )
            row += 1
            continue
        swallowed.look_at(begins_at, lines.number - begins_at, fields)
        # Position `num_fields` stands for a column that the file lacks.
        fields.append("")
        text, pair, label, key, lang, answer = [fields[position] for position in layout.picked]
        offset = lines.offset_of(begins_at)
        if offset is not None:
            meter.here = Start(row, begins_at, offset)
        yield begins_at, text, pair, _listed(label), key, lang, answer
        row += 1
    swallowed.tell()


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a file's header says.

    Attributes:
        delimiter: between fields.
        is_quoted: whether fields may stand in quotes.
        picked: positions of text, pair, label, id, lang and answer; `num_fields` for an absent one.
        num_fields: of every row.
    """

    delimiter: str
    is_quoted: bool
    picked: Sequence[int]
    num_fields: int


class _Lines:
    """A file's lines one by one, and where the current block of them begins.

    Attributes:
        number: of the line that comes next, from 1.
    """

    def __init__(self, file: SourceFile, meter: Meter, start: Start) -> None:
        self.number = start.line
        self._name = file.name
        self._lines = self._each(file, meter, start)
        self._block: tuple[int, int | None] = (0, None)
        self._record_chars = 0

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def begin_record(self) -> int:
        """The number of the record's first line; what comes before it counts no more."""
        self._record_chars = 0
        return self.number

    def offset_of(self, number: int) -> int | None:
        """Bytes before a line; None but for the first of the current block."""
        first, offset = self._block
        return offset if number == first else None

    def _each(self, file: SourceFile, meter: Meter, start: Start) -> Iterator[str]:
        for offset, number, lines in read_lines(file, meter, start, guess=True):
            self._block = number, offset
            for line in lines:
                self.number += 1
                self._record_chars += len(line)
                if self._record_chars > MAX_VALUE_BYTES:  # a quote that nothing closes
                    raise CorpusError(
                        f"{self._name}, line {self.number - 1}: a quoted field goes on for more "
                        f"than {MAX_VALUE_BYTES >> 20} MiB. Close its quote, or give `quoting` "
                        "none where quotes are characters like any other."
                    )
                yield f"{line}\n"


def _layout(
    lines: _Lines, columns: Columns, file: SourceFile, default: str, meter: Meter
) -> _Layout | None:
    """What the header says; None of an empty file."""
    dialect = file.dialect
    first = next(iter(lines), None)
    if first is None:
        return None

    def parse(line: str, delimiter: str) -> list[str]:
        return _fields(line, delimiter, _is_quoted(file, default, delimiter))

    delimiter = dialect.delimiter or delimiter_of(first, columns, default, parse)
    if delimiter != default and not dialect.delimiter:
        meter.note(
            f"{file.name}: fields are separated by {delimiter!r}, as the header shows; "
            "set it with `delimiter`"
        )
    is_quoted = _is_quoted(file, default, delimiter)
    header = _header(first, lines, delimiter, is_quoted, file.name)
    if not header:
        if any(map(str.strip, lines)):
            raise CorpusError(
                f"{file.name}, line 1: expected a header, found an empty line. Remove it."
            )
        return None
    if dialect.delimiter and columns.text not in header:
        better = delimiter_of(first, columns, default, parse)
        if columns.text in parse(first, better):
            raise CorpusError(
                f"{file.name}, line 1: `delimiter` {delimiter!r} gives "
                f"{'one column' if len(header) == 1 else f'{len(header)} columns'}, none of them "
                f"{columns.text!r}, which the header has between {better!r}. Give that, or leave "
                "`delimiter` out."
            )
    columns.check(header, f"{file.name}, line 1", meter)
    return _Layout(delimiter, is_quoted, _positions(header, columns), len(header))


def _header(first: str, lines: _Lines, delimiter: str, is_quoted: bool, name: str) -> list[str]:
    """The names of the columns; a quoted one may hold line ends."""
    if not is_quoted:
        return _fields(first, delimiter, is_quoted)

    def whole() -> Iterator[str]:
        yield first
        yield from lines

    try:
        return next(csv.reader(whole(), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise _wrong_quoting(name, 1, delimiter, error) from error


def _is_quoted(file: SourceFile, default: str, delimiter: str) -> bool:
    quoting = file.dialect.quoting
    return quoting == "minimal" or (quoting == "auto" and not (default == delimiter == "\t"))


def _fields(line: str, delimiter: str, is_quoted: bool) -> list[str]:
    """The fields of one line; none of an empty one."""
    if is_quoted:
        return next(csv.reader([line], delimiter=delimiter), [])
    content = line.removesuffix("\n").removesuffix("\r")
    return content.split(delimiter) if content else []


def _records(lines: _Lines, layout: _Layout, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line and its fields."""
    begins_at = lines.begin_record()
    if not layout.is_quoted:
        for line in lines:
            yield begins_at, _fields(line, layout.delimiter, False)
            begins_at = lines.begin_record()
        return
    reader = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _wrong_quoting(name, begins_at, layout.delimiter, error) from error
        if fields is None:
            return
        yield begins_at, fields
        begins_at = lines.begin_record()


def _wrong_quoting(name: str, line: int, delimiter: str, error: csv.Error) -> CorpusError:
    return CorpusError(
        f'{name}, line {line}: expected fields separated by {delimiter!r} and quoted with ", '
        f"found: {one_line(error)}. Put fields that hold quotes or line ends in quotes and double "
        "the quotes inside, or give `quoting` none where quotes are characters like any other."
    )


def _positions(header: list[str], columns: Columns) -> list[int]:
    """The positions of a raw row's columns; `len(header)` for an absent one."""
    return [header.index(c) if c in header else len(header) for c in columns.fields]


def _listed(label: str) -> Any:
    """A label as it is, or the list that a JSON array of labels stands for."""
    if not (label.startswith("[") and label.endswith("]")):
        return label
    try:
        return json.loads(label)
    except (ValueError, RecursionError):
        return label


@dataclass(slots=True)
class _Swallowed:
    """Fields that quotes may be wrong about: told once a file, since they may be right as well."""

    name: str
    layout: _Layout
    meter: Meter
    lines: list[int] = field(default_factory=list)
    count: int = 0
    num_quoted: int = 0
    first_quoted: int = 0

    def look_at(self, begins_at: int, num_lines: int, fields: Sequence[str]) -> None:
        """Notice a record over several lines, one of which has the delimiters of a row.

        Where quotes are characters, notice a field that is quoted as CSV has it.
        """
        if num_lines > 1:
            for line in self._rows_inside(fields):
                self.count += 1
                if len(self.lines) < _MOST_TOLD:
                    self.lines.append(begins_at + line)
        elif not self.layout.is_quoted:
            position = self.layout.picked[0]
            text = fields[position]
            if (
                len(text) > 1
                and text[0] == text[-1] == '"'
                and '"' not in text[1:-1].replace('""', "")
            ):
                self.num_quoted += 1
                self.first_quoted = self.first_quoted or begins_at

    def _rows_inside(self, fields: Sequence[str]) -> Iterator[int]:
        """Lines of a record, from 0, that have as many delimiters as the header."""
        wanted, line = self.layout.num_fields - 1, 0
        for before, value in enumerate(fields):
            first, *others = value.split("\n")
            inside = first.count(self.layout.delimiter)
            # A row that opens with a stray quote: what is left of it stands in the field.
            if others and inside and before + inside == wanted:
                yield line
            for part in others:
                line += 1
                if wanted and part.count(self.layout.delimiter) == wanted:
                    yield line

    def tell(self) -> None:
        """Say what was noticed."""
        if self.count:
            rows = "1 line" if self.count == 1 else f"{self.count:,} lines"
            places = ", ".join(map(str, self.lines)) + ("" if self.count <= _MOST_TOLD else ", ...")
            self.meter.note(
                f"{self.name}, line {places}: {rows} inside of quoted fields look like rows of "
                "their own. Where they are, give `quoting` none, or close the quotes before them"
            )
        if self.num_quoted:
            self.meter.note(
                f"{self.name}, line {self.first_quoted}: {self.num_quoted:,} texts stand in quotes "
                "and are read with them. Where they are no part of the text, give `quoting` minimal"
            )
