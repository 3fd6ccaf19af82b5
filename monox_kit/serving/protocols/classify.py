"""POST /classify and /v1/classify in the form of vLLM and SGLang.

Source: vllm/entrypoints/pooling/classify/{protocol,serving}.py and sglang's
`serving_classify.py`: `data` has the label of the largest score and the scores of all classes in
the model's order; errors are OpenAI's. Unlike SGLang, the model's problem type decides what a score
is.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
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
    ServerFacts,
)
from monox_kit.serving.protocols.body import TEXT_SCHEMA, read, reply, require_finite
from monox_kit.serving.protocols.operations import Operation

# What vLLM calls the errors that it has names for.
_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
}


class ClassifyRequest(msgspec.Struct):
    """What is asked of POST /classify; other fields, such as user, are ignored."""

    input: Annotated[
        str | list[str | int],
        Meta(
            description="A text or a list of texts; no token ids.",
            extra_json_schema={
                "oneOf": [TEXT_SCHEMA, {"type": "array", "items": TEXT_SCHEMA, "minItems": 1}]
            },
        ),
    ]
    model: Annotated[
        str | None, Meta(description="Name of the model; the first one where it is not given.")
    ] = None
    truncate_prompt_tokens: Annotated[
        int | None,
        Meta(
            description="-1 cuts a text that is too long at the model's own length.",
            extra_json_schema={"enum": [-1, None]},
        ),
    ] = None
    truncation_side: Annotated[
        Literal["left", "right"] | None, Meta(description="The side on which it loses tokens.")
    ] = None
    use_activation: Annotated[
        bool | None, Meta(description="Whether probs are probabilities; else they are logits.")
    ] = None
    add_special_tokens: Annotated[
        bool | None,
        Meta(
            description="Always true here: the model was trained with them.",
            extra_json_schema={"enum": [True, None]},
        ),
    ] = True


class ClassifiedText(msgspec.Struct):
    """What the model says of one text."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Usage(msgspec.Struct):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ClassifyResponse(msgspec.Struct):
    """What the model says of all texts."""

    id: str
    object: str
    created: int
    model: str
    data: list[ClassifiedText]
    usage: Usage


class ErrorInfo(msgspec.Struct):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: int


class ClassifyError(msgspec.Struct):
    """A refusal."""

    error: ErrorInfo


class ModelCard(msgspec.Struct):
    """A model that is served."""

    id: str
    created: int
    max_model_len: int
    object: str = "model"
    owned_by: str = "monoxkit"


class ModelList(msgspec.Struct):
    """The models that are served."""

    data: list[ModelCard]
    object: str = "list"


@dataclass(frozen=True, slots=True)
class _Options:
    is_raw: bool


_DECODER = msgspec.json.Decoder(ClassifyRequest)


def _decode(request: Request) -> Decoded:
    asked = read(request, _DECODER)
    inputs = [asked.input] if isinstance(asked.input, str) else asked.input
    texts = tuple(text for text in inputs if isinstance(text, str))
    if len(texts) != len(inputs):
        raise Refused(Kind.INVALID, "`input` holds token ids. Send the texts themselves.")
    if asked.truncate_prompt_tokens not in (None, -1):
        raise Refused(
            Kind.INVALID,
            f"`truncate_prompt_tokens` {asked.truncate_prompt_tokens}: texts are cut at the "
            "model's own length alone. Give -1, or leave it out.",
        )
    if asked.add_special_tokens is False:
        raise Refused(
            Kind.INVALID,
            "`add_special_tokens` false: the model reads texts with them. Leave it out.",
        )
    question = Question(
        rows=texts,
        truncate=None if asked.truncate_prompt_tokens is None else True,
        truncation_side=asked.truncation_side,
    )
    return Decoded(
        model=asked.model, question=question, options=_Options(asked.use_activation is False)
    )


def _encode(options: _Options, answer: Answer) -> Reply:
    scores = answer.logits if options.is_raw else answer.probabilities
    require_finite(scores)
    names = answer.model.labels.names
    tokens = answer.num_read_tokens
    data = [
        ClassifiedText(row, names[best], values, len(names))
        for row, (best, values) in enumerate(
            zip(scores.argmax(axis=1).tolist(), scores.tolist(), strict=True)
        )
    ]
    return reply(
        ClassifyResponse(
            id=f"classify-{uuid.uuid4().hex}",
            object="list",
            created=int(time.time()),
            model=answer.model.name,
            data=data,
            usage=Usage(tokens, tokens),
        )
    )


def _refuse(refused: Refused) -> Reply:
    # A text that is too long is a bad request to vLLM.
    status = 400 if refused.kind is Kind.TOO_MANY_TOKENS else refused.kind.status
    word = _TYPES.get(status, HTTPStatus(status).phrase)
    return reply(ClassifyError(ErrorInfo(refused.message, word, None, status)), status=status)


def _models(server: ServerFacts, request: Request) -> Reply:
    cards = [
        ModelCard(one.name, created=0, max_model_len=one.max_length)
        for one in server.models.values()
    ]
    return reply(ModelList(cards))


PROTOCOL = Protocol(
    name="classify",
    routes=(("POST", "/classify"), ("POST", "/v1/classify")),
    decode=_decode,
    encode=_encode,
    refuse=_refuse,
)
PAGES = (Page(routes=(("GET", "/v1/models"),), read=_models, refuse=_refuse),)

_STATUSES = {
    400: "The body is no JSON, has another form, or a text is empty or too long.",
    404: "No model has that name.",
    413: "The body is too large.",
    422: "The request is too large.",
    429: "The server is overloaded; Retry-After says for how long.",
    500: "The model fails on this request.",
    503: "The server is not ready.",
    504: "There was no answer in time.",
}
OPERATIONS = (
    *(
        Operation(
            method="POST",
            path=path,
            summary=f"Classify texts, as {server} does.",
            tag="vLLM and SGLang",
            request=ClassifyRequest,
            response=ClassifyResponse,
            error=ClassifyError,
            statuses=_STATUSES,
            example={"input": ["Das Paket kam zu spät an.", "Où est mon colis ?"]},
        )
        for path, server in (("/classify", "vLLM"), ("/v1/classify", "SGLang"))
    ),
    Operation(
        method="GET",
        path="/v1/models",
        summary="The names of the models, as OpenAI's clients ask for them.",
        tag="vLLM and SGLang",
        response=ModelList,
    ),
)
