"""Requests that a browser sends to a server of this machine for somebody else's page.

A server on the loopback address asks for no key, because only this machine reaches it. A browser on
this machine reaches it too, and runs the code of whatever page is open: that code may send requests
across sites, or have the name of its own site point to this machine and then read the answers too
(DNS rebinding). Neither can hide the name that it was called by.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from monox_kit.serving.bodies import Message, Receive
from monox_kit.serving.config import ServeConfig, is_loopback

_REFUSAL = json.dumps(
    {
        "error": "A server without keys on the loopback address takes requests to an address of "
        "this machine alone, and none of other sites' pages. Ask localhost, or start it with "
        "--keys or --without-keys."
    }
).encode()

App = Callable[[Any, Receive, Callable[[Message], Awaitable[None]]], Awaitable[None]]


def guarded(app: App, config: ServeConfig) -> App:
    """The application, behind a check of `Host` and `Origin` where nothing else keeps pages out.

    Args:
        app: ASGI's.
        config: of the server.
    """
    if config.keys is not None or config.without_keys or not is_loopback(config.host):
        return app

    async def guard(scope: Any, receive: Receive, send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "http" or is_of_this_machine(scope["headers"]):
            await app(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(_REFUSAL)).encode()),
        ]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})

    return guard


def is_of_this_machine(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request names an address of this machine, and comes from no page but ours.

    Args:
        headers: ASGI's; those without `Host` are no browser's.
    """
    hosts = {value.decode("latin-1").lower() for name, value in headers if name == b"host"}
    pages = {value.decode("latin-1").lower() for name, value in headers if name == b"origin"}
    return all(map(_is_own_name, hosts)) and all(
        page.partition("://")[2] in hosts for page in pages
    )


def _is_own_name(host: str) -> bool:
    """Whether a name is one that no site has: an address, or a name of the loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return is_loopback(name) or name.endswith(".localhost")
    return True
