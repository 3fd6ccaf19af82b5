"""GET /openapi.json: the document, made of the structs that read and write the bodies.

Source: OpenAPI 3.1.1, whose schemas are JSON Schema 2020-12, as `msgspec.json.schema_components`
gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from monox_kit.serving.contract import Page, Reply, Request, ServerFacts
from monox_kit.serving.protocols import classify, hugging_face, info, kserve, kserve_pages, tei
from monox_kit.serving.protocols.body import reply
from monox_kit.serving.protocols.operations import Operation


class Swapped(msgspec.Struct):
    """What the app itself says of a bundle that was read again."""

    name: str
    version: str
    swapped: bool


# What the app itself answers, and the pages of people.
_OWN = (
    *(
        Operation(
            method="GET",
            path=path,
            summary=summary,
            tag="This server",
            media_type=media_type,
            is_open=path == "/",
        )
        for path, summary, media_type in (
            ("/", "A page to try the models.", "text/html"),
            ("/docs", "This document, for people.", "text/html"),
            ("/openapi.json", "This document.", "application/json"),
        )
    ),
    *(
        Operation(
            method=method,
            path=path,
            summary="Put what stands in the model's folder now in its place, if it is another.",
            tag="This server",
            response=Swapped,
            error=kserve.InferError,
            statuses={400: "The bundle cannot be served.", 404: "No model has that name."},
        )
        for method, path in (
            ("PUT", "/v2/repository/models/{model}"),
            ("POST", "/v2/repository/models/{model}/load"),
        )
    ),
    Operation(
        method="GET",
        path="/health/live",
        summary="Whether the server runs.",
        tag="This server",
        response=kserve_pages.Live,
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/health/ready",
        summary="Whether the server takes questions.",
        tag="This server",
        response=kserve_pages.Ready,
        error=kserve_pages.Ready,
        statuses={503: "The server is not ready."},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        summary="Figures of the server, as Prometheus reads them.",
        tag="This server",
        media_type="text/plain",
    ),
)
OPERATIONS: tuple[Operation, ...] = (
    *tei.OPERATIONS,
    *hugging_face.OPERATIONS,
    *kserve.OPERATIONS,
    *kserve_pages.OPERATIONS,
    *classify.OPERATIONS,
    *info.OPERATIONS,
    *_OWN,
)


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        version: of monoxkit.
    """
    types = list(_types())
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    known = [(one, schema) for one, schema in zip(types, schemas, strict=True)]

    def schema_of(wanted: Any) -> dict[str, Any]:
        return next(schema for one, schema in known if one == wanted)

    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema_of)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "monoxkit serve",
            "version": version,
            "description": "Texts in, labels with probabilities out, in the forms of several "
            "servers.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types() -> Iterator[Any]:
    """Each type of a body once."""
    found: list[Any] = []
    for one in OPERATIONS:
        for each in (one.request, *_responses(one), one.error):
            if each is not None and each not in found:
                found.append(each)
                yield each


def _operation(one: Operation, schema_of: Any) -> dict[str, Any]:
    """What the document says of a route."""
    words = [word for word in re.split(r"[/{}]", one.path) if word]
    described: dict[str, Any] = {
        "operationId": "_".join([one.method.lower(), *words]),
        "summary": one.summary,
        "tags": [one.tag],
        "responses": {"200": _answer(one, schema_of)},
    }
    parameters = re.findall(r"{(\w+)}", one.path)
    if parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ]
    if one.request is not None:
        content: dict[str, Any] = {"schema": schema_of(one.request)}
        if one.example is not None:
            content["example"] = one.example
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": content},
        }
    for status, meaning in one.statuses.items():
        refusal: dict[str, Any] = {"description": meaning}
        if one.error is not None:
            refusal["content"] = {"application/json": {"schema": schema_of(one.error)}}
        described["responses"][str(status)] = refusal
    if not one.is_open:
        # No key is needed either where the server runs without keys.
        described["security"] = [{}, {"key": []}]
        described["responses"].setdefault("401", {"description": "The key is missing or wrong."})
    return described


def _answer(one: Operation, schema_of: Any) -> dict[str, Any]:
    found = [schema_of(each) for each in _responses(one)]
    if not found and one.media_type == "application/json":
        return {"description": "Done."}
    schema = {"anyOf": found} if len(found) > 1 else next(iter(found), {"type": "string"})
    return {"description": "The answer.", "content": {one.media_type: {"schema": schema}}}


def _responses(one: Operation) -> tuple[Any, ...]:
    """The types of the answer's body."""
    if one.response is None:
        return ()
    return one.response if isinstance(one.response, tuple) else (one.response,)


@cache
def _written(version: str) -> Reply:
    return reply(document(version))


def _read(server: ServerFacts, request: Request) -> Reply:
    return _written(server.version)


PAGES: Sequence[Page] = (
    Page(routes=(("GET", "/openapi.json"),), read=_read, refuse=hugging_face.PROTOCOL.refuse),
)
