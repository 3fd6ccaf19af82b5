"""A request's body, read within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from monox_kit.serving.contract import Kind, Refused

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

# A client that sends too much reads no answer before it has sent all: so many times the limit is
# read and thrown away. Whoever sends more finds the connection closed.
_DISCARDED = 4


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def read_body(
    receive: Receive, headers: Mapping[str, str], most_bytes: int, timeout_s: float
) -> bytes:
    """The body of a request.

    Args:
        receive: ASGI's.
        headers: by lower-case name.
        most_bytes: that it may have.
        timeout_s: in which it must be there.

    Raises:
        Refused: it is too large, or its sender too slow.
        ClientGone: the client went away.
    """
    declared = headers.get("content-length", "")
    is_large = declared.isascii() and declared.isdigit() and int(declared) > most_bytes
    too_large = Refused(Kind.BODY_TOO_LARGE, f"The body has more than {most_bytes} bytes.")
    if is_large and headers.get("expect", "").lower() == "100-continue":
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                is_large = is_large or size > most_bytes
                if is_large:
                    parts.clear()
                else:
                    parts.append(part)
                if not message.get("more_body", False) or size > _DISCARDED * most_bytes:
                    break
    except TimeoutError:
        raise Refused(
            Kind.TOO_SLOW, f"The body was not there within {timeout_s:g} s. Send it faster."
        ) from None
    if is_large:
        raise too_large
    return b"".join(parts)
