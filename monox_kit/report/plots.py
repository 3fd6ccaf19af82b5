"""The plots of the demo's report, as SVG that stands inside an HTML page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from monox_kit.report.drawing import (
    GREY,
    Look,
    drawn,
    legend,
    looks_of,
    name_rows,
    new_figure,
    shortened,
    svg_element,
    svg_file,
)
from monox_kit.report.rows import ms_per_row, race_names, speedup
from monox_kit.report.score_plots import draw_averages, draw_languages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from monox_kit.demo.result import DemoReport


def draw_plots(report: DemoReport) -> dict[str, str]:
    """Every plot that the report has numbers for, by name: one SVG element each, equal each time.

    Needs matplotlib, which is imported here and not before.
    """
    figures = draw_figures(report).items()
    return {name: svg_element(svg_file(figure, name), name) for name, figure in figures}


def draw_figures(report: DemoReport) -> dict[str, Figure]:
    """The plots as matplotlib figures, by name."""
    scores = report.scores
    drawers: dict[str, Callable[[], Figure]] = {"languages": partial(draw_languages, scores)}
    if any(scores.average(name) is not None for name in scores.systems):
        drawers["averages"] = partial(draw_averages, scores)
    if report.inference_races:
        drawers["inference"] = partial(_draw_inference, report)
    if any(summary["history"] for summary in report.training.values()):
        drawers["training"] = partial(_draw_training, report)
    return drawn(drawers)


def _draw_inference(report: DemoReport) -> Figure:
    """A line per language from the ONNX graph's time to the reference's."""
    races = report.inference_races
    tags = [tag for tag in report.scores.languages if tag in races]
    names = race_names(races[tags[0]])
    looks = Look(GREY, "s"), looks_of(["exported"])["exported"]
    figure, axes = new_figure(1.0 + 0.3 * len(tags))
    slowest = max(ms_per_row(races[tag], name) for tag in tags for name in names)
    for position, tag in enumerate(tags):
        times = [ms_per_row(races[tag], name) for name in names]
        axes.plot(times, [position] * 2, color="#b9b9be", linewidth=1.5, zorder=2)
        for time, look in zip(times, looks):
            axes.plot(time, position, look.marker, color=look.color, markersize=6, zorder=3)
        ratio = f"{speedup(races[tag]):.2f} x"
        axes.text(1.08 * slowest, position, ratio, va="center", ha="left", color="#1c1c1e")
    name_rows(axes, [shortened(tag) for tag in tags])
    axes.set_xlim(0, 1.2 * slowest)
    axes.set_xlabel("milliseconds per row; at the right, times as fast")
    legend(figure, ((name, look, True) for name, look in zip(names, looks)))
    return figure


def _draw_training(report: DemoReport) -> Figure:
    """A line per system over its steps, a ring around the weights that were kept."""
    figure, axes = new_figure(3.2)
    names = [name for name in report.scores.systems if name in report.training]
    looks = looks_of(names)
    for name in names:
        summary, look = report.training[name], looks[name]
        steps = [entry["step"] for entry in summary["history"]]
        values = [100 * entry["accuracy"] for entry in summary["history"]]
        axes.plot(steps, values, color=look.color, marker=look.marker, markersize=5, linewidth=1.5)
        axes.plot(
            summary["best_step"],
            100 * summary["dev_accuracy"],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=look.color,
        )
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.grid(axis="y")
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy on dev, %")
    legend(figure, ((name, looks[name], True) for name in names))
    return figure
