"""Tables as LaTeX, for papers; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from monox_kit.foreign import shown
from monox_kit.report.blocks import Table

_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def latex(table: Table, label: str) -> str:
    """A table as a floating environment.

    Args:
        table: its caption stands above it, its summary rows below a line.
        label: for references to it.
    """
    header, *rows = table.rows
    columns = "l" + ("r" if table.numeric else "l") * (len(header) - 1)
    first_summary = len(rows) - table.num_summary_rows
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.caption)}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _line(header),
        "\\midrule",
    ]
    for position, row in enumerate(rows):
        if position == first_summary and position:
            lines.append("\\midrule")
        lines.append(_line(row))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def latex_text(text: object) -> str:
    """The text on one line of LaTeX, so that it shows as it is."""
    return shown(" ".join(str(text).split())).translate(_ESCAPED)


def _line(cells: Sequence[str]) -> str:
    # A bracket behind \\ would be taken for an argument of it.
    return " & ".join("{}" + latex_text(cell) for cell in cells) + r" \\"
