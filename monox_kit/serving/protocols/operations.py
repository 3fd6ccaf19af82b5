"""What a route takes and gives, for the OpenAPI document; each protocol lists its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """A route as the document describes it.

    Attributes:
        method: of HTTP, in capitals.
        path: with its parameters in braces.
        summary: one sentence.
        tag: the protocol's name for people.
        request: type of the JSON body; None without one.
        response: type of the answer's JSON body, or several of which it has one; None for one
            that is no JSON.
        media_type: of an answer that is no JSON.
        error: type of the body of a refusal; None where nothing is refused.
        statuses: what refusals there are, by status.
        example: a body that works with any model.
        is_open: whether it needs no key.
    """

    method: str
    path: str
    summary: str
    tag: str
    request: Any = None
    response: Any = None
    media_type: str = "application/json"
    error: Any = None
    statuses: Mapping[int, str] = field(default_factory=dict)
    example: Any = None
    is_open: bool = False
