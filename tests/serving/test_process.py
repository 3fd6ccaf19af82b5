"""`monoxkit serve` as a process: signals, clients that leave, linger or come in crowds."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.errors import ConfigError
from monox_kit.serving import run
from monox_kit.serving.config import ServeConfig
from tests.serving.conftest import MAX_LENGTH, NAME, Process, long_text, texts

ROWS = texts(32)
SLOW = {"inputs": [[f"{long_text(30)} {number}"] for number in range(64)]}


def connection(server: Process, timeout_s: float = 60.0) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=timeout_s)


def raw(server: Process, content: bytes) -> socket.socket:
    """A connection on which some bytes were sent."""
    address = urlsplit(server.url)
    opened = socket.create_connection((address.hostname, address.port), timeout=30)
    opened.sendall(content)
    return opened


def received(opened: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    with opened:
        while part := opened.recv(65536):
            parts.append(part)
    return b"".join(parts)


def asked(body: Any, path: str = "/predict", **headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def post(
    link: http.client.HTTPConnection, body: Any, path: str = "/predict"
) -> tuple[int, Any, Any]:
    link.request("POST", path, json.dumps(body))
    answer = link.getresponse()
    return answer.status, answer.headers, json.loads(answer.read())


def post_alone(server: Process, body: Any) -> tuple[int, Any, Any]:
    """The answer on a connection of its own."""
    link = connection(server)
    try:
        return post(link, body)
    finally:
        link.close()


def metric(server: Process, name: str) -> float:
    link = connection(server)
    link.request("GET", "/metrics")
    lines = link.getresponse().read().decode().splitlines()
    link.close()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


class Load:
    """Clients that ask one after the other until they are told to close, or the test ends."""

    def __init__(self, server: Process, clients: int) -> None:
        self.answers: list[tuple[int, Any, Any]] = []
        self.lost: list[BaseException] = []
        self.is_over = threading.Event()
        self._server = server
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        link = connection(self._server)
        try:
            while not self.is_over.is_set():
                body = SLOW if number % 4 == 0 else {"inputs": [[ROWS[number % len(ROWS)]]]}
                answer = post(link, body)
                self.answers.append(answer)
                if answer[1].get("connection") == "close":
                    return
        except BaseException as error:
            self.lost.append(error)
        finally:
            link.close()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()


def test_sigterm_ends_the_server_once_it_has_answered_everybody(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(f"{NAME}={bundle}", "--max-wait-s", "3")
    load = Load(server, 12)
    wait_until(lambda: len(load.answers) > 40)
    probe = connection(server)
    server.send(signal.SIGTERM)
    statuses = set()
    for _ in range(8):
        probe.request("GET", "/health/ready")
        answer = probe.getresponse()
        statuses.add(answer.status)
        answer.read()
        probe.close()
        time.sleep(0.05)
    assert 503 in statuses
    load.join()
    code, summary = server.end()
    assert (code, load.lost) == (0, [])
    assert {status for status, *_ in load.answers} == {200}
    assert summary["ended_by"] == "SIGTERM"
    # Beside these there are the probes' answers.
    assert sum(summary["answered"].values()) >= len(load.answers)
    assert set(summary["answered"]) <= {"200", "503"}


def test_sigint_ends_an_idle_server_at_once(started: Callable[..., Process], bundle: Path) -> None:
    # Drained, it would outlast the test.
    server = started(str(bundle), "--drain-s", "600", "--shutdown-s", "700")
    idle = raw(server, b"")
    # One that the system alone has taken yet would be reset.
    wait_until(lambda: metric(server, "monoxkit_connections") == 2)
    server.send(signal.SIGINT)
    code, summary = server.end()
    assert (code, summary["ended_by"]) == (0, "SIGINT")
    assert received(idle) == b""


def test_bundles_swapped_under_load_lose_no_answer(
    started: Callable[..., Process], own_bundle: Path, bundle: Path, other_bundle: Path
) -> None:
    server = started(f"{NAME}={own_bundle}", "--max-wait-s", "3")
    load = Load(server, 6)
    for number, source in enumerate((other_bundle, bundle, other_bundle)):
        wait_until(lambda enough=30 * (number + 1): len(load.answers) > enough)
        incoming = own_bundle.with_name(f"incoming-{number}")
        shutil.copytree(source, incoming)
        own_bundle.rename(own_bundle.with_name(f"old-{number}"))
        incoming.rename(own_bundle)
        server.send(signal.SIGHUP)
        assert "is served in place of" in server.wait_for_note(NAME)
    load.is_over.set()
    load.join()
    assert load.lost == []
    assert {status for status, *_ in load.answers} == {200}
    possible = [mk.load(str(one)).probabilities(ROWS) for one in (bundle, other_bundle)]
    labels = mk.load(str(bundle)).labels.names
    for _, _, found in load.answers:
        if len(found) == 1:
            scores = {one["label"]: one["score"] for one in found[0]}
            row = np.array([scores[label] for label in labels])
            assert min(float(np.abs(each - row).max(axis=1).min()) for each in possible) <= 1e-4
    assert metric(server, "monoxkit_requests_held") == 0


def test_an_overloaded_server_answers_everybody_and_recovers(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--max-wait-s", "0.002", "--threads", "1")
    load = Load(server, 16)
    wait_until(
        lambda: {200, 429} <= {status for status, *_ in load.answers} and len(load.answers) > 200
    )
    load.is_over.set()
    load.join()
    assert load.lost == []
    assert {status for status, *_ in load.answers} == {200, 429}
    for status, headers, body in load.answers:
        if status == 429:
            assert int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) >= 2
            assert body["error_type"] == "Overloaded"
    wait_until(lambda: metric(server, "monoxkit_requests_held") == 0)
    assert metric(server, "monoxkit_queue_tokens") == 0
    # On a busy machine the event loop alone is later than 2 ms now and then.
    wait_until(lambda: post_alone(server, {"inputs": "mail"})[0] == 200)


def test_the_work_of_clients_that_left_is_dropped(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--max-wait-s", "100", "--timeout-s", "60", "--shutdown-s", "90")
    for _ in range(40):
        raw(server, asked(SLOW)).close()
    wait_until(lambda: metric(server, "monoxkit_requests_held") == 0)
    gone = metric(server, 'monoxkit_requests_total{language="und",model="bundle",protocol="tei",s')
    assert gone == 40
    assert metric(server, "monoxkit_queue_tokens") == 0
    # Half a request, too.
    raw(server, asked(SLOW)[:200]).close()
    wait_until(lambda: metric(server, "monoxkit_requests_held") == 0)
    assert post_alone(server, {"inputs": "mail"})[0] == 200


def slow_heads() -> Iterator[tuple[bytes, bytes]]:
    """What is sent and no more, and how the answer begins; nothing where there is none."""
    whole = asked({"inputs": "mail"})
    yield b"", b""
    yield b"\r\n", b""
    yield whole[:30], b"HTTP/1.1 408"
    yield whole[:-3], b"HTTP/1.1 408"
    yield b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, b"HTTP/1.1 431"
    yield b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 431"
    yield b"\x16\x03\x01\x02\x00nonsense\r\n\r\n", b"HTTP/1.1 400"


def test_senders_that_are_slow_or_send_no_request_are_let_go(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--sender-timeout-s", "0.5")
    for content, begins in slow_heads():
        answer = received(raw(server, content))
        assert answer[: len(begins)] == begins and bool(answer) is bool(begins), content[:30]
    # Behind a whole request, too, on the connection that it left open.
    lingering = raw(server, asked({"inputs": "mail"}) + b"POST /pred")
    answers = received(lingering)
    assert answers.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 408" in answers
    assert metric(server, "monoxkit_connections") == 1
    assert server.told and not any("Traceback" in line for line in server.told)


def test_a_client_that_reads_nothing_is_let_go(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--sender-timeout-s", "0.1")
    address = urlsplit(server.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((address.hostname, address.port))
        # More than the system keeps for it.
        deaf.sendall(b"GET /docs HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000)
        assert metric(server, "monoxkit_connections") == 2
        wait_until(lambda: metric(server, "monoxkit_connections") == 1)


def test_a_connection_outlives_an_answer_that_did_not_wait_for_the_body(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--sender-timeout-s", "0.3")
    link = connection(server)
    link.putrequest("POST", "/absent")
    link.putheader("content-length", "4")
    link.endheaders()
    answer = link.getresponse()
    assert (answer.status, answer.getheader("connection")) == (404, None)
    answer.read()
    opened = link.sock
    opened.sendall(b"late")
    time.sleep(1)  # more than a head may take, less than an idle connection may
    assert post(link, {"inputs": "mail"})[0] == 200
    assert link.sock is opened
    link.close()


def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle))
    java = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAA"}
    link = connection(server)
    link.request("POST", "/predict", json.dumps({"inputs": "mail"}), java)
    answer = link.getresponse()
    assert (answer.status, bool(json.loads(answer.read()))) == (200, True)
    opened = link.sock
    assert post(link, {"inputs": "mail"})[0] == 200
    assert link.sock is opened
    link.close()


def test_a_request_that_is_refused_before_its_body_was_asked_for_ends_the_connection(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle))
    head = asked({}, "/absent", Expect="100-continue").partition(b"\r\n\r\n")[0]
    answer = received(raw(server, head + b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 404") and b"connection: close" in answer


def test_an_address_that_another_server_took_meanwhile_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several sockets may be bound to it, and only one may listen.
    first = run._bound(ServeConfig(bundles=(str(bundle),), port=0))
    config = ServeConfig(bundles=(str(bundle),), port=first.getsockname()[1], threads=1)
    bound = run._bound

    def late(config: ServeConfig) -> socket.socket:
        found = bound(config)
        first.listen()
        return found

    monkeypatch.setattr(run, "_bound", late)
    with first, pytest.raises(ConfigError) as caught:
        run.serve(config)
    assert str(config.port) in str(caught.value)


def test_pages_of_other_sites_get_nothing_unless_the_server_is_for_everybody(
    started: Callable[..., Process], bundle: Path
) -> None:
    foreign = ({"Host": "rebound.example"}, {"Origin": "https://elsewhere.example"})
    for words, status in (((), 403), (("--without-keys",), 200)):
        server = started(str(bundle), *words)
        for headers in foreign:
            link = connection(server)
            link.request("POST", "/predict", json.dumps({"inputs": "mail"}), headers)
            assert link.getresponse().status == status, (words, headers)
            link.close()
        assert post_alone(server, {"inputs": "mail"})[0] == 200


def test_there_are_as_many_connections_as_may_be(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--max-connections", "2")
    idle = connection(server)
    assert post(idle, {"inputs": "mail"})[0] == 200
    second = connection(server)
    assert post(second, {"inputs": "mail"})[0] == 200
    # Those that wait between requests make room ...
    third = connection(server)
    assert post(third, {"inputs": "mail"})[0] == 200
    busy = [raw(server, asked(SLOW)[:100]) for _ in range(2)]
    # ... and those that are in the middle of one do not.
    assert received(raw(server, b"")).startswith(b"HTTP/1.1 503")
    for each in (idle, second, third, *busy):
        each.close()


def test_a_bundle_that_fails_its_self_test_never_listens(
    started: Callable[..., Process], own_bundle: Path
) -> None:
    golden = own_bundle / "golden.json"
    record = json.loads((own_bundle / "monoxkit.json").read_text())
    content = json.loads(golden.read_text())
    content["recorded"]["logits"][0][0] += 1
    golden.write_text(json.dumps(content))
    (own_bundle / "monoxkit.json").write_text(json.dumps({**record, "files": {}}))
    server = started(str(own_bundle))
    code, summary = server.end()
    assert (server.url, code) == ("", 5)
    assert summary["error"]["class"] == "ModelError"
    assert "golden texts" in summary["error"]["message"]


def test_texts_of_any_length_are_cut_before_they_cost_anything(
    started: Callable[..., Process], bundle: Path
) -> None:
    server = started(str(bundle), "--max-characters", "1000000", "--max-body-bytes", "2000000")
    status, _, found = post_alone(server, {"inputs": [["mail " * 150_000], ["mail"]]})
    assert status == 200
    cut = {one["label"]: one["score"] for one in found[0]}
    expected = mk.load(str(bundle)).predict(["mail " * MAX_LENGTH], top_k=3)[0].top
    assert all(abs(cut[label] - score) <= 1e-5 for label, score in expected)
