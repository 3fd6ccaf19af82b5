"""What protocols and the engine tell each other: every protocol is pure functions around these.

A request becomes a `Question`, the engine gives an `Answer` or raises `Refused`, and the protocol
puts either into its own form. A protocol knows nothing of HTTP connections, sessions or queues, and
the engine nothing of JSON. `monox_kit.serving.protocols` lists them as `PROTOCOLS`, and what can be
read without a question (metadata, documents, the page) as `PAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s, Label, LabelSet, Logits
from monox_kit.models.tokenizer_files import Side
from monox_kit.problem import Problem

# A text, or a pair of texts as a model of pairs is asked.
Row: TypeAlias = str | tuple[str, str]
Bools: TypeAlias = npt.NDArray[np.bool_]
Probabilities: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What one request asks of a model.

    Attributes:
        rows: N texts, or N pairs, in the request's order. The engine refuses none at all, blank
            texts and a mixture of both kinds.
        truncate: whether a text that is too long is cut (True) or refused (False); None leaves it
            to the server, which cuts.
        truncation_side: on which side a long text loses tokens; None for the tokenizer's own.
        language: BCP 47 tag of the texts' language, which a calibrated model has values for; None
            where the protocol does not say: the header Content-Language then does, if there is one.
    """

    rows: tuple[Row, ...]
    truncate: bool | None = None
    truncation_side: Side | None = None
    language: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a served model is, as far as clients may know.

    Attributes:
        name: that it is served under; no path.
        digest: SHA-256, hexadecimal, over its configuration and weights.
        labels: C classes in the order of the logits, and the problem type.
        problem: what labels and logits mean; its `probabilities` gives an uncalibrated activation.
        max_length: tokens that a text may have, special tokens included.
        has_pairs: whether it was trained on pairs; None where nobody knows and either is taken.
        precision: that it was exported in, such as `int8`; None where no record says it.
        provider: what runs the graph, such as `cpu`.
        runtime: with its version, such as `onnxruntime 1.32.0`.
        is_calibrated: whether probabilities are calibrated.
    """

    name: str
    digest: str
    labels: LabelSet
    problem: Problem
    max_length: int
    has_pairs: bool | None
    precision: str | None
    provider: str
    runtime: str
    is_calibrated: bool

    @property
    def version(self) -> str:
        """The beginning of the digest: another one where another bundle was swapped in."""
        return self.digest[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Where a request's time went, in seconds.

    Attributes:
        tokenizing_s: texts to tokens.
        queue_s: the longest wait of one of its rows for a session.
        run_s: the longest run that one of its rows was in.
    """

    tokenizing_s: float
    queue_s: float
    run_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model says of N rows, in their order.

    Attributes:
        model: what answered.
        logits: [N, C] float32, the model's own.
        probabilities: [N, C] float32 in [0, 1], by the problem type: they add up to 1 where classes
            exclude each other. Calibrated where the model is.
        decisions: N labels: one name, or of a multi-label model the names of all classes that
            apply, of which there may be none.
        abstained: [N] whether the model is less sure than its calibration asks for; None where it
            has no thresholds.
        tokens: [N] int64, tokens of each row before truncation.
        truncated: [N] whether each row was cut.
        timings: where the time went.
    """

    model: ModelFacts
    logits: Logits
    probabilities: Probabilities
    decisions: tuple[Label, ...]
    abstained: Bools | None
    tokens: Int64s
    truncated: Bools
    timings: Timings

    @property
    def num_read_tokens(self) -> int:
        """Tokens of all rows that the model read."""
        return int(self.tokens.clip(max=self.model.max_length).sum())


class Kind(Enum):
    """Why a request is not answered; the value is the status that HTTP itself would have for it."""

    INVALID = ("invalid", 400)  # the body or a parameter has another form
    EMPTY = ("empty", 400)  # no row, or a row without a visible character
    UNAUTHORIZED = ("unauthorized", 401)
    NOT_FOUND = ("not_found", 404)  # no model of that name
    BODY_TOO_LARGE = ("body_too_large", 413)
    TOO_SLOW = ("too_slow", 408)  # the sender
    TOO_MANY_ROWS = ("too_many_rows", 422)
    TOO_MANY_CHARACTERS = ("too_many_characters", 422)
    TOO_MANY_TOKENS = ("too_many_tokens", 422)  # of a row that must not be truncated
    OVERLOADED = ("overloaded", 429)
    BACKEND = ("backend", 500)  # the model cannot answer this request, and will not
    UNAVAILABLE = ("unavailable", 503)  # starting or ending
    DEADLINE = ("deadline", 504)

    def __init__(self, label: str, status: int) -> None:
        self.label, self.status = label, status


class Refused(Exception):
    """A request that gets no answer; what clients may know of it, and no more.

    Attributes:
        kind: why.
        message: for the client: a sentence, without paths, traces or other clients' texts.
        retry_after_s: when the same request would be admitted; None where waiting does not help.
            The app itself adds the header Retry-After to what a protocol makes of it.
    """

    def __init__(self, kind: Kind, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry_after_s = kind, message, retry_after_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """An HTTP request as a protocol sees it.

    Attributes:
        body: at most as many bytes as the server takes.
        headers: by lower-case name.
        path: the values of the parameters in the route's path, such as {"model": "student"}.
    """

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An HTTP answer.

    Attributes:
        body: its bytes.
        status: 200 unless something else is said.
        headers: by name; the content type among them. The length, traceparent and Retry-After are
            the app's.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A request that was read.

    Attributes:
        model: the name of the model that is asked; None for the one that is served first.
        question: what it is asked.
        options: the protocol's own, which `Protocol.encode` gets again: what to show, and how.
    """

    model: str | None
    question: Question
    options: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way in which clients ask: pure functions, called in the event loop, so quick.

    Attributes:
        name: for metrics, such as `tei`.
        routes: (method, path) pairs; a path is Starlette's, such as
            ("POST", "/v2/models/{model}/infer").
        decode: reads a request. Raises `Refused`, of kind INVALID or EMPTY for most.
        encode: puts an answer into the protocol's form, by the options that `decode` gave. May
            raise `Refused` (BACKEND where a score is not finite).
        refuse: puts a refusal into the protocol's form, with the protocol's own status: also those
            of the app, such as UNAUTHORIZED, OVERLOADED and BODY_TOO_LARGE.
    """

    name: str
    routes: tuple[tuple[str, str], ...]
    decode: Callable[[Request], Decoded]
    encode: Callable[[Any, Answer], Reply]
    refuse: Callable[[Refused], Reply]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What the server is now, as far as clients may know.

    Attributes:
        version: of monoxkit.
        is_ready: whether it takes questions.
        models: by name; the first one answers where no name is given. Empty while starting.
        max_rows: of a request.
        max_characters: of a row; of a pair, of both texts together.
        max_body_bytes: of a request.
        max_batch_tokens: of a run, padding included.
        max_concurrent_requests: that are held at once.
        truncates: whether a text that is too long is cut where a request does not say.
    """

    version: str
    is_ready: bool
    models: Mapping[str, ModelFacts]
    max_rows: int
    max_characters: int
    max_body_bytes: int
    max_batch_tokens: int
    max_concurrent_requests: int
    truncates: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What can be read without a question: metadata, `/info`, `/openapi.json`, the page itself.

    Attributes:
        routes: as `Protocol.routes`.
        read: the reply, given the server as it is now. Raises `Refused`.
        refuse: puts a refusal into the form of the page's protocol.
        is_open: whether it is read without a key where keys are asked for, as probes must be.
    """

    routes: tuple[tuple[str, str], ...]
    read: Callable[[ServerFacts, Request], Reply]
    refuse: Callable[[Refused], Reply]
    is_open: bool = False
