"""What the report's pages are made of; every string is plain text, the renderers escape it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of points."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        rows: cells, the header first; all rows have the header's length.
        caption: what it shows.
        numeric: whether the columns after the first hold numbers.
        num_summary_rows: rows at the end that sum the others up.
    """

    rows: Sequence[Sequence[str]]
    caption: str
    numeric: bool = False
    num_summary_rows: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A command line to copy."""

    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The place of a plot; pages without images leave it out.

    Attributes:
        name: which one.
        caption: what it shows and how to read it.
    """

    name: str
    caption: str


Block = Paragraph | Items | Table | Command | Plot


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    heading: str
    blocks: Sequence[Block]
