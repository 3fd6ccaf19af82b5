"""A server under load: what is sent when, what is told apart, and what the figures are of."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.benchmarking.load.config import LoadConfig
from monox_kit.benchmarking.load.connection import Connections, NoAnswer
from monox_kit.benchmarking.load.report import LoadStep, Outcome, capacity_of
from monox_kit.benchmarking.load.requests import FORMS, Request, Texts
from monox_kit.benchmarking.load.run import load, scheduled
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.progress import Silent
from monoxkit_cli.app import main
from tests.serving_samples import replied
from tests.tiny_models import write_jsonl

Asked = dict[str, Any]
Answering = Callable[[int, Asked], bytes]
_HOST = "127.0.0.1"


def http(status: int, value: Any, *headers: str) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def scores(asked: Asked) -> bytes:
    """An answer for each row, as text-embeddings-inference gives it."""
    return http(200, [[{"label": "a", "score": 1.0}] for _ in asked["body"]["inputs"]])


_ALONE = 10  # requests that are sent one after the other, before the load


@contextmanager
def server(answering: Answering, *, held: tuple[int, int] = (0, 0)) -> Iterator[str]:
    """A server in a thread; its address.

    Args:
        answering: the bytes of the answer to the request of that number; none closes the
            connection.
        held: from which request on none is answered before so many have come.
    """
    count, address = 0, ""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (each.partition(":") for each in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                number, count = count, count + 1
                while number >= held[0] and count < held[1]:
                    await asyncio.sleep(0.001)
                answer = answering(number, {"line": line, "headers": headers, "body": body})
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.close()

    async def run() -> None:
        nonlocal address
        async with await asyncio.start_server(serve, _HOST, 0) as made:
            address = f"http://{_HOST}:{made.sockets[0].getsockname()[1]}"
            ready.set()
            await stop.wait()

    def in_thread() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=in_thread)
    thread.start()
    assert ready.wait(30)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    for tag, text in (("de", "Wo ist mein Paket?"), ("ja", "荷物はどこですか" * 20)):
        write_jsonl(tmp_path / f"test.{tag}.jsonl", [{"text": text, "lang": tag}] * 3)
    return (str(tmp_path / "test.de.jsonl"), str(tmp_path / "test.ja.jsonl"))


def config(url: str, files: tuple[str, ...], **more: Any) -> LoadConfig:
    known: dict[str, Any] = {"rates": (400.0,), "requests": 40, "seconds": 10.0}
    return LoadConfig(url=url, test=CorpusConfig(paths=files), **{**known, **more})


def test_requests_are_sent_on_time_and_a_server_that_holds_them_up_does_not_look_fast(
    files: tuple[str, ...],
) -> None:
    count, rate = 40, 400.0
    # None is answered before the last has come: who waits for answers would wait for ever.
    with server(lambda number, asked: scores(asked), held=(_ALONE, _ALONE + count)) as url:
        asked = config(url, files, requests=count, rates=(rate,), arrivals="constant")
        (step,) = load(asked).steps
    assert step.all.statuses == {"200": count}
    # The last one is due so long after the first, which cannot have been answered before.
    last_ms = 1000 * (count - 1) / rate
    assert step.all.accepted.most_ms is not None
    assert step.all.accepted.most_ms >= last_ms
    assert step.all.accepted.p50_ms is not None
    assert step.all.accepted.p50_ms >= last_ms / 2


def test_statuses_are_told_apart_and_rejections_timed_alone(files: tuple[str, ...]) -> None:
    def answering(number: int, asked: Asked) -> bytes:
        if number < _ALONE:
            return scores(asked)
        kind = number % 5
        if kind == 1:
            return http(429, {"error": "busy"}, "Retry-After: 7")
        if kind == 2:
            return http(503, {"error": "no"}, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT")
        if kind == 3:
            return b""
        if kind == 4:
            return http(200, [])
        return scores(asked)

    with server(answering) as url:
        report = load(config(url, files, requests=50, rates=(500.0,)))
    (step,) = report.steps
    assert step.all.statuses == {
        "200": 10,
        "429": 10,
        "503": 10,
        "no answer": 10,
        "wrong answer": 10,
    }
    assert step.all.retry_after_s == 7
    assert step.all.rejected.p50_ms is not None
    assert not step.is_goal_met
    assert report.capacity_per_s is None
    parts = [*step.by_language.values()]
    assert sum(one.num_requests for one in parts) == 50
    assert set(step.by_language) == {"de", "ja"}
    assert list(step.by_length) == ["<= 64", "<= 256"]


def test_sizes_are_drawn_and_reported(files: tuple[str, ...]) -> None:
    with server(lambda number, asked: scores(asked)) as url:
        report = load(config(url, files, rows=(1, 4)))
    step = report.steps[0]
    assert list(step.by_rows) == ["1", "4"]
    one, four = step.by_rows["1"], step.by_rows["4"]
    assert one.num_rows == one.num_requests
    assert four.num_rows == 4 * four.num_requests
    assert step.all.num_rows == one.num_rows + four.num_rows
    json.dumps(report.to_json())


def test_a_step_is_bounded_in_count_and_in_time(files: tuple[str, ...]) -> None:
    with server(lambda number, asked: scores(asked)) as url:
        report = load(config(url, files, rates=(100.0, 1000.0), seconds=0.1, requests=20))
    assert [step.all.num_requests for step in report.steps] == [10, 20]


def test_a_request_that_takes_too_long_is_given_up(files: tuple[str, ...]) -> None:
    with server(lambda number, asked: scores(asked), held=(_ALONE, 10**9)) as url:
        (step,) = load(config(url, files, requests=3, timeout_s=0.2)).steps
    assert step.all.statuses == {"timed out": 3}
    with (
        server(lambda number, asked: scores(asked), held=(0, 10**9)) as url,
        pytest.raises(ConfigError, match="TimeoutError"),
    ):
        load(config(url, files, timeout_s=0.2))


def test_without_rates_they_rise_until_the_goal_is_missed(files: tuple[str, ...]) -> None:
    def answering(number: int, asked: Asked) -> bytes:
        return scores(asked) if number < _ALONE + 3 * 20 else http(429, {}, "Retry-After: 1")

    with server(answering) as url:
        report = load(config(url, files, rates=None, requests=20, p99_ms=60_000.0))
    rates = [step.rate_per_s for step in report.steps]
    assert [step.is_goal_met for step in report.steps[:4]] == [True, True, True, False]
    assert rates[1] == pytest.approx(1.5 * rates[0], rel=0.01)
    # One rate between the last that met it and the first that missed it, and no more.
    assert len(rates) == 5
    assert rates[2] < rates[4] < rates[3]
    assert report.capacity_per_s == rates[2]


def test_what_refuses_the_first_request_is_no_server_to_measure(files: tuple[str, ...]) -> None:
    with (
        server(lambda number, asked: http(404, {"error": "no \x1b[31m model"})) as url,
        pytest.raises(ConfigError, match=r"404.*no \\u001b"),
    ):
        load(config(url, files))
    with pytest.raises(ConfigError, match="no server answers"):
        load(config("http://127.0.0.1:1", files))


def test_the_key_is_sent_and_not_reported(files: tuple[str, ...], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    seen = set()

    def answering(number: int, asked: Asked) -> bytes:
        seen.add(asked["headers"].get("authorization"))
        return scores(asked)

    with server(answering) as url:
        report = load(config(url, files, key_file=key))
    assert seen == {"Bearer secret-key"}
    assert "secret-key" not in json.dumps(report.to_json())
    for name, content in (("empty", ""), ("blank", " \n"), ("other", "schlüssel"), ("b", "\x01")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match="key_file"):
            load(config(url, files, key_file=tmp_path / name))
    with pytest.raises(ConfigError, match="key_file"):
        load(config(url, files, key_file=tmp_path / "none"))


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"url": "127.0.0.1:80"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://a:b"}, "url"),
        ({"url": "http://zürich/"}, "url"),
        ({"protocol": "kserve"}, "model"),
        ({"rates": (0.0,)}, "rates"),
        ({"rows": (0,)}, "rows"),
    ],
)
def test_settings_that_cannot_work(
    given: dict[str, Any], setting: str, files: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=setting):
        load(config(**{"url": "http://127.0.0.1:1", "files": files, **given}))


@pytest.mark.parametrize("protocol", sorted(FORMS))
def test_every_body_is_one_that_its_protocol_reads(protocol: str, files: tuple[str, ...]) -> None:
    own = config("http://a", files, protocol=protocol, model="student", rows=(1, 3))
    form = FORMS[protocol]
    for request in Texts(own, Silent()).requests(20, np.random.Generator(np.random.Philox(2))):
        reply = replied(protocol.replace("-", "_"), request.body)
        assert reply.status == 200
        assert form.count(json.loads(reply.body)) == request.num_rows
    assert form.path_of("a/b").count("a/b") == 0


def test_pairs_are_sent_as_pairs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"text": "one", "text_pair": "two"}])
    for protocol in ("tei", "hugging-face", "kserve", "classify"):
        own = config("http://a", (str(tmp_path / "p.jsonl"),), protocol=protocol, model="m")
        texts = Texts(own, Silent())
        generator = np.random.Generator(np.random.Philox(2))
        if protocol == "classify":
            with pytest.raises(ConfigError, match="protocol"):
                texts.requests(1, generator)
            continue
        (request,) = texts.requests(1, generator)
        assert b"two" in request.body
        assert replied(protocol.replace("-", "_"), request.body).status == 200


# figures


def outcome(due_s: float, ended_s: float, status: str = "200", rows: int = 1) -> Outcome:
    return Outcome(Request(b"", rows, 10, "de"), due_s, due_s, ended_s, status)


def test_latency_counts_from_when_a_request_was_due() -> None:
    outcomes = [outcome(0.01 * place, 0.01 * place + 0.02, rows=2) for place in range(98)]
    outcomes += [Outcome(Request(b"", 2, 10, "de"), 0.1, 0.9, 1.1, "200")] * 2  # sent 0.8 s late
    step = LoadStep.of(outcomes, 100.0, goal_s=0.1, deadline_s=0.5)
    assert step.all.accepted.p50_ms == 20.0
    assert step.all.accepted.p99_ms == 1000.0
    assert step.lateness_p99_ms == 800.0
    assert not step.is_goal_met
    assert step.seconds == 1.1
    assert step.all.goodput_per_s == pytest.approx(98 / 1.1, abs=1e-3)
    assert step.all.goodput_rows_per_s == pytest.approx(2 * 98 / 1.1, abs=1e-3)


def test_few_answers_have_no_99th_percentile_and_the_slowest_decides() -> None:
    outcomes = [outcome(0.0, 0.05) for _ in range(30)]
    assert LoadStep.of(outcomes, 100.0, goal_s=0.1, deadline_s=1).is_goal_met
    step = LoadStep.of([*outcomes, outcome(0.0, 0.2)], 100.0, goal_s=0.1, deadline_s=1)
    assert step.all.accepted.p99_ms is None
    assert not step.is_goal_met


def test_many_rejections_miss_the_goal() -> None:
    outcomes = [outcome(0.0, 0.01) for _ in range(98)] + [outcome(0.0, 0.0, "429")] * 2
    assert not LoadStep.of(outcomes, 100.0, goal_s=0.1, deadline_s=1).is_goal_met


def test_the_capacity_is_below_every_rate_that_missed_the_goal() -> None:
    def step(rate: float, is_met: bool) -> LoadStep:
        ended_s = 0.01 if is_met else 9.0
        return LoadStep.of([outcome(0, ended_s)], rate, goal_s=0.1, deadline_s=1)

    assert capacity_of([step(10, True), step(40, True), step(20, False)]) == 10
    assert capacity_of([step(10, False), step(40, True)]) is None


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_times_have_the_rate(arrivals: str) -> None:
    generator = np.random.Generator(np.random.Philox(3))
    times = scheduled(20_000, 50.0, arrivals, generator)
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    # Exponential gaps spread as much as their mean is; equal ones not at all.
    spread = {"poisson": 1 / 50, "constant": 0.0}[arrivals]
    assert gaps.std() == pytest.approx(spread, rel=0.05, abs=1e-9)


# connections


def exchanged(*answers: bytes, count: int | None = None) -> list[Any]:
    """What a client makes of a server's answers, one request after the other."""

    async def run() -> list[Any]:
        found: list[Any] = []
        with server(lambda number, asked: answers[number % len(answers)]) as url:
            connections = Connections(url, 2)
            for _ in range(count or len(answers)):
                try:
                    answer = await connections.post("/predict", b"{}")
                    found.append((answer.status, answer.body))
                except NoAnswer:
                    found.append(None)
            await connections.close()
        return found

    return asyncio.run(run())


def test_bodies_end_as_their_heads_say() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;name=value\r\nabc\r\na\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    )
    assert exchanged(chunked, http(200, b"x"), b"HTTP/1.1 204 No\r\n\r\n", http(500, b"y")) == [
        (200, b"abc0123456789"),
        (200, b"x"),
        (204, b""),
        (500, b"y"),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_told_as_none(answer: bytes) -> None:
    assert exchanged(answer) == [None]


def test_a_connection_that_was_closed_while_it_waited_is_no_lost_request() -> None:
    # Keeps the connection by its head, and closes it all the same.
    async def run() -> list[int]:
        statuses = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(http(200, b"x"))
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, _HOST, 0) as made:
            url = f"http://{_HOST}:{made.sockets[0].getsockname()[1]}"
            connections = Connections(url, 1)
            for _ in range(3):
                statuses.append((await connections.post("/", b"{}")).status)
                await asyncio.sleep(0.05)  # the end of the connection arrives
            await connections.close()
        return statuses

    assert asyncio.run(run()) == [200, 200, 200]


def test_the_command_shows_tables_and_json(
    files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    with server(lambda number, asked: scores(asked)) as url:
        command = ["benchmark", "serve", url, "--test", *files, "--rates", "200,400"]
        assert main([*command, "--requests", "10", "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        assert main([*command, "--requests", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [step["rate_per_s"] for step in report["steps"]] == [200.0, 400.0]
    assert set(json.loads(out.read_text())) == set(report)
    assert "Capacity" in shown
    assert "10 x 200" in shown
    for rates in ("fast", "nan", "0", "10,-1", "inf", ""):
        assert main(["benchmark", "serve", "http://a", "--test", *files, "--rates", rates]) == 2
