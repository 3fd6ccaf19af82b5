"""Systems tested by language: the typed result that every report of accuracy is made of.

The demo's run and a recipe's run both become one; tables and plots know nothing else of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monox_kit.results import Result


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy, or a difference of two; every number in percent.

    Attributes:
        value: on the test rows; of several seeds the mean.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"

    @property
    def signed(self) -> str:
        """A difference with its interval, every number with its sign."""
        # Adding 0.0 turns -0.0 into 0.0.
        value, low, high = (round(x, 1) + 0.0 for x in (self.value, self.low, self.high))
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"

    @property
    def holds_0(self) -> bool:
        """Whether the interval holds 0: what was measured does not settle the sign."""
        return self.low <= 0 <= self.high

    @classmethod
    def of_shares(cls, value: float, interval: tuple[float, float]) -> Estimate:
        """The estimate of a share in [-1, 1] and its interval."""
        return cls(100 * value, 100 * interval[0], 100 * interval[1])


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


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """What one system scores.

    Attributes:
        title: at the head of its column.
        languages: by language, how accurate it is.
        average: its mean over the target languages; None where it was tested in none.
        difference: its average less the baseline's; None for the baseline itself, and where the
            two were not compared.
        gains: by language, its accuracy less the baseline's; empty where that was not measured.
        is_paired: whether the differences are of the same documents; else their intervals take the
            errors of the two systems as independent, which is too wide.
        dev: its accuracy on the dev set that chose its weights; None where that is not known.
        seeds: of the models whose means the numbers are; empty where there was one alone.
    """

    title: str
    languages: Mapping[str, Estimate]
    average: Estimate | None = None
    difference: Estimate | None = None
    gains: Mapping[str, Estimate] = field(default_factory=dict)
    is_paired: bool = True
    dev: float | None = None
    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores(Result):
    """Systems on the same test rows.

    Attributes:
        source_language: the language that the labels are in.
        rows: test rows by language.
        systems: by name, in the order of tables and plots.
        baseline: the name of the system that the others are compared with.
        measure: what the numbers are: accuracy, or micro-F1 where a row has several labels.
        task: which texts they are of, where a run has several; else empty.
    """

    source_language: str
    rows: Mapping[str, int]
    systems: Mapping[str, System]
    baseline: str = "ce"
    measure: str = "accuracy"
    task: str = ""

    @property
    def languages(self) -> list[str]:
        """Every language tested, the source language first."""
        return sorted(self.rows, key=lambda tag: (tag != self.source_language, tag))

    @property
    def targets(self) -> list[str]:
        """The languages without the source language."""
        return [tag for tag in self.languages if tag != self.source_language]

    @property
    def is_paired(self) -> bool:
        """Whether all differences to the baseline are of the same documents."""
        return all(one.is_paired for one in self.systems.values())

    def in_language(self, system: str, language: str) -> Estimate | None:
        """A system's accuracy in a language; None where it was not tested in it."""
        found = self.systems.get(system)
        return None if found is None else found.languages.get(language)

    def average(self, system: str) -> Estimate | None:
        """A system's mean over the target languages; None where there is none."""
        found = self.systems.get(system)
        return None if found is None else found.average

    def against_baseline(self, system: str) -> Comparison | None:
        """A system beside the baseline; None for itself and for what has no target languages."""
        average, baseline = self.average(system), self.average(self.baseline)
        difference = self.systems[system].difference
        if average is None or baseline is None or difference is None:
            return None
        pairs = []
        for language in self.targets:
            ours, theirs = (self.in_language(each, language) for each in (system, self.baseline))
            if ours is not None and theirs is not None:
                pairs.append((ours.value, theirs.value))
        return Comparison(
            system=average,
            baseline=baseline,
            difference=difference,
            num_above=sum(ours > theirs for ours, theirs in pairs),
            num_below=sum(ours < theirs for ours, theirs in pairs),
            num_languages=len(pairs),
        )


def kind_of_intervals(is_paired: bool) -> str:
    """How captions name the intervals of differences."""
    return "paired 95 % intervals" if is_paired else "95 % intervals (not paired by document)"


def estimates(evaluation: Mapping[str, Any]) -> dict[str, Estimate]:
    """By language, the measure of an `EvalReport.to_json()`."""
    measure = evaluation.get("measure", "accuracy")
    return {
        tag: Estimate.of_shares(found[measure], found[f"{measure}_interval"])
        for tag, found in evaluation["languages"].items()
    }


def average_estimate(evaluation: Mapping[str, Any]) -> Estimate | None:
    """The target average of an `EvalReport.to_json()`."""
    if evaluation["target_average"] is None:
        return None
    return Estimate.of_shares(evaluation["target_average"], evaluation["target_average_interval"])
