"""Objectives against float64 numpy: values, gradients and limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from monox_kit.objectives import (
    averaged_logits,
    confidence,
    cross_entropy,
    hard_labels,
    kl_divergence,
    logit_mse,
    mixed,
    soft_cross_entropy,
)

GENERATOR = np.random.default_rng(7)
# What a model and a store give: float32.
STUDENT = GENERATOR.normal(0, 3, (32, 5)).astype(np.float32)
TEACHER = GENERATOR.normal(0, 3, (32, 5)).astype(np.float32)
LABELS = GENERATOR.integers(0, 5, 32)
GOLD = np.where(np.arange(32) % 3 == 0, -1, LABELS)
# The paper's sweep goes from 1e-3 to 1e2.
TEMPERATURES = [1e-3, 0.1, 1.0, 2.5, 100.0]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return shifted / shifted.sum(axis=1, keepdims=True)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    logits = logits.astype(np.float64) / temperature
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def value_and_gradient(loss: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, np.ndarray]:
    """Of a batch's loss, the mean of its rows'."""
    student = torch.tensor(STUDENT, requires_grad=True)
    losses = loss(student)
    assert losses.shape == (32,)
    losses.mean().backward()
    assert student.grad is not None
    return losses.mean().item(), student.grad.numpy()


def check(loss: Callable[[torch.Tensor], torch.Tensor], value: float, grad: np.ndarray) -> None:
    found_value, found_gradient = value_and_gradient(loss)
    assert found_value == pytest.approx(value, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(found_gradient, grad, rtol=1e-6, atol=1e-6)


def test_cross_entropy_equals_its_formula_in_value_and_gradient() -> None:
    value = -log_softmax(STUDENT)[np.arange(32), LABELS].mean()
    gradient = (softmax(STUDENT) - np.eye(5)[LABELS]) / 32
    check(lambda student: cross_entropy(student, torch.tensor(LABELS)), value, gradient)


def test_rows_without_a_label_have_no_cross_entropy() -> None:
    labelled = GOLD >= 0
    value = -(log_softmax(STUDENT)[np.arange(32), GOLD] * labelled).mean()
    gradient = (softmax(STUDENT) - np.eye(5)[GOLD]) * labelled[:, None] / 32
    check(lambda student: cross_entropy(student, torch.tensor(GOLD)), value, gradient)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_cross_entropy_equals_the_papers_formula(temperature: float) -> None:
    q = softmax(TEACHER, temperature)
    value = -(q * log_softmax(STUDENT)).sum(axis=1).mean()
    gradient = (softmax(STUDENT) - q) / 32
    teacher = torch.tensor(TEACHER)
    check(lambda student: soft_cross_entropy(student, teacher, temperature), value, gradient)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_temperature_on_both_has_hintons_factor(temperature: float) -> None:
    q, log_p = softmax(TEACHER, temperature), log_softmax(STUDENT, temperature)
    value = -(temperature**2) * (q * log_p).sum(axis=1).mean()
    # d/dz of log p(z / T) brings one T into the denominator.
    gradient = temperature * (softmax(STUDENT, temperature) - q) / 32
    teacher = torch.tensor(TEACHER)
    check(
        lambda student: soft_cross_entropy(
            student, teacher, temperature, student_temperature=temperature
        ),
        value,
        gradient,
    )


@pytest.mark.parametrize("student_temperature", [1.0, 3.0])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_divergence_equals_its_formula(temperature: float, student_temperature: float) -> None:
    q, log_q = softmax(TEACHER, temperature), log_softmax(TEACHER, temperature)
    log_p = log_softmax(STUDENT, student_temperature)
    value = student_temperature**2 * (q * (log_q - log_p)).sum(axis=1).mean()
    gradient = student_temperature * (softmax(STUDENT, student_temperature) - q) / 32
    teacher = torch.tensor(TEACHER)
    check(
        lambda student: kl_divergence(
            student, teacher, temperature, student_temperature=student_temperature
        ),
        value,
        gradient,
    )


def test_the_divergence_of_a_teacher_from_itself_is_nothing() -> None:
    teacher = torch.tensor(TEACHER)
    found = kl_divergence(teacher, teacher, 3.0, student_temperature=3.0)
    np.testing.assert_allclose(found.numpy(), 0, atol=1e-12)


def test_the_squared_error_of_logits_equals_its_formula() -> None:
    difference = STUDENT.astype(np.float64) - TEACHER
    value = (difference**2).mean(axis=1).mean()
    check(
        lambda student: logit_mse(student, torch.tensor(TEACHER)), value, 2 * difference / (5 * 32)
    )


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_mix_weighs_gold_labels_where_there_are_any(alpha: float) -> None:
    weight = np.where(GOLD >= 0, alpha, 0.0)
    q, log_p, one_hot = softmax(TEACHER, 0.5), log_softmax(STUDENT), np.eye(5)[GOLD]
    targets = weight[:, None] * one_hot + (1 - weight[:, None]) * q
    labels = torch.tensor(GOLD)

    def loss(student: torch.Tensor) -> torch.Tensor:
        soft = soft_cross_entropy(student, torch.tensor(TEACHER), 0.5)
        return mixed(cross_entropy(student, labels), soft, labels >= 0, alpha)

    value = -(targets * log_p).sum(axis=1).mean()
    check(loss, value, (softmax(STUDENT) - targets) / 32)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_soft_targets_become_hard_labels_as_the_temperature_falls(temperature: float) -> None:
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    hard = cross_entropy(student, torch.tensor(hard_labels(TEACHER)))
    soft = soft_cross_entropy(student, teacher, temperature)
    np.testing.assert_allclose(soft.numpy(), hard.numpy(), atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_averaged_teachers_have_the_mean_of_the_softened_probabilities(temperature: float) -> None:
    mean = averaged_logits([TEACHER, STUDENT], [0.7, 0.3], temperature)
    assert mean.dtype == np.float32
    expected = 0.7 * softmax(TEACHER, temperature) + 0.3 * softmax(STUDENT, temperature)
    np.testing.assert_allclose(softmax(mean, temperature), expected, atol=1e-6)


def test_without_a_temperature_logits_are_averaged() -> None:
    mean = averaged_logits([TEACHER, STUDENT], [0.7, 0.3], None)
    np.testing.assert_allclose(mean, 0.7 * TEACHER + 0.3 * STUDENT, rtol=1e-6, atol=1e-6)


def test_confidence_is_the_largest_probability_also_for_large_logits() -> None:
    np.testing.assert_allclose(confidence(TEACHER), softmax(TEACHER).max(axis=1), rtol=1e-6)
    assert confidence(np.array([[1e4, -1e4]], np.float32)) == pytest.approx([1.0])


def test_a_tie_goes_to_the_first_class() -> None:
    assert hard_labels(np.array([[1, 1, 0]], np.float32)).tolist() == [0]
