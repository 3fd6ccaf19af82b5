"""GET /info: what is served, in text-embeddings-inference's fields and in this server's own.

Source: router/src/lib.rs of text-embeddings-inference, `Info`. Its fields are of the model that is
served first.
"""

from __future__ import annotations

import msgspec

from monox_kit.serving.contract import (
    Kind,
    ModelFacts,
    Page,
    Refused,
    Reply,
    Request,
    ServerFacts,
)
from monox_kit.serving.protocols import tei
from monox_kit.serving.protocols.body import reply
from monox_kit.serving.protocols.operations import Operation


class Classifier(msgspec.Struct):
    """The classes by index and back."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(msgspec.Struct):
    """What the model does."""

    classifier: Classifier


class ModelInfo(msgspec.Struct):
    """A model that is served."""

    name: str
    version: str
    digest: str
    labels: list[str]
    problem_type: str
    max_length: int
    has_pairs: bool | None
    precision: str | None
    provider: str
    runtime: str
    is_calibrated: bool


class Info(msgspec.Struct):
    """What is served, and within which limits."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    max_characters: int
    payload_limit: int
    models: list[ModelInfo]
    max_batch_requests: int | None = None
    sha: str | None = None
    docker_label: str | None = None


def _model(model: ModelFacts) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        version=model.version,
        digest=model.digest,
        labels=list(model.labels.names),
        problem_type=model.labels.problem_type,
        max_length=model.max_length,
        has_pairs=model.has_pairs,
        precision=model.precision,
        provider=model.provider,
        runtime=model.runtime,
        is_calibrated=model.is_calibrated,
    )


def _info(server: ServerFacts, request: Request) -> Reply:
    first = next(iter(server.models.values()), None)
    if first is None:
        raise Refused(Kind.UNAVAILABLE, "The server is starting.")
    names = first.labels.names
    info = Info(
        model_id=first.name,
        model_sha=first.digest,
        model_dtype=first.precision or "unknown",
        served_model_name=first.name,
        model_type=ModelType(
            Classifier(
                {str(index): name for index, name in enumerate(names)},
                {name: index for index, name in enumerate(names)},
            )
        ),
        max_concurrent_requests=server.max_concurrent_requests,
        max_input_length=first.max_length,
        max_batch_tokens=server.max_batch_tokens,
        max_client_batch_size=server.max_rows,
        auto_truncate=server.truncates,
        version=server.version,
        max_characters=server.max_characters,
        payload_limit=server.max_body_bytes,
        models=[_model(one) for one in server.models.values()],
    )
    return reply(info)


PAGES = (Page(routes=(("GET", "/info"),), read=_info, refuse=tei.PROTOCOL.refuse),)

OPERATIONS = (
    Operation(
        method="GET",
        path="/info",
        summary="The models that are served, and the limits of a request.",
        tag="This server",
        response=Info,
        error=tei.PredictError,
        statuses={503: "The server is starting."},
    ),
)
