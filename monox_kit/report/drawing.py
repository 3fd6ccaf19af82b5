"""What all plots are drawn with: colours, axes, legends, and SVG that stands inside a page.

Colours are told apart with any colour vision, and every system has a marker of its own besides.
matplotlib is imported where something is drawn, and not before.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monox_kit.benchmarking.plot import STYLE
from monox_kit.report.scores import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Look:
    """How a system is drawn."""

    color: str
    marker: str


GREY = "#6b6b70"
BAND = "#f3f3f5"
_LOOKS = {
    "teacher": Look("#000000", "D"),
    "ce": Look("#d55e00", "s"),
    "self-training": Look("#cc79a7", "P"),
    "pl": Look("#009e73", "^"),
    "kd": Look("#0072b2", "o"),
    "exported": Look("#882255", "v"),
}
# For systems with other names, in turn.
_MORE_LOOKS = tuple(
    Look(color, marker)
    for marker in "oDvXh"
    for color in ("#0072b2", "#009e73", "#cc79a7", "#882255", "#56b4e9", "#999933")
)
_WIDTH_INCHES = 8.0
_MOST_NAME_CHARACTERS = 14  # of a language; longer ones would take the plot's space
_MOST_LEGEND_CHARACTERS = 80  # of one line above a plot
_PNG_DPI = 200


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """By system, how it is drawn: the known ones as in every plot, others in turn."""
    more = iter(_MORE_LOOKS * 20)
    return {name: _LOOKS.get(name) or next(more) for name in names}


@contextlib.contextmanager
def own_style(**settings: Any) -> Iterator[None]:
    """Draw in the reports' style: the user's own matplotlib settings must not change them."""
    import matplotlib.style

    with matplotlib.style.context(["default", {**STYLE, **settings}]):
        yield


def drawn(drawers: Mapping[str, Callable[[], Figure]]) -> dict[str, Figure]:
    """The plots as matplotlib figures, by name; without any, matplotlib is not asked for."""
    if not drawers:
        return {}
    with own_style():
        return {name: draw() for name, draw in drawers.items()}


def svg_file(figure: Figure, name: str) -> str:
    """The figure as an SVG file, equal each time."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    with own_style(**{"svg.hashsalt": name}):
        # matplotlib's stubs leave this method out.
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return stream.getvalue()


def svg_element(text: str, name: str) -> str:
    """An SVG file as an element whose ids no other plot of the page has."""
    found = re.search(r'<svg\b[^>]*?\bviewBox="([\d. -]+)"[^>]*>(.*)</svg>', text, re.DOTALL)
    if found is None:
        raise ValueError("matplotlib: expected an SVG element with a view box, found none.")
    # Prolog, name spaces and comments are for SVG files; the style would hold for the whole page.
    inside = re.sub(r"<!--.*?-->|<style\b.*?</style>", "", found[2], flags=re.DOTALL)
    inside = inside.replace('xlink:href="#', 'href="#')
    inside = re.sub(r'(\bid="|url\(#|\bhref="#)', rf"\g<1>{name}-", inside)
    inside = re.sub(r"\n\s*\n+", "\n", inside)
    return f'<svg viewBox="{found[1]}">{inside}</svg>'


def png_file(figure: Figure) -> bytes:
    """The figure as a PNG file, equal each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    with own_style():
        figure.set_dpi(_PNG_DPI)
        # matplotlib's stubs leave this method out too.
        FigureCanvasAgg(figure).print_png(  # type: ignore[no-untyped-call]
            stream, metadata={"Software": None}
        )
    return stream.getvalue()


def new_figure(height_inches: float) -> tuple[Figure, Axes]:
    """A figure of the reports' width, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.add_subplot()


def whisker(
    axes: Axes, estimate: Estimate, y: float, look: Look, *, is_filled: bool = True
) -> None:
    """An estimate as a marker on the line of its interval."""
    axes.plot([estimate.low, estimate.high], [y, y], color=look.color, linewidth=1.3, zorder=2)
    axes.plot(estimate.value, y, zorder=3, **_marker(look, is_filled))


def stripe(axes: Axes, position: int) -> None:
    """Every second row with a background of its own."""
    if position % 2 == 0:
        axes.axhspan(position - 0.5, position + 0.5, color=BAND, linewidth=0, zorder=0)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Give the rows 0, 1, ... their names, from the top down, and vertical grid lines."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def fit(axes: Axes, shown: Sequence[Estimate], right: float = 2) -> None:
    """Fit the horizontal axis to the intervals, with `right` points of space after them."""
    low, high = min(each.low for each in shown), max(each.high for each in shown)
    axes.set_xlim(max(low - 2, -1), min(high + right, 100 + right))


def legend(figure: Figure, entries: Iterable[tuple[str, Look, bool]]) -> None:
    """Markers and names above the plot, in as many lines as they need."""
    from matplotlib.lines import Line2D

    named = list(entries)
    handles = [Line2D([], [], **_marker(look, is_filled)) for _, look, is_filled in named]
    texts = [text for text, _, _ in named]
    longest = max((len(text) for text in texts), default=1) + 4
    columns = len(named)
    if sum(len(text) + 4 for text in texts) > _MOST_LEGEND_CHARACTERS:
        columns = max(1, min(len(named), _MOST_LEGEND_CHARACTERS // longest))
    figure.legend(handles, texts, loc="outside upper left", ncols=columns, handletextpad=0.2)


def shortened(name: str) -> str:
    """A language's name in at most the characters that a plot has space for."""
    if len(name) <= _MOST_NAME_CHARACTERS:
        return name
    return f"{name[: _MOST_NAME_CHARACTERS - 1]}…"


def _marker(look: Look, is_filled: bool) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 5.5,
        "linestyle": "none",
        "markeredgecolor": look.color,
        "markerfacecolor": look.color if is_filled else "white",
    }
