"""Threads that run waiting rows through a model's sessions."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from monox_kit.serving.admission import Speed
from monox_kit.serving.batcher import Batcher
from monox_kit.serving.contract import Refused
from monox_kit.serving.sessions import Found, Row, Sessions, failed


@dataclass(frozen=True, slots=True)
class RunDone:
    """A run that has ended.

    Attributes:
        rows: that were in it.
        tokens: real ones.
        padded_tokens: with padding.
        run_s: how long it took.
    """

    rows: Sequence[Row]
    tokens: int
    padded_tokens: int
    run_s: float


class Lanes:
    """A model's sessions, each fed by a thread of its own from one queue.

    Args:
        name: of the model, for threads and messages.
        sessions: that rows run through.
        speed: learns from each run.
        on_done: called in the lane's thread after each run.
        tell: called with a sentence where a run failed in an unexpected way.
    """

    def __init__(
        self,
        name: str,
        sessions: Sessions,
        speed: Speed,
        *,
        on_done: Callable[[RunDone], None],
        tell: Callable[[str], None],
    ) -> None:
        self._name, self._sessions, self._speed = name, sessions, speed
        self._on_done, self._tell = on_done, tell
        self._queue: Batcher[Row] = Batcher()
        self._changed = Condition()
        self._running = 0
        self._is_closing = False
        self._threads = [
            Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(sessions.concurrency)
        ]

    def start(self) -> None:
        """Begin to run what waits."""
        for thread in self._threads:
            thread.start()

    @property
    def tokens(self) -> int:
        """Of the rows that wait or run."""
        return self._queue.tokens + self._running

    def tokens_ahead(self, due_s: float) -> int:
        """Of the rows that run, or will before a row that is due at that time."""
        with self._changed:
            return self._queue.tokens_due(due_s) + self._running

    @property
    def num_waiting(self) -> int:
        """Rows that wait."""
        return len(self._queue)

    def measure(self, rows: Sequence[Row]) -> None:
        """Run rows in the caller's thread, before `start`, to learn how fast that is.

        Raises:
            ModelError: the model cannot score them.
        """
        begun = time.monotonic()
        self._sessions.logits(rows)
        tokens = sum(len(row.ids) for row in rows)
        self._speed.learn(tokens, tokens, time.monotonic() - begun)

    def add(self, rows: Sequence[Row], due_s: Sequence[float]) -> None:
        """Let N rows wait for their runs; a run with each of them is told to `on_done`.

        Args:
            rows: of one request, or of several.
            due_s: the place of each in the queue.
        """
        now = time.monotonic()
        with self._changed:
            for row, due in zip(rows, due_s):
                row.added_s = now
                self._queue.add(row, len(row.ids), due)
            self._changed.notify(len(rows))

    def drop(self, rows: Sequence[Row]) -> None:
        """Forget rows that have not begun to run."""
        with self._changed:
            self._queue.drop(rows)

    def close(self) -> None:
        """Run what waits, then end the threads and let go of the sessions."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._sessions.close()

    def _work(self) -> None:
        ended = time.monotonic()  # rows may wait since before
        while True:
            with self._changed:
                waited = not self._queue
                while not self._queue:
                    if self._is_closing:
                        return
                    self._changed.wait()
                rows = self._queue.take(self._speed.budget)
                tokens = sum(len(row.ids) for row in rows)
                self._running += tokens
            begun = time.monotonic()
            self._run(rows, begun)
            now = time.monotonic()
            padded = len(rows) * max(len(row.ids) for row in rows)
            with self._changed:
                self._running -= tokens
                self._speed.learn(tokens, padded, now - (begun if waited else ended))
            ended = now
            self._on_done(RunDone(rows, tokens, padded, now - begun))

    def _run(self, rows: Sequence[Row], begun: float) -> None:
        """Give each row what was found."""
        try:
            found: Sequence[Found | Refused] = self._sessions.score(rows)
        except Exception:  # a lane outlives whatever a run of it does
            self._tell(f"{self._name}: unexpected\n{traceback.format_exc()}")
            found = [failed() for _ in rows]
        took = time.monotonic() - begun
        for row, one in zip(rows, found, strict=True):
            row.begun_s, row.run_s, row.found = begun, took, one
