"""The report's plots, as SVG that stands inside an HTML page.

Colours are told apart with any colour vision, and every system has a marker of its own besides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monox_kit.report.blocks import PlotName
from monox_kit.report.rows import ms_per_row, speedup
from monox_kit.report.systems import (
    Estimate,
    in_language,
    languages,
    race_names,
    source_language,
    systems,
    target_average,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from monox_kit.demo.result import DemoReport


@dataclass(frozen=True, slots=True)
class _Look:
    """How a system is drawn."""

    color: str
    marker: str


_LOOKS = {
    "teacher": _Look("#000000", "D"),
    "ce": _Look("#d55e00", "s"),
    "pl": _Look("#009e73", "^"),
    "kd": _Look("#0072b2", "o"),
    "exported": _Look("#882255", "v"),
}
_GREY = "#6b6b70"
_BAND = "#f3f3f5"
_WIDTH_INCHES = 8.0
_MOST_NAME_CHARACTERS = 14  # of a language; longer ones would take the plot's space
# Text becomes outlines: the page looks the same without the font. Values are never read as TeX.
_SETTINGS = {
    "svg.fonttype": "path",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9aa0",
    "axes.labelcolor": "#1c1c1e",
    "axes.axisbelow": True,
    "grid.color": "#dcdce0",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def draw_plots(report: DemoReport) -> dict[PlotName, str]:
    """Every plot that the report has numbers for, by name: one SVG element each, equal each time.

    Needs matplotlib, which is imported here and not before.
    """
    figures = draw_figures(report)
    return {name: _svg(figure, name) for name, figure in figures.items()}


def draw_figures(report: DemoReport) -> dict[PlotName, Figure]:
    """The plots as matplotlib figures, by name."""
    import matplotlib.style

    drawers: dict[PlotName, Callable[[DemoReport], Figure]] = {"languages": _draw_languages}
    if any(target_average(report, name) is not None for name in systems(report)):
        drawers["averages"] = _draw_averages
    if report.inference_races:
        drawers["inference"] = _draw_inference
    if any(summary["history"] for summary in report.training.values()):
        drawers["training"] = _draw_training
    # "default" first: the user's own matplotlib settings must not change the report.
    with matplotlib.style.context(["default", _SETTINGS]):
        return {name: draw(report) for name, draw in drawers.items()}


def _svg(figure: Figure, name: PlotName) -> str:
    """The figure as an SVG element whose ids no other plot of the page has."""
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    settings = {**_SETTINGS, "svg.hashsalt": name}
    with matplotlib.style.context(["default", settings]):
        # matplotlib's stubs leave this method out.
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = stream.getvalue()
    found = re.search(r'<svg\b[^>]*?\bviewBox="([\d. -]+)"[^>]*>(.*)</svg>', text, re.DOTALL)
    if found is None:
        raise ValueError("matplotlib: expected an SVG element with a view box, found none.")
    # Prolog, name spaces and comments are for SVG files; the style would hold for the whole page.
    inside = re.sub(r"<!--.*?-->|<style\b.*?</style>", "", found[2], flags=re.DOTALL)
    inside = inside.replace('xlink:href="#', 'href="#')
    inside = re.sub(r'(\bid="|url\(#|\bhref="#)', rf"\g<1>{name}-", inside)
    inside = re.sub(r"\n\s*\n+", "\n", inside)
    return f'<svg viewBox="{found[1]}">{inside}</svg>'


def _draw_languages(report: DemoReport) -> Figure:
    """A band per language, in it the systems one below the other."""
    tags, names = languages(report), systems(report)
    figure, axes = _figure(1.0 + 0.14 * len(tags) * max(3, len(names)))
    step = 0.8 / len(names)
    shown: list[Estimate] = []
    for position, tag in enumerate(tags):
        if position % 2 == 0:
            axes.axhspan(position - 0.5, position + 0.5, color=_BAND, linewidth=0, zorder=0)
        found = [(name, in_language(report, name, tag)) for name in names]
        tested = [(name, estimate) for name, estimate in found if estimate is not None]
        for order, (name, estimate) in enumerate(tested):
            y = position + (order - (len(tested) - 1) / 2) * step
            _whisker(axes, estimate, y, _LOOKS[name])
            shown.append(estimate)
    _name_rows(axes, [_shortened(tag) for tag in tags])
    _limit(axes, shown)
    axes.set_xlabel("accuracy, %")
    _legend(figure, ((title(report, name), _LOOKS[name], True) for name in names))
    return figure


def _draw_averages(report: DemoReport) -> Figure:
    """A line per system: the target average filled, the source language hollow."""
    names = systems(report)
    source = source_language(report)
    figure, axes = _figure(0.9 + 0.5 * len(names))
    shown: list[Estimate] = []
    for position, name in enumerate(names):
        if position % 2 == 0:
            axes.axhspan(position - 0.5, position + 0.5, color=_BAND, linewidth=0, zorder=0)
        pair = (target_average(report, name), True), (in_language(report, name, source), False)
        for (estimate, is_filled), y in zip(pair, (position - 0.18, position + 0.18)):
            if estimate is not None:
                _whisker(axes, estimate, y, _LOOKS[name], is_filled=is_filled)
                axes.annotate(
                    f"{estimate.value:.1f}",
                    (estimate.high, y),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=_LOOKS[name].color,
                )
                shown.append(estimate)
    _name_rows(axes, [title(report, name) for name in names])
    _limit(axes, shown, right=4)
    axes.set_xlabel("accuracy, %")
    grey = _Look(_GREY, "o")
    titles = ("average over the target languages", True), (f"in {_shortened(source)}", False)
    _legend(figure, ((text, grey, is_filled) for text, is_filled in titles))
    return figure


def _draw_inference(report: DemoReport) -> Figure:
    """A line per language from the ONNX graph's time to the reference's."""
    races = report.inference_races
    tags = [tag for tag in languages(report) if tag in races]
    names = race_names(races[tags[0]])
    looks = _Look(_GREY, "s"), _LOOKS["exported"]
    figure, axes = _figure(1.0 + 0.3 * len(tags))
    slowest = max(ms_per_row(races[tag], name) for tag in tags for name in names)
    for position, tag in enumerate(tags):
        times = [ms_per_row(races[tag], name) for name in names]
        axes.plot(times, [position] * 2, color="#b9b9be", linewidth=1.5, zorder=2)
        for time, look in zip(times, looks):
            axes.plot(time, position, look.marker, color=look.color, markersize=6, zorder=3)
        ratio = f"{speedup(races[tag]):.2f} x"
        axes.text(1.08 * slowest, position, ratio, va="center", ha="left", color="#1c1c1e")
    _name_rows(axes, [_shortened(tag) for tag in tags])
    axes.set_xlim(0, 1.2 * slowest)
    axes.set_xlabel("milliseconds per row; at the right, times as fast")
    _legend(figure, ((name, look, True) for name, look in zip(names, looks)))
    return figure


def _draw_training(report: DemoReport) -> Figure:
    """A line per system over its steps, a ring around the weights that were kept."""
    figure, axes = _figure(3.2)
    names = [name for name in systems(report) if name in report.training]
    for name in names:
        summary, look = report.training[name], _LOOKS[name]
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
    _legend(figure, ((name, _LOOKS[name], True) for name in names))
    return figure


def _figure(height_inches: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.add_subplot()


def _whisker(
    axes: Axes, estimate: Estimate, y: float, look: _Look, *, is_filled: bool = True
) -> None:
    axes.plot([estimate.low, estimate.high], [y, y], color=look.color, linewidth=1.3, zorder=2)
    axes.plot(estimate.value, y, zorder=3, **_marker(look, is_filled))


def _marker(look: _Look, is_filled: bool) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 5.5,
        "linestyle": "none",
        "markeredgecolor": look.color,
        "markerfacecolor": look.color if is_filled else "white",
    }


def _name_rows(axes: Axes, names: list[str]) -> None:
    """Give the rows 0, 1, ... their names, from the top down, and vertical grid lines."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def _limit(axes: Axes, shown: list[Estimate], right: float = 2) -> None:
    """Fit the horizontal axis to the intervals, with `right` points of space after them."""
    low, high = min(each.low for each in shown), max(each.high for each in shown)
    axes.set_xlim(max(low - 2, -1), min(high + right, 100 + right))


def _legend(figure: Figure, entries: Iterable[tuple[str, _Look, bool]]) -> None:
    """One line of markers and names above the plot."""
    from matplotlib.lines import Line2D

    named = list(entries)
    handles = [Line2D([], [], **_marker(look, is_filled)) for _, look, is_filled in named]
    texts = [text for text, _, _ in named]
    figure.legend(handles, texts, loc="outside upper left", ncols=len(named), handletextpad=0.2)


def _shortened(name: str) -> str:
    if len(name) <= _MOST_NAME_CHARACTERS:
        return name
    return f"{name[: _MOST_NAME_CHARACTERS - 1]}…"
