"""Signals that ask a run to end: it finishes its step and saves before it does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from monox_kit.training.processes import Processes

# The last one comes where a terminal is closed.
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGHUP inside its block instead of ending the process.

    A signal that nothing in the block answered acts at the block's end.
    Ignored signals stay ignored. In another thread than the main one, which signals never reach,
    nothing is noted.

    Args:
        second_acts: whether a second signal acts as it would have without the block, at once. Not
            so among several processes: there the terminal and the launcher both send one.

    Attributes:
        number: the signal to end by; None where none came.
    """

    def __init__(self, *, second_acts: bool) -> None:
        self.number: int | None = None
        self._second_acts = second_acts
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # None: set by a library in C
                    self._previous[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.leave()
        else:
            self._give_back()

    def agree(self, processes: Processes) -> bool:
        """Whether to end now: any process noted a signal. All of them get the same answer."""
        noted = self.number
        counts = processes.sum([float(noted == number) for number in _NUMBERS])
        agreed = [number for number, count in zip(_NUMBERS, counts) if count]
        if agreed:
            self.number = agreed[-1] if noted is None else noted
        return bool(agreed)

    def leave(self) -> None:
        """Let the noted signal do what it does outside the block; most often it does not return."""
        self._give_back()
        number, self.number = self.number, None
        if number is not None:
            signal.raise_signal(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        if self._second_acts:
            self._give_back()

    def _give_back(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
