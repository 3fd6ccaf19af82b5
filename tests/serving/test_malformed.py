"""Requests that are none: refused, each by itself, without a trace; the server lives on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import NAME, Process
from tests.serving.test_process import asked, metric, post_alone, raw

_GOOD = json.dumps({"inputs": "mail"}).encode()
PATHS = ("/predict", "/", "/classify", "/v1/classify", f"/v2/models/{NAME}/infer")
_REFUSED = {400, 404, 405, 408, 411, 413, 414, 415, 422, 431, 501, 505}


def head(first: str, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([first, "host: localhost", *lines, "", ""]).encode("latin-1") + body


def heads() -> Iterator[bytes]:
    """HTTP that is wrong before any body is looked at."""
    for first in (
        "",
        "GET",
        "GET /",
        "GET / HTTP/9.9",
        "GET / HTTQ/1.1",
        "G\x00T / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "get /info HTTP/1.1",
        "BREW / HTTP/1.1",
        "GET  /info  HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET //// HTTP/1.1",
        "GET /%zz HTTP/1.1",
        "GET /%ff%fe HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET /v2/models/%2e%2e%2f%2e%2e/ready HTTP/1.1",
        "GET /v2/models/../../etc/passwd HTTP/1.1",
        "GET /" + "a" * 70_000 + " HTTP/1.1",
        "CONNECT example.org:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE / HTTP/1.1",
        "DELETE /predict HTTP/1.1",
        "PUT /v2/repository/models/%00 HTTP/1.1",
        "PUT /v2/repository/models/..%2f..%2ftmp HTTP/1.1",
        "PRI * HTTP/2.0",
    ):
        yield head(first)
    for line in (
        "no colon",
        ": nothing",
        "a b: c",
        "x: \x00",
        "content-length: -1",
        "content-length: 1e3",
        "content-length: ١٢".encode().decode("latin-1"),
        "content-length: 99999999999999999999999",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip",
        "x: " + "a" * 70_000,
        "\r\n".join(f"x-{number}: {'a' * 40}" for number in range(1500)),
    ):
        yield head("POST /predict HTTP/1.1", line, body=_GOOD[:4])
    for chunks in (
        b"zz\r\n",
        b"-1\r\n",
        b"ffffffffffffffffff\r\n",
        b"4;" + b"x" * 70_000 + b"\r\n",
    ):
        yield head("POST /predict HTTP/1.1", "transfer-encoding: chunked", body=chunks)


def bodies() -> Iterator[bytes]:
    """Bodies that no protocol takes."""
    yield from (
        b"",
        b"\x00",
        b"null",
        b"0",
        b'"',
        b"[",
        b"{}",
        b"[]",
        b'{"inputs"',
        b'{"inputs": "a",}',
        b'{"inputs": null}',
        b'{"inputs": 1e999}',
        b'{"inputs": {"a": 1}}',
        b'{"inputs": [[[["a"]]]]}',
        b'{"inputs": [["a", "b", "c"]]}',
        b'{"inputs": "\xff\xfe"}',
        b'{"inputs": "\\ud800"}',
        b'{"inputs": "\\x"}',
        b'{"inputs": "a"}' * 2,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b'{"inputs": [{"name": "text", "shape": [99999999999], "datatype": "BYTES", "data": []}]}',
        b'{"inputs": [{"name": "text", "shape": [-1], "datatype": "BYTES", "data": ["a"]}]}',
        b'{"input": [1, 2, 3]}',
        b'{"input": "a", "truncate_prompt_tokens": -7, "model": "../../etc/passwd"}',
    )


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Process]:
    process = Process(f"{NAME}={bundle}", "--sender-timeout-s", "0.3")
    yield process
    process.kill()


def status(server: Process, content: bytes) -> int | None:
    """The status of the answer; None where the server closed without any."""
    try:
        opened = raw(server, content)
    except (ConnectionError, BrokenPipeError):
        return None
    with opened:
        try:
            begin = opened.recv(12)
        except ConnectionResetError:
            return None
    return int(begin[9:12]) if begin else None


def test_malformed_requests_are_refused_and_the_server_lives_on(server: Process) -> None:
    cases = [(content, None) for content in heads()]
    cases += [
        (head(f"POST {path} HTTP/1.1", f"content-length: {len(body)}", body=body), path)
        for path in PATHS
        for body in bodies()
    ]
    assert len(cases) >= 80
    wrong = []
    for content, path in cases:
        found = status(server, content)
        allowed = {None, 200, *_REFUSED} if path is None else _REFUSED
        if found not in allowed:
            wrong.append((found, path, content[:120]))
    assert wrong == []
    assert post_alone(server, {"inputs": "mail"})[0] == 200
    assert metric(server, "monoxkit_requests_held") == 0
    assert (
        metric(server, 'monoxkit_requests_total{language="und",model="-",protocol="tei",status="5')
        == 0
    )


def test_nothing_of_the_code_stands_in_an_answer(server: Process) -> None:
    for path in PATHS:
        for body in (b"[", b"{}", b'{"inputs": 5, "input": 5}'):
            content = (
                asked(None, path)
                .split(b"\r\n\r\n")[0]
                .replace(b"content-length: 4", b"content-length: %d" % len(body))
            )
            with raw(server, content + b"\r\n\r\n" + body) as opened:
                answer = opened.recv(65536).decode()
            assert answer.startswith("HTTP/1.1 4"), answer
            for part in ("Traceback", ".py", "monox_kit", "msgspec", "site-packages"):
                assert part not in answer, answer
