"""Which waiting rows run together: like lengths, under a token budget, none left behind."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# Rows that are looked through for company: sorting more costs more than their fit saves.
_WINDOW = 256
# Below so many tokens a row costs what its run costs anyway.
_SHORT = 16


@dataclass(order=True, slots=True)
class Waiting(Generic[T]):
    """A row that waits for a run.

    Attributes:
        due_s: when it should have run, on the batcher's clock: its place in the queue.
        number: that it was added as, which settles equal times.
        length: its tokens.
        row: what it is.
    """

    due_s: float
    number: int
    length: int = field(compare=False)
    row: T = field(compare=False)


class Batcher(Generic[T]):
    """Rows that wait, and the choice of those that run next.

    The row that is due first is always in the next run; those that join it are the nearest to its
    length, so that little is padding and a long text has a run of its own. It is no part of this
    class to lock: callers do.

    Attributes:
        tokens: of all rows that wait.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._queue: list[Waiting[T]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, row: T, length: int, due_s: float) -> None:
        """Let a row of so many tokens wait.

        Args:
            row: what it is.
            length: its tokens.
            due_s: its place: rows with an earlier time go first.
        """
        self._count += 1
        self.tokens += length
        insort(self._queue, Waiting(due_s, self._count, length, row))

    def tokens_due(self, by_s: float) -> int:
        """Tokens of the rows that a row which is due at that time waits for."""
        ahead = 0
        for one in self._queue:
            if one.due_s > by_s:
                break
            ahead += one.length
        return ahead

    def take(self, budget: int) -> list[T]:
        """Remove and return the rows of the next run; none where none wait.

        Rows x longest is at most `budget`; a row that is longer than that runs alone.

        Args:
            budget: padded tokens.
        """
        if not self._queue:
            return []
        first, *others = self._queue[:_WINDOW]
        least, most = first.length // 2, max(2 * first.length, _SHORT)
        company = [one for one in others if least <= one.length <= most]
        company.sort(key=lambda one: abs(one.length - first.length))  # stable: the earliest first
        taken, longest = [first], first.length
        for one in company:
            wider = max(longest, one.length)
            if (len(taken) + 1) * wider > budget:
                break
            taken.append(one)
            longest = wider
        self._remove({one.number for one in taken})
        return [one.row for one in taken]

    def drop(self, rows: Collection[T]) -> None:
        """Forget rows that wait, by identity; those that do not are passed over."""
        gone = {id(row) for row in rows}
        self._remove({one.number for one in self._queue if id(one.row) in gone})

    def _remove(self, numbers: Collection[int]) -> None:
        kept = []
        for one in self._queue:
            if one.number in numbers:
                self.tokens -= one.length
            else:
                kept.append(one)
        self._queue = kept
