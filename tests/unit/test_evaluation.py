"""Metrics against plain formulas, intervals against their meaning."""

from __future__ import annotations

import numpy as np
import pytest

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
from monox_kit.problem import problem_of

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
    config = EvaluateConfig(test=CorpusConfig(paths=("x",)))
    report = report_on("m", labels, documents, logits, config)
    assert list(report.languages) == ["en", "de", "ja"]
    assert [r.accuracy for r in report.languages.values()] == [1.0, 1.0, 0.0]
    assert report.target_average == 0.5
    assert report.to_json()["languages"]["de"]["num_rows"] == 4


def test_a_row_without_a_label_is_named() -> None:
    documents = {"de": [Document(row=7, id="seven", text="x")]}
    config = EvaluateConfig(test=CorpusConfig(paths=("x",)))
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
    config = EvaluateConfig(test=CorpusConfig(paths=("x",)), num_resamples=2000)
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
    config = EvaluateConfig(test=CorpusConfig(paths=("x",)))
    documents = {"de": documents_of(["x", "y", "z"], ["a", "b", "a"])}
    logits = {"de": np.array([[1, 0], [1, 0], [1, 0]], np.float32)}
    first = target_average_resamples(labels, documents, logits, config)
    second = target_average_resamples(labels, documents, {"de": logits["de"] * 3}, config)
    np.testing.assert_array_equal(first, second)
    assert first.std() > 0
    assert len(target_average_resamples(labels, {"en": documents["de"]}, {}, config)) == 0
