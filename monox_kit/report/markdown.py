"""The report as a Markdown page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import assert_never

from monox_kit.foreign import markdown_text, shown_lines
from monox_kit.report.blocks import Block, Command, Items, Paragraph, Plot, Section, Table

# Longer cells run over, so that one of them does not fill every row with spaces.
_WIDEST_COLUMN = 40


def markdown(title: str, sections: Sequence[Section], images: Mapping[str, str] = {}) -> str:
    """The page as text.

    Args:
        title: of the page.
        sections: what it says.
        images: by the name of a plot, the file beside the page that shows it; other plots are left
            out.
    """
    parts = [f"# {markdown_text(title)}"]
    for section in sections:
        parts.append(f"## {markdown_text(section.heading)}")
        parts += [text for block in section.blocks if (text := _block(block, images))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, images: Mapping[str, str]) -> str:
    match block:
        case Paragraph(text):
            return markdown_text(text)
        case Items(texts):
            return "\n".join(f"- {markdown_text(text)}" for text in texts)
        case Table():
            return _table(block)
        case Command(text):
            # Indented, not fenced: no content can end the block early.
            return textwrap.indent(shown_lines(text), "    ", lambda line: True)
        case Plot(name, caption):
            return f"![{markdown_text(caption)}]({images[name]})" if name in images else ""
        case _ as unknown:
            assert_never(unknown)


def _table(table: Table) -> str:
    rows = [[markdown_text(cell) for cell in row] for row in table.rows]
    widths = [min(_WIDEST_COLUMN, max(3, *(len(cell) for cell in column))) for column in zip(*rows)]
    is_number = [table.numeric and position > 0 for position in range(len(widths))]
    rule = ["-" * (width - 1) + (":" if n else "-") for width, n in zip(widths, is_number)]
    lines = [_line(rows[0], widths, is_number), _line(rule, widths, is_number)]
    lines += [_line(row, widths, is_number) for row in rows[1:]]
    return markdown_text(table.caption) + "\n\n" + "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, is_number)
    )
    return f"| {' | '.join(padded)} |"
