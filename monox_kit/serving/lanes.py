"""Threads that run rows through a model's sessions, and what happens where one of those fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread

import numpy as np

from monox_kit.data import Classifier, Int64s, Label, Logits, TokenBatch
from monox_kit.errors import ModelError, MonoxError
from monox_kit.models.batching import pad_batch
from monox_kit.models.scoring import checked_logits
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding
from monox_kit.serving.admission import Speed
from monox_kit.serving.batcher import Batcher
from monox_kit.serving.contract import Kind, Probabilities, Refused

# How far a sound session may be from what it said at the start, as a share of the largest logit.
_SOUND = 0.05
# Sessions that could not be made again are tried no sooner than after so many seconds.
_RETRY_S = 1.0


@dataclass(eq=False, slots=True)
class Row:
    """A row on its way through a session.

    Attributes:
        ids: [L] int64.
        types: [L] int64 segment ids; None where the model takes none.
        language: tag of the text's language; None where nobody says.
        added_s: when it began to wait.
        found: what the model says of it, or why it says nothing; None until then.
        begun_s: when its run began.
        run_s: how long that took.
        owner: the request that it is of.
    """

    ids: Int64s
    types: Int64s | None
    language: str | None
    owner: object
    added_s: float = 0.0
    found: Found | Refused | None = None
    begun_s: float = 0.0
    run_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a model says of one row.

    Attributes:
        logits: [C] float32, the model's own.
        probabilities: [C] float32, calibrated.
        decision: the label, or labels.
        abstained: whether the model is not sure enough; None where it has no thresholds.
    """

    logits: Logits
    probabilities: Probabilities
    decision: Label
    abstained: bool | None


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


# [B, C] float32 logits and B languages -> what the model says of each row.
Read = Callable[[Logits, Sequence[str | None]], list[Found]]


@dataclass(slots=True)
class _Sessions:
    """The classifier at work, and how it is made again."""

    reopen: Callable[[], Classifier]
    classifier: Classifier | None
    probe: Row
    expected: Logits
    replaced: int = 0
    tried_s: float = 0.0
    lock: Lock = field(default_factory=Lock)


class Lanes:
    """A model's sessions, each fed by a thread of its own from one queue.

    Args:
        name: of the model, for threads and messages.
        classifier: the sessions.
        reopen: makes them again.
        padding: how a batch is filled.
        read: what logits say.
        speed: learns from each run.
        on_done: called in the lane's thread after each run.
        on_replaced: called with a sentence where sessions failed and were, or could not be, made
            again.
        probe: a row that the model can score; runs where it is asked whether sessions are sound.
    """

    def __init__(
        self,
        name: str,
        classifier: Classifier,
        *,
        reopen: Callable[[], Classifier],
        padding: Padding,
        read: Read,
        speed: Speed,
        on_done: Callable[[RunDone], None],
        on_replaced: Callable[[str], None],
        probe: Row,
    ) -> None:
        self._padding, self._read, self._speed = padding, read, speed
        self._name, self._on_done, self._on_replaced = name, on_done, on_replaced
        expected = checked_logits(classifier, self._batch([probe]), _numbers(1))
        self._sessions = _Sessions(reopen, classifier, probe, expected)
        self._queue: Batcher[Row] = Batcher()
        self._changed = Condition()
        self._running = 0
        self._is_closing = False
        self._threads = [
            Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(classifier.concurrency)
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

    @property
    def is_sound(self) -> bool:
        """Whether there are sessions; they are missing where they could not be made again."""
        return self._sessions.classifier is not None

    @property
    def num_replaced(self) -> int:
        """How many times sessions were made again."""
        return self._sessions.replaced

    def measure(self, rows: Sequence[Row]) -> None:
        """Run rows in the caller's thread, before `start`, to learn how fast that is.

        Raises:
            ModelError: the model cannot score them.
        """
        begun = time.monotonic()
        self._logits(self._opened(), rows)
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
        self._sessions.classifier = None

    def _work(self) -> None:
        ended = 0.0
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
            found: Sequence[Found | Refused] = self._scored(rows)
        except Exception as error:  # a lane outlives whatever a run of it does
            self._on_replaced(f"{self._name}: {type(error).__name__}: {error}")
            found = [_failed()] * len(rows)
        took = time.monotonic() - begun
        for row, one in zip(rows, found):
            row.begun_s, row.run_s, row.found = begun, took, one

    def _scored(self, rows: Sequence[Row]) -> list[Found | Refused]:
        """What was found of each row; one that cannot be scored fails alone."""
        try:
            logits = self._logits(self._opened(), rows)
        except MonoxError:
            if len(rows) > 1:
                return [each for row in rows for each in self._scored([row])]
            return [self._again(rows[0])]
        return [*self._read(logits, [row.language for row in rows])]

    def _again(self, row: Row) -> Found | Refused:
        """What is found of a row that failed alone: by new sessions where the old are not sound."""
        classifier = self._sessions.classifier
        if classifier is not None and self._answers(classifier):
            return _failed()
        try:
            self._replace(classifier)
        except MonoxError as error:
            self._on_replaced(f"{self._name}: sessions failed and were not replaced: {error}")
            return Refused(Kind.UNAVAILABLE, "The model is out of order. Try again later.")
        try:
            logits = self._logits(self._opened(), [row])
        except MonoxError:
            return _failed()
        return self._read(logits, [row.language])[0]

    def _answers(self, classifier: Classifier) -> bool:
        """Whether sessions still say of the probe what they said at the start."""
        expected = self._sessions.expected
        try:
            found = self._logits(classifier, [self._sessions.probe])
        except MonoxError:
            return False
        return bool(np.abs(found - expected).max() <= _SOUND * max(1.0, np.abs(expected).max()))

    def _replace(self, broken: Classifier | None) -> None:
        """Make sessions in place of broken ones, once for all lanes that found them so.

        Raises:
            ModelError: they cannot be made, or are broken too.
        """
        sessions = self._sessions
        with sessions.lock:
            if sessions.classifier is not None and sessions.classifier is not broken:
                return
            if sessions.classifier is None and time.monotonic() < sessions.tried_s + _RETRY_S:
                raise ModelError(f"{self._name}: its sessions were tried a moment ago.")
            sessions.classifier, sessions.tried_s = None, time.monotonic()
            made = sessions.reopen()
            if not self._answers(made):
                raise ModelError(f"{self._name}: new sessions give other logits than before.")
            sessions.classifier = made
            sessions.replaced += 1
        self._on_replaced(f"{self._name}: sessions failed and were replaced.")

    def _opened(self) -> Classifier:
        """The sessions; made again where they are missing.

        Raises:
            ModelError: they cannot be made.
        """
        if self._sessions.classifier is None:
            self._replace(None)
        classifier = self._sessions.classifier
        assert classifier is not None  # else `_replace` raised
        return classifier

    def _logits(self, classifier: Classifier, rows: Sequence[Row]) -> Logits:
        return checked_logits(classifier, self._batch(rows), _numbers(len(rows)))

    def _batch(self, rows: Sequence[Row]) -> TokenBatch:
        ids = np.concatenate([row.ids for row in rows])
        types = [row.types for row in rows if row.types is not None]
        lengths = np.array([len(row.ids) for row in rows], np.int64)
        encoded = Encoded(
            ids, np.concatenate(types) if types else None, lengths, np.zeros_like(lengths)
        )
        return pad_batch(encoded, _numbers(len(rows)), self._padding)


def _numbers(count: int) -> Int64s:
    return np.arange(count, dtype=np.int64)


def _failed() -> Refused:
    return Refused(Kind.BACKEND, "The model cannot score this text.")
