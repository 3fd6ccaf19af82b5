"""Who begins a store does it alone; others wait, and go on with what it began."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest

from monox_kit.errors import CorpusError, CorpusUnreadable, StorageError, StoreError
from monox_kit.locks import RangeLocks
from monox_kit.store import StoreWriter, beginning, begun_manifest, keep_scan
from monox_kit.store.beginning import store_locks
from tests.children import fork
from tests.store_samples import manifest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: what reaches it when is the subject of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def nobody(holder: str) -> None:
    pytest.fail(f"nobody has the turn, found {holder}")


def about() -> str:
    return "the corpus"


class Waits:
    """Takes in who is waited for."""

    def __init__(self) -> None:
        self.event = Event()
        self.holders: list[str] = []

    def __call__(self, holder: str) -> None:
        self.holders.append(holder)
        self.event.set()

    def begun(self) -> bool:
        return self.event.wait(60)


def test_one_begins_and_the_others_find_it_begun(tmp_path: Path) -> None:
    folder, waits = tmp_path / "s", Waits()

    def second() -> bool:
        with beginning(folder, about, waits):
            return begun_manifest(folder) is not None

    with ThreadPoolExecutor() as pool:
        with beginning(folder, about, nobody):
            other = pool.submit(second)
            assert waits.begun()
            with StoreWriter(folder, manifest(), range(1)):
                pass
            assert not other.done()
        assert other.result(60)
    assert sorted(os.listdir(folder)) == ["lock", "shards", "store.json"]
    (holder,) = waits.holders
    began = r"which began at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    who = f"process {os.getpid()} on {platform.node()}"
    assert re.fullmatch(f"{re.escape(who)}, {began}", holder)


def test_what_a_killed_one_left_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep who comes next from its turn, or stay when that one begins nothing."""
    folder, waits = tmp_path / "s", Waits()
    child = fork(lambda: leave_in_turn(folder))
    os.waitpid(child, 0)
    assert sorted(os.listdir(folder)) == [".tmp-turn", "lock"]
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with store_locks(folder) as locks, locks.turn(1_000_001), ThreadPoolExecutor() as pool:
        # Has the turn, and has not said so yet.
        other = pool.submit(begin_nothing, folder, waits)
        assert waits.begun()
        locks.give_back(1_000_001)
        other.result(60)
    assert waits.holders == [""]
    assert not folder.exists()


def leave_in_turn(folder: Path) -> None:
    with beginning(folder, about, nobody):
        os._exit(0)


def begin_nothing(folder: Path, waits: Waits) -> None:
    with beginning(folder, about, waits):
        pass


def test_who_begins_nothing_leaves_nothing_and_the_next_has_its_turn(tmp_path: Path) -> None:
    folder, waits = tmp_path / "s", [Waits(), Waits()]

    def next_one(number: int) -> list[str]:
        with beginning(folder, about, waits[number]):
            return sorted(os.listdir(folder))

    def fail() -> None:
        with beginning(folder, about, nobody):
            others.extend(pool.submit(next_one, number) for number in range(2))
            assert all(wait.begun() for wait in waits)
            raise RuntimeError("stopped")

    others: list[Future[list[str]]] = []
    with ThreadPoolExecutor() as pool:
        with pytest.raises(RuntimeError, match="stopped"):
            fail()
        assert [other.result(60) for other in others] == [[".tmp-turn", "lock"]] * 2
    assert not folder.exists()


def failing_beside(
    folder: Path, abouts: list[Callable[[], str]], kind: type[CorpusError] = CorpusError
) -> list[tuple[str, bool]]:
    """What became of those who waited for one that found a bad row, and whether they looked."""

    def next_one(number: int) -> tuple[str, bool]:
        has_looked = False
        try:
            with beginning(folder, abouts[number], waits[number]):
                has_looked = True
        except CorpusError as error:
            return str(error), has_looked
        return "", has_looked

    def fail() -> None:
        with beginning(folder, about, nobody):
            others.extend(pool.submit(next_one, number) for number in range(len(abouts)))
            assert all(wait.begun() for wait in waits)
            raise kind("a.jsonl line 7: expected text, found 8. Mend it.")

    waits = [Waits() for _ in abouts]
    others: list[Future[tuple[str, bool]]] = []
    with ThreadPoolExecutor() as pool:
        with pytest.raises(CorpusError, match=r"line 7: expected text, found 8\. Mend it\.$"):
            fail()
        return [other.result(60) for other in others]


@pytest.mark.parametrize("is_the_users", [False, True])
def test_a_bad_row_is_found_once_for_all_who_wait(tmp_path: Path, is_the_users: bool) -> None:
    folder = tmp_path / "s"
    if is_the_users:
        folder.mkdir()
    found = failing_beside(folder, [about] * 3)
    wanted = (
        f"a.jsonl line 7: expected text, found 8. Mend it. Found by process {os.getpid()} on "
        f"{platform.node()}, which began at "
    )
    for message, has_looked in found:
        assert message.startswith(wanted) and message.endswith("this run waited for it.")
        assert not has_looked
    # Whoever comes later looks for itself: what was wrong may be mended, or was the disk's.
    with beginning(folder, about, nobody):
        pass
    assert folder.exists() == is_the_users


def test_who_waits_with_other_files_looks_for_itself(tmp_path: Path) -> None:
    (found,) = failing_beside(tmp_path / "s", [lambda: "the mended corpus"])
    assert found == ("", True)
    assert not (tmp_path / "s").exists()


def test_what_one_machine_cannot_read_others_may(tmp_path: Path) -> None:
    found = failing_beside(tmp_path / "s", [about] * 2, CorpusUnreadable)
    assert found == [("", True)] * 2


def test_a_folder_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with beginning(tmp_path / "s", about, nobody):
        pass
    assert (tmp_path / "s").is_dir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with (
        pytest.raises(StoreError, match=r"found 'letter\.txt'"),
        beginning(tmp_path / "other", about, nobody),
    ):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


LEFT = {
    "host": "h",
    "pid": 7,
    "since": "2026-01-01 00:00:00 UTC",
    "is_new": True,
    "about": "the corpus",
    "failure": "a.jsonl line 7: expected text, found 8. Mend it.",
}


def leave(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / ".tmp-turn").write_bytes(content)


def test_a_folder_in_the_place_of_the_turns_file_goes(tmp_path: Path) -> None:
    (tmp_path / "s" / ".tmp-turn" / "x").mkdir(parents=True)
    with beginning(tmp_path / "s", about, nobody):
        assert (tmp_path / "s" / ".tmp-turn").is_file()
    assert os.listdir(tmp_path / "s") == ["lock"]


def test_an_old_failure_is_gone_before_anybody_can_wait_for_long(tmp_path: Path) -> None:
    """One was told of it, and killed: who waits now would believe it."""
    leave(tmp_path / "s", json.dumps(LEFT).encode())

    def takes_long() -> str:
        assert os.listdir(tmp_path / "s") == ["lock"]
        return "the corpus"

    with beginning(tmp_path / "s", takes_long, nobody):
        pass
    assert not (tmp_path / "s").exists()  # as who left it would have done


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[]",
        b"\xff",
        json.dumps({**LEFT, "more": 1}).encode(),
        *(
            json.dumps({**LEFT, name: value}).encode()
            for name, value in [
                ("host", 1),
                ("pid", "7"),
                ("since", None),
                ("is_new", "yes"),
                ("about", 0),
                ("failure", []),
            ]
        ),
    ],
    ids=lambda content: content[-20:].decode(errors="replace"),
)
def test_what_is_no_turn_counts_as_none(tmp_path: Path, content: bytes) -> None:
    leave(tmp_path / "s", content)
    with beginning(tmp_path / "s", about, nobody):
        pass
    assert os.listdir(tmp_path / "s") == ["lock"]  # a folder that nobody says is new


def test_a_bad_row_is_named_whatever_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> NoReturn:
        raise StorageError("s/lock: expected a file system with locks, found none. Give another.")

    monkeypatch.setattr(RangeLocks, "is_held", refuse)
    with pytest.raises(CorpusError, match="line 7"), beginning(tmp_path / "s", about, nobody):
        raise CorpusError("a.jsonl line 7: expected text, found 8. Mend it.")


def test_who_finds_the_store_begun_says_nothing(tmp_path: Path) -> None:
    """Nobody waits for it for long enough to ask."""
    with StoreWriter(tmp_path / "s", manifest(), range(1)):
        keep_scan(tmp_path / "s", b"scan")
    with beginning(tmp_path / "s", about, nobody):
        assert sorted(os.listdir(tmp_path / "s")) == ["lock", "scan", "shards", "store.json"]


def test_a_place_where_no_folder_can_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with (
        pytest.raises(StorageError, match="expected a place where folders can be made"),
        beginning(Path("/proc/nothing/store"), about, nobody),
    ):
        pass
