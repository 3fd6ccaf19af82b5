"""/v2 in the form of KServe's Open Inference Protocol, as Triton's clients speak it too.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; of Triton
docs/protocol/extension_classification.md (`classification` of an output) and, by `tensors`,
extension_binary_data.md. The protocol names no standard parameters; `truncate` and `language` are
this server's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from monox_kit.serving.contract import (
    Answer,
    Decoded,
    Kind,
    ModelFacts,
    Page,
    Protocol,
    Question,
    Refused,
    Reply,
    Request,
    Row,
    ServerFacts,
)
from monox_kit.serving.protocols.body import ranked, read, reply, require_finite, written
from monox_kit.serving.protocols.operations import Operation
from monox_kit.serving.protocols.tensors import (
    HEADER,
    InputTensor,
    Tensor,
    split,
    texts_of,
    written_tensors,
)

_PLATFORM = "onnx_onnxv1"
_TEXT, _PAIR = "text", "text_pair"


@dataclass(frozen=True, slots=True)
class _Output:
    """An output of every model.

    Attributes:
        datatype: in the protocol's words.
        values: [N] or [N, C] of an answer.
        is_of_classes: whether it is [N, C].
    """

    datatype: str
    values: Callable[[Answer], Any]
    is_of_classes: bool = False


def _decisions(answer: Answer) -> list[str]:
    """Names; of a multi-label model JSON lists of names, of which there may be none."""
    return [
        label if isinstance(label, str) else written(list(label)).decode()
        for label in answer.decisions
    ]


def _abstained(answer: Answer) -> Any:
    """A model without thresholds answers always."""
    found = answer.abstained
    return np.zeros(len(answer.logits), np.bool_) if found is None else found


_OUTPUTS: dict[str, _Output] = {
    "label": _Output("BYTES", _decisions),
    "probabilities": _Output("FP32", lambda answer: answer.probabilities, True),
    "logits": _Output("FP32", lambda answer: answer.logits, True),
    "tokens": _Output("INT64", lambda answer: answer.tokens),
    "truncated": _Output("BOOL", lambda answer: answer.truncated),
    "abstained": _Output("BOOL", _abstained),
}


class OutputParameters(msgspec.Struct):
    """How an output is given."""

    binary_data: bool | None = None
    classification: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="So many of the largest values, each as value:index:label."),
    ] = None


class RequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: Annotated[str, Meta(extra_json_schema={"enum": list(_OUTPUTS)})]
    parameters: OutputParameters | None = None


class InferParameters(msgspec.Struct):
    """Of a whole request; other ones are ignored."""

    binary_data_output: bool | None = None
    truncate: Annotated[
        bool | None,
        Meta(description="Whether a text that is too long is cut; else it is refused."),
    ] = None
    language: Annotated[
        str | None,
        Meta(description="Tag of the texts' language, which a calibrated model has values for."),
    ] = None


class InferRequest(msgspec.Struct):
    """What is asked of infer."""

    inputs: Annotated[list[InputTensor], Meta(extra_json_schema={"minItems": 1, "maxItems": 2})]
    id: str | None = None
    parameters: InferParameters | None = None
    outputs: Annotated[
        list[RequestedOutput] | None, Meta(description="All of them where none is named.")
    ] = None


class InferResponse(msgspec.Struct):
    """What the model says."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | UnsetType = UNSET


class TensorMetadata(msgspec.Struct):
    """A tensor of a model; -1 stands for any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(msgspec.Struct):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class Live(msgspec.Struct):
    """Whether the server runs."""

    live: bool


class Ready(msgspec.Struct):
    """Whether the server takes questions."""

    ready: bool


class ModelReady(msgspec.Struct):
    """Whether a model takes questions."""

    name: str
    ready: bool


class ModelState(msgspec.Struct):
    """A model in the list of all."""

    name: str
    version: str
    state: str


class InferError(msgspec.Struct):
    """A refusal."""

    error: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An output that is asked for: in which form, and of how many classes."""

    name: str
    is_binary: bool
    num_classes: int | None


@dataclass(frozen=True, slots=True)
class _Options:
    id: str | None
    version: str | None
    outputs: tuple[_Wanted, ...]


_DECODER = msgspec.json.Decoder(InferRequest)


def _decode(request: Request) -> Decoded:
    head, rest = split(request)
    asked = read(request, _DECODER, head)
    parameters = asked.parameters or InferParameters()
    question = Question(
        rows=_rows(asked.inputs, rest),
        truncate=parameters.truncate,
        language=parameters.language,
    )
    options = _Options(
        asked.id,
        request.path.get("version"),
        _wanted(asked.outputs or [], bool(parameters.binary_data_output)),
    )
    return Decoded(model=request.path["model"], question=question, options=options)


def _rows(inputs: list[InputTensor], rest: bytes | None) -> tuple[Row, ...]:
    """Texts, or pairs where both inputs are given."""
    names = [one.name for one in inputs]
    if sorted(names) not in ([_TEXT], [_TEXT, _PAIR]):
        raise Refused(
            Kind.INVALID,
            f"`inputs`: expected the tensor {_TEXT}, and {_PAIR} for pairs; found "
            f"{', '.join(names[:4])[:80] or 'none'}.",
        )
    columns = dict(zip(names, texts_of(inputs, rest), strict=True))
    texts = columns[_TEXT]
    pairs = columns.get(_PAIR)
    if pairs is None:
        return tuple(texts)
    if len(pairs) != len(texts):
        raise Refused(
            Kind.INVALID,
            f"`inputs`: {_TEXT} has {len(texts)} elements and {_PAIR} {len(pairs)}. Give as many.",
        )
    return tuple(zip(texts, pairs, strict=True))


def _wanted(asked: list[RequestedOutput], is_binary: bool) -> tuple[_Wanted, ...]:
    found = []
    for one in asked or [RequestedOutput(name) for name in _OUTPUTS]:
        output = _OUTPUTS.get(one.name)
        if output is None:
            raise Refused(
                Kind.INVALID,
                f"`outputs`: there is no output {one.name[:40]!a}, but {', '.join(_OUTPUTS)}.",
            )
        own = one.parameters or OutputParameters()
        if own.classification is not None and not output.is_of_classes:
            raise Refused(
                Kind.INVALID,
                f"`outputs`: {one.name} has no value for each class. Ask for `classification` of "
                "probabilities or logits.",
            )
        chosen = is_binary if own.binary_data is None else own.binary_data
        found.append(_Wanted(one.name, chosen, own.classification))
    return tuple(found)


def _encode(options: _Options, answer: Answer) -> Reply:
    model = answer.model
    if options.version not in (None, model.version):
        raise _no_model(model.name, options.version)
    require_finite(answer.logits)
    require_finite(answer.probabilities)
    tensors, binary = written_tensors(
        (
            one.name,
            "BYTES" if one.num_classes else _OUTPUTS[one.name].datatype,
            _classes(one, answer) if one.num_classes else _OUTPUTS[one.name].values(answer),
            one.is_binary,
        )
        for one in options.outputs
    )
    head = written(
        InferResponse(
            model_name=model.name,
            model_version=model.version,
            outputs=tensors,
            id=UNSET if options.id is None else options.id,
        )
    )
    if not any(one.is_binary for one in options.outputs):
        return Reply(body=head)
    return Reply(
        body=head + binary,
        headers={"content-type": "application/octet-stream", HEADER: str(len(head))},
    )


def _classes(wanted: _Wanted, answer: Answer) -> list[list[str]]:
    """[N, k] of value:index:label, largest first; k is at most the number of classes."""
    names = answer.model.labels.names
    places = {name: place for place, name in enumerate(names)}
    scores = ranked(names, _OUTPUTS[wanted.name].values(answer), wanted.num_classes)
    return [[f"{one.score:.6f}:{places[one.label]}:{one.label}" for one in row] for row in scores]


def _no_model(name: str, version: str | None) -> Refused:
    what = name[:80] if version is None else f"{name[:80]} in version {version[:40]}"
    return Refused(Kind.NOT_FOUND, f"There is no model {what!a}.")


def _refuse(refused: Refused) -> Reply:
    return reply(InferError(refused.message), status=refused.kind.status)


def _server(server: ServerFacts, request: Request) -> Reply:
    return reply(
        ServerMetadata("monoxkit", server.version, ["classification", "binary_tensor_data"])
    )


def _live(server: ServerFacts, request: Request) -> Reply:
    return reply(Live(True))


def _ready(server: ServerFacts, request: Request) -> Reply:
    return reply(Ready(server.is_ready), status=200 if server.is_ready else 503)


def _found(server: ServerFacts, request: Request) -> ModelFacts:
    """The model of the path.

    Raises:
        Refused: there is none of that name, or none of that version.
    """
    name, version = request.path["model"], request.path.get("version")
    model = server.models.get(name)
    if model is None or version not in (None, model.version):
        raise _no_model(name, version)
    return model


def _model_ready(server: ServerFacts, request: Request) -> Reply:
    model = _found(server, request)
    return reply(ModelReady(model.name, server.is_ready), status=200 if server.is_ready else 503)


def _model(server: ServerFacts, request: Request) -> Reply:
    model = _found(server, request)
    inputs = [TensorMetadata(_TEXT, "BYTES", [-1])]
    if model.has_pairs is not False:
        inputs.append(TensorMetadata(_PAIR, "BYTES", [-1]))
    classes = len(model.labels)
    outputs = [
        TensorMetadata(name, one.datatype, [-1, classes] if one.is_of_classes else [-1])
        for name, one in _OUTPUTS.items()
    ]
    return reply(ModelMetadata(model.name, [model.version], _PLATFORM, inputs, outputs))


def _index(server: ServerFacts, request: Request) -> Reply:
    return reply([ModelState(one.name, one.version, "READY") for one in server.models.values()])


_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
PROTOCOL = Protocol(
    name="kserve",
    routes=(("POST", f"{_MODEL}/infer"), ("POST", f"{_VERSION}/infer")),
    decode=_decode,
    encode=_encode,
    refuse=_refuse,
)


def _page(read_page: Callable[[ServerFacts, Request], Reply], *paths: str, **more: Any) -> Page:
    routes = tuple(("GET", path) for path in paths)
    return Page(routes=routes, read=read_page, refuse=_refuse, **more)


PAGES = (
    _page(_server, "/v2"),
    _page(_live, "/v2/health/live", is_open=True),
    _page(_ready, "/v2/health/ready", is_open=True),
    _page(_model, _MODEL, _VERSION),
    _page(_model_ready, f"{_MODEL}/ready", f"{_VERSION}/ready"),
    Page(routes=(("POST", "/v2/repository/index"),), read=_index, refuse=_refuse),
)

_TAG = "KServe v2"
_NOT_READY = {503: "The server is not ready."}
_NO_MODEL = {404: "No model has that name and version."}
OPERATIONS = (
    *(
        Operation(
            method="POST",
            path=path,
            summary="Classify texts; tensors of Triton's binary extension are taken too.",
            tag=_TAG,
            request=InferRequest,
            response=InferResponse,
            error=InferError,
            statuses={
                400: "The body is no JSON, has another form, or a text is empty.",
                **_NO_MODEL,
                413: "The body is too large.",
                422: "The request is too large.",
                429: "The server is overloaded; Retry-After says for how long.",
                500: "The model fails on this request.",
                **_NOT_READY,
                504: "There was no answer in time.",
            },
            example={
                "inputs": [
                    {
                        "name": "text",
                        "shape": [2],
                        "datatype": "BYTES",
                        "data": ["Das Paket kam zu spät an.", "Où est mon colis ?"],
                    }
                ],
                "outputs": [{"name": "label"}, {"name": "probabilities"}],
            },
        )
        for path in (f"{_MODEL}/infer", f"{_VERSION}/infer")
    ),
    *(
        Operation(
            method=method,
            path=path,
            summary=summary,
            tag=_TAG,
            response=response,
            error=InferError,
            statuses=statuses,
            is_open="health" in path,
        )
        for method, path, summary, response, statuses in (
            ("GET", "/v2", "The server's version and extensions.", ServerMetadata, {}),
            ("GET", "/v2/health/live", "Whether the server runs.", Live, {}),
            ("GET", "/v2/health/ready", "Whether it takes questions.", Ready, _NOT_READY),
            ("GET", _MODEL, "A model's tensors.", ModelMetadata, _NO_MODEL),
            ("GET", _VERSION, "A model's tensors.", ModelMetadata, _NO_MODEL),
            (
                "GET",
                f"{_MODEL}/ready",
                "Whether a model takes questions.",
                ModelReady,
                {**_NO_MODEL, **_NOT_READY},
            ),
            (
                "GET",
                f"{_VERSION}/ready",
                "Whether a model takes questions.",
                ModelReady,
                {**_NO_MODEL, **_NOT_READY},
            ),
            ("POST", "/v2/repository/index", "All models.", list[ModelState], {}),
        )
    ),
)
