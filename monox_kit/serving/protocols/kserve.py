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
    Protocol,
    Question,
    Refused,
    Reply,
    Request,
    Row,
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

TEXT, PAIR = "text", "text_pair"


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


OUTPUTS: dict[str, _Output] = {
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

    name: Annotated[str, Meta(extra_json_schema={"enum": list(OUTPUTS)})]
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
    if sorted(names) not in ([TEXT], [TEXT, PAIR]):
        raise Refused(
            Kind.INVALID,
            f"`inputs`: expected the tensor {TEXT}, and {PAIR} for pairs; found "
            f"{', '.join(names[:4])[:80] or 'none'}.",
        )
    columns = dict(zip(names, texts_of(inputs, rest), strict=True))
    texts = columns[TEXT]
    pairs = columns.get(PAIR)
    if pairs is None:
        return tuple(texts)
    if len(pairs) != len(texts):
        raise Refused(
            Kind.INVALID,
            f"`inputs`: {TEXT} has {len(texts)} elements and {PAIR} {len(pairs)}. Give as many.",
        )
    return tuple(zip(texts, pairs, strict=True))


def _wanted(asked: list[RequestedOutput], is_binary: bool) -> tuple[_Wanted, ...]:
    found: list[_Wanted] = []
    for one in asked or [RequestedOutput(name) for name in OUTPUTS]:
        output = OUTPUTS.get(one.name)
        if output is None:
            raise Refused(
                Kind.INVALID,
                f"`outputs`: there is no output {one.name[:40]!a}, but {', '.join(OUTPUTS)}.",
            )
        # Answers may be as long as the outputs are many, and nobody needs one twice.
        if any(one.name == other.name for other in found):
            raise Refused(
                Kind.INVALID, f"`outputs`: {one.name} is named twice. Leave out one of them."
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
        raise no_model(model.name, options.version)
    require_finite(answer.logits)
    require_finite(answer.probabilities)
    tensors, binary = written_tensors(
        (
            one.name,
            "BYTES" if one.num_classes else OUTPUTS[one.name].datatype,
            _classes(one, answer) if one.num_classes else OUTPUTS[one.name].values(answer),
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
    scores = ranked(names, OUTPUTS[wanted.name].values(answer), wanted.num_classes)
    return [[f"{one.score:.6f}:{places[one.label]}:{one.label}" for one in row] for row in scores]


def no_model(name: str, version: str | None) -> Refused:
    """The refusal of a model, or of a version, that is not served."""
    what = name[:80] if version is None else f"{name[:80]} in version {version[:40]}"
    return Refused(Kind.NOT_FOUND, f"There is no model {what!a}.")


def _refuse(refused: Refused) -> Reply:
    return reply(InferError(refused.message), status=refused.kind.status)


MODEL = "/v2/models/{model}"
VERSION = f"{MODEL}/versions/{{version}}"
PROTOCOL = Protocol(
    name="kserve",
    routes=(("POST", f"{MODEL}/infer"), ("POST", f"{VERSION}/infer")),
    decode=_decode,
    encode=_encode,
    refuse=_refuse,
)


TAG = "KServe v2"
NOT_READY = {503: "The server is not ready."}
NO_MODEL = {404: "No model has that name and version."}
OPERATIONS = (
    *(
        Operation(
            method="POST",
            path=path,
            summary="Classify texts; tensors of Triton's binary extension are taken too.",
            tag=TAG,
            request=InferRequest,
            response=InferResponse,
            error=InferError,
            statuses={
                400: "The body is no JSON, has another form, or a text is empty.",
                **NO_MODEL,
                413: "The body is too large.",
                422: "The request is too large.",
                429: "The server is overloaded; Retry-After says for how long.",
                500: "The model fails on this request.",
                **NOT_READY,
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
        for path in (f"{MODEL}/infer", f"{VERSION}/infer")
    ),
)
