"""The statistics of how sure answers are: calibration error, temperatures, risk and coverage.

N are rows, K bins, R resamples of a bootstrap, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monox_kit.data import Logits
from monox_kit.evaluation.statistics import interval, wilson
from monox_kit.models.calibration import Calibration
from monox_kit.problem import Bools, Floats, Labels, Problem

NUM_BINS = 15
# Temperatures that are looked among: where every row is right, the best would be 0.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
_BISECTIONS = 60
# Of a threshold below which no row is, relative to the least sure one.
_MARGIN = 1e-6
_RESAMPLE_CELLS = 4_000_000
# Shares of the rows, the surest first, at which a report shows the risk.
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Sureness(NamedTuple):
    """How sure a model is of what, and whether it is right.

    Attributes:
        probabilities: [N, D] of the events that are judged: a row's decision (D = 1); where classes
            do not exclude each other, each class (D = C).
        happened: [N, D] whether each event is so.
    """

    probabilities: Floats
    happened: Bools


def sureness(problem: Problem, logits: Logits, gold: Labels) -> Sureness:
    """What is judged of [N, C] calibrated or plain logits."""
    if problem.labels.is_multi:
        return Sureness(problem.probabilities(logits), problem.indicators(gold))
    right = problem.are_equal(gold, problem.decide(logits))
    return Sureness(problem.confidence(logits)[:, None], right[:, None])


def calibration_error(sure: Sureness) -> float:
    """The expected calibration error: the mean gap of probability and share, over 15 equal bins.

    Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning" (2015); Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks"
    (2017), equation 3.
    """
    return float(_errors(_bin_sums(sure).sum(axis=0)[None])[0])


def calibration_error_interval(
    sure: Sureness, num_resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """The 95 % percentile interval of the calibration error over bootstrap resamples of rows.

    The error of a sample is above that of all rows, by chance in the bins: so is the interval.
    """
    sums = _bin_sums(sure)
    num_rows = len(sums)
    block = max(1, _RESAMPLE_CELLS // num_rows)
    parts = []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        weights = generator.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=size)
        parts.append(_errors(weights @ sums))
    return interval(np.concatenate(parts))


def best_temperature(problem: Problem, logits: Logits, gold: Labels) -> tuple[float, ...]:
    """The temperature under which gold labels are most probable; one for each class of several.

    Within `LEAST_TEMPERATURE` and `MOST_TEMPERATURE`. A class that all rows or none have keeps 1.
    The loss is convex in 1/T, so that the root of its derivative is found by bisection.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999); Guo et al. (2017),
    section 4.2.
    """
    values = logits.astype(np.float64)
    if not problem.labels.is_multi:
        rows = np.arange(len(values))
        own = values[rows, gold]
        return (_root(lambda beta: float((_means(values, beta) - own).sum())),)
    is_gold = problem.indicators(gold)
    return tuple(
        1.0 if has.all() or not has.any() else _class_temperature(column, has)
        for column, has in zip(values.T, is_gold.T)
    )


class Answered(NamedTuple):
    """What answering from a threshold on gives.

    Attributes:
        threshold: least confidence of an answered row; None where none is answered.
        num_answered: rows that are.
        num_right: of these.
    """

    threshold: float | None
    num_answered: int
    num_right: int


def threshold_for(precision: float, confidences: Floats, right: Bools) -> Answered:
    """The threshold that answers most rows with at least this share of right answers.

    Args:
        precision: in (0, 1].
        confidences: [N].
        right: [N] whether each row is decided as its gold labels say.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences, num_right = confidences[order], np.cumsum(right[order])
    counts = np.arange(1, len(order) + 1)
    # Rows of one confidence are answered together.
    is_last = np.append(sorted_confidences[1:] < sorted_confidences[:-1], True)
    good = np.flatnonzero(is_last & (num_right >= precision * counts))
    if not len(good):
        return Answered(None, 0, 0)
    at = good[-1]
    # Between two rows, so that the last bits of a logit decide about none.
    own = float(sorted_confidences[at])
    below = float(sorted_confidences[at + 1]) if at + 1 < len(order) else own * (1 - _MARGIN)
    middle = (own + below) / 2
    threshold = middle if below < middle else own
    return Answered(threshold, int(counts[at]), int(num_right[at]))


def risk_coverage(confidences: Floats, right: Bools) -> tuple[tuple[float, float], ...]:
    """(coverage, risk) at `COVERAGES`: the share of wrong answers among the surest rows.

    Source: El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification" (2010).
    """
    wrong = ~right[np.argsort(-confidences, kind="stable")]
    risks = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    ends = [max(1, round(share * len(wrong))) for share in COVERAGES]
    return tuple((share, float(risks[end - 1])) for share, end in zip(COVERAGES, ends))


def area_under_risk(confidences: Floats, right: Bools) -> float:
    """The mean risk over all coverages, from 0 up; see `risk_coverage`."""
    wrong = ~right[np.argsort(-confidences, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def measured_reliability(
    problem: Problem,
    logits: Logits,
    gold: Labels,
    *,
    language: str | None,
    calibration: Calibration | None,
    num_resamples: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Fields of a `LanguageResult`: how far probabilities are off, and what is answered.

    Args:
        problem: what labels and logits mean.
        logits: [N, C], the model's own.
        gold: labels of the N rows.
        language: of them; None where it is not known.
        calibration: the model's; None where it was not calibrated.
        num_resamples: of the bootstrap.
        generator: of its resamples.
    """
    tags = [language] * len(gold)
    shown = logits if calibration is None else calibration.scaled(logits, tags)
    sure = sureness(problem, shown, gold)
    found: dict[str, Any] = {
        "calibration_error": calibration_error(sure),
        "calibration_error_interval": calibration_error_interval(sure, num_resamples, generator),
    }
    if calibration is not None and calibration.thresholds:
        answered = ~calibration.abstains(problem.confidence(shown), tags)
        right = problem.are_equal(gold, problem.decide(logits))[answered]
        count, num_right = len(right), int(right.sum())
        found["coverage"] = count / len(gold)
        if count:
            found["answered_accuracy"] = num_right / count
            found["answered_accuracy_interval"] = wilson(num_right, count)
    return found


def _bin_sums(sure: Sureness) -> Floats:
    """[N, 3 K] of each row and bin: events, the sum of their probabilities, events that are so."""
    num_rows, num_events = sure.probabilities.shape
    bins = np.minimum((sure.probabilities * NUM_BINS).astype(np.int64), NUM_BINS - 1).ravel()
    cells = np.repeat(np.arange(num_rows), num_events) * NUM_BINS + bins
    sums = [
        np.bincount(cells, weights, num_rows * NUM_BINS).reshape(num_rows, NUM_BINS)
        for weights in (None, sure.probabilities.ravel(), sure.happened.ravel())
    ]
    return np.concatenate(sums, axis=1, dtype=np.float64)


def _errors(sums: Floats) -> npt.NDArray[np.float64]:
    """[R] calibration errors of [R, 3 K] sums over bins."""
    counts, expected, happened = sums.reshape(len(sums), 3, NUM_BINS).transpose(1, 0, 2)
    return np.asarray(np.abs(expected - happened).sum(axis=1) / counts.sum(axis=1))


def _means(values: Floats, beta: float) -> Floats:
    """[N] the mean logit under each row's softmax of beta times its logits."""
    scaled = beta * values
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))


def _class_temperature(column: Floats, has: Bools) -> float:
    """Of one class's [N] logits: the derivative of its loss is that of two logits, z and 0."""
    both = np.stack([column, np.zeros_like(column)], axis=1)
    own = np.where(has, column, 0.0)
    return _root(lambda beta: float((_means(both, beta) - own).sum()))


def _root(derivative: Callable[[float], float]) -> float:
    """The temperature at which a derivative by 1/T, which rises with it, is 0."""
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if derivative(low) >= 0:
        return MOST_TEMPERATURE
    if derivative(high) <= 0:
        return LEAST_TEMPERATURE
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if derivative(middle) > 0 else (middle, high)
    return float(1 / (low * high) ** 0.5)
