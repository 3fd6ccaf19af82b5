"""What every report says of accuracy by language: its plots, its table, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monox_kit.report.blocks import Block, Items, Paragraph, Plot, Table
from monox_kit.report.rows import accuracy_rows
from monox_kit.report.scores import Scores


def accuracy_blocks(scores: Scores, notes: Sequence[str], suffix: str = "") -> list[Block]:
    """Plots and table of some scores.

    Args:
        scores: what is shown.
        notes: on how to read them, behind what holds for all.
        suffix: of the plots' names, which no other plot of the page has.
    """
    rows = accuracy_rows(scores)
    return [
        Plot(
            f"averages{suffix}",
            f"Average over the target languages (filled) and {scores.source_language} "
            "(hollow), with 95 % intervals. The axis does not start at 0.",
        ),
        Plot(
            f"languages{suffix}",
            f"{scores.measure.capitalize()} by language with 95 % intervals, systems from top to "
            "bottom as in the legend. The axis does not start at 0.",
        ),
        Table(
            rows,
            f"{scores.measure.capitalize()} in percent, with 95 % intervals in brackets.",
            numeric=True,
            num_summary_rows=len(rows) - 1 - len(scores.languages),
        ),
        Paragraph("How to read it:"),
        Items((*_reading(scores), *notes)),
    ]


def _reading(scores: Scores) -> Iterator[str]:
    yield (
        "The intervals are 95 % percentile bootstrap intervals over the test rows of a language "
        "(column rows). They say how far the number would move with other test rows of the same "
        "kind."
    )
    yield (
        "The intervals of the average and of minus ce resample documents over all languages at "
        "once: where test sets translate the same text, their errors go together, and so do the "
        "resamples."
    ).replace("minus ce", f"minus {scores.baseline}")
    how = (
        "Its interval is paired: both systems are resampled on the same documents."
        if scores.is_paired
        else "Its interval takes the errors of the two systems on the documents as independent, "
        "which is too wide, where they were not compared row by row (command compare)."
    )
    yield (
        f"minus {scores.baseline} is the difference of two target averages in percentage points. "
        f"{how} Where it holds 0, the difference may be noise of the test rows."
    )
    if "pl" in scores.languages:
        yield (
            "In the column language, pl is Polish; at the head of the table it is the system "
            "trained on pseudo-labels."
        )
