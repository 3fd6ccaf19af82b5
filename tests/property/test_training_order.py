"""The order of training rows: every row once an epoch, any window by itself, the same for ever."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.training.order import RowOrder, rank_rows

SEEDS = st.integers(0, 2**63 - 1)
PINNED = (
    [[5, 1, 6], [2, 3, 4], [10, 8, 0], [9, 7]],
    [[7, 3, 8], [9, 10, 2], [5, 6, 4], [1, 0]],
)


def lengths_of(rows: np.ndarray) -> np.ndarray:
    """Made-up tokens of each row, 1 to 64, a function of the row."""
    return 1 + rows * 2_654_435_761 % 64


def epoch_batches(order: RowOrder, epoch: int) -> list[list[int]]:
    """The rows of every batch of an epoch."""
    found = []
    for window in range(order.num_windows):
        rows = order.rows(epoch, window)
        places = order.batches(lengths_of(rows), epoch, window)
        found += [rows[batch].tolist() for batch in places]
    return found


@settings(max_examples=100, deadline=None)
@given(num_rows=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 9), size=st.integers(1, 40))
def test_every_row_is_in_one_batch_of_an_epoch(
    num_rows: int, seed: int, epoch: int, size: int
) -> None:
    batches = epoch_batches(RowOrder(num_rows, seed, batch_size=size), epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(num_rows))
    # As many as the schedule counts: all of them full but for one.
    assert len(batches) == -(-num_rows // size)
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)


@settings(max_examples=100, deadline=None)
@given(
    num_rows=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 9), budget=st.integers(64, 9000)
)
def test_a_budget_of_tokens_holds_for_every_batch(
    num_rows: int, seed: int, epoch: int, budget: int
) -> None:
    batches = epoch_batches(RowOrder(num_rows, seed, batch_size=1, batch_tokens=budget), epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(num_rows))
    for batch in batches:
        assert len(batch) * lengths_of(np.array(batch)).max() <= budget


@settings(max_examples=60, deadline=None)
@given(num_rows=st.integers(1, 10**12), seed=SEEDS, size=st.integers(1, 64), data=st.data())
def test_a_window_needs_no_other(num_rows: int, seed: int, size: int, data: st.DataObject) -> None:
    order = RowOrder(num_rows, seed, batch_size=size)
    window = data.draw(st.integers(0, order.num_windows - 1))
    epoch = data.draw(st.integers(0, 1000))
    rows = order.rows(epoch, window)
    assert len(rows) <= 50 * size
    assert len(set(rows.tolist())) == len(rows)
    again = RowOrder(num_rows, seed, batch_size=size)
    again.rows(epoch + 1, 0)
    np.testing.assert_array_equal(again.rows(epoch, window), rows)
    lengths = lengths_of(rows)
    first, second = (o.batches(lengths, epoch, window) for o in (order, again))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]
    for batch in first:
        assert (np.diff(lengths[batch]) <= 0).all()


def test_the_order_is_that_of_every_version() -> None:
    # Pinned: a run that resumes under a later version must find the order it began with.
    order = RowOrder(11, 7, batch_size=3)
    assert (epoch_batches(order, 0), epoch_batches(order, 1)) == PINNED
    by_tokens = RowOrder(30, 7, batch_size=1, batch_tokens=100)
    assert epoch_batches(by_tokens, 0)[:4] == [[5], [10, 28], [7, 3, 16, 29], [24, 20, 4, 17]]


def test_texts_of_a_batch_are_of_similar_length_and_batches_come_in_no_order_of_length() -> None:
    batches = epoch_batches(RowOrder(50_000, 3, batch_size=16), 0)
    lengths = [lengths_of(np.array(batch)) for batch in batches]
    padded = sum(len(batch) * batch.max() for batch in lengths)
    assert sum(batch.sum() for batch in lengths) / padded > 0.95
    means = np.array([batch.mean() for batch in lengths])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.1
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.1


@pytest.mark.parametrize("num_rows", [10, 100, 1000])
def test_rows_of_a_small_set_meet_others_in_every_epoch(num_rows: int) -> None:
    order = RowOrder(num_rows, 1, batch_size=2)
    first, second = ({frozenset(b) for b in epoch_batches(order, epoch)} for epoch in (0, 1))
    assert len(first & second) < 0.5 * len(first)


def test_seeds_epochs_and_windows_have_orders_of_their_own() -> None:
    equal = np.full(800, 7)
    orders = {
        tuple(batch[0] for batch in RowOrder(10**6, seed, batch_size=16).batches(equal, epoch, w))
        for seed in range(5)
        for epoch in range(5)
        for w in range(5)
    }
    assert len(orders) == 125


def test_nothing_is_held_for_each_row() -> None:
    RowOrder(1000, 1, batch_size=16).rows(0, 0)  # what numpy makes once is none of ours
    tracemalloc.start()
    rows = RowOrder(10**18, 1, batch_size=16).rows(3, 10**14)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 800
    assert most_bytes < 200_000


@pytest.mark.parametrize("batch_size", [1000, 16_384, 50_000])
def test_windows_of_large_batches_are_few_batches(batch_size: int) -> None:
    order = RowOrder(10**6, 1, batch_size=batch_size)
    assert batch_size <= len(order.rows(0, 0)) <= max(16_384, batch_size)
    assert len(order.rows(0, 0)) % batch_size == 0


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 70), world=st.integers(1, 9))
def test_the_parts_of_all_processes_make_up_the_batch(size: int, world: int) -> None:
    batch = np.arange(100, 100 + size)
    parts = [rank_rows(batch, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == batch.tolist()
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1
