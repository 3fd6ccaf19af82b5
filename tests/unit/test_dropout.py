"""Dropout masks of the training loop: kept as often as asked, and a function of torch's seed."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention

from monox_kit.training.dropout import fast_dropout

N = 1_000_000


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_elements_are_dropped_as_asked_and_the_others_scaled(
    p: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    with fast_dropout("cpu"):
        dropped = dropout(torch.ones(N, dtype=dtype), p, training=True)
    kept = dropped[dropped != 0]
    spread = (N * p * (1 - p)) ** 0.5
    assert abs((N - len(kept)) - N * p) < 5 * spread + N / 2**16
    assert torch.equal(kept, torch.ones_like(kept) * (torch.ones(1, dtype=dtype) / (1 - p)))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything_can_be_dropped(p: float) -> None:
    with fast_dropout("cpu"):
        dropped = dropout(torch.ones(99), p, training=True)
    assert torch.equal(dropped, torch.full((99,), 1 - p))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 1000])
def test_the_smallest_probability_left_of_one_and_any_size_are_fine(rows: int) -> None:
    with fast_dropout("cpu"):
        kept = dropout(torch.ones(rows, 3), 1e-9, training=True)
    assert torch.equal(kept, torch.ones(rows, 3))


def test_masks_are_a_function_of_the_seed_and_differ_from_call_to_call() -> None:
    def masks() -> list[torch.Tensor]:
        torch.manual_seed(7)
        with fast_dropout("cpu"):
            return [dropout(torch.ones(500), 0.5, training=True) for _call in range(3)]

    first, again = masks(), masks()
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], first[1])


def test_the_generator_s_state_is_all_that_masks_depend_on() -> None:
    torch.manual_seed(7)
    with fast_dropout("cpu"):
        dropout(torch.ones(500), 0.5, training=True)
        state = torch.get_rng_state()
        expected = dropout(torch.ones(500), 0.5, training=True)
    torch.manual_seed(8)
    torch.set_rng_state(state)
    with fast_dropout("cpu"):
        assert torch.equal(dropout(torch.ones(500), 0.5, training=True), expected)


def test_neighbours_in_a_mask_are_independent() -> None:
    torch.manual_seed(1)
    with fast_dropout("cpu"):
        mask = dropout(torch.ones(N), 0.5, training=True) - 1
    for distance in (1, 2, 3, 4, 8):  # within a word of four, and from word to word
        correlation = float((mask[:-distance] * mask[distance:]).mean())
        assert abs(correlation) < 5 / N**0.5


def test_attention_drops_in_the_same_way_and_gradients_see_the_same_mask() -> None:
    torch.manual_seed(2)
    queries = torch.randn(1, 1, 8, 4)
    values = torch.eye(8)[None, None].requires_grad_()

    with fast_dropout("cpu"):
        mixed = scaled_dot_product_attention(queries, queries, values, dropout_p=0.5)
    plain = scaled_dot_product_attention(queries, queries, values)

    is_kept = mixed != 0
    assert 0 < int(is_kept.sum()) < 64
    assert torch.allclose(mixed[is_kept], 2 * plain[is_kept])
    mixed.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert torch.allclose(values.grad[0, 0].sum(dim=1), 8 * mixed[0, 0].sum(dim=0))


def test_torch_s_own_masks_are_drawn_elsewhere() -> None:
    torch.manual_seed(5)
    own = dropout(torch.ones(500), 0.5, training=True)
    torch.manual_seed(5)
    with fast_dropout("cuda:0"):
        assert torch.equal(dropout(torch.ones(500), 0.5, training=True), own)
    torch.manual_seed(5)
    with fast_dropout("cpu"):
        assert not torch.equal(dropout(torch.ones(500), 0.5, training=True), own)
