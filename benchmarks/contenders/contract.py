"""What a contender is given, and what it must do.

Shapes: N texts, B batch, L sequence length, C classes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a contender is started with.

    Attributes:
        row: one of `ROWS`.
        model: the PyTorch folder.
        max_length: the cut in tokens.
        threads: of a program's own setting, where it has one.
        warmup_path: JSON Lines of the texts to warm up and to choose settings on.
        batch_sizes: rows per batch to choose from.
        graph: the fp32 ONNX graph of the OpenVINO rows.
        bundle: the ONNX bundle of our rows.
        provider: of our rows.
        guard: of our row `monoxkit-guard`.
        calibration_path: JSON Lines of the texts to quantize with.
        kept: the folder of what `prepare` makes, once.
        prepare: whether to make that folder and to end.
    """

    row: str
    model: str
    max_length: int
    threads: int
    warmup_path: str
    batch_sizes: Sequence[int]
    graph: str | None = None
    bundle: str | None = None
    provider: str = "cpu"
    guard: float | None = None
    calibration_path: str | None = None
    kept: str | None = None
    prepare: bool = False


@dataclass(frozen=True)
class Request:
    """N texts to score, and where our rows find and store them."""

    texts: list[str]
    texts_path: str
    store: str = ""


class OverLimit(Exception):  # it ends a pass as planned, it is no error
    """The time of a pass is over."""


@dataclass
class Clock:
    """The time limit of the pass that runs, and what it has managed so far."""

    texts: int = 0
    tokens: int = 0
    _end_s: float = field(default=float("inf"))
    _lock: threading.Lock = field(default_factory=threading.Lock)  # OpenVINO calls from threads

    def start(self, limit_s: float) -> None:
        """Begin a pass."""
        self.texts = self.tokens = 0
        self._end_s = time.perf_counter() + limit_s

    def check(self) -> None:
        """Raise `OverLimit` once the time is over."""
        if time.perf_counter() > self._end_s:
            raise OverLimit

    def count(self, texts: int, tokens: int) -> None:
        """Add a finished batch and its real tokens."""
        with self._lock:
            self.texts += texts
            self.tokens += tokens


class Contender(Protocol):
    """A loaded program."""

    settings: dict[str, Any]

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits in the order of the texts."""


@dataclass(frozen=True)
class Row:
    """One line of the benchmark's table.

    Attributes:
        what: the program and how it is used, in one line.
        load: makes it ready, its settings chosen.
        prepare: makes the graph that it keeps on the disk; None where it keeps none.
    """

    what: str
    load: Callable[[Job, Clock], Contender]
    prepare: Callable[[Job], None] | None = None
