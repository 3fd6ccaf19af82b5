"""The report as one HTML file that loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import assert_never

from monox_kit.foreign import shown_lines
from monox_kit.report.blocks import (
    Block,
    Command,
    Items,
    Paragraph,
    Plot,
    Section,
    Table,
)

# Nothing may be fetched or run, whatever the values hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --muted: #5b5b62; --line: #d9d9de;
  --page: #fbfbfc; --band: #f1f1f4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8ea; --muted: #a5a5ad; --line: #3a3a41; --page: #17171a; --band: #222227; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { margin-top: 2.5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line);
  font-size: 1.2rem; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
li { margin: .25rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption, figcaption { color: var(--muted); font-size: .9rem; text-align: left; }
caption { padding-bottom: .4rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
thead th { border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 500; }
tbody th, thead th:first-child { min-width: 6rem; }
table.numeric th + th, table.numeric td { text-align: right; white-space: nowrap; }
tr.summary { background: var(--band); }
tr.summary th { font-weight: 600; }
figure { margin: 1.5rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: .5rem;
  background: #fff; color: #1c1c1e; }
figcaption { margin-top: .5rem; color: #5b5b62; }
figure svg { display: block; width: 100%; height: auto; max-width: 50rem; margin: 0 auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
pre { overflow-x: auto; padding: .8rem 1rem; border-radius: .5rem; background: var(--band);
  font-size: .85rem; }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 3rem; } h1 { font-size: 1.3rem; }
  figure { overflow-x: auto; padding: .6rem; } figure svg { width: 38rem; max-width: none; }
  tbody th, thead th:first-child { position: sticky; left: 0; background: var(--page); }
  th, td { padding: .3rem .5rem; } }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""


def page(title: str, sections: Sequence[Section], plots: Mapping[str, str]) -> str:
    """The page as text.

    Args:
        title: of the page.
        sections: what it says.
        plots: by name, the inside of an SVG element with its view box; see `drawing.svg_element`.
    """
    body = [f"<h1>{_text(title)}</h1>"]
    for section in sections:
        body.append(f"<section>\n<h2>{_text(section.heading)}</h2>")
        body += [_block(block, plots) for block in section.blocks]
        body.append("</section>")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>"]
    return "\n".join([*lines, "<main>", *body, "</main>", "</body>", "</html>"]) + "\n"


def _block(block: Block, plots: Mapping[str, str]) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Items(texts):
            items = "\n".join(f"<li>{_text(text)}</li>" for text in texts)
            return f"<ul>\n{items}\n</ul>"
        case Table():
            return _table(block)
        case Command(text):
            return f"<pre><code>{_text(text)}</code></pre>"
        case Plot(name, caption):
            if name not in plots:
                return ""
            svg = plots[name].replace("<svg ", f'<svg role="img" aria-label="{_text(caption)}" ', 1)
            return f"<figure>\n{svg}\n<figcaption>{_text(caption)}</figcaption>\n</figure>"
        case _ as unknown:
            assert_never(unknown)


def _table(table: Table) -> str:
    header, *rows = table.rows
    first_summary = len(rows) - table.num_summary_rows
    cells = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    lines = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.caption)}">',
        '<table class="numeric">' if table.numeric else "<table>",
        f"<caption>{_text(table.caption)}</caption>",
        f"<thead><tr>{cells}</tr></thead>",
        "<tbody>",
    ]
    for position, (first, *others) in enumerate(rows):
        kind = ' class="summary"' if position >= first_summary else ""
        values = "".join(f"<td>{_text(cell)}</td>" for cell in others)
        lines.append(f'<tr{kind}><th scope="row">{_text(first)}</th>{values}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", "</div>"])


def _text(text: str) -> str:
    return escape(shown_lines(text), quote=True)
