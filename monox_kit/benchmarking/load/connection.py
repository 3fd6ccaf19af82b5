"""Requests over HTTP/1.1 with as little work as there can be, since the client's own time counts.

A general client costs more processor time for a request than a small model does, which on a machine
that server and client share would be measured as the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from monox_kit.errors import ConfigError
from monox_kit.foreign import shown

_MOST_HEAD_BYTES = 1 << 16
_MOST_BODY_BYTES = 1 << 28


class NoAnswer(Exception):
    """The server closed the connection, or sent what is no answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        status: of HTTP.
        headers: by name in lower case.
        body: the answer's bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Connections:
    """Connections to one server, which are kept open for the next request.

    Args:
        url: the server's address; its path stands before that of each request.
        most: how many there may be at once; a request beyond them waits.
        headers: sent with every request.
    """

    def __init__(self, url: str, most: int, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not parts.hostname or port == -1 or not url.isascii():
            raise ConfigError(
                f"`url` {shown(url)}: it names no host or no valid port. Give an address such as "
                "http://127.0.0.1:8080."
            )
        self._host, self._is_tls = parts.hostname, parts.scheme == "https"
        self._port = port or (443 if self._is_tls else 80)
        self._path = parts.path.rstrip("/")
        lines = {"Host": parts.netloc.rpartition("@")[2], **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._free: list[_Connection] = []
        self._permits = asyncio.Semaphore(most)

    async def post(self, path: str, body: bytes) -> Answered:
        """The answer to a JSON body.

        Raises:
            OSError: the server cannot be reached.
            NoAnswer: the connection ended without an answer.
        """
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        request = head.encode("latin-1") + body
        async with self._permits:
            connection = await self._free_one() or await self._opened()
            try:
                answer, is_kept = await _exchanged(connection, request)
            except BaseException:
                await _closed(connection)
                raise
            if is_kept:
                self._free.append(connection)
            else:
                await _closed(connection)
            return answer

    async def close(self) -> None:
        """Close what is open."""
        for connection in self._free:
            await _closed(connection)
        self._free.clear()

    async def _free_one(self) -> _Connection | None:
        """A connection that is open and idle; those that the server closed meanwhile go."""
        while self._free:
            connection = self._free.pop()
            if not connection.reader.at_eof():
                return connection
            await _closed(connection)
        return None

    async def _opened(self) -> _Connection:
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._is_tls or None, limit=_MOST_HEAD_BYTES
        )
        return _Connection(reader, writer)


async def _exchanged(connection: _Connection, request: bytes) -> tuple[Answered, bool]:
    """The answer, and whether the connection may be used again."""
    reader = connection.reader
    try:
        connection.writer.write(request)
        await connection.writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise NoAnswer("the server closed the connection") from error
    except asyncio.LimitOverrunError as error:
        raise NoAnswer("the answer's head has no end") from error
    try:
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body, is_whole = await _body(reader, headers, int(status))
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise NoAnswer("the answer is cut short, or none of HTTP") from error
    is_kept = is_whole and version == "HTTP/1.1" and headers.get("connection") != "close"
    return Answered(int(status), headers, body), is_kept


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], status: int
) -> tuple[bytes, bool]:
    """The body, and whether its end was told, so that another answer may follow.

    Source: RFC 9112, section 6.3.
    """
    if status in (204, 304):
        return b"", True
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader), True
    length = headers.get("content-length")
    if length is None:
        return await reader.read(_MOST_BODY_BYTES), False
    if not 0 <= int(length) <= _MOST_BODY_BYTES:
        raise ValueError(length)
    return await reader.readexactly(int(length)), True


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found: list[bytes] = []
    size = 0
    while True:
        line = await reader.readuntil(b"\r\n")
        count = int(line.split(b";")[0], 16)
        size += count
        if count < 0 or size > _MOST_BODY_BYTES:
            raise ValueError(count)
        if not count:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            return b"".join(found)
        found.append(await reader.readexactly(count))
        await reader.readexactly(2)


async def _closed(connection: _Connection) -> None:
    connection.writer.close()
    with suppress(OSError):
        await connection.writer.wait_closed()
