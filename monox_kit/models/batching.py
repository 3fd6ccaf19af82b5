"""Which texts share a batch, and how a batch is padded."""

from __future__ import annotations

import numpy as np

from monox_kit.data import Int64s, TokenBatch
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding

# Tokens of the longest text in the first bucket.
_FIRST_BUCKET = 16


def plan_batches(lengths: Int64s, batch_tokens: int) -> list[Int64s]:
    """Batches of texts of similar length under a token budget.

    Every position occurs exactly once. A batch's rows x longest length is at most `batch_tokens`;
    a text that is longer than that alone stands alone. The longest come first, so that a batch
    that does not fit into memory fails at once and not after hours.

    Args:
        lengths: [N] int64 tokens of each text.
        batch_tokens: padded tokens that a batch may have.

    Returns:
        Arrays of int64 positions into `lengths`.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(batch_tokens // longest, 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def along_lengths(lengths: Int64s, count: int) -> Int64s:
    """Positions of at most `count` of N lengths, at equal distances from shortest to longest."""
    by_length = np.argsort(lengths, kind="stable").astype(np.int64)
    return by_length[np.linspace(0, len(lengths) - 1, min(count, len(lengths))).astype(np.int64)]


def length_buckets(lengths: Int64s) -> dict[str, Int64s]:
    """Positions of N lengths by bucket, shortest first: `1-16`, `17-32`, `33-64`, always doubling.

    Buckets without a length are left out.
    """
    found, low, high = {}, 1, _FIRST_BUCKET
    while low <= lengths.max(initial=0):
        rows = np.flatnonzero((lengths >= low) & (lengths <= high)).astype(np.int64)
        if len(rows):
            found[f"{low}-{high}"] = rows
        low, high = high + 1, 2 * high
    return found


def pad_batch(encoded: Encoded, rows: Int64s, padding: Padding) -> TokenBatch:
    """One batch, padded to its longest text on the side that its tokenizer pads on.

    Args:
        encoded: N tokenized texts.
        rows: [B] int64 positions into `encoded`.
        padding: what fills, and where.
    """
    lengths = encoded.lengths[rows]
    width = int(lengths.max())
    # [B, L] places in each text; those of padding lie outside.
    places = np.broadcast_to(np.arange(width), (len(rows), width))
    if padding.side == "left":
        places = places - (width - lengths)[:, None]
    is_real = (places >= 0) & (places < lengths[:, None])
    # Where the padding goes any position will do; 0 exists.
    positions = np.where(is_real, encoded.starts[rows][:, None] + places, 0)
    input_ids = np.where(is_real, encoded.input_ids[positions], padding.token_id)
    token_type_ids = None
    if encoded.token_type_ids is not None:
        token_type_ids = np.where(is_real, encoded.token_type_ids[positions], 0)
    return TokenBatch(rows, input_ids, is_real.astype(np.int64), token_type_ids)
