"""What a server may be started with, who is let in, and which keys are taken."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import ConfigError
from monox_kit.serving.admission import LEAST_BUDGET, Admission, Speed
from monox_kit.serving.browsers import is_of_this_machine
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.contract import Kind, Refused
from monox_kit.serving.keys import Keys

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"host": "0.0.0.0"}, ["host", "keys", "without_keys"]),
        ({"host": "192.168.0.7"}, ["192.168.0.7", "keys"]),
        ({"host": "::"}, ["host", "keys"]),
        ({"bundles": ("a/x", "b/x")}, ["b/x", "a/x"]),
        ({"bundles": ("a b=x",)}, ["'a b'"]),
        ({"bundles": ("x=",)}, ["x="]),
        ({"bundles": ()}, ["bundles"]),
        ({"timeout_s": 10.0}, ["shutdown_s", "timeout_s"]),
        ({"port": 65536}, ["port"]),
        ({"keys": Path("keys"), "without_keys": True}, ["keys", "without_keys"]),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    settings: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        ServeConfig(**{"bundles": ("folder",), **settings})
    assert all(part in str(caught.value) for part in told)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_alone_needs_no_keys(host: str) -> None:
    assert ServeConfig(bundles=("x",), host=host).keys is None


def test_bundles_have_the_names_of_their_folders_or_their_own() -> None:
    config = ServeConfig(bundles=("runs/de/", "small=runs/de", "packaged:e5-small"))
    assert config.references == {
        "de": "runs/de/",
        "small": "runs/de",
        "e5-small": "packaged:e5-small",
    }


def keys_file(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def is_taken(keys: Keys, header: str) -> bool:
    try:
        keys.require({"authorization": header})
    except Refused as refused:
        assert refused.kind is Kind.UNAUTHORIZED
        assert KEY not in refused.message
        return False
    return True


def test_keys_of_the_file_are_taken_and_no_others(tmp_path: Path) -> None:
    path = keys_file(tmp_path / "keys", "# of the web shop", KEY, "", f"{OTHER}  ")
    keys = Keys(path)
    assert len(keys) == 2
    assert is_taken(keys, f"Bearer {KEY}") and is_taken(keys, f"bearer {OTHER}")
    for wrong in (
        "",
        KEY,
        "Bearer",
        f"Basic {KEY}",
        f"Bearer {KEY[:-1]}",
        "Bearer # of the web shop",
    ):
        assert not is_taken(keys, wrong), wrong
    with pytest.raises(Refused):
        keys.require({})
    keys_file(path, OTHER)
    assert is_taken(keys, f"Bearer {KEY}")
    keys.reload()
    assert not is_taken(keys, f"Bearer {KEY}") and is_taken(keys, f"Bearer {OTHER}")


@pytest.mark.parametrize(
    "lines", [(), ("# only this",), ("short",), ("0123456789 abcdef",), ("schlüssel-schlüssel",)]
)
def test_a_file_without_usable_keys_is_refused_and_not_shown(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    path = keys_file(tmp_path / "keys", KEY)
    keys = Keys(path)
    keys_file(path, *lines)
    with pytest.raises(ConfigError) as caught:
        keys.reload()
    assert str(path) in str(caught.value)
    assert not any(line in str(caught.value) for line in lines)
    assert is_taken(keys, f"Bearer {KEY}"), "the keys in use were lost"
    with pytest.raises(ConfigError, match="absent"):
        Keys(tmp_path / "absent")


def test_speed_is_that_of_full_runs_and_follows_a_change() -> None:
    speed = Speed(2, 1024)
    assert speed.tokens_per_s == float("inf") and speed.budget == 1024
    for _ in range(100):
        speed.learn(1000, 1024, 0.1)
        speed.learn(5, 5, 0.01)  # one short text says what a run costs, not how fast it is
    assert speed.tokens_per_s == pytest.approx(20_000)
    assert speed.budget == 300  # 30 ms of one session
    for _ in range(100):
        speed.learn(500, 1024, 0.5)
    assert speed.tokens_per_s == pytest.approx(2_000, rel=0.01)
    assert speed.budget == LEAST_BUDGET


def test_one_pause_of_the_machine_does_not_shut_the_door() -> None:
    speed = Speed(1, 1024)
    for _ in range(50):
        speed.learn(1000, 1024, 0.1)
    speed.learn(256, 256, 3600.0)
    assert speed.tokens_per_s > 5_000
    # What a small run shows counts where it is faster than what was believed.
    slow = Speed(1, 1024)
    slow.learn(256, 256, 100.0)
    for _ in range(2000):
        slow.learn(20, 20, 0.01)
    assert slow.tokens_per_s > 1_000


def test_requests_are_let_in_by_their_wait_and_number() -> None:
    admission = Admission(max_requests=2, max_wait_s=0.5)
    admission.require(0.5)
    with pytest.raises(Refused) as caught:
        admission.require(0.75)
    assert caught.value.kind is Kind.OVERLOADED
    assert caught.value.retry_after_s == 0.75
    with admission.permit(), admission.permit():
        with pytest.raises(Refused) as caught, admission.permit():
            pass
        assert caught.value.kind is Kind.OVERLOADED and caught.value.retry_after_s
        assert admission.held == 2
    assert admission.held == 0


def test_an_event_loop_that_is_late_adds_to_every_wait() -> None:
    async def busy(admission: Admission) -> None:
        watch = asyncio.ensure_future(admission.watch())
        for _ in range(4):
            await asyncio.sleep(0.06)
            time.sleep(0.3)
        watch.cancel()

    admission = Admission(max_requests=2, max_wait_s=0.1)
    admission.require(0.05)
    asyncio.run(busy(admission))
    with pytest.raises(Refused) as caught:
        admission.require(0.05)
    assert caught.value.retry_after_s == pytest.approx(0.05 + admission.lag_s)


def test_a_keys_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        path = tmp_path
    else:
        path = keys_file(tmp_path / "keys", KEY)
        path.chmod(0)
    with pytest.raises(ConfigError, match="keys"):
        Keys(path)


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({}, True),
        ({"host": "127.0.0.1:8080"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:8080", "origin": "http://[::1]:8080"}, True),
        ({"host": "Model.localhost:80", "origin": "http://model.localhost:80"}, True),
        ({"host": "rebound.example:8080"}, False),
        ({"host": "rebound.example", "origin": "http://rebound.example"}, False),
        ({"host": "localhost.rebound.example"}, False),
        ({"host": "[::1"}, False),
        ({"host": ""}, False),
        ({"host": "localhost:8080", "origin": "https://elsewhere.example"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:8080", "origin": "null"}, False),
    ],
)
def test_a_page_of_another_site_is_told_by_its_names(
    headers: dict[str, str], is_taken: bool
) -> None:
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert is_of_this_machine(given) is is_taken
