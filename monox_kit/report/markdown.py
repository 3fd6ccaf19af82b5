"""The report as a Markdown page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import assert_never

from monox_kit.report.blocks import Block, Command, Items, Paragraph, Plot, Section, Table

# Characters that would begin markup in running text or end a table's cell.
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*|<>~$"})

# Longer cells run over, so that one of them does not fill every row with spaces.
_WIDEST_COLUMN = 40


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The page as text; plots are left out."""
    parts = [f"# {escaped(title)}"]
    for section in sections:
        parts.append(f"## {escaped(section.heading)}")
        parts += [text for text in map(_block, section.blocks) if text]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """The text on one line, so that it shows as it is and not as markup, links or HTML."""
    line = " ".join(text.split()).translate(_MARKUP)
    return line.replace("](", "]\\(").replace("&", "&amp;")


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return escaped(text)
        case Items(texts):
            return "\n".join(f"- {escaped(text)}" for text in texts)
        case Table():
            return _table(block)
        case Command(text):
            # Indented, not fenced: no content can end the block early.
            return textwrap.indent(text, "    ", lambda line: True)
        case Plot():
            return ""
        case _ as unknown:
            assert_never(unknown)


def _table(table: Table) -> str:
    rows = [[escaped(cell) for cell in row] for row in table.rows]
    widths = [min(_WIDEST_COLUMN, max(3, *(len(cell) for cell in column))) for column in zip(*rows)]
    is_number = [table.numeric and position > 0 for position in range(len(widths))]
    rule = ["-" * (width - 1) + (":" if n else "-") for width, n in zip(widths, is_number)]
    lines = [_line(rows[0], widths, is_number), _line(rule, widths, is_number)]
    lines += [_line(row, widths, is_number) for row in rows[1:]]
    return escaped(table.caption) + "\n\n" + "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, is_number)
    )
    return f"| {' | '.join(padded)} |"
