"""The order of training rows: a pure function of the seed, the epoch and the position in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monox_kit.data import Int64s
from monox_kit.models.batching import plan_batches
from monox_kit.training.permutation import RowPermutation

# Rows are sorted by length within groups of this many batches: short texts meet short ones, and
# the groups stay random. A small set has some groups too: one alone would make the same batches
# in every epoch. 50 and 4 are what transformers' length-grouped sampler uses.
_WINDOW_BATCHES = 50
_LEAST_WINDOWS = 4
# A window's texts and tokens are in memory at once.
_MOST_WINDOW_ROWS = 16_384
# What a batch under a token budget has at hand is not known before its texts are read. For the
# size of a window alone, a text counts as so many tokens: a paragraph.
_TYPICAL_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a run's order of batches: the first one is (0, 0, 0).

    Attributes:
        epoch: from 0.
        window: of the epoch, from 0.
        batch: of the window, from 0.
    """

    epoch: int = 0
    window: int = 0
    batch: int = 0

    @property
    def begins_epoch(self) -> bool:
        """Whether no batch of its epoch comes before it."""
        return self.window == self.batch == 0


class RowOrder:
    """Which rows share a batch, and which batch comes when; nothing is held for each row.

    An epoch is a permutation of the rows, taken in windows. The rows of a window are sorted by
    length, cut into batches, and the batches shuffled. Every row is in exactly one batch of an
    epoch, and a window needs no other: a resumed run, or one of many, begins where it likes.
    """

    def __init__(
        self, num_rows: int, seed: int, *, batch_size: int, batch_tokens: int | None = None
    ) -> None:
        """Computes nothing yet.

        Args:
            num_rows: N, from 1.
            seed: the run's seed.
            batch_size: rows of each batch but an epoch's last.
            batch_tokens: padded tokens that a batch may have; None for batches of `batch_size`.
        """
        self._num_rows, self._seed = num_rows, seed
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        if batch_tokens is not None:
            batch_size = max(batch_tokens // _TYPICAL_TOKENS, 1)
        most_rows = min(_MOST_WINDOW_ROWS, num_rows // _LEAST_WINDOWS)
        self._window_rows = batch_size * max(min(_WINDOW_BATCHES, most_rows // batch_size), 1)

    @property
    def num_windows(self) -> int:
        """The windows of an epoch."""
        return -(-self._num_rows // self._window_rows)

    def rows(self, epoch: int, window: int) -> Int64s:
        """[W] int64, the rows of one window in the epoch's order."""
        start = window * self._window_rows
        stop = min(start + self._window_rows, self._num_rows)
        return RowPermutation(self._num_rows, self._seed, epoch)[np.arange(start, stop)]

    def batches(self, lengths: Int64s, epoch: int, window: int) -> list[Int64s]:
        """The batches of one window, in the order in which they are trained on.

        Args:
            lengths: [W] int64 tokens of each row of the window.
            epoch: from 0.
            window: from 0.

        Returns:
            Arrays of int64 places into the window, longest text first.
        """
        if self._batch_tokens is None:
            sorted_ = np.argsort(-lengths, kind="stable").astype(np.int64)
            size = self._batch_size
            cut = [sorted_[start : start + size] for start in range(0, len(sorted_), size)]
        else:
            cut = plan_batches(lengths, self._batch_tokens)
        # Seeds of rows are below 2**63: no window shuffles its batches as an epoch does its rows.
        seed = self._seed + (window + 1 << 64)
        return [cut[place] for place in RowPermutation(len(cut), seed, epoch)]


def rank_rows(batch: Int64s, rank: int, world: int) -> Int64s:
    """The part of a batch that process `rank` of `world` computes; the parts make up the batch.

    Every `world`-th row: batches are sorted by length, so all processes get texts of about the
    same length. A batch of fewer rows than processes leaves some of them none.
    """
    return batch[rank::world]
