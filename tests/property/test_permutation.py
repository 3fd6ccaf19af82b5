"""The order in which a reader takes the rows: every row once, evenly, the same for ever."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.errors import StoreError
from monox_kit.training.permutation import RowPermutation

SEEDS = st.integers(-(2**70), 2**70)
EPOCHS = st.integers(0, 2**40)


def excess(counts: npt.NDArray[np.int64]) -> float:
    """By how many standard deviations the chi-square of even counts is above its mean.

    Source: Wilson and Hilferty, "The Distribution of Chi-square", PNAS 1931.
    """
    expected = counts.sum() / counts.size
    assert expected >= 5, "chi-square wants 5 observations in each cell"
    freedom = counts.size - 1
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5)


@settings(max_examples=150, deadline=None)
@given(num_rows=st.integers(1, 3000), seed=SEEDS, epoch=EPOCHS)
def test_every_row_stands_at_one_position(num_rows: int, seed: int, epoch: int) -> None:
    rows = RowPermutation(num_rows, seed, epoch)[np.arange(num_rows)]
    np.testing.assert_array_equal(np.sort(rows), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 4095, 4096, 4097, 99_856])
def test_every_row_at_the_edges_of_the_squares(num_rows: int) -> None:
    permutation = RowPermutation(num_rows, 3, 1)
    assert sorted(permutation) == list(range(num_rows))
    assert len(permutation) == num_rows


@settings(max_examples=80, deadline=None)
@given(num_rows=st.integers(1, 2**62), seed=SEEDS, epoch=EPOCHS, data=st.data())
def test_a_row_depends_on_its_position_alone(
    num_rows: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    places = st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=40)
    positions = np.array(data.draw(places), np.int64)
    rows = RowPermutation(num_rows, seed, epoch)[positions]
    assert rows.dtype == np.int64
    assert ((rows >= 0) & (rows < num_rows)).all()
    again = RowPermutation(num_rows, seed, epoch)
    assert [again[int(position)] for position in positions] == rows.tolist()
    assert again[positions.reshape(1, -1)].tolist() == [rows.tolist()]
    # Different positions, different rows: without a set of N rows to compare with.
    assert len(set(rows.tolist())) == len(set(positions.tolist()))


def test_the_order_is_that_of_every_version() -> None:
    # Pinned: a reader that resumes under a later version must find the order it began with.
    assert list(RowPermutation(10, 0, 0)) == [8, 1, 6, 7, 4, 3, 5, 9, 0, 2]
    assert list(RowPermutation(10, 0, 1)) == [5, 8, 0, 9, 4, 6, 7, 3, 1, 2]
    assert list(RowPermutation(10, 1, 0)) == [6, 0, 7, 8, 1, 9, 5, 4, 2, 3]
    assert RowPermutation(10**15, 7, 3)[np.array([0, 1, 10**15 - 1])].tolist() == [
        592181452354376,
        414676456953040,
        339590620012485,
    ]


def test_each_seed_and_epoch_has_its_own_order() -> None:
    orders = {
        tuple(RowPermutation(50, seed, epoch)[np.arange(50)].tolist())
        for seed, epoch in itertools.product(range(12), range(12))
    }
    assert len(orders) == 144


def test_nothing_is_held_for_each_row() -> None:
    positions = np.arange(10**17, 10**17 + 1000)
    RowPermutation(1000, 1, 2)[np.arange(1000)]  # what numpy makes once is none of ours
    tracemalloc.start()
    rows = RowPermutation(10**18, 1, 2)[positions]
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(rows.tolist())) == 1000
    assert most_bytes < 200_000


@pytest.mark.parametrize("num_rows", [7, 10, 12])
def test_rows_and_pairs_fall_evenly_on_positions(num_rows: int) -> None:
    orders = np.stack(
        [RowPermutation(num_rows, seed, 0)[np.arange(num_rows)] for seed in range(1500)]
    )
    for column in orders.T:
        assert excess(np.bincount(column, minlength=num_rows)) < 4
    pairs = np.bincount(orders[:, 0] * num_rows + orders[:, -1], minlength=num_rows**2)
    outside_diagonal = ~np.eye(num_rows, dtype=bool).ravel()
    assert excess(pairs[outside_diagonal]) < 4


def test_neighbours_of_a_large_store_are_unrelated() -> None:
    num_rows = 10**12
    rows = RowPermutation(num_rows, 11, 0)[np.arange(200_000)]
    assert excess(np.bincount(rows * 256 // num_rows, minlength=256)) < 4
    assert excess(np.bincount(rows % 256, minlength=256)) < 4
    steps = np.diff(rows) % num_rows
    assert excess(np.bincount(steps * 256 // num_rows, minlength=256)) < 4
    other = RowPermutation(num_rows, 11, 1)[np.arange(200_000)]
    assert excess(np.bincount((rows - other) % num_rows * 256 // num_rows, minlength=256)) < 4


@pytest.mark.parametrize("position", [-1, 10, np.array([3, 10]), np.array([-1]), 2**70])
def test_a_position_outside_is_refused(position: object) -> None:
    with pytest.raises(StoreError, match=r"positions from 0 to 9|whole-numbered positions"):
        RowPermutation(10, 0, 0)[position]  # type: ignore[call-overload]


def test_fractions_are_no_positions() -> None:
    with pytest.raises(StoreError, match="whole-numbered positions, found float64"):
        RowPermutation(10, 0, 0)[np.array([0.0])]


@pytest.mark.parametrize("num_rows", [0, -1, 2**62 + 1])
def test_a_store_has_some_rows(num_rows: int) -> None:
    with pytest.raises(StoreError, match=f"found {num_rows}"):
        RowPermutation(num_rows, 0, 0)
