"""The batches of a training run: read, tokenized and padded, some of them ahead of their time."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from monox_kit.data import Int64s, TokenBatch
from monox_kit.errors import CheckpointError, ConfigError
from monox_kit.models.batching import pad_batch
from monox_kit.models.scoring import Truncation
from monox_kit.models.tokenizer import Encoded, Tokenizer
from monox_kit.models.tokenizer_files import Padding
from monox_kit.overlap import made_ahead
from monox_kit.training.config import LoopConfig
from monox_kit.training.order import Position, RowOrder, rank_rows
from monox_kit.training.rows import TrainingRows
from monox_kit.training.targets import Targets


@dataclass(frozen=True, slots=True)
class Window:
    """Some rows that are in memory together, and how they are batched.

    Attributes:
        at: its first batch.
        rows: [W] int64 positions in the training rows.
        encoded: their tokens.
        targets: what the W rows are to learn.
        batches: places into the window, in the order in which they are trained on.
        padding: how a batch is filled.
    """

    at: Position
    rows: Int64s
    encoded: Encoded
    targets: Targets
    batches: list[Int64s]
    padding: Padding


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step, or one process's part of them.

    Attributes:
        window: where they lie.
        places: [B] int64 places in the window.
        following: the position of the next batch: where a run resumes that has done this one.
    """

    window: Window
    places: Int64s
    following: Position

    def __len__(self) -> int:
        return len(self.places)

    @property
    def rows(self) -> Int64s:
        """[B] int64 positions in the training rows."""
        return self.window.rows[self.places]

    @property
    def targets(self) -> Targets:
        """What the B rows are to learn."""
        return self.window.targets[self.places]

    @property
    def truncation(self) -> Truncation:
        """What the cut took from the B rows."""
        encoded = self.window.encoded
        return Truncation.of(encoded.truncated[self.places], encoded.lengths[self.places])

    def tokens(self) -> TokenBatch:
        """[B, L] token ids, padded to the longest of the B texts."""
        return pad_batch(self.window.encoded, self.places, self.window.padding)

    def part(self, rank: int, world: int) -> Batch:
        """What process `rank` of `world` computes of it; see `rank_rows`."""
        return replace(self, places=rank_rows(self.places, rank, world))

    def split(self, count: int) -> Iterator[Batch]:
        """At most `count` micro-batches of neighbouring rows, of equal sizes but for the last."""
        size = max(math.ceil(len(self) / count), 1)
        for start in range(0, len(self), size):
            yield replace(self, places=self.places[start : start + size])


class Batches:
    """The batches of a run in their order; any of them is found without those before it.

    Rows are read and tokenized a window at a time, every epoch anew: what keeping the tokens on
    disk would spare stands in benchmarks/LOG.md.
    """

    def __init__(self, rows: TrainingRows, tokenizer: Tokenizer, config: LoopConfig) -> None:
        """Args: what to train on, the model's tokenizer, and how rows are batched.

        Raises:
            ConfigError: the longest text would not fit into a batch.
        """
        if config.batch_tokens is not None and config.batch_tokens < tokenizer.max_length:
            raise ConfigError(
                f"`batch_tokens`: {config.batch_tokens} is less than `max_length`, "
                f"{tokenizer.max_length}. A step must hold at least one whole text: give more."
            )
        self._rows, self._tokenizer, self._workers = rows, tokenizer, config.workers
        self._order = RowOrder(
            len(rows), config.seed, batch_size=config.batch_size, batch_tokens=config.batch_tokens
        )

    def window(self, at: Position) -> Window:
        """Read and tokenize the window of a position."""
        rows = self._order.rows(at.epoch, at.window)
        texts, pairs, targets = self._rows.batch(rows, at.epoch)
        encoded = self._tokenizer.encode(texts, pairs)
        batches = self._order.batches(encoded.lengths, at.epoch, at.window)
        padding = self._tokenizer.padding
        return Window(replace(at, batch=0), rows, encoded, targets, batches, padding)

    def after(self, position: Position) -> Generator[Batch, None, None]:
        """All batches from `position` on, epoch after epoch, without end.

        Close it (`contextlib.closing`) to end the threads that work ahead.

        Raises:
            CheckpointError: there is no such position.
        """
        if position.window >= self._order.num_windows:
            raise _no_position(position)
        first = position.batch
        with closing(made_ahead(self.window, self._windows(position), self._workers)) as windows:
            for window in windows:
                if first >= len(window.batches):
                    raise _no_position(position)
                for index, places in enumerate(window.batches[first:], first + 1):
                    following = replace(window.at, batch=index)
                    if index == len(window.batches):
                        following = self._next(window.at)
                    yield Batch(window, places, following)
                first = 0

    def _windows(self, position: Position) -> Iterator[Position]:
        at = position
        while True:
            yield at
            at = self._next(at)

    def _next(self, at: Position) -> Position:
        """The first batch of the window behind."""
        if at.window + 1 < self._order.num_windows:
            return Position(at.epoch, at.window + 1)
        return Position(at.epoch + 1)


def _no_position(position: Position) -> CheckpointError:
    return CheckpointError(
        f"checkpoint: expected a position in the order of rows, found {position}. Delete the "
        "checkpoint to go on from the one before."
    )
