"""What every reader yields and what it is told: raw rows, column names, the reading position."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from monox_kit.errors import CorpusError

# Position in the file, then the values of the columns text, pair, label, id and lang; a column
# that the input lacks is None. A tuple, because a reader makes one for every row.
RawRow: TypeAlias = tuple[int, Any, Any, Any, Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns that a reader picks.

    Attributes:
        text: must exist.
        pair: None where pairs are not read.
        label: the gold label's column.
        id: the column of document keys.
        lang: the column of language tags.
        required: (option, column) of the optional columns that must exist all the same, because
            the user named them.
    """

    text: str
    pair: str | None
    label: str
    id: str
    lang: str
    required: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        pair = () if self.pair is None else (self.pair,)
        return (self.text, *pair, self.label, self.id, self.lang)

    def check(self, found: Collection[str], where: str) -> None:
        """Check that the needed columns are among those of a file or a row.

        Raises:
            CorpusError: one is missing; the message lists those that exist.
        """
        for option, column in (("--text-column", self.text), *self.required):
            if column not in found:
                raise missing_column(where, column, option, found)


@dataclass(frozen=True, slots=True)
class Start:
    """A place in a file where reading can begin.

    Attributes:
        row: rows of the file before it.
        line: number of its line from 1, in a format of lines.
        offset: bytes of the file before it, in a format of lines.
    """

    row: int = 0
    line: int = 1
    offset: int = 0


@dataclass(slots=True)
class Meter:
    """Where a reader begins, and how far it has come.

    Attributes:
        finished_bytes: sizes of the files that are done, as they lie in storage.
        file_bytes: position in the current file.
        file: position of the current file in the corpus.
        first_row: the corpus's row that is the file's first.
        start: where the reader of the current file is to begin.
        here: the last place, at or before the current row, where another pass could begin.
            Readers that can begin at the top of a file alone leave it there.
    """

    finished_bytes: int = 0
    file_bytes: int = 0
    file: int = 0
    first_row: int = 0
    start: Start = Start()
    here: Start = Start()

    def begin_file(self, file: int, first_row: int, start: Start) -> None:
        """Let the reader of the next file begin at `start`."""
        self.file, self.first_row = file, first_row
        self.start = self.here = start

    @property
    def bytes_read(self) -> int:
        """Bytes of finished files and of the current one."""
        return self.finished_bytes + self.file_bytes

    def finish_file(self, size_bytes: int) -> None:
        """Count the current file as done."""
        self.finished_bytes += size_bytes
        self.file_bytes = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSource:
    """One file or hub dataset that can be read again and again.

    Attributes:
        name: as the user knows it; starts every error message.
        size_bytes: None where it is not known.
        unit: what a raw row's position counts: `line` (from 1) or `row` (from 0).
        rows: one pass over the raw rows in order, from `Meter.start` on.
    """

    name: str
    size_bytes: int | None
    unit: str
    rows: Callable[[Columns, Meter], Iterator[RawRow]]

    def where(self, position: int) -> str:
        """The place of a row for an error message."""
        return f"{self.name}, {self.unit} {position}"


def missing_column(where: str, column: str, option: str, found: Collection[str]) -> CorpusError:
    """The error for a column that is not there."""
    shown = ", ".join(list(found)[:30]) if found else "none"
    more = f", ... ({len(found) - 30} more)" if len(found) > 30 else ""
    return CorpusError(
        f"{where}: expected a column {column!r}, found columns: {shown}{more}. Use {option}."
    )


def shown(value: str | float, most: int = 60) -> str:
    """A value for an error message, cut after `most` characters.

    Escaped to ASCII, so that a terminal can print what it holds, lone surrogates included.
    """
    # Cut before escaping: a text may be megabytes long.
    text = ascii(value[:most] if isinstance(value, str) else value)
    return f"{text}..." if isinstance(value, str) and len(value) > most else text
