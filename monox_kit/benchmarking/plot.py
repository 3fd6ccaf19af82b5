"""The report as a picture: what a text costs in each language, and how many go through a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monox_kit.benchmarking.report import BenchmarkReport, ContenderReport
from monox_kit.durable import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with any colour vision, and each with a marker of its own.
_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#882255", "#56b4e9", "#e69f00")
_MARKERS = "Dos^vPX"
# Of all plots. Text becomes outlines: it looks the same without the font. No value is read as TeX.
STYLE = {
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


def save_plot(report: BenchmarkReport, path: Path) -> None:
    """Draw a report; equal reports, equal bytes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    tags = list(report.contenders[0].languages)
    least = min(report.contenders[0].all.timings)
    # "default" first: the user's own matplotlib settings must not change the plot.
    with matplotlib.style.context(["default", {**STYLE, "svg.hashsalt": "monoxkit"}]):
        figure = Figure(figsize=(9.0, 1.6 + 0.28 * len(tags)), layout="constrained")
        latency, speed = figure.subplots(1, 2, sharey=True)
        for place, one in enumerate(report.contenders):
            look = {
                "color": _COLORS[place % len(_COLORS)],
                "marker": _MARKERS[place % len(_MARKERS)],
            }
            _draw(latency, tags, one, least, "p50_ms", label=one.name, **look)
            _draw(speed, tags, one, one.best_batch, "rows_per_s", **look)
        for axes in (latency, speed):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(axis="both")
        latency.set_yticks(range(len(tags)), tags)
        latency.invert_yaxis()
        texts = "one text" if least == 1 else f"{least} texts"
        latency.set_xlabel(f"milliseconds for {texts}, median")
        speed.set_xlabel("texts a second in each one's best batches")
        figure.legend(loc="outside upper left", ncols=2)
        kind = path.suffix.lower().removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with new_file(path) as stream:
            figure.savefig(stream, format=kind, dpi=150, metadata=metadata)


def _draw(
    axes: Axes, tags: list[str], one: ContenderReport, batch: int, figure: str, **look: str
) -> None:
    """A contender's figure in each language, where the language was timed."""
    values = [
        (getattr(found.timings[batch], figure), place)
        for place, tag in enumerate(tags)
        if batch in (found := one.languages[tag]).timings
    ]
    axes.plot(*zip(*values), linestyle="none", markersize=5, **look)  # type: ignore[arg-type]
