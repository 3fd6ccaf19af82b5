"""The gate's verdicts: what rows can show, in every language, and how many it would take."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.data import MULTI_LABEL, LabelSet
from monox_kit.errors import ConfigError, ModelError
from monox_kit.evaluation.statistics import (
    mean_interval,
    paired_interval,
    rows_to_decide,
    share_interval,
    unseen_share,
    wilson,
)
from monox_kit.exporting.config import ExportConfig, Gate
from monox_kit.exporting.gate import (
    FAILED,
    NOT_SHOWN,
    PASSED,
    GateReport,
    Measured,
    shown_measure,
)
from monox_kit.exporting.judge import Judge
from monox_kit.models.batching import length_buckets
from monox_kit.problem import problem_of
from tests.notes import Notes
from tests.tiny_models import corpus_of

TWO = problem_of(LabelSet(("a", "b")))


def judge(gate: str, rows: dict[str, int], *, gold: list[int] | None = None) -> Judge:
    """A judge of so many rows by language, all of which PyTorch gives to the first class."""
    languages = np.array([tag for tag, count in rows.items() for _ in range(count)])
    expected = np.tile(np.array([[1.0, 0.0]], np.float32), (len(languages), 1))
    lengths = np.arange(len(languages)) % 40 + 1
    labels = None if gold is None else np.array(gold, np.int32)
    return Judge(Gate.of(gate.split(",")), TWO, expected, languages, lengths, labels)


def flipped(judge: Judge, rows: list[int]) -> np.ndarray:
    """Logits as PyTorch's but for some rows, which get the other label."""
    logits = judge.expected.copy()
    logits[rows] = logits[rows][:, ::-1]
    return logits


def test_200_rows_that_all_agree_do_not_show_99_and_a_half_percent() -> None:
    few = judge("worst=0.995", {"de": 200})
    (finding,) = few.report(few.expected).findings
    assert (finding.verdict, finding.num_rows) == (NOT_SHOWN, 200)
    # The fewest of which a share of 0.995 would all agree in at most one of forty samples.
    assert finding.rows_needed == 736
    assert 0.995**736 <= 0.025 < 0.995**735
    assert few.out_of_reach() == [finding]
    for count, verdict in ((735, NOT_SHOWN), (736, PASSED)):
        many = judge("worst=0.995", {"de": count})
        assert many.report(many.expected).verdict == verdict


def test_the_worst_language_decides_and_not_the_mean() -> None:
    rows = {f"x{number}": 1000 for number in range(13)} | {"ja": 1000}
    by_language = judge("agreement=0.99,worst=0.98", rows)
    report = by_language.report(flipped(by_language, list(range(13_000, 13_040))))
    assert report.verdict == FAILED
    assert report.total.agreement.value == pytest.approx(1 - 40 / 14_000)
    verdicts = {(one.threshold, one.language): one.verdict for one in report.findings}
    assert verdicts[("agreement", None)] == PASSED
    assert {key for key, verdict in verdicts.items() if verdict == FAILED} == {("worst", "ja")}
    assert report.told(FAILED).startswith("ja: same label 96.0 % (94.5 to 97.2) on 1,000 rows")
    assert report.languages["x0"].agreement.value == 1.0
    kept = json.loads(json.dumps(report.to_json()))
    assert GateReport.from_json(kept, Path("monoxkit.json")) == report
    kept["languages"]["ja"]["num_rows"] = "many"
    with pytest.raises(ModelError, match=r"monoxkit\.json.*languages\.ja\.num_rows"):
        GateReport.from_json(kept, Path("monoxkit.json"))


@pytest.mark.parametrize(
    ("gate", "wrong", "gold"),
    [
        ("worst=0.95", 6, None),
        ("worst=0.95", 14, None),
        ("agreement=0.99", 0, None),
        ("kl=0.02", 6, None),
        ("kl=0.02", 12, None),
        ("drop=5", 6, [0] * 200),
        ("drop=5", 14, [0] * 200),
        ("drop=1", 0, [0] * 200),
    ],
)
def test_as_many_rows_as_it_says_decide_where_they_are_like_those_seen(
    gate: str, wrong: int, gold: list[int] | None
) -> None:
    few = judge(gate, {"de": 200}, gold=gold)
    (finding,) = few.report(flipped(few, list(range(wrong)))).findings
    assert finding.verdict == NOT_SHOWN and finding.rows_needed is not None
    share = wrong / 200
    # Whole rows: shares are not quite those of the 200.
    for factor, is_decided in ((1.1, True), (0.8, False)):
        count = round(factor * finding.rows_needed)
        more = judge(gate, {"de": count}, gold=None if gold is None else [0] * count)
        (found,) = more.report(flipped(more, list(range(round(share * count))))).findings
        assert (found.verdict != NOT_SHOWN) == is_decided


def test_a_drop_is_of_labelled_rows_and_paired() -> None:
    # 300 rows, 100 without a label; PyTorch has 150 of 200 right.
    gold = [0] * 150 + [1] * 50 + [-1] * 100
    paired = judge("drop=5", {"de": 300}, gold=gold)
    # Loses 12, wins 2; rows without a label change nothing.
    wrong = [*range(12), 150, 151, *range(200, 300)]
    result = paired.report(flipped(paired, wrong)).languages["de"]
    assert result.num_labelled == 200
    assert result.drop is not None and result.drop.value == pytest.approx(5.0)
    expected = paired_interval(12, 2, 200)
    assert (result.drop.low, result.drop.high) == tuple(100 * end for end in expected)
    assert result.agreement.value == pytest.approx(1 - 114 / 300)


def test_a_language_without_labels_is_not_shown_to_keep_its_accuracy() -> None:
    mixed = judge("drop=1", {"de": 2000, "ja": 10}, gold=[0] * 2000 + [-1] * 10)
    report = mixed.report(mixed.expected)
    assert report.verdict == NOT_SHOWN
    assert [one.verdict for one in report.findings] == [PASSED, NOT_SHOWN]
    assert report.languages["ja"].drop is None
    assert report.told(NOT_SHOWN) == "ja: no row has a label for drop"


def test_equal_logits_pass_a_divergence_and_every_length_is_reported() -> None:
    equal = judge("kl=0.001", {"de": 80})
    report = equal.report(equal.expected)
    assert report.verdict == PASSED
    assert (report.total.kl.high, report.total.max_delta) == (0.0, 0.0)
    assert {name: one.num_rows for name, one in report.lengths.items()} == {
        "1-16": 32,
        "17-32": 32,
        "33-64": 16,
    }


def with_divergence(judge: Judge, values: dict[int, float]) -> np.ndarray:
    """Logits as PyTorch's but for the distance of some rows' two, which make up a divergence."""
    logits = judge.expected.copy()
    for row, distance in values.items():
        logits[row, 0] += distance
    return logits


@pytest.mark.parametrize("count", [1, 2, 5, 29])
@pytest.mark.parametrize("distance", [2.0, 0.01])
def test_few_rows_tell_no_mean_divergence(count: int, distance: float) -> None:
    # Far above the limit or far below it, and without a deviation.
    few = judge("kl=0.01", {"de": 500, "ja": count})
    far = dict.fromkeys(range(500, 500 + count), distance)
    german, japanese = few.report(with_divergence(few, far)).findings
    assert (german.verdict, japanese.verdict) == (PASSED, NOT_SHOWN)
    assert japanese.rows_needed == 30 if distance > 1 else japanese.rows_needed >= 30
    # It is said beforehand, for a graph that equals PyTorch too.
    (told,) = few.out_of_reach()
    assert (told.language, told.num_rows, told.rows_needed) == ("ja", count, 30)


def test_what_one_languages_rows_may_lack_is_as_large_as_any_row_of_all_languages() -> None:
    both = judge("kl=0.01", {"de": 2000, "ja": 40})
    small = dict.fromkeys(range(2000, 2040), 0.01)
    alone = both.report(with_divergence(both, small))
    assert alone.verdict == PASSED
    # One row of another language is far off, which 40 rows of this one may not have met.
    report = both.report(with_divergence(both, small | {7: 2.0}))
    assert {one.language: one.verdict for one in report.findings} == {"de": PASSED, "ja": NOT_SHOWN}
    largest = both.report(with_divergence(both, {7: 2.0})[[7]], np.array([7])).total.kl.value
    known = alone.languages["ja"].kl
    assert report.languages["ja"].kl.high - known.high == pytest.approx(
        unseen_share(40) * (largest - known.value), rel=1e-3
    )


@pytest.mark.parametrize("rows", [7, 14])
def test_one_differing_row_of_few_fails_no_graph(rows: int) -> None:
    # 200 rows that stand in turn, of 28 languages or of 14.
    first = judge("worst=0.99", {f"x{number}": rows for number in range(196 // rows)})
    assert first.report(flipped(first, [3])).verdict == NOT_SHOWN
    assert first.report(flipped(first, list(range(rows)))).verdict == FAILED


def test_a_threshold_that_no_number_of_rows_shows_is_told_as_one() -> None:
    notes = Notes()
    judge("worst=0.99999999999", {"de": 50}).tell(notes)
    (note,) = notes.notes
    assert "worst=0.99999999999 needs more rows of de than anybody has" in note
    assert "label" not in note


@pytest.mark.parametrize(
    ("threshold", "found", "shown"),
    [
        ("worst", (0.99, 0.9796, 0.9956), "99.0 % (97.9 to 99.6)"),
        ("worst", (0.29, 0.29, 0.29), "29.0 % (29.0 to 29.0)"),
        ("worst", (1.0, 0.99999, 1.0), "100.0 % (99.9 to 100.0)"),
        ("kl", (0.005, 0.00499, 0.01004), "5.0e-03 (4.9e-03 to 1.1e-02)"),
        ("kl", (0.0, 0.0, 9.91e-3), "0.0e+00 (0.0e+00 to 1.0e-02)"),
        ("drop", (0.1, -0.111, 0.501), "0.10 (-0.12 to 0.51)"),
    ],
)
def test_ends_are_rounded_outwards(
    threshold: str, found: tuple[float, float, float], shown: str
) -> None:
    value, low, high = found
    assert shown_measure(threshold, Measured(value=value, low=low, high=high)) == shown


def test_of_any_number_of_labels_all_must_be_pytorchs() -> None:
    problem = problem_of(LabelSet(("a", "b"), MULTI_LABEL))
    expected = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [2.0, -2.0]], np.float32)
    found = expected.copy()
    found[1, 1] = -1.0  # one class of two is lost
    gold = np.array([[1, 0], [1, 1], [0, 0], [-1, -1]], np.int8)
    tags, lengths = np.array(["de"] * 4), np.full(4, 5)
    result = Judge(Gate(worst=0.5), problem, expected, tags, lengths, gold).report(found).total
    assert result.agreement.value == 0.75
    assert result.num_labelled == 3
    assert result.drop is not None and result.drop.value == pytest.approx(100 / 3)


def test_some_of_the_rows_are_judged_as_if_there_were_no_others() -> None:
    all_rows = judge("worst=0.5", {"de": 50, "ja": 50})
    rows = np.arange(40, 70)
    report = all_rows.report(flipped(all_rows, [45])[rows], rows)
    assert {tag: one.num_rows for tag, one in report.languages.items()} == {"de": 10, "ja": 20}
    assert report.languages["de"].agreement.value == 0.9


@pytest.mark.parametrize(
    ("gate", "what"),
    [
        ("wurst=0.9", "'wurst' is no threshold"),
        ("worst=0.9,worst=0.8", "given twice"),
        ("worst=1", "above 0 and below 1"),
        ("worst", "''"),
        ("kl=nan", "'nan'"),
        ("kl=inf", "'inf'"),
        ("drop=0", "above 0"),
        ("", "is no threshold"),
    ],
)
def test_a_gate_that_is_none_is_refused_by_its_part(gate: str, what: str) -> None:
    with pytest.raises(ConfigError, match="`gate`") as caught:
        Gate.of(gate.split(","))
    assert what in str(caught.value)


def test_a_gate_needs_texts_and_decides_alone() -> None:
    with pytest.raises(ConfigError, match=r"`gate`.*`check`"):
        ExportConfig(model="m", gate=("worst=0.9",))
    with pytest.raises(ConfigError, match="`gate`: it asks for nothing"):
        ExportConfig(model="m", gate=(), check=corpus_of())
    with pytest.raises(ConfigError, match=r"`min_agreement` 0\.9.*`gate`"):
        ExportConfig(model="m", gate=("worst=0.9",), min_agreement=0.9, check=corpus_of())
    assert ExportConfig(model="m").most_check_rows == 200
    asked = ExportConfig(model="m", gate=("worst=0.9",), check=corpus_of())
    assert asked.most_check_rows == 1000


def test_buckets_of_lengths_double_and_empty_ones_are_left_out() -> None:
    buckets = length_buckets(np.array([40, 3, 16, 300]))
    found = {name: rows.tolist() for name, rows in buckets.items()}
    assert found == {"1-16": [1, 2], "33-64": [0], "257-512": [3]}
    assert list(found) == ["1-16", "33-64", "257-512"]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=50))
def test_every_length_is_in_one_bucket(lengths: list[int]) -> None:
    values = np.array(lengths)
    buckets = length_buckets(values)
    assert sorted(row for rows in buckets.values() for row in rows.tolist()) == [
        *range(len(values))
    ]
    for name, rows in buckets.items():
        low, high = map(int, name.split("-"))
        assert ((values[rows] >= low) & (values[rows] <= high)).all()


def test_intervals_are_exact_where_nothing_differs() -> None:
    assert share_interval(200, 200) == pytest.approx((0.025 ** (1 / 200), 1.0))
    assert share_interval(0, 30) == pytest.approx((0.0, 1 - 0.025 ** (1 / 30)))
    low, high = paired_interval(0, 0, 500)
    assert (-low, high) == pytest.approx((unseen_share(500), unseen_share(500)))


@pytest.mark.parametrize(
    ("right", "rows", "expected"),
    [
        (6, 7, (0.4212768, 0.9963897)),
        (0, 20, (0.0, 0.1684335)),
        (1, 20, (0.0012651, 0.2487328)),
        (13, 14, (0.6613155, 0.9981932)),
        (10, 10, (0.6915029, 1.0)),
    ],
)
def test_a_shares_interval_is_that_of_the_published_tables(
    right: int, rows: int, expected: tuple[float, float]
) -> None:
    assert share_interval(right, rows) == pytest.approx(expected, abs=1e-6)


@given(st.integers(2, 400), st.data())
@settings(max_examples=50)
def test_at_an_end_of_a_shares_interval_so_many_rows_are_right_in_one_of_forty_samples(
    rows: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(1, rows - 1))
    low, high = share_interval(right, rows)

    def of_at_most(count: int, share: float) -> float:
        """The sum of the binomial distribution, term by term."""
        return math.fsum(
            math.comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(count + 1)
        )

    assert 1 - of_at_most(right - 1, low) == pytest.approx(0.025, abs=1e-9)
    assert of_at_most(right, high) == pytest.approx(0.025, abs=1e-9)


def test_of_very_many_rows_a_shares_interval_is_wilsons() -> None:
    for right, rows in ((9_000, 10**9), (10**9 - 9_000, 10**9), (9_990, 20_000), (10**8, 10**9)):
        low, high = wilson(right, rows)
        assert share_interval(right, rows) == pytest.approx((low, high), abs=(high - low) / 100)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(80, 5000))
def test_a_paired_interval_is_that_of_the_two_exchanged(first: int, second: int, rows: int) -> None:
    low, high = paired_interval(first, second, rows)
    assert (-high, -low) == pytest.approx(paired_interval(second, first, rows))
    assert low <= (first - second) / rows <= high


def test_a_paired_interval_is_of_the_published_form() -> None:
    # 150 and 86 of 1,600 differ: (151 - 87) / 1602, and 1.96 standard errors to each side.
    low, high = paired_interval(150, 86, 1600)
    center, spread = 64 / 1602, math.sqrt((238 / 1602 - (64 / 1602) ** 2) / 1602)
    assert (low, high) == pytest.approx((center - 1.96 * spread, center + 1.96 * spread), abs=1e-5)


def covered(share: float, num_rows: int, draws: int = 400) -> float:
    """How often the upper end is above the mean of values of which a share carries most."""
    random = np.random.default_rng(1)
    above = 0
    for _ in range(draws):
        is_large = random.random(num_rows) < share
        values = np.where(is_large, random.exponential(1, num_rows), 0.01)
        high = mean_interval(values.mean(), values.std(), values.max(), num_rows)[1]
        above += high >= share + 0.01 * (1 - share)
    return above / draws


def test_the_mean_of_values_that_are_seldom_large_is_not_above_its_interval_too_often() -> None:
    assert covered(0.02, 1000) > 0.97


@given(st.floats(0.5, 0.999), st.floats(0.5, 0.999))
@settings(max_examples=50)
def test_the_fewest_rows_are_the_fewest(share: float, limit: float) -> None:
    def of(count: int) -> tuple[float, float]:
        return share_interval(share * count, count)

    if not of(10)[0] < limit < of(10)[1]:
        return
    found = rows_to_decide(of, limit, 10)
    if found is None:
        assert abs(share - limit) < 1e-4
        return
    low, high = of(found)
    assert low >= limit or high <= limit
    low, high = of(found - 1)
    assert low < limit < high
