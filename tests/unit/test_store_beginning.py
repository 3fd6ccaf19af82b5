"""Who begins a store does it alone; others wait, and go on with what it began."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from monox_kit.errors import StorageError, StoreError
from monox_kit.store import StoreWriter, beginning, begun_manifest
from tests.store_samples import manifest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: what reaches it when is the subject of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def nobody() -> None:
    pytest.fail("nobody has the turn")


def test_one_begins_and_the_others_find_it_begun(tmp_path: Path) -> None:
    folder, waits = tmp_path / "s", Event()

    def second() -> bool:
        with beginning(folder, waits.set):
            return begun_manifest(folder) is not None

    with ThreadPoolExecutor() as pool:
        with beginning(folder, nobody):
            other = pool.submit(second)
            assert waits.wait(60)
            with StoreWriter(folder, manifest(), range(1)):
                pass
            assert not other.done()
        assert other.result(60)


def test_who_begins_nothing_leaves_nothing_and_the_next_has_its_turn(tmp_path: Path) -> None:
    folder, waits = tmp_path / "s", [Event(), Event()]

    def next_one(number: int) -> list[str]:
        with beginning(folder, waits[number].set):
            return os.listdir(folder)

    def fail() -> None:
        with beginning(folder, nobody):
            others.extend(pool.submit(next_one, number) for number in range(2))
            assert all(event.wait(60) for event in waits)
            raise RuntimeError("a bad row")

    others: list[object] = []
    with ThreadPoolExecutor() as pool:
        with pytest.raises(RuntimeError, match="a bad row"):
            fail()
        assert [other.result(60) for other in others] == [["lock"], ["lock"]]  # type: ignore[attr-defined]
    assert not folder.exists()


def test_a_folder_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with beginning(tmp_path / "s", nobody):
        pass
    assert (tmp_path / "s").is_dir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with (
        pytest.raises(StoreError, match=r"found 'letter\.txt'"),
        beginning(tmp_path / "other", nobody),
    ):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


def test_a_place_where_no_folder_can_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with (
        pytest.raises(StorageError, match="expected a place where folders can be made"),
        beginning(Path("/proc/nothing/store"), nobody),
    ):
        pass
