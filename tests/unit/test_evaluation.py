"""Metrics against plain formulas, intervals against their meaning."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.errors import CorpusError
from monox_kit.evaluation import (
    EvaluateConfig,
    language_result,
    macro_f1,
    report_on,
    target_average_resamples,
)
from monox_kit.evaluation.comparison import compared
from monox_kit.evaluation.details import write_details
from monox_kit.evaluation.run import LanguageScores, is_target, note_languages
from monox_kit.evaluation.statistics import mcnemar, rows_to_show, wilson
from monox_kit.problem import problem_of
from monoxkit_cli.compare import COMMAND
from tests.notes import Notes

GENERATOR = np.random.default_rng(3)


def plain_macro_f1(gold: list[int], predicted: list[int]) -> float:
    scores = []
    for label in {*gold, *predicted}:
        hits = sum(g == p == label for g, p in zip(gold, predicted))
        precision = hits / max(predicted.count(label), 1)
        recall = hits / max(gold.count(label), 1)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_the_plain_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gold, predicted = generator.integers(0, 6, 40), generator.integers(1, 4, 40)
    expected = plain_macro_f1(gold.tolist(), predicted.tolist())
    one_each = np.ones((1, 40), np.int64)
    found = macro_f1(one_each, *(np.eye(7, dtype=np.bool_)[each] for each in (gold, predicted)))
    assert found[0] == pytest.approx(expected)


def test_intervals_hold_the_spread_of_a_binomial() -> None:
    problem = problem_of(LabelSet(("a", "b")))
    gold = np.zeros(400, np.int64)
    predicted = np.array([0] * 300 + [1] * 100, np.int64)
    result = language_result(problem, gold, predicted, num_resamples=4000, generator=GENERATOR)
    assert result.accuracy == 0.75
    deviation = np.sqrt(0.75 * 0.25 / 400)
    low, high = result.accuracy_interval
    assert (low, high) == pytest.approx(
        (0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation), abs=0.006
    )


def test_the_target_average_leaves_the_source_language_out() -> None:
    labels = LabelSet(("a", "b"))
    gold = ["a", "b", "a", "b"]
    documents = {
        language: [
            Document(row=i, id=str(i), text="x", label=name, lang=language)
            for i, name in enumerate(gold)
        ]
        for language in ("ja", "en", "de")
    }
    right = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    logits = {"en": right, "de": right, "ja": right[::-1].copy()}
    config = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)))
    report = report_on("m", labels, documents, logits, config)
    assert list(report.languages) == ["en", "de", "ja"]
    assert [r.accuracy for r in report.languages.values()] == [1.0, 1.0, 0.0]
    assert report.target_average == 0.5
    assert report.to_json()["languages"]["de"]["num_rows"] == 4


def test_a_row_without_a_label_is_named() -> None:
    documents = {"de": [Document(row=7, id="seven", text="x")]}
    config = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)))
    with pytest.raises(CorpusError, match=r"row 7 \(seven\): expected a gold label"):
        report_on(
            "m", LabelSet(("a", "b")), documents, {"de": np.zeros((1, 2), np.float32)}, config
        )


def documents_of(ids: list[str], gold: list[str]) -> list[Document]:
    return [
        Document(row=i, id=key, text="x", label=name)
        for i, (key, name) in enumerate(zip(ids, gold))
    ]


def spread_of_average(ids_by_language: dict[str, list[str]], num_rows: int = 200) -> float:
    """The bootstrap's standard deviation of an average of 0.5 over the languages."""
    labels = LabelSet(("a", "b"))
    config = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)), num_resamples=2000)
    documents = {k: documents_of(v, ["a"] * num_rows) for k, v in ids_by_language.items()}
    half = np.zeros((num_rows, 2), np.float32)
    half[: num_rows // 2, 1] = 1
    logits = dict.fromkeys(documents, half)
    return float(target_average_resamples(labels, documents, logits, config).std())


def test_languages_that_translate_the_same_documents_vary_together() -> None:
    single = np.sqrt(0.25 / 200)
    same = [f"doc-{i}" for i in range(200)]
    together = spread_of_average(dict.fromkeys(("de", "fr", "ja", "ko"), same))
    assert together == pytest.approx(single, rel=0.1)
    apart = spread_of_average(
        {language: [f"{language}-{i}" for i in range(200)] for language in ("de", "fr", "ja", "ko")}
    )
    assert apart == pytest.approx(single / 2, rel=0.1)


def test_equal_systems_differ_by_nothing_in_every_resample() -> None:
    labels = LabelSet(("a", "b"))
    config = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)))
    documents = {"de": documents_of(["x", "y", "z"], ["a", "b", "a"])}
    logits = {"de": np.array([[1, 0], [1, 0], [1, 0]], np.float32)}
    first = target_average_resamples(labels, documents, logits, config)
    second = target_average_resamples(labels, documents, {"de": logits["de"] * 3}, config)
    np.testing.assert_array_equal(first, second)
    assert first.std() > 0
    assert len(target_average_resamples(labels, {"en": documents["de"]}, {}, config)) == 0


LABELS = LabelSet(("a", "b"))
CONFIG = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)))


def logits_of(names: str, labels: LabelSet = LABELS) -> np.ndarray:
    """Logits that decide for one label a row."""
    return np.eye(len(labels), dtype=np.float32)[[labels.names.index(name) for name in names]]


def scored(labels: LabelSet = LABELS, **decided: str) -> LanguageScores:
    logits = {language: logits_of(each, labels) for language, each in decided.items()}
    return LanguageScores(labels, logits)


# Brown, Cai, DasGupta, "Interval estimation for a binomial proportion" (2001), and R's
# binom.confint(method = "wilson").
@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [
        (50, 50, 0.92865, 1.0),
        (0, 50, 0.0, 0.07135),
        (1, 1, 0.20655, 1.0),
        (45, 50, 0.78640, 0.95652),
        (0, 10, 0.0, 0.27753),
    ],
)
def test_wilsons_interval_has_its_published_values(
    right: int, rows: int, low: float, high: float
) -> None:
    assert wilson(right, rows) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        # 2 * P(X <= k) of a binomial with probability 1/2, by hand.
        (0, 0, 1.0),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 5, 14 / 64),
        (3, 3, 1.0),
        (0, 1, 1.0),
    ],
)
def test_mcnemars_exact_test_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_mcnemars_test_is_the_binomial_one(first: int, second: int) -> None:
    # Two-sided: the probability of every outcome that is no likelier than the one that was found.
    total = first + second
    ways = [math.comb(total, count) for count in range(total + 1)]
    expected = sum(each for each in ways if each <= ways[first]) / 2**total
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_takes_as_many_rows_as_there_are() -> None:
    assert 0 < mcnemar(20_000, 20_400) < 0.05


def test_rows_that_show_a_difference_show_it() -> None:
    # Simulated: of so many rows, four fifths of the tests find the difference.
    difference, discordant = 0.03, 0.15
    rows = rows_to_show(difference, discordant)
    generator = np.random.default_rng(5)
    shares = [(discordant - difference) / 2, (discordant + difference) / 2, 1 - discordant]
    draws = generator.multinomial(rows, shares, size=1000)
    found = np.mean([mcnemar(int(first), int(second)) < 0.05 for first, second, _ in draws])
    assert found == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("right", [True, False])
def test_all_or_none_right_is_not_certain(right: bool, multi: bool) -> None:
    labels = LabelSet(("a", "b"), "multi_label_classification" if multi else LABELS.problem_type)
    gold = ("a",) if multi else "a"
    documents = {
        name: [Document(row=i, id=f"d{i}", text="x", label=gold, lang=name) for i in range(50)]
        for name in ("en", "de", "ja")
    }
    row = [9.0, -9.0] if right else [-9.0, 9.0]
    logits = dict.fromkeys(documents, np.array([row] * 50, np.float32))
    report = report_on("m", labels, documents, logits, CONFIG)
    expected = wilson(50 if right else 0, 50)
    for result in report.languages.values():
        assert result.accuracy_interval == result.macro_f1_interval == expected
        assert result.micro_f1_interval in (None, expected)
    # Translations of the same 50 documents are 50, not 100.
    assert report.target_average_interval == expected


def test_a_partly_right_f1_keeps_the_bootstrap_where_no_row_is_wholly_right() -> None:
    labels = LabelSet(("a", "b", "c"), "multi_label_classification")
    names = [("a", "b"), ("b", "c"), ("a",), ("c",)] * 10
    documents = {
        "de": [Document(row=i, id=str(i), text="x", label=each) for i, each in enumerate(names)]
    }
    logits = {"de": np.array([[1, -1, 1]] * 40, np.float32)}
    result = report_on("m", labels, documents, logits, CONFIG).languages["de"]
    assert result.accuracy == 0 and result.accuracy_interval == wilson(0, 40)
    assert result.micro_f1 is not None and result.micro_f1_interval is not None
    low, high = result.micro_f1_interval
    assert 0 < low < result.micro_f1 < high < 1


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        ("de", "en", True),
        ("en", "en", False),
        ("EN", "en", False),
        ("en-US", "en", False),
        ("en_GB", "en", False),
        ("und", "en", False),
        ("und", "de", False),
        ("pt-BR", "pt-PT", True),
        ("pt", "pt-BR", True),
        ("eno", "en", True),
        ("zh-Hans", "zh", False),
    ],
)
def test_the_source_language_is_no_target(language: str, source: str, expected: bool) -> None:
    assert is_target(language, source) is expected


def test_rows_of_no_language_are_told_and_not_averaged() -> None:
    documents = {name: documents_of(["1", "2"], ["a", "b"]) for name in ("en-US", "und", "de")}
    logits = {"en-US": logits_of("bb"), "und": logits_of("bb"), "de": logits_of("ab")}
    report = report_on("m", LABELS, documents, logits, CONFIG)
    assert report.target_average == 1.0
    progress = Notes()
    note_languages(documents, "en", progress)
    assert len(progress.notes) == 1 and "2 test rows" in progress.notes[0]
    alone = report_on("m", LABELS, {"und": documents["und"]}, {"und": logits["und"]}, CONFIG)
    assert alone.target_average is None and alone.target_average_interval is None
    progress = Notes()
    note_languages({"de": documents["de"]}, "en", progress)
    assert len(progress.notes) == 1 and "en" in progress.notes[0]


def test_a_comparison_counts_what_one_alone_has_right() -> None:
    gold = ["a"] * 8 + ["b"] * 8
    documents = {name: documents_of([str(i) for i in range(16)], gold) for name in ("en", "de")}
    right = "a" * 8 + "b" * 8
    worse = "b" * 6 + "aa" + "b" * 8
    # The second model has its labels in another order.
    turned = LabelSet(("b", "a"))
    sides = [scored(en=right, de=worse), scored(turned, en=right, de=right)]
    found = compared("first", "second", documents, sides, CONFIG)
    de, en = found.languages["de"], found.languages["en"]
    assert list(found.languages) == ["en", "de"]
    assert (de.first, de.second, de.difference) == (10 / 16, 1.0, 6 / 16)
    assert (de.only_first, de.only_second, de.p_value) == (0, 6, 2 / 64)
    assert found.target_difference == de.difference
    assert found.target_difference_interval == de.difference_interval
    low, high = de.difference_interval
    assert 0 < low < 6 / 16 < high < 1
    # Equal on every row: no certainty that they are equal on all.
    assert (en.difference, en.p_value) == (0.0, 1.0)
    assert en.difference_interval == pytest.approx((-wilson(0, 16)[1], wilson(0, 16)[1]))
    json.dumps(found.to_json())


def test_the_order_of_two_models_turns_every_sign() -> None:
    generator = np.random.default_rng(1)
    gold = generator.choice(["a", "b"], 80).tolist()
    documents = {"de": documents_of([str(i) for i in range(80)], gold)}
    one, other = ("".join(generator.choice(["a", "b"], 80)) for _ in range(2))
    there = compared("x", "y", documents, [scored(de=one), scored(de=other)], CONFIG)
    back = compared("y", "x", documents, [scored(de=other), scored(de=one)], CONFIG)
    first, second = there.languages["de"], back.languages["de"]
    assert first.difference == -second.difference
    assert first.p_value == second.p_value
    assert first.difference_interval == pytest.approx(
        tuple(-bound for bound in reversed(second.difference_interval)), abs=1e-9
    )


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    generator = np.random.default_rng(2)
    gold = ["a"] * 400
    documents = {"de": documents_of([str(i) for i in range(400)], gold)}
    decided = generator.random(400) < 0.7
    changed = decided ^ (generator.random(400) < 0.05)  # nearly the same errors
    one, other = ("".join("a" if each else "b" for each in rows) for rows in (decided, changed))
    found = compared("x", "y", documents, [scored(de=one), scored(de=other)], CONFIG)
    low, high = found.languages["de"].difference_interval
    unpaired = 2 * 1.96 * math.sqrt(2 * 0.7 * 0.3 / 400)
    assert high - low < 0.5 * unpaired


def test_details_name_classes_confusions_and_wrong_rows(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b", "=c,"))
    gold = ["a", "a", "b", "=c,"]
    documents = {"de": documents_of(["k1", "k2", "k3", "k4"], gold)}
    logits = np.array([[2, 1, 0], [0, 3, 0], [4, 0, 0], [0, 0, 1]], np.float32)
    write_details(tmp_path / "d", labels, documents, {"de": logits})
    with (tmp_path / "d" / "by_class.csv").open(newline="", encoding="utf-8") as stream:
        classes = {row["label"]: row for row in csv.DictReader(stream)}
    assert (classes["a"]["rows"], classes["a"]["predicted"], classes["a"]["right"]) == (
        "2",
        "2",
        "1",
    )
    assert (classes["b"]["precision"], classes["b"]["recall"], classes["b"]["f1"]) == (
        "0.0000",
        "0.0000",
        "0.0000",
    )
    assert classes["=c,"]["f1"] == "1.0000"
    with (tmp_path / "d" / "confusion.csv").open(newline="", encoding="utf-8") as stream:
        pairs = {(row["gold"], row["predicted"]): row["rows"] for row in csv.DictReader(stream)}
    assert pairs == {("a", "a"): "1", ("a", "b"): "1", ("b", "a"): "1", ("=c,", "=c,"): "1"}
    lines = (tmp_path / "d" / "wrong.jsonl").read_text(encoding="utf-8").splitlines()
    wrong = [json.loads(line) for line in lines]
    assert [row["id"] for row in wrong] == ["k3", "k2"]  # the surest first
    assert wrong[0]["gold"] == "b" and wrong[0]["predicted"] == "a"
    odds = np.exp([4.0, 0.0, 0.0])
    assert wrong[0]["confidence"] == pytest.approx(odds[0] / odds.sum(), abs=1e-6)
    assert wrong[0]["gold_probability"] == pytest.approx(odds[1] / odds.sum(), abs=1e-6)


def test_details_of_several_labels_a_row(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b"), "multi_label_classification")
    rows = [Document(row=0, id="k", text="x", text_pair="y", label=("a", "b"))]
    write_details(tmp_path, labels, {"de": rows}, {"de": np.array([[1, -1]], np.float32)})
    assert not (tmp_path / "confusion.csv").exists()
    wrong = json.loads((tmp_path / "wrong.jsonl").read_text(encoding="utf-8"))
    assert (wrong["gold"], wrong["predicted"], wrong["text_pair"]) == (["a", "b"], ["a"], "y")
    assert set(wrong["gold_probability"]) == {"a", "b"}


def test_a_difference_of_few_documents_may_be_chance() -> None:
    """Where 7 of 120 rows differ, a bootstrap's interval lacks 0, and the exact test is unsure."""
    gold = ["a"] * 60
    ids = [str(i) for i in range(60)]
    documents = {name: documents_of(ids, gold) for name in ("de", "fr")}
    right, alike = "a" * 60, "b" * 5 + "a" * 55
    sides = [scored(de=right, fr=right), scored(de=alike, fr="b" * 2 + "a" * 58)]
    found = compared("runs/ce", "runs/kd", documents, sides, CONFIG)
    assert found.target_difference_interval is not None
    assert found.target_difference_interval[1] < 0
    # Translations of a document are no further documents: 5 differ, not 7.
    assert found.target_p_value == 2 / 2**5
    assert not found.is_shown
    notes = COMMAND.notes(found)
    assert "worse" not in notes and "may be chance" in notes
    headings = [column.header for column in COMMAND.show(found).columns]  # type: ignore[union-attr]
    assert headings[2:4] == ["ce", "kd"] and "only kd right" in headings
    many = "b" * 6 + "a" * 54
    shown = compared("ce/x", "kd/x", documents, [sides[0], scored(de=many, fr=many)], CONFIG)
    assert shown.target_p_value == 2 / 2**6 and shown.is_shown
    assert "kd/x is worse than ce/x" in COMMAND.notes(shown)
    assert [each.header for each in COMMAND.show(shown).columns][2:4] == [  # type: ignore[union-attr]
        "FIRST",
        "SECOND",
    ]
