"""What a model card tells of the objective: rounds of self-training, rows by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monox_kit.training.summary import TrainingSummary


def objective_tables(summary: TrainingSummary) -> Iterator[str]:
    """The lines of the tables, an empty one before each; none where there is nothing to tell."""
    if summary.rounds:
        rows = [
            [
                f"{each['round']}{' (kept)' if each['kept'] else ''}",
                f"{each['num_rows']:,}",
                f"{each['num_steps']:,}",
                f"{100 * each['dev_accuracy']:.1f} %",
            ]
            for each in summary.rounds
        ]
        yield from _table(["round", "rows", "steps", "dev accuracy"], rows)
    if summary.classes:
        columns = list(next(iter(summary.classes.values())))
        rows = [
            [name, *(f"{counts[column]:,}" for column in columns)]
            for name, counts in summary.classes.items()
        ]
        yield from _table(["teacher's label", *columns], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
