"""What every reader yields and what it is told: raw rows, columns, dialect, reading position."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from monox_kit.errors import CorpusError, CorpusUnreadable
from monox_kit.unseen import look

# The largest line, record or value that is held in memory, in every format.
MAX_VALUE_BYTES = 64 << 20
# Labels of one row.
MAX_LABELS = 10_000

# Position in the file, or a place in words where the file's unit does not tell rows apart; then the
# values of the columns text, pair, label, id, lang and answer; a column that the input lacks is
# None. A tuple, because a reader makes one for every row; a row that the reader cannot use, but can
# read on behind, is its error.
RawRow: TypeAlias = tuple[int | str, Any, Any, Any, Any, Any, Any]
ReadRow: TypeAlias = RawRow | CorpusError

Quoting: TypeAlias = Literal["auto", "none", "minimal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How the characters of a file are read, as far as the user said.

    Attributes:
        delimiter: between the fields of CSV and TSV; None to go by the header.
        encoding: of formats of lines; None to go by the file's first bytes.
        quoting: of CSV and TSV: `minimal`: fields may stand in double quotes; `none`: a quote is a
            character like any other; `auto`: `none` where tabs part the fields of TSV.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quoting: Quoting = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns that a reader picks.

    Attributes:
        text: must exist.
        pair: None where pairs are not read.
        label: the gold label's column; None where gold labels are not read.
        id: the column of document keys.
        lang: the column of language tags.
        answer: the column of what a teacher said of the row; None where nobody asks for it.
        required: (option, column) of the optional columns that must exist all the same, because
            the user named them, or because their values are needed.
        label_is_sought: whether the user named the label's column where labels are not needed: a
            file may lack it, which is told.
        answer_may_lack: whether a row with columns of its own may lack the answer's.
    """

    text: str
    pair: str | None
    label: str | None
    id: str
    lang: str
    answer: str | None = None
    required: tuple[tuple[str, str], ...] = ()
    label_is_sought: bool = False
    answer_may_lack: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(column for column in self.fields if column is not None)

    @property
    def fields(self) -> tuple[str, str | None, str | None, str, str, str | None]:
        """The columns in the order of a raw row's values."""
        return self.text, self.pair, self.label, self.id, self.lang, self.answer

    def check(
        self,
        found: Collection[str],
        where: str,
        meter: Meter | None = None,
        *,
        is_row: bool = False,
    ) -> None:
        """Check that the needed columns are among those of a file or a row, each once.

        Args:
            found: the columns that there are.
            where: the file or row, for messages.
            meter: told whether the label's and the answer's columns are there; None where nobody
                asks.
            is_row: whether the columns are one row's, and others may have others.

        Raises:
            CorpusError: one is missing, and the message lists those that exist; or there twice; or
                one that is read looks like another that is there, and would be lost without a word.
        """
        _refuse_lookalikes(self.names, found, where)
        for option, column in (("`text_column`", self.text), *self.required):
            if column in found:
                continue
            error = _missing_column(where, column, option, found)
            if not (is_row and self.answer_may_lack and column == self.answer and meter):
                raise error
            meter.without_answer = meter.without_answer or error
        for column in self.names:
            if (count := sum(name == column for name in found)) > 1:
                raise CorpusError(
                    f"{where}: expected one column {column!r}, found {count}. Give each column "
                    "another name."
                )
        if meter is not None:
            meter.has_answer_column |= self.answer in found
            self.look_for_label(found, where, meter)

    def look_for_label(self, found: Collection[str], where: str, meter: Meter) -> None:
        """Tell a meter whether the label's column is there, and once a file that it is not."""
        if self.label in found:
            meter.has_label_column = True
        elif self.label_is_sought and meter.file not in meter.without_labels:
            meter.without_labels[meter.file] = where, _listed(found)
            meter.note(
                f"{where}: there is no column {self.label!r} (columns: {_listed(found)}), so that "
                "rows without it have no gold labels"
            )

    def renamed(self, columns: Sequence[tuple[str, str]]) -> Columns:
        """These columns with others for one file, by `text`, `pair`, `label`, `id` and `lang`."""
        if not columns:
            return self
        required = {column: option for option, column in self.required}
        for name, column in columns:
            required.pop(str(getattr(self, name)), None)
            required[column] = f"FILE:{name}=COLUMN"
        named = tuple((option, column) for column, option in required.items())
        sought = self.label_is_sought and "label" not in dict(columns)
        return replace(
            self,
            **dict(columns),
            required=named,
            label_is_sought=sought,
            answer_may_lack=self.answer_may_lack,
        )


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


def _unheard(message: str) -> None:
    """A note that nobody reads."""


@dataclass(slots=True)
class Meter:
    """Where a reader begins, how far it has come, and whom it tells.

    Attributes:
        finished_bytes: sizes of the files that are done, as they lie in storage.
        file_bytes: position in the current file.
        file: position of the current file in the corpus.
        first_row: the corpus's row that is the file's first.
        start: where the reader of the current file is to begin.
        here: the last place, at or before the current row, where another pass could begin.
            Readers that can begin at the top of a file alone leave it there.
        note: called with a sentence on what was guessed about a file, or looks wrong in it.
        without_labels: of the files in which rows lack the column of labels, the place of
            the first and its columns, by the file's position; shared by passes, which tell it once.
        has_label_column: whether the label's column was there in a row of this pass.
        without_answer: what is wrong with the first row of this pass that lacks the answer's
            column, and may.
        has_answer_column: whether the answer's column was there in a row of this pass.
    """

    finished_bytes: int = 0
    file_bytes: int = 0
    file: int = 0
    first_row: int = 0
    start: Start = Start()
    here: Start = Start()
    note: Callable[[str], None] = _unheard
    without_labels: dict[int, tuple[str, str]] = field(default_factory=dict)
    has_label_column: bool = False
    without_answer: CorpusError | None = None
    has_answer_column: bool = False

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
        columns: what is read of it.
        rows: one pass over the raw rows in order, from `Meter.start` on.
    """

    name: str
    size_bytes: int | None
    unit: str
    columns: Columns
    rows: Callable[[Columns, Meter], Iterator[ReadRow]]

    def where(self, position: int | str) -> str:
        """The place of a row for an error message."""
        return place(self.name, self.unit, position)


def place(name: str, unit: str, position: int | str) -> str:
    """The place of a row: a position in units, or words that say it themselves."""
    return f"{name}, {position}" if isinstance(position, str) else f"{name}, {unit} {position}"


def package(module: str, where: str, use: str, install: str) -> Any:
    """A module that only some input needs.

    Raises:
        CorpusUnreadable: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CorpusUnreadable(
            f"{where}: expected the package {module.partition('.')[0]} for {use}, found none. "
            f"Run `pip install {install}`."
        ) from error


def _missing_column(where: str, column: str, option: str, found: Collection[str]) -> CorpusError:
    """The error for a column that is not there."""
    known = f"found columns: {_listed(found)}"
    field_name = option.strip("`").partition("_")[0]
    return CorpusError.of_row(
        where,
        f"expected a column {column!r}, {known}",
        f"Use {option}, or name this file's own as FILE:{field_name}=COLUMN."
        if option.startswith("`")
        else f"Correct {option}.",
        kind=f"no column {column!r}",
        found=known,
        is_step_of_all=True,
    )


def _listed(columns: Collection[str]) -> str:
    """Names of columns for a message."""
    first = [*columns][:30]
    listed = ", ".join(shown(name) if not name.isprintable() else name for name in first)
    more = f", ... ({len(columns) - 30} more)" if len(columns) > 30 else ""
    return f"{listed or 'none'}{more}"


def _refuse_lookalikes(wanted: Sequence[str], found: Collection[str], where: str) -> None:
    """Refuse a column that differs from one that is read by nothing that can be seen."""
    looks = {look(name): name for name in wanted}
    for name in found:
        column = looks.get(look(name), name)
        if column != name:
            raise CorpusError.of_row(
                where,
                f"column {name!a} looks like the column {column!a} that is read, and is "
                "another one",
                "Correct the file's column name, or give it as it is.",
                kind=f"a column that looks like {column!r}",
            )


def shown(value: str | float, most: int = 60) -> str:
    """A value for an error message, cut after `most` characters.

    Escaped to ASCII, so that a terminal can print what it holds, lone surrogates included.
    """
    # Cut before escaping: a text may be megabytes long.
    text = ascii(value[:most] if isinstance(value, str) else value)
    return f"{text}..." if isinstance(value, str) and len(value) > most else text
