"""Manual pages as text: the requests of roff's package `man`, read line by line.

What is read is what pages use to say something: headings, paragraphs, lists, fonts, tables, links,
conditions. Requests about layout are passed over, and so are macros of a page's own. No program is
run. Source: groff_man(7), groff(7), tbl(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from monox_kit.tasks.fields import joined
from monox_kit.tasks.manpages.escapes import plain, without_comment

_CONTROL = re.compile(r"[.'][ \t]*(?P<name>[^\s\\\"]*)[ \t]*(?P<rest>.*)", re.DOTALL)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)(?:"|$)|((?:\\.|[^\s\\])+)')
_CONDITION = re.compile(
    r"(?P<no>!?)(?P<what>[nteo](?=[\s\\.']|$)|[cdrmFS] ?\S+|'[^']*'[^']*'|\S+)[ \t]*(?P<rest>.*)"
)
_TAB = re.compile(r"\btab *\((.)\)")

_BREAKS = frozenset(
    ("PP", "P", "LP", "TP", "TQ", "HP", "RS", "RE", "sp", "br", "in", "ti", "bp", "Sp", "YS", "ce")
)
_SPACED = frozenset(("B", "I", "SM", "SB", "SY", "R", "CW"))
_ALTERNATING = frozenset(("BR", "BI", "IR", "IB", "RB", "RI"))
_VERBATIM = {"nf": True, "EX": True, "Vb": True, "fi": False, "EE": False, "Ve": False}
_LINKS = frozenset(("UR", "MT"))
# Of `mdoc`, the other package for manual pages.
_MDOC = frozenset(("Dd", "Dt", "Sh"))


@dataclass(slots=True)
class ManPage:
    """A page as it is read.

    Attributes:
        sections: the lines of each section, its heading first; a paragraph is one line.
        num_redirects: requests to read another file in its place (`.so`), which are not followed.
        is_mdoc: whether it is written for another package than `man`.
    """

    sections: list[list[str]] = field(default_factory=list)
    num_redirects: int = 0
    is_mdoc: bool = False

    @property
    def text(self) -> str | None:
        """What stands behind the first section, which names the page; None where nothing does."""
        rest = [line for section in self.sections[1:] for line in section]
        has_body = any(len(section) > 1 for section in self.sections[1:])
        return "\n".join(rest) if has_body else None


def read_roff(source: str, language: str) -> ManPage:
    """Read a page.

    Args:
        source: the file's text.
        language: tag with an underscore, such as `pt_BR`: whether joined lines need a space.
    """
    reader = _Reader(language)
    for line in _logical_lines(source):
        reader.read(line)
    reader.end_line()
    return reader.page


def arguments(rest: str) -> list[str]:
    """The arguments of a request; a quoted one may hold spaces, and `""` in it is a quote."""
    return [
        quoted.replace('""', '"') if bare == "" else bare
        for quoted, bare in _ARGUMENT.findall(rest)
    ]


def _logical_lines(source: str) -> Iterator[str]:
    """The lines without comments; one that ends with a backslash goes on in the next."""
    kept = ""
    for line in source.split("\n"):
        whole = kept + without_comment(line.rstrip("\r"))
        if (len(whole) - len(whole.rstrip("\\"))) % 2:
            kept = whole[:-1]
            continue
        kept = ""
        yield whole
    if kept:
        yield kept


class _Reader:
    """What a page has said so far, and how its next line is to be taken."""

    def __init__(self, language: str) -> None:
        self.page = ManPage()
        self._language = language
        self._line = ""
        self._glued = False  # whether the last text ended in `\c`
        self._verbatim = False
        self._heading = ""  # the request whose heading is the next line
        self._skip_until = ""  # the request that ends what is passed over
        self._block = 0  # depth of a block whose condition is false
        self._was_true = False
        self._branch_line = ""  # what a condition that holds leaves to be read
        self._table = ""  # `format`, `rows` or `cell` inside a table
        self._tab = "\t"
        self._link = ""
        self._strings: dict[str, str] = {}

    def read(self, line: str) -> None:
        """Take the next line, and what its conditions leave of it."""
        self._read(line)
        while self._branch_line:
            line, self._branch_line = self._branch_line, ""
            self._read(line)

    def _read(self, line: str) -> None:
        if self._block:
            self._block = max(self._block + line.count(r"\{") - line.count(r"\}"), 0)
            return
        match = _CONTROL.match(line)
        name = match["name"] if match else ""
        if self._skip_until:
            if name == self._skip_until:
                self._skip_until = ""
        elif self._table and not (match and self._table != "format" and not name[:1].isdigit()):
            self._read_table(line, name)
        elif match:
            self._request(name, match["rest"])
        else:
            self._text(line)

    def end_line(self) -> None:
        """End the line of text that is being filled."""
        if self._line and self.page.sections:
            self.page.sections[-1].append(self._line)
        self._line, self._glued = "", False

    def _text(self, line: str) -> None:
        if not line.strip() or (line[0] in " \t" and not self._verbatim):
            self.end_line()
        self._add(line)
        if self._verbatim and not self._glued:
            self.end_line()

    def _add(self, source: str) -> None:
        """Add text, as roff has it, to the line that is being filled."""
        words = " ".join(plain(source, self._strings).split())
        if not words:
            return
        if self._heading:
            self._begin_heading(words)
            return
        if not self._line:
            self._line = words
        elif self._glued:
            self._line += words
        else:
            self._line = joined(self._line, words, self._language)
        self._glued = source.endswith("\\c")

    def _begin_heading(self, words: str) -> None:
        """Begin a section, or put a subsection's heading on a line of its own."""
        is_section, self._heading = self._heading == "SH", ""
        if is_section:
            self.page.sections.append([words])
        elif self.page.sections:
            self.page.sections[-1].append(words)

    def _request(self, name: str, rest: str) -> None:
        """Do what a request says."""
        if name in ("SH", "SS"):
            self.end_line()
            self._heading, self._verbatim = name, False
            self._add(" ".join(arguments(rest)))
        elif name in _SPACED:
            if name == "SY":
                self.end_line()
            self._text_of(" ".join(arguments(rest)))
        elif name in _ALTERNATING:
            self._text_of("".join(arguments(rest)))
        elif name in _BREAKS:
            self.end_line()
        elif name == "IP":
            self.end_line()
            self._add(next(iter(arguments(rest)), ""))
        elif name in _VERBATIM:
            self.end_line()
            self._verbatim = _VERBATIM[name]
        elif name in ("if", "ie"):
            self._condition(rest, keep=name == "ie")
        elif name == "el":
            self._branch(rest, is_true=not self._was_true)
        else:
            self._rare(name, rest)

    def _rare(self, name: str, rest: str) -> None:
        """Do what one of the less common requests says; any other is of layout."""
        found = arguments(rest)
        if name == "TS":
            self.end_line()
            self._table, self._tab = "format", "\t"
        elif name in ("TE", "T&"):
            self.end_line()
            self._table = "format" if name == "T&" else ""
        elif name in ("de", "am", "ig", "EQ"):
            default = "EN" if name == "EQ" else "."
            ends_with = found[1:2] if name in ("de", "am") else found[:1] if name == "ig" else []
            self._skip_until = ends_with[0] if ends_with else default
        elif name == "ds" and found:
            value = rest.lstrip()[len(found[0]) :].lstrip().removeprefix('"')
            self._strings[found[0]] = plain(value, self._strings)
        elif name == "so":
            self.page.num_redirects += 1
        elif name in _MDOC:
            self.page.is_mdoc = True
        elif name in _LINKS:
            self._link = next(iter(found), "")
        elif name in ("UE", "ME"):
            link, self._link = self._link, ""
            self._add(f"<{link}>{''.join(found[:1])}" if link else "")
        elif name == "MR" and len(found) > 1:
            self._add(f"{found[0]}({found[1]}){''.join(found[2:3])}")
        elif name == "OP" and found:
            self._add(f"[{' '.join(found)}]")

    def _text_of(self, source: str) -> None:
        """Add the text of a request, a line of its own where lines are kept."""
        if source:
            self._add(source)
            if self._verbatim and not self._glued:
                self.end_line()

    def _condition(self, rest: str, *, keep: bool) -> None:
        """Take what follows a condition that holds for a page on a terminal."""
        match = _CONDITION.match(rest)
        if match is None:
            return
        # Whether roff is groff is what registers are asked for; a string is compared with "".
        is_true = match["what"] in ("n", "o", r"\n(.g", r"\n[.g]") or match["what"][:1] == "c"
        is_true = is_true != bool(match["no"])
        if keep:
            self._was_true = is_true
        self._branch(match["rest"], is_true=is_true)

    def _branch(self, rest: str, *, is_true: bool) -> None:
        """Take a line or the beginning of a block, or pass over it."""
        body = rest.lstrip()
        if is_true:
            self._branch_line = body.removeprefix(r"\{").lstrip()
        elif body.startswith(r"\{"):
            self._block = max(body.count(r"\{") - body.count(r"\}"), 0)

    def _read_table(self, line: str, name: str) -> None:
        """Take a line of a table: its format, or a row, whose cells are parted by spaces."""
        if self._table == "format":
            if name == "TE":
                self._rare(name, "")
            elif line.rstrip().endswith(";"):
                if tab := _TAB.search(line):
                    self._tab = tab[1]
            elif line.rstrip().endswith("."):
                self._table = "rows"
            return
        if self._table == "cell":
            if not line.startswith("T}"):
                self._add(line)
                return
            line = line[2:]
            self._table = "rows"
        else:
            self.end_line()
        cells = line.split(self._tab)
        if cells[-1].strip() == "T{":
            self._table = "cell"
            del cells[-1]
        if line.strip() not in ("_", "="):
            self._add(" ".join(cells))
        if self._table == "rows":
            self.end_line()
