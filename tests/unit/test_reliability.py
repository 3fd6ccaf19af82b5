"""Calibration error, temperatures and thresholds against hand-computed cases and scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import MULTI_LABEL, LabelSet
from monox_kit.evaluation.calibration import CalibrateConfig, Calibrator
from monox_kit.evaluation.reliability import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    Sureness,
    area_under_risk,
    best_temperature,
    calibration_error,
    calibration_error_interval,
    risk_coverage,
    sureness,
    threshold_for,
)
from monox_kit.models.calibration import STAND_IN, Calibration
from monox_kit.problem import problem_of
from tests.notes import Notes

NAMES = ("a", "b", "c")
SINGLE, MULTI = problem_of(LabelSet(NAMES)), problem_of(LabelSet(NAMES, MULTI_LABEL))


def sure_of(probabilities: list[float], happened: list[bool]) -> Sureness:
    return Sureness(np.array(probabilities)[:, None], np.array(happened)[:, None])


def test_the_calibration_error_of_a_case_by_hand() -> None:
    """Bins of 1/15: 0.95 and 0.94 share the last, 0.5 and 0.51 the eighth, 0.2 is alone."""
    sure = sure_of([0.95, 0.94, 0.5, 0.51, 0.2], [True, False, True, True, False])
    expected = (abs(0.95 + 0.94 - 1) + abs(0.5 + 0.51 - 2) + 0.2) / 5
    assert calibration_error(sure) == pytest.approx(expected, abs=1e-12)
    assert calibration_error(sure_of([1.0, 1.0], [True, True])) == 0
    assert calibration_error(sure_of([1.0, 1.0], [False, False])) == 1


def test_the_calibration_error_of_classes_that_do_not_exclude_each_other() -> None:
    logits = np.array([[0.0, 0.0, 0.0]], np.float32)
    sure = sureness(MULTI, logits, np.array([[1, 0, 0]], np.int8))
    # All three events have probability 1/2, and one of them is so.
    assert calibration_error(sure) == pytest.approx(abs(1.5 - 1) / 3)


def test_the_interval_of_a_calibration_error_is_around_that_of_a_large_sample() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.uniform(0.4, 1, 2000)
    happened = generator.uniform(size=2000) < probabilities - 0.2  # 20 points too sure
    sure = Sureness(probabilities[:, None], happened[:, None])
    low, high = calibration_error_interval(sure, 500, generator)
    assert low < 0.2 < high and high - low < 0.1
    again = calibration_error_interval(sure, 500, np.random.default_rng(7))
    assert again == calibration_error_interval(sure, 500, np.random.default_rng(7))


def sampled(rows: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at a temperature."""
    generator = np.random.default_rng(rows)
    logits = generator.normal(0, 4, (rows, 3)).astype(np.float32)
    noise = generator.gumbel(size=logits.shape)
    return logits, np.argmax(logits / temperature + noise, axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_grid_by_torchs_loss(temperature: float) -> None:
    logits, gold = sampled(3000, temperature)
    (found,) = best_temperature(SINGLE, logits, gold)

    def loss(value: float) -> float:
        scaled = torch.from_numpy(logits).double() / value
        return float(functional.cross_entropy(scaled, torch.from_numpy(gold)))

    assert all(loss(found) <= loss(found * (1 + step)) for step in (-0.01, -1e-4, 1e-4, 0.01))
    grid = np.geomspace(0.1, 10, 400)
    best = grid[np.argmin([loss(value) for value in grid])]
    assert abs(math.log(found / best)) < 0.02
    assert abs(math.log(found / temperature)) < 0.15  # that of 3,000 rows


def test_each_class_has_the_temperature_of_torchs_binary_loss() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 3, (2000, 3)).astype(np.float32)
    scales = np.array([0.5, 1.0, 2.5])
    gold = (generator.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits / scales))).astype("i1")
    found = best_temperature(MULTI, logits, gold)
    for column, value in enumerate(found):
        labels = torch.from_numpy(gold[:, column]).double()

        def loss(at: float, column: int = column, labels: torch.Tensor = labels) -> float:
            scaled = torch.from_numpy(logits[:, column]).double() / at
            return float(functional.binary_cross_entropy_with_logits(scaled, labels))

        assert all(loss(value) <= loss(value * (1 + step)) for step in (-1e-3, 1e-3))
    assert np.abs(np.log(np.array(found) / scales)).max() < 0.25


def test_a_temperature_stays_within_its_bounds() -> None:
    logits = np.array([[5.0, 0, 0], [0, 5.0, 0]], np.float32)
    assert best_temperature(SINGLE, logits, np.array([0, 1])) == (LEAST_TEMPERATURE,)
    assert best_temperature(SINGLE, logits, np.array([1, 2])) == (MOST_TEMPERATURE,)
    # A class that no row has says nothing of its temperature.
    gold = np.array([[1, 0, 0], [0, 1, 0]], np.int8)
    assert best_temperature(MULTI, logits - 2, gold)[2] == 1.0


def test_a_temperature_makes_the_calibration_error_small() -> None:
    logits, gold = sampled(4000, 3.0)
    calibration = Calibration(temperatures={STAND_IN: best_temperature(SINGLE, logits, gold)})
    scaled = calibration.scaled(logits, [None] * len(logits))
    before, after = (calibration_error(sureness(SINGLE, each, gold)) for each in (logits, scaled))
    assert before > 0.15 and after < 0.03
    np.testing.assert_array_equal(SINGLE.decide(logits), SINGLE.decide(scaled))


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 0.8, 0.9]), st.booleans()), min_size=1),
    st.sampled_from([0.1, 0.5, 0.75, 0.9, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_a_threshold_answers_most_rows_with_the_precision(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    confidences = np.array([each for each, _ in rows])
    right = np.array([each for _, each in rows])
    found = threshold_for(precision, confidences, right)
    # Every threshold there is, tried one by one.
    best = 0
    for threshold in set(confidences.tolist()):
        answered = confidences >= threshold
        if right[answered].mean() >= precision:
            best = max(best, int(answered.sum()))
    assert found.num_answered == best
    if found.threshold is None:
        assert best == 0
    else:
        answered = confidences >= found.threshold
        assert (int(answered.sum()), int(right[answered].sum())) == found[1:]


def test_risk_by_coverage_of_a_case_by_hand() -> None:
    confidences = np.linspace(0.95, 0.05, 10)
    right = np.array([True, True, False, True, True, True, False, True, False, False])
    curve = dict(risk_coverage(confidences, right))
    assert curve[0.1] == 0 and curve[0.3] == pytest.approx(1 / 3) and curve[1.0] == 0.4
    risks = [0, 0, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 2 / 7, 2 / 8, 3 / 9, 4 / 10]
    assert area_under_risk(confidences, right) == pytest.approx(np.mean(risks))


def test_a_calibration_knows_languages_without_their_region() -> None:
    calibration = Calibration(
        temperatures={STAND_IN: (2.0,), "de": (4.0,)},
        precision=0.9,
        thresholds={STAND_IN: 0.8, "de": None},
    )
    languages = ["de", "DE-at", "de_CH", "fr", None]
    scaled = calibration.scaled(np.ones((5, 3), np.float32) * 4, languages)
    assert scaled[:, 0].tolist() == [1, 1, 1, 2, 2] and scaled.dtype == np.float32
    confidences = np.array([1.0, 1.0, 1.0, 0.8, 0.79])
    abstained = calibration.abstains(confidences, languages).tolist()
    assert abstained == [True, True, True, False, True]


def test_a_calibration_finds_the_nearest_values() -> None:
    keys = (STAND_IN, "und", "EN", "zh-Hant", "zh", "pt-BR")
    calibration = Calibration(temperatures=dict.fromkeys(keys, (1.0,)))
    expected = {None: "und", "": "und", "und": "und", "en": "EN", "En_gb": "EN"}
    expected |= {"ZH_hant-TW": "zh-Hant", "zh-TW": "zh", "pt_br": "pt-BR", "pt": STAND_IN}
    assert {tag: calibration.known(tag) for tag in expected} == expected
    assert Calibration(temperatures={STAND_IN: (1.0,)}).known(None) == STAND_IN


@pytest.mark.parametrize(
    ("rows", "stand_in"),
    [
        ({"en": 5, "de": 200}, ("en", "de")),
        ({"en": 50, "de": 200}, ("en",)),
        ({"EN-gb": 25, "en-US": 25, "de": 30, "de-AT": 7}, ("EN-gb", "en-US")),
        ({"und": 40, "en": 9}, ("en", "und")),
    ],
)
def test_enough_rows_stand_in(rows: dict[str, int], stand_in: tuple[str, ...]) -> None:
    notes = Notes()
    data = {name: sampled(count, 2.0) for name, count in rows.items()}
    config = CalibrateConfig(
        model="m", dev=CorpusConfig(paths=("dev.csv",)), min_rows=30, num_resamples=100
    )
    logits, gold = ({name: each[at] for name, each in data.items()} for at in (0, 1))
    found = Calibrator(config, SINGLE, logits, gold, notes).summary(Path("out"))
    assert sorted(found.stand_in) == sorted(stand_in)
    joined = [np.concatenate([each[name] for name in found.stand_in]) for each in (logits, gold)]
    assert found.calibration.temperatures[STAND_IN] == best_temperature(SINGLE, *joined)
    told = " ".join(notes.notes)
    assert f"{', '.join(found.stand_in)} ({len(joined[1])} rows)" in told
    few = [name for name in rows if rows[name] < 30]
    assert all(f"{name}" in told for name in few)
    if "de-AT" in rows:  # by its language, and not by what stands in
        assert (
            "de-AT: fewer than 30 rows each (`min_rows`), so that these languages have the "
            "values of de" in told
        )
        assert found.languages["de-AT"].temperatures == found.languages["de"].temperatures
