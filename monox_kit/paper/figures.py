"""Figures 2 and 3: accuracy against labelled rows, and against the temperature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from monox_kit.paper.item import Item, named, nothing_finished
from monox_kit.recipes.results import BASELINE, Model, Results
from monox_kit.recipes.systems import chosen, system_of
from monox_kit.report.blocks import Table
from monox_kit.report.drawing import legend, looks_of, new_figure
from monox_kit.report.rows import ABSENT
from monox_kit.report.scores import Estimate, kind_of_intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What the students of one place on a curve scored, in percent.

    Attributes:
        x: where it stands.
        value: mean over seeds.
        low: the worst seed.
        high: the best seed.
        seeds: each seed's, in the plan's order.
    """

    x: float
    value: float
    low: float
    high: float
    seeds: Sequence[float]

    def __str__(self) -> str:
        if len(self.seeds) == 1:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def figure2(results: Results) -> Item:
    """The target average against the number of labelled rows."""
    tested = [one for one in results.students if _target(one) is not None and one.labelled]
    if not tested:
        raise nothing_finished(results, "a student that was tested in target languages")
    best = chosen(tested, lambda one: (one.method, one.labelled))
    curves: dict[str, list[Point]] = {}
    gains: dict[str, dict[int, Estimate]] = {}
    is_paired = True
    for (method, size), models in sorted(best.items(), key=lambda item: item[0][1]):
        curves.setdefault(method, []).append(_point(size, models, _target))
        system = system_of(models, results, best.get((BASELINE, size), ()))
        if system.difference is not None and method != BASELINE:
            gains.setdefault(method, {})[size] = system.difference
            is_paired &= system.is_paired
    sizes = sorted({int(point.x) for points in curves.values() for point in points})
    rows = _rows("labelled rows", [f"{size:,}" for size in sizes], sizes, curves)
    tables = [Table(rows, f"Target average in percent: {_SPREAD}", numeric=True)]
    if gains:
        header = ["labelled rows", *map(named, gains)]
        below = [
            [f"{size:,}", *(gains[m][size].signed if size in gains[m] else ABSENT for m in gains)]
            for size in sizes
        ]
        kind = kind_of_intervals(is_paired)
        caption = f"Points above {BASELINE}, with {kind} over documents and seeds."
        tables.append(Table([header, *below], caption, numeric=True))
    return Item(
        title="Figure 2: how many labelled rows",
        said=[*_size_claims(gains), *_uneven([one for each in curves.values() for one in each])],
        tables=tables,
        caption="Target average against the number of labelled rows. The line is the mean over "
        "seeds, the band holds every seed. The axis does not start at 0.",
        draw=partial(_draw, curves, "labelled rows", "target average, %"),
        values={"curves": _plain(curves)},
    )


def figure3(results: Results) -> Item:
    """Accuracy on dev against the temperature of the soft targets, and the baseline's."""
    soft = [one for one in results.students if one.temperature is not None and _dev(one)]
    if not soft:
        raise nothing_finished(results, "a student that was trained with a temperature")
    best = chosen(soft, lambda one: one.temperature)
    points = [_point(t, models, _dev) for t, models in sorted(best.items())]
    tested = [
        _point(t, models, _target)
        for t, models in sorted(best.items())
        if all(_target(one) is not None for one in models)
    ]
    # A run that lends its baseline may have some of other numbers of labelled rows.
    sizes = {one.labelled for one in soft}
    plain = [
        one
        for one in results.students
        if one.method == BASELINE and _dev(one) and one.labelled in sizes
    ]
    baseline = None
    if plain:
        baseline = _point(0, chosen(plain, lambda one: BASELINE)[BASELINE], _dev)
    targets = {point.x: point for point in tested}
    rows = [["temperature", "dev", "target average"]]
    rows += [[f"{p.x:g}", str(p), str(targets.get(p.x, ABSENT))] for p in points]
    if baseline is not None:
        rows.append([named(BASELINE), str(baseline), ABSENT])
    caption = f"Accuracy in percent by temperature: {_SPREAD}"
    table = Table(rows, caption, numeric=True, num_summary_rows=int(baseline is not None))
    curves = {"kd": points}
    return Item(
        title="Figure 3: which temperature",
        said=[*_temperature_claims(points, baseline), *_uneven(points)],
        tables=[table],
        caption="Accuracy on dev against the temperature of the soft targets; the line across is "
        "the baseline. Bands hold every seed. The axis does not start at 0.",
        draw=partial(_draw, curves, "temperature", "accuracy on dev, %", baseline),
        values={
            "curves": _plain(curves),
            "targets": [asdict(point) for point in tested],
            "baseline": None if baseline is None else asdict(baseline),
        },
    )


_SPREAD = "the mean over seeds, and in brackets the worst and the best seed."


def _target(model: Model) -> float | None:
    found = None if model.evaluation is None else model.evaluation["target_average"]
    return None if found is None else 100 * float(found)


def _dev(model: Model) -> float | None:
    return model.dev


def _point(x: float, models: Sequence[Model], of: Callable[[Model], float | None]) -> Point:
    values = [value for one in models if (value := of(one)) is not None]
    return Point(x=x, value=mean(values), low=min(values), high=max(values), seeds=values)


def _rows(
    what: str, names: Sequence[str], places: Sequence[float], curves: Mapping[str, Sequence[Point]]
) -> list[list[str]]:
    """A row for each place, a column for each curve."""
    at = {method: {point.x: str(point) for point in points} for method, points in curves.items()}
    rows = [[what, *map(named, curves)]]
    for name, place in zip(names, places):
        rows.append([name, *(at[method].get(place, ABSENT) for method in curves)])
    return rows


def _size_claims(gains: Mapping[str, Mapping[int, Estimate]]) -> Iterator[str]:
    """The paper's claim: most is gained with few labels, and nothing with ten."""
    for method, found in gains.items():
        largest = max(found, key=lambda size: found[size].value)
        shown = [f"{size:,}" for size, gain in found.items() if gain.low > 0]
        yield (
            f"{named(method)} gains most with {largest:,} labelled rows: {found[largest].signed} "
            f"points. A gain is shown with {', '.join(shown) or 'none of the sizes'}."
        )
        smallest = min(found)
        yield f"With {smallest:,} labelled rows, {method} gains {found[smallest].signed} points."


def _temperature_claims(points: Sequence[Point], baseline: Point | None) -> Iterator[str]:
    """The paper's claim: the temperature matters little, and the method is above the baseline."""
    best, worst = (choose(points, key=lambda point: point.value) for choose in (max, min))
    yield (
        f"The best temperature on dev is {best.x:g} ({best.value:.1f} %), the worst {worst.x:g} "
        f"({worst.value:.1f} %): {best.value - worst.value:.1f} points apart."
    )
    if baseline is not None:
        above = sum(point.value > baseline.value for point in points)
        yield (
            f"The mean over seeds is above the baseline's ({baseline.value:.1f} %) at {above} of "
            f"{len(points)} temperatures."
        )


def _uneven(points: Sequence[Point]) -> Iterator[str]:
    """What is not even about a comparison of points."""
    counts = sorted({len(point.seeds) for point in points})
    if len(counts) > 1:
        yield (
            f"The points have {counts[0]} to {counts[-1]} seeds each, so that they are not "
            "compared evenly."
        )


def _plain(curves: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    return {method: [asdict(point) for point in points] for method, points in curves.items()}


def _draw(
    curves: Mapping[str, Sequence[Point]], x: str, y: str, baseline: Point | None = None
) -> Figure:
    """A line and a band for each curve, over a logarithmic axis."""
    figure, axes = new_figure(3.6)
    looks = looks_of([*curves, BASELINE])
    entries = [(named(method), looks[method], True) for method in curves]
    for method, points in curves.items():
        look, places = looks[method], [point.x for point in points]
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(places, low, high, color=look.color, alpha=0.15, linewidth=0)
        values = [point.value for point in points]
        axes.plot(places, values, color=look.color, marker=look.marker, markersize=5, linewidth=1.5)
    if baseline is not None:
        look = looks[BASELINE]
        axes.axhspan(baseline.low, baseline.high, color=look.color, alpha=0.12, linewidth=0)
        axes.axhline(baseline.value, color=look.color, linewidth=1.3, linestyle="--")
        entries.append((named(BASELINE), look, True))
    axes.set_xscale("log")
    ticks = sorted({point.x for points in curves.values() for point in points})
    axes.set_xticks(ticks, [f"{tick:,g}" if tick < 1e6 else f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(y=0.15)
    axes.grid(axis="y")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    legend(figure, entries)
    return figure
