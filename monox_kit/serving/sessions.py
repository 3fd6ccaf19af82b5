"""A model's sessions: rows scored, a poison row alone failed, failing sessions made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from monox_kit.data import Classifier, Int64s, Label, Logits, TokenBatch
from monox_kit.errors import ModelError, MonoxError
from monox_kit.models.batching import pad_batch
from monox_kit.models.scoring import checked_logits
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding
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


# [B, C] float32 logits and B languages -> what the model says of each row.
Read = Callable[[Logits, Sequence[str | None]], list[Found]]


class Sessions:
    """The classifier at work, and how it is made again.

    Args:
        name: of the model, for messages.
        classifier: with one session or several.
        reopen: makes it again.
        padding: how a batch is filled.
        read: what logits say.
        tell: called with a sentence where sessions failed and were, or could not be, made again.
        probe: a row that the model can score; it runs where it is asked whether sessions are sound.

    Attributes:
        concurrency: runs at once.
        num_replaced: how many times sessions were made again.
    """

    def __init__(
        self,
        name: str,
        classifier: Classifier,
        *,
        reopen: Callable[[], Classifier],
        padding: Padding,
        read: Read,
        tell: Callable[[str], None],
        probe: Row,
    ) -> None:
        self._name, self._reopen, self._tell = name, reopen, tell
        self._padding, self._read, self._probe = padding, read, probe
        self._expected = checked_logits(classifier, self._batch([probe]), _numbers(1))
        self._classifier: Classifier | None = classifier
        self._replacing = Lock()
        self._tried_s = 0.0
        self.concurrency = classifier.concurrency
        self.num_replaced = 0

    @property
    def are_sound(self) -> bool:
        """Whether there are sessions; they are missing where they could not be made again."""
        return self._classifier is not None

    def score(self, rows: Sequence[Row]) -> list[Found | Refused]:
        """What was found of each row in one run; one that cannot be scored fails alone."""
        try:
            logits = self.logits(rows)
        except MonoxError:
            if len(rows) > 1:
                return [each for row in rows for each in self.score([row])]
            return [self._again(rows[0])]
        return [*self._read(logits, [row.language for row in rows])]

    def logits(self, rows: Sequence[Row]) -> Logits:
        """[B, C] float32 logits of B rows.

        Raises:
            ModelError: the model cannot score them, or there are no sessions.
        """
        return self._of(self._opened(), rows)

    def close(self) -> None:
        """Let go of the sessions."""
        self._classifier = None

    def _again(self, row: Row) -> Found | Refused:
        """What is found of a row that failed alone: by new sessions where the old are not sound."""
        classifier = self._classifier
        if classifier is not None and self._answers(classifier):
            return failed()
        try:
            self._replace(classifier)
        except MonoxError as error:
            self._tell(f"{self._name}: sessions failed and were not replaced: {error}")
            return Refused(Kind.UNAVAILABLE, "The model is out of order. Try again later.")
        try:
            logits = self.logits([row])
        except MonoxError:
            return failed()
        return self._read(logits, [row.language])[0]

    def _answers(self, classifier: Classifier) -> bool:
        """Whether sessions still say of the probe what they said at the start."""
        try:
            found = self._of(classifier, [self._probe])
        except MonoxError:
            return False
        most = _SOUND * max(1.0, float(np.abs(self._expected).max()))
        return bool(np.abs(found - self._expected).max() <= most)

    def _replace(self, broken: Classifier | None) -> None:
        """Make sessions in place of broken ones, once for all lanes that found them so.

        Raises:
            ModelError: they cannot be made, or are broken too.
        """
        with self._replacing:
            if self._classifier is not None and self._classifier is not broken:
                return
            if self._classifier is None and time.monotonic() < self._tried_s + _RETRY_S:
                raise ModelError(f"{self._name}: its sessions were tried a moment ago.")
            self._classifier, self._tried_s = None, time.monotonic()
            made = self._reopen()
            if not self._answers(made):
                raise ModelError(f"{self._name}: new sessions give other logits than before.")
            self._classifier = made
            self.num_replaced += 1
        self._tell(f"{self._name}: sessions failed and were replaced.")

    def _opened(self) -> Classifier:
        """The classifier; made again where it is missing.

        Raises:
            ModelError: it cannot be made.
        """
        if self._classifier is None:
            self._replace(None)
        classifier = self._classifier
        assert classifier is not None  # else `_replace` raised
        return classifier

    def _of(self, classifier: Classifier, rows: Sequence[Row]) -> Logits:
        return checked_logits(classifier, self._batch(rows), _numbers(len(rows)))

    def _batch(self, rows: Sequence[Row]) -> TokenBatch:
        ids = np.concatenate([row.ids for row in rows])
        types = [row.types for row in rows if row.types is not None]
        lengths = np.array([len(row.ids) for row in rows], np.int64)
        encoded = Encoded(
            ids, np.concatenate(types) if types else None, lengths, np.zeros_like(lengths)
        )
        return pad_batch(encoded, _numbers(len(rows)), self._padding)


def failed() -> Refused:
    """The refusal of a row that no session scores."""
    return Refused(Kind.BACKEND, "The model cannot score this text.")


def _numbers(count: int) -> Int64s:
    return np.arange(count, dtype=np.int64)


def rows_of(encoded: Encoded, language: str | None) -> list[Row]:
    """The rows of N tokenized texts.

    Args:
        encoded: the texts.
        language: tag of all of them; None where nobody says.
    """
    cuts = encoded.starts[1:]
    ids: list[Int64s] = np.split(encoded.input_ids, cuts)
    types: list[Int64s | None] = [None] * len(ids)
    if encoded.token_type_ids is not None:
        types = [*np.split(encoded.token_type_ids, cuts)]
    return [Row(each, kind, language, None) for each, kind in zip(ids, types, strict=True)]
