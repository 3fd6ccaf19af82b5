"""NaN and infinities among tensors, found by name; large numbers are none."""

from __future__ import annotations

import pytest
import torch

from monox_kit.training.finite import all_finite, first_not_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_tensor_with_nan_or_an_infinity_is_named(value: float) -> None:
    tensors = {name: torch.zeros(2, 3) for name in "abc"}
    assert all_finite(tensors.values()) and first_not_finite(tensors) is None
    tensors["b"][1, 2] = value
    tensors["c"][0, 0] = value
    assert not all_finite(tensors.values())
    assert first_not_finite(tensors) == "b"


def test_numbers_whose_squares_overflow_are_finite() -> None:
    tensors = {"a": torch.full((4,), 3e38), "b": torch.tensor(-2e30)}
    assert all_finite(tensors.values()) and first_not_finite(tensors) is None


def test_no_tensors_and_whole_numbers_are_finite() -> None:
    assert all_finite([]) and all_finite([torch.tensor([1, 2], dtype=torch.uint8)])
