"""POST /predict in the form of text-embeddings-inference.

Source: huggingface/text-embeddings-inference, router/src/http/{types,server}.rs, router/src/lib.rs:
one text, a pair `["a", "b"]`, or a batch `[["a"], ["b", "c"]]`; scores of all classes, largest
first; errors `{error, error_type}`. Where it has no word for a refusal, the nearest one stands.
Unlike it, the model's problem type and calibration decide what a score is, and a body that is no
JSON is refused in JSON too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from monox_kit.serving.contract import (
    Answer,
    Decoded,
    Kind,
    Page,
    Protocol,
    Question,
    Refused,
    Reply,
    Request,
    Row,
    ServerFacts,
)
from monox_kit.serving.protocols.body import (
    TEXT_SCHEMA,
    NotJson,
    Score,
    milliseconds,
    ranked,
    read,
    reply,
    require_finite,
)
from monox_kit.serving.protocols.operations import Operation

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]

_ERRORS: dict[Kind, tuple[int, ErrorType]] = {
    Kind.INVALID: (422, "Validation"),
    Kind.EMPTY: (400, "Empty"),
    Kind.TOO_MANY_ROWS: (422, "Validation"),
    Kind.TOO_MANY_CHARACTERS: (422, "Validation"),
    Kind.TOO_MANY_TOKENS: (422, "Validation"),
    Kind.OVERLOADED: (429, "Overloaded"),
    Kind.BACKEND: (424, "Backend"),
    Kind.UNAVAILABLE: (503, "Unhealthy"),
    Kind.DEADLINE: (504, "Overloaded"),
}


# What a type cannot say, for the document alone.
_PAIR_SCHEMA = {"type": "array", "items": TEXT_SCHEMA, "minItems": 1, "maxItems": 2}
_BATCH_SCHEMA = {"type": "array", "items": _PAIR_SCHEMA, "minItems": 1}


class PredictRequest(msgspec.Struct):
    """What is asked of POST /predict; other fields are ignored."""

    inputs: Annotated[
        str | list[str | list[str]],
        Meta(
            description='A text, a pair ["a", "b"], or a batch of both [["a"], ["b", "c"]].',
            extra_json_schema={"oneOf": [TEXT_SCHEMA, _PAIR_SCHEMA, _BATCH_SCHEMA]},
        ),
    ]
    truncate: Annotated[
        bool | None,
        Meta(description="Whether a text that is too long is cut; else it is refused."),
    ] = None
    truncation_direction: Annotated[
        Literal["left", "right", "Left", "Right"] | None,
        Meta(description="The side on which it loses tokens."),
    ] = None
    raw_scores: Annotated[
        bool | None, Meta(description="Whether scores are logits instead of probabilities.")
    ] = False


class PredictError(msgspec.Struct):
    """A refusal."""

    error: str
    error_type: ErrorType


@dataclass(frozen=True, slots=True)
class _Options:
    is_batch: bool
    is_raw: bool
    num_characters: int


_DECODER = msgspec.json.Decoder(PredictRequest)


def _decode(request: Request) -> Decoded:
    asked = read(request, _DECODER)
    is_batch, rows = _rows(asked.inputs)
    characters = sum(len(row) if isinstance(row, str) else sum(map(len, row)) for row in rows)
    direction = asked.truncation_direction
    question = Question(
        rows=rows,
        truncate=asked.truncate,
        truncation_side=None if direction is None else _SIDES[direction],
    )
    return Decoded(
        model=request.path.get("model"),
        question=question,
        options=_Options(is_batch, bool(asked.raw_scores), characters),
    )


_SIDES: dict[str, Literal["left", "right"]] = {
    "left": "left",
    "Left": "left",
    "right": "right",
    "Right": "right",
}


def _rows(inputs: str | list[str | list[str]]) -> tuple[bool, tuple[Row, ...]]:
    """Whether it is a batch, and its texts and pairs."""
    if isinstance(inputs, str):
        return False, (inputs,)
    if not inputs:
        raise Refused(Kind.EMPTY, "`inputs` is empty. Give a text, a pair or a batch.")
    if isinstance(inputs[0], str):  # the first element decides, as in the original
        return False, (_row(inputs, "`inputs`"),)
    rows = []
    for place, each in enumerate(inputs):
        if isinstance(each, str):
            raise Refused(
                Kind.INVALID,
                f"`inputs[{place}]`: expected a list of one or two texts, as the first one is; "
                "found a text.",
            )
        rows.append(_row(each, f"`inputs[{place}]`"))
    return True, tuple(rows)


def _row(texts: list[str | list[str]] | list[str], where: str) -> Row:
    """A list of one text or of two as a row."""
    found = [text for text in texts if isinstance(text, str)]
    if len(found) != len(texts) or not 1 <= len(found) <= 2:
        raise Refused(
            Kind.INVALID,
            f"{where}: expected one text or a pair of texts, found {len(texts)} elements.",
        )
    return found[0] if len(found) == 1 else (found[0], found[1])


def _encode(options: _Options, answer: Answer) -> Reply:
    scores = answer.logits if options.is_raw else answer.probabilities
    require_finite(scores)
    rows = ranked(answer.model.labels.names, scores)
    headers = {
        "x-compute-type": answer.model.provider,
        "x-compute-time": milliseconds(answer)["x-total-time"],
        "x-compute-characters": str(options.num_characters),
        "x-compute-tokens": str(answer.num_read_tokens),
        **milliseconds(answer),
    }
    return reply(rows if options.is_batch else rows[0], headers=headers)


def _refuse(refused: Refused) -> Reply:
    status, word = _ERRORS.get(refused.kind, (refused.kind.status, "Validation"))
    if isinstance(refused, NotJson):
        status = 400
    return reply(PredictError(refused.message, word), status=status)


def _health(server: ServerFacts, request: Request) -> Reply:
    if not server.is_ready:
        raise Refused(Kind.UNAVAILABLE, "The server is not ready.")
    return Reply(body=b"", headers={})


PROTOCOL = Protocol(
    name="tei",
    routes=(("POST", "/predict"), ("POST", "/models/{model}/predict")),
    decode=_decode,
    encode=_encode,
    refuse=_refuse,
)
PAGES = (
    Page(
        routes=(("GET", "/health"), ("GET", "/ping")),
        read=_health,
        refuse=_refuse,
        is_open=True,
    ),
)

OPERATIONS = (
    Operation(
        method="POST",
        path="/predict",
        summary="Classify a text, a pair or a batch, as text-embeddings-inference does.",
        tag="text-embeddings-inference",
        request=PredictRequest,
        response=(list[Score], list[list[Score]]),
        error=PredictError,
        statuses={
            400: "The body is no JSON, or a text is empty.",
            413: "The body is too large.",
            422: "The request has another form or is too large.",
            424: "The model fails on this request.",
            429: "The server is overloaded; Retry-After says for how long.",
            503: "The server is not ready.",
            504: "There was no answer in time.",
        },
        example={"inputs": [["Das Paket kam zu spät an."], ["Où est mon colis ?"]]},
    ),
    Operation(
        method="GET",
        path="/health",
        summary="Whether the server takes questions.",
        tag="text-embeddings-inference",
        error=PredictError,
        statuses={503: "The server is not ready."},
        is_open=True,
    ),
)
