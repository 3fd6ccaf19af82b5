"""The server as an ASGI application: requests through limits and keys to protocols and engines."""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match, Route

from monox_kit.errors import MonoxError
from monox_kit.serving.bodies import ClientGone, Message, Receive, read_body
from monox_kit.serving.contract import (
    Answer,
    Decoded,
    Kind,
    Page,
    Protocol,
    Refused,
    Reply,
    Request,
    ServerFacts,
)
from monox_kit.serving.engine import Engine
from monox_kit.serving.protocols import PAGES, PROTOCOLS
from monox_kit.serving.site import Site

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# Of W3C's Trace Context, version 1, section 3.2.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,6}")
# nginx's status for it; nobody receives it.
_CLIENT_GONE = 499
_NO_MODEL = "-"
_NOT_BY_THAT_METHOD = 405


def build_app(site: Site) -> Starlette:
    """The application of a site, whose models answer between its start-up and its shut-down."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        site.start()
        yield
        await site.close()

    routes = [
        Route(path, endpoint=_Asked(site, protocol), methods=[method])
        for protocol in PROTOCOLS
        for method, path in protocol.routes
    ]
    routes += [
        Route(path, endpoint=_Read(site, page), methods=[method])
        for page in (*_own_pages(site), *PAGES)
        for method, path in page.routes
    ]
    routes += [
        Route("/v2/repository/models/{model}", endpoint=_Swapped(site), methods=["PUT"]),
        Route("/v2/repository/models/{model}/load", endpoint=_Swapped(site), methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """What every route shares: a reply whatever happens, counted and sent."""

    name = "pages"

    def __init__(self, site: Site) -> None:
        self.site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless its client goes away."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        asked = _Request(scope, headers)
        try:
            reply = await self.reply(asked, receive)
        except ClientGone:
            self._count(asked, _CLIENT_GONE)
            return
        except Refused as refused:
            reply = self._refused(refused)
        except asyncio.CancelledError:
            if not self.site.is_ending:
                raise
            reply = self._refused(Refused(Kind.UNAVAILABLE, "The server has ended."))
        except Exception:
            self.site.tell(f"{scope['path']}: unexpected\n{traceback.format_exc()}")
            reply = self._refused(Refused(Kind.BACKEND, "The server failed on this request."))
        self._count(asked, reply.status)
        await _send(send, reply, self._more_headers(asked))

    async def reply(self, asked: _Request, receive: Receive) -> Reply:
        """The reply to a request.

        Raises:
            Refused: there is none.
            ClientGone: nobody waits for one.
        """
        raise NotImplementedError

    def refuse(self, refused: Refused) -> Reply:
        """A refusal in the route's form."""
        return _refuse(refused)

    async def body(self, asked: _Request, receive: Receive) -> bytes:
        """The request's body."""
        config = self.site.config
        return await read_body(
            receive, asked.headers, config.max_body_bytes, config.sender_timeout_s
        )

    def _refused(self, refused: Refused) -> Reply:
        reply = self.refuse(refused)
        more = {}
        if refused.kind in (Kind.BODY_TOO_LARGE, Kind.TOO_SLOW):
            more["connection"] = "close"
        if refused.kind is Kind.UNAUTHORIZED:
            more["www-authenticate"] = "Bearer"
        if refused.retry_after_s is not None:
            # RFC 9110 has whole seconds; clients of OpenAI's services read the other one too.
            more["retry-after"] = str(max(1, -int(-refused.retry_after_s // 1)))
            more["retry-after-ms"] = str(round(1000 * refused.retry_after_s))
        return replace(reply, headers={**reply.headers, **more})

    def _more_headers(self, asked: _Request) -> dict[str, str]:
        more = {}
        traceparent = asked.headers.get("traceparent", "")
        if _TRACEPARENT.fullmatch(traceparent):
            more["traceparent"] = traceparent
        if self.site.is_ending:
            more["connection"] = "close"  # the next request goes to another server
        return more

    def _count(self, asked: _Request, status: int) -> None:
        self.site.metrics.count_request(self.name, asked.model, asked.language, status)


class _Request:
    """A request on its way through an endpoint, with what is known of it so far.

    Attributes:
        scope: ASGI's.
        headers: by lower-case name.
        model: that is asked.
        language: of its texts.
    """

    def __init__(self, scope: Scope, headers: Mapping[str, str]) -> None:
        self.scope, self.headers = scope, headers
        self.model = _NO_MODEL
        self.language: str | None = None

    def of(self, body: bytes = b"") -> Request:
        """What a protocol sees."""
        path: Mapping[str, str] = self.scope.get("path_params", {})
        return Request(body=body, headers=self.headers, path=path)


class _Asked(_Endpoint):
    """A route of a protocol."""

    def __init__(self, site: Site, protocol: Protocol) -> None:
        super().__init__(site)
        self._protocol, self.name = protocol, protocol.name

    def refuse(self, refused: Refused) -> Reply:
        """A refusal in the protocol's form."""
        return self._protocol.refuse(refused)

    async def reply(self, asked: _Request, receive: Receive) -> Reply:
        """What a model says, in the protocol's form."""
        begun = time.perf_counter()
        self.site.require_key(asked.headers)
        self.site.require_place()
        with self.site.admission.permit():
            body = await self.body(asked, receive)
            decoded = self._decoded(asked, body)
            engine = self.site.engine(decoded.model)
            asked.model = engine.facts.name
            asked.language = decoded.question.language
            answer = await self._answer(engine, decoded, receive)
        reply = self._protocol.encode(decoded.options, answer)
        self.site.metrics.count_answer(answer, time.perf_counter() - begun)
        return reply

    def _decoded(self, asked: _Request, body: bytes) -> Decoded:
        decoded = self._protocol.decode(asked.of(body))
        language = asked.headers.get("content-language", "").partition(",")[0].strip()
        if decoded.question.language is None and _LANGUAGE.fullmatch(language):
            decoded = replace(decoded, question=replace(decoded.question, language=language))
        return decoded

    async def _answer(self, engine: Engine, decoded: Decoded, receive: Receive) -> Answer:
        """What the engine says, unless the client goes away before."""
        task = asyncio.current_task()
        assert task is not None  # an application runs in one
        is_gone = False

        def leave(_: object) -> None:
            nonlocal is_gone
            is_gone = True
            task.cancel()

        # The body has been read: what comes now is that the connection was closed.
        watch = asyncio.ensure_future(receive())
        watch.add_done_callback(leave)
        try:
            return await engine.answer(decoded.question, self.site.admission)
        except asyncio.CancelledError:
            if not is_gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            watch.remove_done_callback(leave)
            watch.cancel()


class _Read(_Endpoint):
    """A route of a page."""

    def __init__(self, site: Site, page: Page) -> None:
        super().__init__(site)
        self._page = page

    def refuse(self, refused: Refused) -> Reply:
        """A refusal in the form of the page's protocol."""
        return self._page.refuse(refused)

    async def reply(self, asked: _Request, receive: Receive) -> Reply:
        """The page."""
        if not self._page.is_open:
            self.site.require_key(asked.headers)
        body = b""
        if asked.scope["method"] == "POST":
            body = await self.body(asked, receive)
        return self._page.read(self.site.facts, asked.of(body))


class _Swapped(_Endpoint):
    """The route that swaps a bundle."""

    async def reply(self, asked: _Request, receive: Receive) -> Reply:
        """Which bundle is served now."""
        self.site.require_key(asked.headers)
        await self.body(asked, receive)
        name = self.site.engine(asked.scope["path_params"]["model"]).facts.name
        try:
            is_other = await self.site.swap(name)
        except MonoxError as error:
            self.site.tell(f"{name}: the bundle that is served stays: {error}")
            raise Refused(
                Kind.INVALID, "The bundle cannot be served; the server's log says why."
            ) from None
        version = self.site.engine(name).facts.version
        return _json({"name": name, "version": version, "swapped": is_other})


def _own_pages(site: Site) -> tuple[Page, ...]:
    """What is read of the server itself."""

    def live(server: ServerFacts, request: Request) -> Reply:
        return _json({"live": True})

    def ready(server: ServerFacts, request: Request) -> Reply:
        return _json({"ready": server.is_ready}, 200 if server.is_ready else 503)

    def metrics(server: ServerFacts, request: Request) -> Reply:
        return site.metrics.page()

    return (
        Page(routes=(("GET", "/health/live"),), read=live, refuse=_refuse, is_open=True),
        Page(routes=(("GET", "/health/ready"),), read=ready, refuse=_refuse, is_open=True),
        Page(routes=(("GET", "/metrics"),), read=metrics, refuse=_refuse),
    )


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(body=json.dumps(value).encode(), status=status)


def _refuse(refused: Refused) -> Reply:
    return _json({"error": refused.message}, refused.kind.status)


async def _send(send: Send, reply: Reply, more: Mapping[str, str]) -> None:
    headers = {**reply.headers, "content-length": str(len(reply.body)), **more}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    await send({"type": "http.response.body", "body": reply.body})


async def _no_route(request: HttpRequest, error: Exception) -> Response:
    """The answer where there is no such path, or not by that method."""
    assert isinstance(error, HTTPException)
    reply = _json({"error": f"{error.detail}."}, error.status_code)
    headers = {**reply.headers, **(dict(error.headers or {}))}
    if error.status_code == _NOT_BY_THAT_METHOD:
        # Starlette names the methods of one route, and a path may have several.
        found = [one for one in request.app.routes if one.matches(request.scope)[0] != Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for one in found for method in one.methods}))
    return Response(reply.body, reply.status, headers=headers)
