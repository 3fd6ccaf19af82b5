"""Plots of `Scores`: averages, languages, and gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monox_kit.report.drawing import (
    GREY,
    Look,
    fit,
    legend,
    looks_of,
    name_rows,
    new_figure,
    shortened,
    stripe,
    whisker,
)
from monox_kit.report.scores import Estimate, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_languages(scores: Scores) -> Figure:
    """A band per language, in it the systems one below the other."""
    names, looks = list(scores.systems), looks_of(scores.systems)
    figure, axes = new_figure(1.0 + 0.14 * len(scores.languages) * max(3, len(names)))
    step = 0.8 / len(names)
    shown: list[Estimate] = []
    for position, tag in enumerate(scores.languages):
        stripe(axes, position)
        found = [(name, scores.in_language(name, tag)) for name in names]
        tested = [(name, estimate) for name, estimate in found if estimate is not None]
        for order, (name, estimate) in enumerate(tested):
            y = position + (order - (len(tested) - 1) / 2) * step
            whisker(axes, estimate, y, looks[name])
            shown.append(estimate)
    name_rows(axes, [shortened(tag) for tag in scores.languages])
    fit(axes, shown)
    axes.set_xlabel(f"{scores.measure}, %")
    legend(figure, ((scores.systems[name].title, looks[name], True) for name in names))
    return figure


def draw_averages(scores: Scores) -> Figure:
    """A line per system: the target average filled, the source language hollow."""
    names, looks = list(scores.systems), looks_of(scores.systems)
    source = scores.source_language
    figure, axes = new_figure(0.9 + 0.5 * len(names))
    shown: list[Estimate] = []
    for position, name in enumerate(names):
        stripe(axes, position)
        pair = (scores.average(name), True), (scores.in_language(name, source), False)
        for (estimate, is_filled), y in zip(pair, (position - 0.18, position + 0.18)):
            if estimate is not None:
                whisker(axes, estimate, y, looks[name], is_filled=is_filled)
                axes.annotate(
                    f"{estimate.value:.1f}",
                    (estimate.high, y),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=looks[name].color,
                )
                shown.append(estimate)
    name_rows(axes, [scores.systems[name].title for name in names])
    fit(axes, shown, right=4)
    axes.set_xlabel(f"{scores.measure}, %")
    grey = Look(GREY, "o")
    titles = ("average over the target languages", True), (f"in {shortened(source)}", False)
    legend(figure, ((text, grey, is_filled) for text, is_filled in titles))
    return figure


def draw_gains(scores: Scores) -> Figure:
    """How far each system is above the baseline, by language; a line at no difference."""
    names = [name for name, one in scores.systems.items() if one.gains]
    looks = looks_of(scores.systems)
    figure, axes = new_figure(1.2 + 0.16 * (1 + len(scores.languages)) * max(2, len(names)))
    step = 0.8 / len(names)
    rows = [*scores.languages, "target average"]
    for position, tag in enumerate(rows):
        stripe(axes, position)
        for order, name in enumerate(names):
            one = scores.systems[name]
            gain = one.difference if tag == rows[-1] else one.gains.get(tag)
            if gain is not None:
                whisker(axes, gain, position + (order - (len(names) - 1) / 2) * step, looks[name])
    name_rows(axes, [*map(shortened, scores.languages), rows[-1]])
    axes.axvline(0, color=looks_of([scores.baseline])[scores.baseline].color, linewidth=1.2)
    axes.set_xlabel(f"points above {scores.baseline}, which is the line at 0")
    legend(figure, ((scores.systems[name].title, looks[name], True) for name in names))
    return figure
