"""Batching is a permutation under a budget; padding keeps every token; epochs lose nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding, Side

LENGTHS = st.lists(st.integers(1, 300), max_size=200).map(lambda x: np.array(x, np.int64))


@given(LENGTHS, st.integers(1, 2000))
def test_every_row_is_in_exactly_one_batch_under_the_budget(
    lengths: np.ndarray, budget: int
) -> None:
    batches = plan_batches(lengths, budget)
    rows = np.concatenate(batches) if batches else np.zeros(0, np.int64)
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(LENGTHS)
def test_batches_hold_rows_of_neighbouring_length(lengths: np.ndarray) -> None:
    flat = [lengths[row] for batch in plan_batches(lengths, 256) for row in batch]
    assert flat == sorted(flat, reverse=True)


@given(
    st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=9), min_size=1, max_size=8),
    st.sampled_from(["left", "right"]),
)
def test_padding_keeps_every_token_and_masks_the_rest(ids: list[list[int]], side: Side) -> None:
    types = [[position % 2 for position in range(len(row))] for row in ids]
    encoded = Encoded(
        np.concatenate([np.array(row, np.int64) for row in ids]),
        np.concatenate([np.array(row, np.int64) for row in types]),
        np.array([len(row) for row in ids], np.int64),
        np.zeros(len(ids), np.int64),
    )
    rows = np.arange(len(ids), dtype=np.int64)[::-1].copy()
    batch = pad_batch(encoded, rows, Padding(0, side))
    width = max(map(len, ids))
    for position, row in enumerate(rows):
        real = batch.attention_mask[position] == 1
        filled = [0] * (width - len(ids[row]))
        wanted = filled + ids[row] if side == "left" else ids[row] + filled
        assert batch.input_ids[position].tolist() == wanted
        assert batch.token_type_ids[position][real].tolist() == types[row]
        assert not batch.input_ids[position][~real].any()
    assert batch.num_tokens == sum(map(len, ids))
