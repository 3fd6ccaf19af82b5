"""The model card of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monox_kit import __version__
from monox_kit.training.summary import TrainingSummary


def model_card(model: str, summary: TrainingSummary, fingerprint: Mapping[str, Any]) -> str:
    """The model card: what it was made from, how, and how it did on the dev set."""
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.counts.items())
    settings = [[key, value] for key, value in fingerprint.items()]
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n\n"
        f"# {summary.path.name}\n\nFine-tuned from `{model}` with monoxkit {__version__}, "
        f"objective `{summary.method}`.\n\n- rows: {counts}\n- steps: {summary.num_steps}, weights "
        f"kept from step {summary.best_step}\n- dev accuracy: {100 * summary.dev_accuracy:.1f} %\n"
        + _rounds_section(summary.rounds)
        + _classes_section(summary.classes)
        + _markdown_table(["setting", "value"], settings)
    )


def _rounds_section(rounds: Sequence[Mapping[str, Any]]) -> str:
    if not rounds:
        return ""
    rows = [
        [
            f"{each['round']}{' (kept)' if each['kept'] else ''}",
            f"{each['num_rows']:,}",
            f"{each['num_steps']:,}",
            f"{100 * each['dev_accuracy']:.1f} %",
        ]
        for each in rounds
    ]
    return _markdown_table(["round", "rows", "steps", "dev accuracy"], rows)


def _classes_section(classes: Mapping[str, Mapping[str, int]]) -> str:
    if not classes:
        return ""
    columns = next(iter(classes.values()))
    rows = [[name, *(f"{counts[what]:,}" for what in columns)] for name, counts in classes.items()]
    return _markdown_table(["teacher's label", *columns], rows)


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with an empty line before it."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in cells)
