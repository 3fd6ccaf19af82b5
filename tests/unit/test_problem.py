"""Any number of labels a row: losses, decisions and measures against plain formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import MULTI_LABEL, SINGLE_LABEL, Document, LabelSet
from monox_kit.errors import CorpusError, LabelMismatchError
from monox_kit.evaluation import (
    EvaluateConfig,
    language_result,
    report_on,
    target_average_resamples,
)
from monox_kit.labelling.guard import learn_guard, margins
from monox_kit.models.agreement import agreement
from monox_kit.objectives import (
    binary_averaged_logits,
    binary_confidence,
    binary_cross_entropy,
    binary_entropy,
    binary_hard_labels,
    binary_kl_divergence,
    binary_soft_cross_entropy,
    mixed,
)
from monox_kit.problem import problem_of

GENERATOR = np.random.default_rng(17)
NAMES = ("games", "mail", "text", "sound")
MULTI = LabelSet(NAMES, MULTI_LABEL)
SINGLE = LabelSet(NAMES)
STUDENT = GENERATOR.normal(0, 3, (24, 4)).astype(np.float32)
TEACHER = GENERATOR.normal(0, 3, (24, 4)).astype(np.float32)
LABELS = GENERATOR.integers(0, 2, (24, 4))
# Every third row has no gold label.
HAS_GOLD = np.arange(24) % 3 > 0
GOLD = np.where(HAS_GOLD[:, None], LABELS, -1)
TEMPERATURES = [1e-3, 0.1, 1.0, 2.5, 100.0]


def sigmoid(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-values.astype(np.float64)))


def log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -values.astype(np.float64))


def bernoulli(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """[N] cross-entropy of targets in [0, 1] with sigmoids, the mean over the classes."""
    return -(targets * log_sigmoid(logits) + (1 - targets) * log_sigmoid(-logits)).mean(axis=1)


def check(
    loss: Callable[[torch.Tensor], torch.Tensor], values: np.ndarray, gradients: np.ndarray
) -> None:
    """Compare [N] losses, and the gradient of their mean."""
    student = torch.tensor(STUDENT, requires_grad=True)
    losses = loss(student)
    losses.mean().backward()
    assert student.grad is not None
    np.testing.assert_allclose(losses.detach().numpy(), values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(student.grad.numpy(), gradients, rtol=1e-5, atol=1e-7)


def test_binary_cross_entropy_equals_its_formula_and_leaves_rows_without_a_label_out() -> None:
    values = bernoulli(LABELS, STUDENT) * HAS_GOLD
    gradients = (sigmoid(STUDENT) - LABELS) * HAS_GOLD[:, None] / 24 / 4
    check(lambda student: binary_cross_entropy(student, torch.tensor(GOLD)), values, gradients)


@pytest.mark.parametrize("student_temperature", [1.0, 3.0])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_are_sigmoids_and_the_divergence_lacks_their_entropy_alone(
    temperature: float, student_temperature: float
) -> None:
    q, s = sigmoid(TEACHER / np.float64(temperature)), STUDENT / np.float64(student_temperature)
    factor, teacher = student_temperature**2, torch.tensor(TEACHER)
    values = factor * bernoulli(q, s)
    gradients = student_temperature * (sigmoid(s) - q) / 24 / 4
    settings = {"student_temperature": student_temperature}
    check(
        lambda student: binary_soft_cross_entropy(student, teacher, temperature, **settings),
        values,
        gradients,
    )
    entropies = bernoulli(q, TEACHER / np.float64(temperature))
    check(
        lambda student: binary_kl_divergence(student, teacher, temperature, **settings),
        values - factor * entropies,
        gradients,
    )


def test_the_problem_s_losses_are_those_formulas() -> None:
    """The table that training goes by, and not the functions by their names."""
    losses = problem_of(MULTI).losses
    student, teacher, labels = map(torch.from_numpy, (STUDENT, TEACHER, LABELS))
    q = sigmoid(TEACHER / 2.5)
    expected = {
        "hard": bernoulli(LABELS, STUDENT),
        "soft": bernoulli(q, STUDENT),
        "divergence": bernoulli(q, STUDENT) - bernoulli(q, TEACHER / 2.5),
    }
    found = {
        "hard": losses.hard(student, labels),
        "soft": losses.soft(student, teacher, 2.5),
        "divergence": losses.divergence(student, teacher, 2.5),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
@pytest.mark.parametrize("loss", [binary_soft_cross_entropy, binary_kl_divergence])
def test_soft_targets_become_hard_labels_as_the_temperature_falls(
    loss: Callable[..., torch.Tensor], temperature: float
) -> None:
    student = torch.tensor(STUDENT)
    hard = binary_cross_entropy(student, torch.tensor(binary_hard_labels(TEACHER)).long())
    soft = loss(student, torch.tensor(TEACHER), temperature)
    np.testing.assert_allclose(soft.numpy(), hard.numpy(), atol=1e-6)


def test_a_mix_weighs_gold_labels_where_there_are_any() -> None:
    weight = np.where(HAS_GOLD, 0.3, 0.0)[:, None]
    targets = weight * LABELS + (1 - weight) * sigmoid(TEACHER)

    def loss(student: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor(GOLD)
        soft = binary_soft_cross_entropy(student, torch.tensor(TEACHER), 1.0)
        is_gold = problem_of(MULTI).are_given(labels)
        return mixed(binary_cross_entropy(student, labels), soft, is_gold, 0.3)

    check(loss, bernoulli(targets, STUDENT), (sigmoid(STUDENT) - targets) / 24 / 4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_averaged_teachers_have_the_mean_of_the_softened_probabilities(temperature: float) -> None:
    mean = binary_averaged_logits([TEACHER, STUDENT], [0.7, 0.3], temperature)
    assert mean.dtype == np.float32
    expected = sum(
        share * sigmoid(each / np.float64(temperature))
        for share, each in ((0.7, TEACHER), (0.3, STUDENT))
    )
    np.testing.assert_allclose(sigmoid(mean / np.float64(temperature)), expected, atol=1e-5)
    plain = binary_averaged_logits([TEACHER, STUDENT], [0.7, 0.3], None)
    np.testing.assert_allclose(plain, 0.7 * TEACHER + 0.3 * STUDENT, rtol=1e-5, atol=1e-6)


def test_a_row_is_as_sure_as_its_weakest_class() -> None:
    q = sigmoid(TEACHER)
    np.testing.assert_allclose(binary_confidence(TEACHER), np.maximum(q, 1 - q).min(axis=1))
    entropies = -(q * np.log(q) + (1 - q) * np.log(1 - q)).sum(axis=1)
    np.testing.assert_allclose(binary_entropy(TEACHER), entropies, rtol=1e-9)
    assert binary_confidence(np.array([[1e4, -1e4]], np.float32)).tolist() == [1.0]
    assert binary_entropy(np.array([[1e4, -1e4]], np.float32)).tolist() == [0.0]
    assert binary_entropy(np.zeros((1, 4), np.float32)) == pytest.approx(
        problem_of(MULTI).max_entropy
    )


def test_a_class_is_decided_for_above_zero_alone() -> None:
    logits = np.array([[0.5, 0.0, -0.5, 2.0], [-1, -1, -1, -1]], np.float32)
    assert problem_of(MULTI).decide(logits).tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert margins(logits, problem_of(MULTI)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("labels", [SINGLE, MULTI])
def test_the_lead_is_below_zero_where_logits_decide_otherwise(labels: LabelSet) -> None:
    problem = problem_of(labels)
    decisions = problem.decide(TEACHER)
    same = problem.are_equal(decisions, problem.decide(STUDENT))
    assert 0 < same.sum() < 24
    np.testing.assert_array_equal(problem.lead(STUDENT, decisions) >= 0, same)
    assert (problem.lead(TEACHER, decisions) > 0).all()


def test_agreement_is_of_all_classes_and_divergences_add_up() -> None:
    found = agreement(TEACHER, STUDENT, problem_of(MULTI))
    assert found.argmax == ((TEACHER > 0) == (STUDENT > 0)).all(axis=1).mean()
    p, q = sigmoid(TEACHER), sigmoid(STUDENT)
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1).mean()
    assert found.mean_kl == pytest.approx(kl)


def test_a_guard_keeps_its_promise_on_rows_that_were_never_seen() -> None:
    problem = problem_of(MULTI)

    def noisy(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        reference = generator.normal(0, 3, (rows, 4)).astype(np.float32)
        noise = generator.normal(0, 0.1, (rows, 4))
        return (reference + noise).astype(np.float32), reference

    guard = learn_guard(*noisy(2_000, 0), problem, target=0.99)
    fast, reference = noisy(50_000, 1)
    distrusted = guard.distrusts(fast, problem)
    flipped = ((fast > 0) != (reference > 0)).any(axis=1)
    assert (flipped & ~distrusted).mean() <= 0.01 < flipped.mean()
    assert distrusted.mean() < 0.5


def documents(*labels: tuple[str, ...] | None) -> list[Document]:
    return [
        Document(row=row, id=str(row), text="x", label=label) for row, label in enumerate(labels)
    ]


def test_labels_are_encoded_and_decoded() -> None:
    problem = problem_of(MULTI)
    rows = documents(("text", "games"), (), None)
    encoded = problem.encode(rows, "x")
    assert encoded.dtype == np.int8
    assert encoded.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [-1, -1, -1, -1]]
    assert problem.decode(encoded) == [("games", "text"), (), None]
    assert problem.are_given(encoded).tolist() == [True, True, False]
    assert problem.count(encoded).tolist() == [1, 0, 1, 0]
    assert problem.encode(rows, "x", ignore=True).max() == -1


@pytest.mark.parametrize(
    ("row", "valid"),
    [([0, 1, 0, 1], True), ([-1] * 4, True), ([0, 2, 0, 0], False), ([0, -1, 0, 0], False)],
)
def test_what_a_store_may_hold(row: list[int], valid: bool) -> None:
    assert problem_of(MULTI).are_valid(np.array([row], np.int8)).tolist() == [valid]


def plain_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    return 2 * (gold & predicted).sum() / max(gold.sum() + predicted.sum(), 1)


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_the_plain_formulas(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gold, predicted = (generator.integers(0, 2, (60, 4)).astype(np.int8) for _ in range(2))
    gold[:, 3] = predicted[:, 3] = 0  # does not count
    result = language_result(
        problem_of(MULTI), gold, predicted, num_resamples=500, generator=generator
    )
    assert result.micro_f1 == pytest.approx(plain_f1(gold, predicted))
    by_class = [plain_f1(gold[:, k], predicted[:, k]) for k in range(3)]
    assert result.macro_f1 == pytest.approx(np.mean(by_class))
    assert result.accuracy == (gold == predicted).all(axis=1).mean()
    for value, (low, high) in (
        (result.micro_f1, result.micro_f1_interval or (0, 0)),
        (result.macro_f1, result.macro_f1_interval),
        (result.accuracy, result.accuracy_interval),
    ):
        assert low < value < high


def test_nothing_to_find_and_nothing_found_measures_zero() -> None:
    nothing = np.zeros((3, 4), np.int8)
    result = language_result(
        problem_of(MULTI), nothing, nothing, num_resamples=100, generator=GENERATOR
    )
    assert (result.micro_f1, result.macro_f1, result.accuracy) == (0.0, 0.0, 1.0)


def test_languages_are_averaged_by_micro_f1() -> None:
    rows = documents(("games",), ("games", "mail"), (), ("text",))
    wrong = np.full((4, 4), -1, np.float32)
    wrong[0, 0] = 1  # 1 of 4 labels, none wrong: F1 = 2 / 5
    right = problem_of(MULTI).encode(rows, "x").astype(np.float32) - 0.5
    config = EvaluateConfig(model="M", test=CorpusConfig(paths=("x",)))
    logits = {"en": wrong, "de": right, "fr": wrong}
    report = report_on("m", MULTI, dict.fromkeys(logits, rows), logits, config)
    assert report.measure == "micro_f1"
    assert report.target_average == pytest.approx((1.0 + 0.4) / 2)
    resampled = target_average_resamples(MULTI, dict.fromkeys(logits, rows), logits, config)
    assert report.target_average_interval is not None
    assert 0.5 <= resampled.min() < resampled.mean() < 1.0


@pytest.mark.parametrize(
    ("labels", "label", "says"),
    [
        (MULTI, "games", r"x: row 0: expected a list of labels.* found 'games'.*CSV"),
        (SINGLE, ("games",), r"x: row 0: expected one label, found a list of 1.*problem_type"),
        (MULTI, ("spam",), r"x: row 0: expected one of the 4 labels .*found 'spam'"),
    ],
)
def test_a_label_of_the_other_form_or_no_class_is_named(
    labels: LabelSet, label: str | tuple[str, ...], says: str
) -> None:
    with pytest.raises(CorpusError, match=says):
        problem_of(labels).encode([Document(row=0, id="0", text="x", label=label)], "x")


def test_label_sets_of_other_problem_types_differ() -> None:
    with pytest.raises(LabelMismatchError, match=rf"expected problem_type {SINGLE_LABEL} as in b"):
        MULTI.require_equal(SINGLE, "a", "b")
    assert MULTI.fingerprint != SINGLE.fingerprint
    assert LabelSet.from_json(MULTI.to_json(), "x") == MULTI
    with pytest.raises(CorpusError, match=r"x: expected problem_type .* found 'regression'"):
        LabelSet.from_json({"names": ["a", "b"], "problem_type": "regression"}, "x")
