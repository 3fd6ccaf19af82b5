"""Objectives against float64 numpy: values, gradients and limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monox_kit.objectives import confidence, cross_entropy, hard_labels, soft_cross_entropy

GENERATOR = np.random.default_rng(7)
STUDENT = GENERATOR.normal(0, 3, (32, 5))
TEACHER = GENERATOR.normal(0, 3, (32, 5))
LABELS = GENERATOR.integers(0, 5, 32)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_cross_entropy_equals_its_formula_in_value_and_gradient() -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    loss = cross_entropy(student, torch.tensor(LABELS))
    loss.backward()
    p = softmax(STUDENT)
    expected = -np.log(p[np.arange(32), LABELS]).mean()
    gradient = (p - np.eye(5)[LABELS]) / 32
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(student.grad.numpy(), gradient, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.5, 100.0])
def test_soft_cross_entropy_equals_the_papers_formula(temperature: float) -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    loss = soft_cross_entropy(student, torch.tensor(TEACHER), temperature)
    loss.backward()
    q, p = softmax(TEACHER / temperature), softmax(STUDENT)
    expected = -(q * np.log(p)).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(student.grad.numpy(), (p - q) / 32, atol=1e-6)


def test_soft_targets_become_hard_labels_as_the_temperature_falls() -> None:
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    hard = cross_entropy(student, torch.tensor(hard_labels(TEACHER.astype(np.float32))))
    soft = soft_cross_entropy(student, teacher, 1e-3)
    assert soft.item() == pytest.approx(hard.item(), abs=1e-6)


def test_distilling_one_hot_logits_is_training_on_the_labels() -> None:
    student = torch.tensor(STUDENT)
    one_hot = torch.tensor(np.eye(5)[LABELS] * 1000)
    soft = soft_cross_entropy(student, one_hot, 1.0)
    assert soft.item() == pytest.approx(cross_entropy(student, torch.tensor(LABELS)).item())


def test_confidence_is_the_largest_probability_also_for_large_logits() -> None:
    np.testing.assert_allclose(
        confidence(TEACHER.astype(np.float32)), softmax(TEACHER).max(axis=1), rtol=1e-6
    )
    assert confidence(np.array([[1e4, -1e4]], np.float32)) == pytest.approx([1.0])


def test_a_tie_goes_to_the_first_class() -> None:
    assert hard_labels(np.array([[1, 1, 0]], np.float32)).tolist() == [0]
