"""What can be read under /v2 without a question: health, the server, its models.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; of Triton
docs/protocol/extension_model_repository.md (the index).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from monox_kit.serving.contract import ModelFacts, Page, Reply, Request, ServerFacts
from monox_kit.serving.protocols.body import reply
from monox_kit.serving.protocols.kserve import (
    MODEL,
    NO_MODEL,
    NOT_READY,
    OUTPUTS,
    PAIR,
    PROTOCOL,
    TAG,
    TEXT,
    VERSION,
    InferError,
    no_model,
)
from monox_kit.serving.protocols.operations import Operation

_PLATFORM = "onnx_onnxv1"


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
        raise no_model(name, version)
    return model


def _model_ready(server: ServerFacts, request: Request) -> Reply:
    model = _found(server, request)
    return reply(ModelReady(model.name, server.is_ready), status=200 if server.is_ready else 503)


def _model(server: ServerFacts, request: Request) -> Reply:
    model = _found(server, request)
    inputs = [TensorMetadata(TEXT, "BYTES", [-1])]
    if model.has_pairs is not False:
        inputs.append(TensorMetadata(PAIR, "BYTES", [-1]))
    classes = len(model.labels)
    outputs = [
        TensorMetadata(name, one.datatype, [-1, classes] if one.is_of_classes else [-1])
        for name, one in OUTPUTS.items()
    ]
    return reply(ModelMetadata(model.name, [model.version], _PLATFORM, inputs, outputs))


def _index(server: ServerFacts, request: Request) -> Reply:
    return reply([ModelState(one.name, one.version, "READY") for one in server.models.values()])


def _page(read_page: Callable[[ServerFacts, Request], Reply], *paths: str, **more: Any) -> Page:
    routes = tuple(("GET", path) for path in paths)
    return Page(routes=routes, read=read_page, refuse=PROTOCOL.refuse, **more)


PAGES = (
    _page(_server, "/v2"),
    _page(_live, "/v2/health/live", is_open=True),
    _page(_ready, "/v2/health/ready", is_open=True),
    _page(_model, MODEL, VERSION),
    _page(_model_ready, f"{MODEL}/ready", f"{VERSION}/ready"),
    Page(routes=(("POST", "/v2/repository/index"),), read=_index, refuse=PROTOCOL.refuse),
)


OPERATIONS = (
    *(
        Operation(
            method=method,
            path=path,
            summary=summary,
            tag=TAG,
            response=response,
            error=InferError,
            statuses=statuses,
            is_open="health" in path,
        )
        for method, path, summary, response, statuses in (
            ("GET", "/v2", "The server's version and extensions.", ServerMetadata, {}),
            ("GET", "/v2/health/live", "Whether the server runs.", Live, {}),
            ("GET", "/v2/health/ready", "Whether it takes questions.", Ready, NOT_READY),
            ("GET", MODEL, "A model's tensors.", ModelMetadata, NO_MODEL),
            ("GET", VERSION, "A model's tensors.", ModelMetadata, NO_MODEL),
            (
                "GET",
                f"{MODEL}/ready",
                "Whether a model takes questions.",
                ModelReady,
                {**NO_MODEL, **NOT_READY},
            ),
            (
                "GET",
                f"{VERSION}/ready",
                "Whether a model takes questions.",
                ModelReady,
                {**NO_MODEL, **NOT_READY},
            ),
            ("POST", "/v2/repository/index", "All models.", list[ModelState], {}),
        )
    ),
)
