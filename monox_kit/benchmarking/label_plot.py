"""The labelling benchmark as bars, with the machine's limits as lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS, _OTHERS, _LIMIT = "#0072b2", "#b9b9be", "#d55e00"
# The report's look; its module stands above this one and draws another kind of result.
_SETTINGS = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9aa0",
    "axes.axisbelow": True,
    "grid.color": "#dcdce0",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
}


def draw(tokens_per_s: Mapping[str, float], limits: Mapping[str, float], ours: str) -> Figure:
    """A bar per row, the fastest on top, and a vertical line per limit.

    Args:
        tokens_per_s: real tokens per second of the rows that were measured.
        limits: what each type's matrix products allow, in tokens per second.
        ours: how the names of our rows begin.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _SETTINGS]):
        figure = Figure(figsize=(8.0, 1.4 + 0.32 * len(tokens_per_s)), layout="constrained")
        axes = figure.add_subplot()
        names = sorted(tokens_per_s, key=lambda name: -tokens_per_s[name])
        values = [tokens_per_s[name] for name in names]
        colors = [_OURS if name.startswith(ours) else _OTHERS for name in names]
        axes.barh(range(len(names)), values, height=0.7, color=colors)
        for position, value in enumerate(values):
            axes.annotate(
                f"{value:,.0f}",
                (value, position),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        for name, value in limits.items():
            axes.axvline(value, color=_LIMIT, linewidth=1.2, linestyle="--")
            axes.annotate(
                f"{name} limit",
                (value, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 2),
                textcoords="offset points",
                color=_LIMIT,
                rotation=30,
            )
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * max([*values, *limits.values()], default=1))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x")
        axes.set_xlabel("real tokens per second")
        return figure
