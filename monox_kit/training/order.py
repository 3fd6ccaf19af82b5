"""The order of training rows: a pure function of the lengths, the seed and the epoch."""

from __future__ import annotations

import numpy as np

from monox_kit.data import Int64s

# Rows are sorted by length within groups of this many batches: short texts meet short ones, and
# the groups stay random. 50 is what transformers' length-grouped sampler uses.
_GROUP_BATCHES = 50


def epoch_batches(num_bytes: Int64s, batch_size: int, seed: int, epoch: int) -> list[Int64s]:
    """The batches of one epoch; every row occurs in exactly one.

    Args:
        num_bytes: [N] int64 length of each row.
        batch_size: rows of each batch but the last.
        seed: the run's seed.
        epoch: from 0.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    shuffled = generator.permutation(len(num_bytes))
    group = batch_size * _GROUP_BATCHES
    batches: list[Int64s] = []
    for start in range(0, len(shuffled), group):
        rows = shuffled[start : start + group]
        rows = rows[np.argsort(-num_bytes[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def rank_rows(batch: Int64s, rank: int, world: int) -> Int64s:
    """The part of a batch that process `rank` of `world` computes; the parts make up the batch.

    Every `world`-th row: batches are sorted by length, so all processes get texts of about the
    same length. A batch of fewer rows than processes leaves some of them none.
    """
    return batch[rank::world]
