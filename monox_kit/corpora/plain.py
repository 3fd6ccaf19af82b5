"""Plain text: a document a line."""

from __future__ import annotations

from collections.abc import Iterator

from monox_kit.corpora.blocks import read_lines
from monox_kit.corpora.paths import SourceFile
from monox_kit.corpora.rows import Columns, Meter, ReadRow, Start
from monox_kit.errors import CorpusError


class BlankLines:
    """The rule for empty lines of line-based formats: legal at the end of a file, nowhere else.

    Editors and shells leave them at the end. Between rows an empty line may be a lost document,
    and nothing is skipped silently.

    Attributes:
        first: number of the first empty line since the last row; None without one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.first: int | None = None

    def is_blank(self, line: str, number: int) -> bool:
        """Whether a line (without its line feed) is empty; if so it is remembered."""
        if line not in ("", "\r"):
            return False
        if self.first is None:
            self.first = number
        return True

    def error(self) -> CorpusError:
        """The error of the next row after an empty line; the line is forgotten."""
        number, self.first = self.first, None
        return CorpusError.of_row(
            f"{self._name}, line {number}",
            "expected a document, found an empty line",
            "Empty lines may only stand at the end of a file; remove it.",
            kind="an empty line",
        )


def read_plain(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    r"""The lines of a text file, numbered from 1; "\r\n" ends a line as "\n" does.

    Empty lines may stand at the end of the file alone.

    Raises:
        CorpusError: a column was named that plain text cannot have; a line has a carriage return
            inside; or as for `read_lines`.
    """
    for option, column in columns.required:
        raise CorpusError(
            f"{file.name}: expected a column {column!r}, found plain text, which has none. "
            f"Use a format that has columns, or leave out {option} if you gave it."
        )
    columns.look_for_label((), file.name, meter)
    blank = BlankLines(file.name)
    for offset, first, lines in read_lines(file, meter):
        if offset is not None:
            meter.here = Start(first - 1, first, offset)
        for number, line in enumerate(lines, first):
            if blank.is_blank(line, number):
                continue
            if blank.first is not None:
                yield blank.error()
            text = line.removesuffix("\r")
            # It may end a line (old Mac files) or be part of a text: not ours to guess.
            if "\r" in text:
                yield CorpusError.of_row(
                    f"{file.name}, line {number}",
                    "expected one line, found a carriage return at character "
                    f"{text.index(chr(13)) + 1}",
                    "End lines with a line feed, or use JSONL for texts of several lines.",
                    kind="a carriage return inside a line",
                )
                continue
            yield number, text, None, None, None, None, None
