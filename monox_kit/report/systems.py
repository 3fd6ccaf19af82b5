"""The systems that the demo compares, their numbers, and how far apart two of them are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monox_kit.demo.result import DemoReport

# In the order of every table and plot.
SYSTEMS = ("teacher", "ce", "pl", "kd", "exported")
STUDENTS = ("ce", "pl", "kd")
BASELINE = "ce"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy; every number in percent.

    Attributes:
        value: the accuracy on the test rows.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A system beside the baseline, over the target languages.

    Attributes:
        system: its average.
        baseline: the baseline's average.
        difference: the first minus the second in percentage points; the interval is paired, both
            systems being resampled on the same documents.
        num_above: languages in which the system is more accurate.
        num_below: languages in which it is less accurate.
        num_languages: target languages that both were tested in.
    """

    system: Estimate
    baseline: Estimate
    difference: Estimate
    num_above: int
    num_below: int
    num_languages: int

    @property
    def within_noise(self) -> bool:
        """Whether the difference's interval holds 0: these test rows do not settle the sign."""
        return self.difference.low <= 0 <= self.difference.high


def systems(report: DemoReport) -> list[str]:
    """The systems that were evaluated, in the order of every table."""
    return [name for name in SYSTEMS if name in report.evaluations]


def title(report: DemoReport, system: str) -> str:
    """The system's column title; the exported student's says its precision, as in `kd int8`."""
    if system != "exported":
        return system
    return f"{report.best} {report.exports['student']['precision']}"


def languages(report: DemoReport) -> list[str]:
    """Every language tested, the source language first."""
    source = source_language(report)
    found = {tag for each in report.evaluations.values() for tag in each["languages"]}
    return sorted(found, key=lambda tag: (tag != source, tag))


def source_language(report: DemoReport) -> str:
    """The language that the labels are in."""
    return str(report.evaluations[BASELINE]["source_language"])


def in_language(report: DemoReport, system: str, language: str) -> Estimate | None:
    """The system's accuracy in a language; None where it was not tested in it."""
    result = report.evaluations[system]["languages"].get(language)
    return None if result is None else _estimate(result["accuracy"], result["accuracy_interval"])


def target_average(report: DemoReport, system: str) -> Estimate | None:
    """The system's mean over the target languages; None where it was tested in none."""
    result = report.evaluations[system]
    if result["target_average"] is None:
        return None
    return _estimate(result["target_average"], result["target_average_interval"])


def against_baseline(report: DemoReport, system: str) -> Comparison | None:
    """The system beside `ce`; None for `ce` itself and for what has no target languages."""
    average, baseline = target_average(report, system), target_average(report, BASELINE)
    if system == BASELINE or average is None or baseline is None:
        return None
    found = report.differences[system]
    pairs = []
    for language in languages(report):
        ours, theirs = (in_language(report, name, language) for name in (system, BASELINE))
        if language != source_language(report) and ours is not None and theirs is not None:
            pairs.append((ours.value, theirs.value))
    return Comparison(
        system=average,
        baseline=baseline,
        difference=_estimate(found["value"], found["interval"]),
        num_above=sum(ours > theirs for ours, theirs in pairs),
        num_below=sum(ours < theirs for ours, theirs in pairs),
        num_languages=len(pairs),
    )


def num_rows(report: DemoReport, language: str) -> int:
    """Test rows of a language."""
    found = (each["languages"].get(language) for each in report.evaluations.values())
    return int(next(result["num_rows"] for result in found if result is not None))


def race_names(race: Mapping[str, Any]) -> tuple[str, str]:
    """The names of a race's reference and of its ONNX graph, such as `torch fp32`, `onnx int8`."""
    names = list(race["rows_per_s"])
    graph = next(name for name in names if name.startswith("onnx"))
    return next(name for name in names if name != graph), graph


def _estimate(value: float, interval: tuple[float, float]) -> Estimate:
    return Estimate(100 * value, 100 * interval[0], 100 * interval[1])
