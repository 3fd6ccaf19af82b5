"""Choosing a model's temperatures and thresholds by language, and measuring what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import UNKNOWN_LANGUAGE, Document, Logits
from monox_kit.errors import CorpusError
from monox_kit.evaluation.reliability import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    Answered,
    area_under_risk,
    best_temperature,
    calibration_error,
    calibration_error_interval,
    risk_coverage,
    sureness,
    threshold_for,
)
from monox_kit.evaluation.run import ModelScoringConfig, is_target
from monox_kit.evaluation.statistics import wilson
from monox_kit.models.calibration import STAND_IN, Calibration
from monox_kit.problem import Bools, Floats, Labels, Problem
from monox_kit.progress import Progress
from monox_kit.results import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateConfig(ModelScoringConfig):
    """How a model is calibrated.

    Attributes:
        dev: gold-labelled files, in as many languages as there are labels for; none of their rows
            in the training or test files.
        precision: share of right answers that a threshold by language is to give on these files,
            such as 0.95; below the threshold the model abstains [default: no thresholds].
        temperature: whether each language has a temperature of its own, or all have one.
        source_language: language whose values stand in for languages that have no labels here;
            where it has too few rows, those of all rows do.
        min_rows: rows that a language, or what stands in for it, needs for values of its own.
    """

    dev: CorpusConfig
    precision: Annotated[float, Gt(0), Lt(1)] | None = None
    temperature: Literal["language", "one"] = "language"
    min_rows: Annotated[int, Ge(2)] = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageCalibration:
    """One language's calibration, on the rows that it was made with.

    Attributes:
        num_rows: rows.
        is_own: whether its values come from its own rows; else from those of the language without
            its region, or from those that stand in.
        temperatures: that logits are divided by; one for each class where they do not exclude each
            other.
        error_before: expected calibration error at T = 1, with its 95 % interval over rows.
        error_before_interval: see `error_before`.
        error_after: the same with the temperatures.
        error_after_interval: see `error_after`.
        accuracy: share of rows that are decided as their gold labels say.
        risk_coverage: (coverage, risk): the share of wrong answers among the surest rows.
        area_under_risk: mean risk over all coverages.
        threshold: least confidence of an answer; None without thresholds, or where none gives the
            precision.
        coverage: share of rows that are answered; None without thresholds.
        precision: share of right answers among them; None where none is.
        precision_interval: its 95 % interval (Wilson's).
    """

    num_rows: int
    is_own: bool
    temperatures: tuple[float, ...]
    error_before: float
    error_before_interval: tuple[float, float]
    error_after: float
    error_after_interval: tuple[float, float]
    accuracy: float
    risk_coverage: tuple[tuple[float, float], ...]
    area_under_risk: float
    threshold: float | None = None
    coverage: float | None = None
    precision: float | None = None
    precision_interval: tuple[float, float] | None = None

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> LanguageCalibration:
        """The inverse of `asdict`, from a record's JSON."""
        lists = {
            name: tuple(tuple(each) if isinstance(each, list) else each for each in value)
            for name, value in kept.items()
            if isinstance(value, list)
        }
        return cls(**{**kept, **lists})


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateSummary(Result):
    """What a calibration found.

    Attributes:
        path: the folder that was written.
        languages: by language tag, the source language first.
        stand_in: the languages whose rows gave the values for all others.
        wanted_precision: what the thresholds were chosen for; None without thresholds.
        calibration: what the model's record keeps.
        reused: whether the same run had finished before.
    """

    path: Path
    languages: Mapping[str, LanguageCalibration]
    stand_in: tuple[str, ...]
    wanted_precision: float | None
    calibration: Calibration
    reused: bool = False


def require_enough(documents: Mapping[str, Sequence[Document]], config: CalibrateConfig) -> None:
    """Check that rows of all languages together are as many as one language needs.

    Raises:
        CorpusError: they are fewer: nothing could stand in for other languages.
    """
    found = sum(map(len, documents.values()))
    if found < config.min_rows:
        raise CorpusError(
            f"`dev`: expected at least {config.min_rows} rows (`min_rows`), found {found} in "
            f"{', '.join(sorted(documents))}. Label more rows, or give a lower `min_rows`."
        )


class Calibrator:
    """Chooses temperatures and thresholds, and measures what they give."""

    def __init__(
        self,
        config: CalibrateConfig,
        problem: Problem,
        logits: Mapping[str, Logits],
        gold: Mapping[str, Labels],
        progress: Progress,
    ) -> None:
        """Nothing is computed yet.

        Args:
            config: what is asked for.
            problem: what labels and logits mean.
            logits: [N, C] by language, the model's own.
            gold: the same rows' labels.
            progress: told what is none, and what stands in for what.
        """
        self._config, self._problem, self._progress = config, problem, progress
        self._logits, self._gold = logits, gold
        source = config.source_language
        self._languages = sorted(logits, key=lambda name: (is_target(name, source), name))
        known = [name for name in self._languages if name != UNKNOWN_LANGUAGE]
        of_source = [name for name in known if not is_target(name, source)]
        is_one = config.temperature == "one" and config.precision is None  # made of all rows
        is_enough = not is_one and self._num_rows(of_source) >= config.min_rows
        self._stand_in = tuple(of_source if is_enough else self._languages)

    def summary(self, out: Path) -> CalibrateSummary:
        """Everything that was found, for the folder `out`."""
        config, least = self._config, self._config.min_rows
        own = [name for name in self._languages if len(self._gold[name]) >= least]
        whole = self._temperatures(self._languages) if config.temperature == "one" else None
        temperatures = {STAND_IN: whole or self._temperatures(self._stand_in)}
        temperatures |= {name: whole or self._temperatures([name]) for name in own}
        plain = Calibration(temperatures=temperatures)
        calibration = plain
        if config.precision is not None:
            chosen = {name: self._threshold(plain, name, [name]).threshold for name in own}
            chosen[STAND_IN] = self._threshold(plain, STAND_IN, self._stand_in).threshold
            thresholds = {name: chosen[name] for name in temperatures}
            calibration = replace(plain, precision=config.precision, thresholds=thresholds)
        self._tell_stand_ins(calibration, own)
        self._tell(calibration)
        generator = np.random.Generator(np.random.Philox(config.seed))
        return CalibrateSummary(
            path=out,
            languages={
                name: self._measured(name, calibration, name in own, generator)
                for name in self._languages
            },
            stand_in=self._stand_in,
            wanted_precision=config.precision,
            calibration=calibration,
        )

    def _num_rows(self, languages: Sequence[str]) -> int:
        return sum(len(self._gold[name]) for name in languages)

    def _temperatures(self, languages: Sequence[str]) -> tuple[float, ...]:
        logits, gold = self._joined(languages)
        return best_temperature(self._problem, logits, gold)

    def _joined(self, languages: Sequence[str]) -> tuple[Logits, Labels]:
        logits = np.concatenate([self._logits[name] for name in languages])
        return logits, np.concatenate([self._gold[name] for name in languages])

    def _threshold(self, calibration: Calibration, name: str, languages: Sequence[str]) -> Answered:
        """Of the rows of some languages, under the temperature of `name`."""
        logits, gold = self._joined(languages)
        confidences, right = self._answers(calibration, name, logits, gold)
        assert self._config.precision is not None  # else none is asked for
        return threshold_for(self._config.precision, confidences, right)

    def _answers(
        self, calibration: Calibration, name: str, logits: Logits, gold: Labels
    ) -> tuple[Floats, Bools]:
        """How sure each answer is, and whether it is right."""
        scaled = calibration.scaled(logits, [name] * len(logits))
        right = self._problem.are_equal(gold, self._problem.decide(logits))
        return self._problem.confidence(scaled), right

    def _tell_stand_ins(self, calibration: Calibration, own: Sequence[str]) -> None:
        """Note whose values languages have that have none of their own."""
        config, together = self._config, ", ".join(self._stand_in)
        is_one = config.temperature == "one" and config.precision is not None
        values = "thresholds" if is_one else "values"
        few: dict[str, list[str]] = {}
        for name in sorted(set(self._languages) - set(own)):
            few.setdefault(calibration.known(name), []).append(name)
        for key, names in few.items():
            self._progress.note(
                f"{', '.join(names)}: fewer than {config.min_rows} rows each (`min_rows`), so that "
                f"these languages have the {values} of {together if key == STAND_IN else key}"
            )
        self._progress.note(
            f"languages without labels here get the {values} of {together} "
            f"({self._num_rows(self._stand_in):,} rows). For languages unlike these they are known "
            "to be optimistic: answers there are less often right than they are said to be"
        )

    def _tell(self, calibration: Calibration) -> None:
        """Note values that are none: temperatures at a bound, thresholds that were not found."""
        bounds = (LEAST_TEMPERATURE, MOST_TEMPERATURE)
        for name, each in calibration.temperatures.items():
            if any(one in bounds for one in each):
                self._progress.note(
                    f"{_shown(name)}: a temperature is at the bound of what is looked among, "
                    f"{bounds[0]} to {bounds[1]:g}: its rows are (nearly) all right, or their "
                    "logits say nothing. More rows tell more"
                )
        none = [_shown(name) for name, each in calibration.thresholds.items() if each is None]
        if none:
            self._progress.note(
                f"{', '.join(none)}: no threshold gives {calibration.precision:g} right answers: "
                "the model abstains there always. Give a lower `precision`"
            )

    def _measured(
        self, name: str, calibration: Calibration, is_own: bool, generator: np.random.Generator
    ) -> LanguageCalibration:
        """What the calibration gives on a language's rows."""
        problem, logits, gold = self._problem, self._logits[name], self._gold[name]
        count = self._config.num_resamples
        scaled = calibration.scaled(logits, [name] * len(logits))
        before, after = (sureness(problem, each, gold) for each in (logits, scaled))
        confidences, right = self._answers(calibration, name, logits, gold)
        found = LanguageCalibration(
            num_rows=len(gold),
            is_own=is_own,
            temperatures=calibration.temperatures[calibration.known(name)],
            error_before=calibration_error(before),
            error_before_interval=calibration_error_interval(before, count, generator),
            error_after=calibration_error(after),
            error_after_interval=calibration_error_interval(after, count, generator),
            accuracy=float(right.mean()),
            risk_coverage=risk_coverage(confidences, right),
            area_under_risk=area_under_risk(confidences, right),
        )
        if not calibration.thresholds:
            return found
        answered = ~calibration.abstains(confidences, [name] * len(logits))
        num_right, num_answered = int(right[answered].sum()), int(answered.sum())
        return replace(
            found,
            threshold=calibration.thresholds[calibration.known(name)],
            coverage=num_answered / len(gold),
            precision=num_right / num_answered if num_answered else None,
            precision_interval=wilson(num_right, num_answered) if num_answered else None,
        )


def _shown(language: str) -> str:
    return "other languages" if language == STAND_IN else language
