"""Which requests are let in: those that are answered soon, by the speed measured of late."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from monox_kit.serving.contract import Kind, Refused

# What was measured longer ago counts half for each so many seconds of runs since.
_HALF_LIFE_S = 4.0
# A run is kept to about this long: who comes next waits for it, whatever the batch saves.
_RUN_S = 0.03
# Below this a run's fixed costs show: batches of 256 are as fast as larger ones, see
# benchmarks/LOG.md, "Batch size".
LEAST_BUDGET = 256
# A run that fills less of the least budget tells of its fixed costs, not of the model's speed: that
# it is no slower than so.
_LEAST_FILL = 0.5
_MOST_SLOWER = 4
_WATCH_S = 0.05
_LAG_SHARE = 0.5


class Speed:
    """How many tokens a second go through all sessions together, learned from runs.

    Args:
        sessions: runs at once.
        batch_tokens: the largest budget of a run.
    """

    def __init__(self, sessions: int, batch_tokens: int) -> None:
        self._sessions, self._batch_tokens = sessions, batch_tokens
        self._tokens = self._seconds = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Of all sessions; infinite before the first run."""
        return self._sessions * self._tokens / self._seconds if self._seconds else math.inf

    @property
    def budget(self) -> int:
        """Padded tokens that the next run may have."""
        fits = self.tokens_per_s / self._sessions * _RUN_S
        return int(min(self._batch_tokens, max(fits, LEAST_BUDGET)))

    def learn(self, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Count a run of one session.

        Args:
            tokens: real ones.
            padded_tokens: with padding.
            seconds: from the end of the run before, where rows were waiting, else from its start.
        """
        if seconds <= 0 or tokens <= 0:
            return
        if self._seconds:
            speed = self._tokens / self._seconds
            is_full = padded_tokens >= _LEAST_FILL * LEAST_BUDGET
            if not is_full and tokens / seconds <= speed:
                return
            # A machine that slept through a run is not slow: what lasts shows in the next ones.
            seconds = min(seconds, _MOST_SLOWER * tokens / speed)
        kept = 0.5 ** (seconds / _HALF_LIFE_S)
        self._tokens = kept * self._tokens + tokens
        self._seconds = kept * self._seconds + seconds


class Admission:
    """The permits of a server: how many requests are held, and how many more may come.

    Args:
        max_requests: held at once.
        max_wait_s: the longest predicted wait that is let in.

    Attributes:
        held: requests that have a permit.
        lag_s: how late the event loop comes to what is ready: of a small model it, and not the
            sessions, is what has no time left.
    """

    def __init__(self, max_requests: int, max_wait_s: float) -> None:
        self._max_requests, self._max_wait_s = max_requests, max_wait_s
        self.held = 0
        self.lag_s = 0.0

    async def watch(self) -> None:
        """Measure the event loop's lag until it is cancelled."""
        while True:
            asked_s = time.monotonic()
            await asyncio.sleep(_WATCH_S)
            late_s = max(0.0, time.monotonic() - asked_s - _WATCH_S)
            # One pause, such as a collection of garbage, is no load: what lasts is.
            self.lag_s += _LAG_SHARE * (late_s - self.lag_s)

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold one more request in the block.

        Raises:
            Refused: as many are held as may be.
        """
        if self.held >= self._max_requests:
            raise Refused(
                Kind.OVERLOADED,
                f"The server holds {self.held} requests, which is its limit. Try again later.",
                retry_after_s=self._max_wait_s,
            )
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def require(self, wait_s: float) -> None:
        """Check that a request would be let in.

        Args:
            wait_s: predicted for a row that comes now, in its model's queue.

        Raises:
            Refused: it would not.
        """
        wait_s += self.lag_s
        if wait_s > self._max_wait_s:
            raise Refused(
                Kind.OVERLOADED,
                f"The server is overloaded: {wait_s:.1f} s of work are waiting. Try again later.",
                retry_after_s=wait_s,
            )
