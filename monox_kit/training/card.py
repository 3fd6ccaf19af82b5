"""The model card of a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monox_kit import __version__
from monox_kit.training.origin import Origin

_FRONT = "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n"


def model_card(model: str, summary: Any, origin: Origin, fingerprint: Mapping[str, Any]) -> str:
    """The model card: what it was made from, how, and how it did on the dev sets.

    Args:
        model: the pretrained encoder, as the user named it.
        summary: a `TrainingSummary`.
        origin: data and teachers.
        fingerprint: every setting of the run.
    """
    lines = (*_head(model, summary), *origin.card_lines(), "", *_results(summary, origin))
    settings = (f"| {key} | {value} |" for key, value in fingerprint.items())
    return "\n".join(
        (_FRONT, *lines, "", "## Settings", "", "| setting | value |", "|---|---|", *settings, "")
    )


def _head(model: str, summary: Any) -> Iterator[str]:
    counts = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in summary.counts.items()
    )
    early = ", ended early for want of a better dev result" if summary.stopped_early else ""
    yield f"# {summary.path.name}"
    yield ""
    yield f"Fine-tuned from `{model}` with monoxkit {__version__}, objective `{summary.method}`."
    yield ""
    yield f"- rows: {counts}"
    yield f"- steps: {summary.num_steps:,}{early}; weights kept from step {summary.best_step:,}"
    yield f"- precision of the training: {summary.precision}"
    yield ""


def _results(summary: Any, origin: Origin) -> Iterator[str]:
    yield "## Results on the dev sets"
    yield ""
    yield origin.selection_line()
    yield ""
    yield "| set | rows | accuracy | loss | |"
    yield "|---|---|---|---|---|"
    for name, result in summary.dev_sets.items():
        chose = "chose the weights" if name in origin.select_on else "reported alone"
        yield (
            f"| {name} | {result['rows']:,.0f} | {100 * result['accuracy']:.1f} % | "
            f"{result['loss']:.4f} | {chose} |"
        )
