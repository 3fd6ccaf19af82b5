"""The model card of a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monox_kit import __version__
from monox_kit.foreign import markdown_code, markdown_text, stored_name
from monox_kit.problem import shown_measure
from monox_kit.training.origin import Origin
from monox_kit.training.summary import TrainingSummary

_FRONT = "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n"


def model_card(
    model: str, summary: TrainingSummary, origin: Origin, fingerprint: Mapping[str, Any]
) -> str:
    """The model card: what it was made from, how, and how it did on the dev sets."""
    settings = [[key, str(value)] for key, value in fingerprint.items()]
    lines = (
        *(_FRONT, *_head(model, summary), *origin.card_lines()),
        *("", *_results(summary, origin), *_rounds(summary), *_classes(summary)),
        *("", "## Settings", "", *_table(["setting", "value"], settings), ""),
    )
    return "\n".join(lines)


def _head(model: str, summary: TrainingSummary) -> Iterator[str]:
    counts = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in summary.counts.items()
    )
    early = ", ended early for want of a better dev result" if summary.stopped_early else ""
    yield f"# {markdown_text(summary.path.name)}"
    yield ""
    encoder = markdown_code(stored_name(model))
    yield f"Fine-tuned from {encoder} with monoxkit {__version__}, objective `{summary.method}`."
    yield ""
    yield f"- rows: {counts}"
    yield f"- steps: {summary.num_steps:,}{early}; weights kept from step {summary.best_step:,}"
    yield f"- precision of the training: {summary.precision}"
    yield ""


def _results(summary: TrainingSummary, origin: Origin) -> Iterator[str]:
    yield "## Results on the dev sets"
    yield ""
    yield origin.selection_line()
    yield from origin.seen_lines()
    yield ""
    rows = [
        [
            name,
            f"{result['rows']:,.0f}",
            shown_measure(result),
            f"{result['loss']:.4f}",
            "chose the weights" if name in origin.select_on else "reported alone",
        ]
        for name, result in summary.dev_sets.items()
    ]
    yield from _table(["set", "rows", "result", "loss", ""], rows)


def _rounds(summary: TrainingSummary) -> Iterator[str]:
    """The rounds of self-training; nothing for other methods."""
    if not summary.rounds:
        return
    rows = [
        [
            f"{each['round']}{' (kept)' if each['kept'] else ''}",
            f"{each['num_rows']:,}",
            f"{each['num_steps']:,}",
            shown_measure(each, "dev_"),
        ]
        for each in summary.rounds
    ]
    yield from ("", "## Rounds", "")
    yield from _table(["round", "rows", "steps", "dev"], rows)


def _classes(summary: TrainingSummary) -> Iterator[str]:
    """Rows by class, kept and left out; nothing where none were chosen by confidence."""
    if not summary.classes:
        return
    columns = list(next(iter(summary.classes.values())))
    rows = [
        [name, *(f"{counts[column]:,}" for column in columns)]
        for name, counts in summary.classes.items()
    ]
    yield from ("", "## Rows by class", "")
    yield from _table(["teacher's label", *columns], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(markdown_text, cells)) + " |"
