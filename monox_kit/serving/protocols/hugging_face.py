"""POST / in the form of Hugging Face's inference, which `huggingface_hub.InferenceClient` sends.

Source: huggingface_hub/inference (`text_classification`, the generated types of the task) and
transformers' `TextClassificationPipeline.preprocess`: a list of texts is that many texts, a pair is
`{"text": ..., "text_pair": ...}` or a list of two in a list. The answer has a list for each text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from monox_kit.data import MULTI_LABEL
from monox_kit.problem import log_sigmoid, log_softmax
from monox_kit.serving.contract import (
    Answer,
    Decoded,
    Kind,
    Protocol,
    Question,
    Refused,
    Reply,
    Request,
    Row,
)
from monox_kit.serving.protocols.body import (
    TEXT_SCHEMA,
    Floats,
    Score,
    ranked,
    read,
    reply,
    require_finite,
)
from monox_kit.serving.protocols.operations import Operation

Function = Literal["sigmoid", "softmax", "none"]


class Pair(msgspec.Struct):
    """A text, or a pair of texts."""

    text: str
    text_pair: str | None = None


# What a type cannot say, for the document alone; that all rows are of one kind, it cannot either.
_PAIR_SCHEMA = {
    "type": "object",
    "properties": {"text": TEXT_SCHEMA, "text_pair": TEXT_SCHEMA},
    "required": ["text"],
}


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """How texts are read and scores are made; one that is not listed is refused."""

    top_k: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most classes of a text; all where it is not given."),
    ] = None
    function_to_apply: Annotated[
        Function | None,
        Meta(
            description="What makes scores of logits. Left out, or named as the model's own, it "
            "gives the model's probabilities, calibrated where it is; none gives logits."
        ),
    ] = None
    truncation: Annotated[
        bool | None,
        Meta(description="Whether a text that is too long is cut; else it is refused."),
    ] = None


class InferenceRequest(msgspec.Struct):
    """What is asked of POST /; other fields, such as options, are ignored."""

    inputs: Annotated[
        str | Pair | list[str | Pair | list[str]],
        Meta(
            description="A text or a pair, or a list of them. A list of two texts is no pair.",
            extra_json_schema={
                "oneOf": [
                    TEXT_SCHEMA,
                    _PAIR_SCHEMA,
                    {
                        "type": "array",
                        "items": {"oneOf": [TEXT_SCHEMA, _PAIR_SCHEMA]},
                        "minItems": 1,
                    },
                ]
            },
        ),
    ]
    parameters: Parameters | None = None


class InferenceError(msgspec.Struct):
    """A refusal."""

    error: str
    error_type: str


@dataclass(frozen=True, slots=True)
class _Options:
    top_k: int | None
    function: Function | None


_DECODER = msgspec.json.Decoder(InferenceRequest)


def _decode(request: Request) -> Decoded:
    asked = read(request, _DECODER)
    inputs = asked.inputs if isinstance(asked.inputs, list) else [asked.inputs]
    parameters = asked.parameters or Parameters()
    rows = tuple(_row(each, place) for place, each in enumerate(inputs))
    return Decoded(
        model=request.path.get("model"),
        question=Question(rows=rows, truncate=parameters.truncation),
        options=_Options(parameters.top_k, parameters.function_to_apply),
    )


def _row(each: str | Pair | list[str], place: int) -> Row:
    if isinstance(each, str):
        return each
    if isinstance(each, Pair):
        return each.text if each.text_pair is None else (each.text, each.text_pair)
    if len(each) != 2:
        raise Refused(
            Kind.INVALID,
            f"`inputs[{place}]`: expected a pair of texts, found a list of {len(each)}.",
        )
    return (each[0], each[1])


def _encode(options: _Options, answer: Answer) -> Reply:
    scores = _scores(options.function, answer)
    require_finite(scores)
    return reply(ranked(answer.model.labels.names, scores, options.top_k))


def _scores(function: Function | None, answer: Answer) -> Floats:
    """[N, C] by the function that was asked for."""
    own = "sigmoid" if answer.model.labels.problem_type == MULTI_LABEL else "softmax"
    if function is None or function == own:
        return answer.probabilities
    if function == "none":
        return answer.logits
    if function == "sigmoid":
        return np.exp(log_sigmoid(answer.logits.astype(np.float64)))
    return np.exp(log_softmax(answer.logits))


def _refuse(refused: Refused) -> Reply:
    return reply(InferenceError(refused.message, refused.kind.label), status=refused.kind.status)


PROTOCOL = Protocol(
    name="hugging_face",
    routes=(("POST", "/"), ("POST", "/models/{model}")),
    decode=_decode,
    encode=_encode,
    refuse=_refuse,
)

OPERATIONS = (
    Operation(
        method="POST",
        path="/",
        summary="Classify texts, as Hugging Face's InferenceClient asks.",
        tag="Hugging Face inference",
        request=InferenceRequest,
        response=list[list[Score]],
        error=InferenceError,
        statuses={
            400: "The body is no JSON, has another form, or a text is empty.",
            413: "The body is too large.",
            422: "The request is too large.",
            429: "The server is overloaded; Retry-After says for how long.",
            500: "The model fails on this request.",
            503: "The server is not ready.",
            504: "There was no answer in time.",
        },
        example={"inputs": "Das Paket kam zu spät an.", "parameters": {"top_k": 2}},
    ),
)
