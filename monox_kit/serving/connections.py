"""Connections of clients: how many, and how long one may take to say what it wants.

uvicorn leaves both open: a connection that never sends a request's head stays for ever, as does one
that never reads its answers, and a head may be of any size.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEAD_BYTES = 64 * 1024
# A client that has read nothing for so many times what it may take to send a head is let go.
_READS_WITHIN = 10
# Java's HttpClient asks with each first request for HTTP/2, which a server may pass over (RFC 9110,
# section 7.8). The parser does not: it would take the body for bytes of the other protocol.
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A client's connection."""

    most_connections: int
    head_timeout_s: float
    count: Callable[[int], None]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._timer: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._seen = (0, 0)
        self._num_answered = 0
        self._is_in_head = self._is_in_body = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client in, where there is place or an idle connection to close for it."""
        super().connection_made(transport)
        self.count(len(self.connections))
        if len(self.connections) > self.most_connections and not self._close_idle():
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections.")
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._disarm()
        if self._reader is not None:
            self._reader.cancel()
        super().connection_lost(exc)
        self.count(len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is too long, or bytes that begin none, end the connection."""
        head_ends = 0 if self._is_in_body else data.find(b"\r\n\r\n")
        if _UPGRADE.search(data, 0, head_ends if head_ends >= 0 else len(data)):
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            self._require_head(self._head_bytes)
        if self._is_between_requests and self._timer is self.timeout_keep_alive_task is None:
            self._arm()

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        self._arm()

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        self._is_in_head, self._is_in_body = False, True
        self._disarm()
        # It may have come whole, and so not have been counted yet.
        self._require_head(
            len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        )
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        if self.expect_100_continue:
            # Refused before it was asked for its body, a client may leave that out: where the next
            # request begins is not known then (RFC 9110, section 10.1.1).
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of a request's body is there."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there; its answer may have gone before its body came."""
        self._is_in_body = False
        if self.transport.is_closing():
            return
        super().on_message_complete()
        if self._is_between_requests:
            self._disarm()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """An answer is written, though not read yet."""
        super().on_response_complete()
        self._num_answered += 1
        self._watch()

    @property
    def _is_between_requests(self) -> bool:
        return not self._is_in_head and (self.cycle is None or self.cycle.response_complete)

    def _close_idle(self) -> bool:
        """Close a connection that waits between two requests; False where there is none."""
        for one in self.connections:
            assert isinstance(one, Connection)  # a server has no others
            if one.timeout_keep_alive_task is not None and not one.transport.is_closing():
                one.transport.close()
                return True
        return False

    def _watch(self) -> None:
        """Look later whether the client has read any of what waits for it."""
        unread = self.transport.get_write_buffer_size()
        if self._reader is None and unread:
            self._seen = (self._num_answered, unread)
            self._reader = self.loop.call_later(_READS_WITHIN * self.head_timeout_s, self._look)

    def _look(self) -> None:
        self._reader = None
        if self._seen == (self._num_answered, self.transport.get_write_buffer_size()):
            self.transport.abort()
        else:
            self._watch()

    def _require_head(self, size: int) -> None:
        """Let a client go whose request's head has too many bytes."""
        if size > _MOST_HEAD_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's head is too long.")

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._is_in_head:
            self._end(HTTPStatus.REQUEST_TIMEOUT, "The request's head came too slowly.")
        elif self._is_between_requests and not self.transport.is_closing():
            self.transport.close()

    def _end(self, status: HTTPStatus, sentence: str) -> None:
        """Answer and close."""
        if self.transport.is_closing():
            return
        body = sentence.encode("ascii")
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def connections_of(
    most: int, head_timeout_s: float, count: Callable[[int], None]
) -> type[Connection]:
    """The class of a server's connections.

    Args:
        most: that are open at once.
        head_timeout_s: in which a request's head must be there.
        count: told how many are open.
    """
    settings = {
        "most_connections": most,
        "head_timeout_s": head_timeout_s,
        "count": staticmethod(count),
    }
    return type("Connection", (Connection,), settings)
