"""What other processes and users of the machine put in the way: links, pipes, busy folders."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from monox_kit import durable, packaged
from monox_kit.errors import ConfigError, FolderBusy, StorageError, StoreError
from monox_kit.locks import owned_folder
from monox_kit.models import run_plan
from monox_kit.models.graph_classifier import SessionPlan


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """A umask for the block, restored after it."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def link_to_canary(planted: Path, canary: Path) -> None:
    planted.symlink_to(canary)


def hard_link_to_canary(planted: Path, canary: Path) -> None:
    planted.hardlink_to(canary)


def link_to_folder(planted: Path, canary: Path) -> None:
    planted.symlink_to(canary.parent)


def dangling_link(planted: Path, canary: Path) -> None:
    planted.symlink_to(canary.with_name("nowhere"))


def pipe(planted: Path, _canary: Path) -> None:
    os.mkfifo(planted)


PLANTS = [link_to_canary, hard_link_to_canary, link_to_folder, dangling_link, pipe]


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """A private file beside the outputs, which must stay as it is."""
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o600)
    yield path
    assert path.read_text() == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {entry.name for entry in path.parent.iterdir()} == {"secret"}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("below", ["", "inner"])
def test_what_is_planted_in_a_folder_under_construction_is_refused(
    tmp_path: Path, private: Path, plant: Callable[[Path, Path], None], below: str
) -> None:
    with (
        pytest.raises(StorageError, match=r"planted: "),
        durable.new_folder(tmp_path / "out") as folder,
    ):
        (folder / "model").write_text("weights")
        (folder / below).mkdir(exist_ok=True)
        plant(folder / below / "planted", private)
    assert {entry.name for entry in tmp_path.iterdir()} == {"home"}


@pytest.mark.parametrize("plant", [link_to_canary, link_to_folder, dangling_link, pipe])
def test_nothing_is_appended_to_what_is_planted(
    tmp_path: Path, private: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / "log", private)
    with pytest.raises(StoreError, match=r"/log: "):
        durable.AppendedFile(tmp_path / "log")


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_the_umask_is_never_set_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    with umask(mask):
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _mask: pytest.fail("another thread would see it"))
            threads = [
                Thread(target=durable.write_file, args=(tmp_path / f"file-{number}", b"x"))
                for number in range(8)
            ]
            for thread in threads:
                thread.start()
            with durable.new_folder(tmp_path / "folder") as folder:
                (folder / "private").touch(mode=0o600)
            for thread in threads:
                thread.join()
        for path in [*tmp_path.glob("file-*"), tmp_path / "folder" / "private"]:
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert len(list(tmp_path.glob("file-*"))) == 8
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("target", ["empty", "absent", "deep/absent"])
def test_an_output_that_is_a_link_is_the_folder_behind_it(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(target)
    with owned_folder(tmp_path / "link"), durable.new_folder(tmp_path / "link") as folder:
        (folder / "model").write_text("weights")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / target / "model").read_text() == "weights"


def test_a_link_and_its_folder_have_one_builder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    with (
        owned_folder(tmp_path / "link"),
        pytest.raises(FolderBusy, match=r"model: another process"),
        owned_folder(tmp_path / "model"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("plant", [link_to_canary, link_to_folder, pipe])
def test_a_lock_that_is_no_plain_file_is_refused(
    tmp_path: Path, private: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / ".model.lock", private)
    with (
        pytest.raises(StorageError, match=r"/\.model\.lock: "),
        owned_folder(tmp_path / "model"),
    ):
        pytest.fail("the block must not run")


def test_a_busy_folder_in_the_working_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        owned_folder(Path("model")),
        pytest.raises(FolderBusy, match=r"^model: another process"),
        owned_folder(Path("model")),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("own", [owned_folder, durable.new_folder])
def test_links_that_lead_back_are_refused_before_any_work(
    tmp_path: Path, own: Callable[[Path], object]
) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match=r"/a: "), own(tmp_path / "a"):
        pytest.fail("the block must not run")


def test_a_link_to_a_full_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "work").write_text("years")
    (tmp_path / "link").symlink_to("full")
    with pytest.raises(ConfigError, match=r"/link|/full"):
        durable.new_folder(tmp_path / "link").__enter__()
    assert (tmp_path / "full" / "work").read_text() == "years"


KEY = {"version": 2}
SESSIONS = [SessionPlan(1, 2), SessionPlan(2, 1)]
PLAN = {
    "session": {"sessions": 2, "threads": 1},
    "batch_tokens": 2048,
    "chosen_by": "measured",
    "tokens_per_s": {"2 x 1": 10.5},
}


def plan_text(**changes: Any) -> str:
    return json.dumps({"key": KEY, "plan": {**PLAN, **changes}})


def read_plan(path: Path) -> run_plan.RunPlan | None:
    return run_plan._read(path, KEY, SESSIONS, [1024, 2048])


def test_a_plan_that_was_measured_here_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_text())
    assert read_plan(path) == run_plan.RunPlan(SESSIONS[1], 2048, "cached", {"2 x 1": 10.5})


@pytest.mark.parametrize(
    "content",
    [
        plan_text(session={"sessions": 0, "threads": 1}),
        plan_text(session={"sessions": 1_000_000, "threads": 1}),
        plan_text(session={"sessions": 1, "threads": -1}),
        plan_text(session={"sessions": 2, "threads": 2}),
        plan_text(session={"sessions": "2", "threads": 1}),
        plan_text(session={"sessions": 2, "threads": 1, "more": 1}),
        plan_text(session=None),
        plan_text(session=[2, 1]),
        plan_text(batch_tokens=0),
        plan_text(batch_tokens=10**12),
        plan_text(batch_tokens="2048"),
        plan_text(batch_tokens=[2048]),
        plan_text(tokens_per_s={"a": float("nan")}),
        plan_text(tokens_per_s={"a": float("inf")}),
        plan_text(tokens_per_s={str(number): 1.0 for number in range(100)}),
        plan_text(tokens_per_s=[1.0]),
        json.dumps({"key": {"version": 1}, "plan": PLAN}),
        json.dumps({"plan": PLAN}),
        json.dumps([KEY, PLAN]),
        "[" * 100_000,
        plan_text()[:-1],
        "",
    ],
    ids=lambda content: content[:60],
)
def test_a_plan_that_was_not_measured_here_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    assert read_plan(path) is None


@pytest.mark.parametrize("plant", [link_to_canary, link_to_folder, dangling_link, pipe])
def test_a_plan_that_is_no_plain_file_is_measured_anew(
    tmp_path: Path, private: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / "plan.json", private)
    assert read_plan(tmp_path / "plan.json") is None


@pytest.mark.parametrize("plant", [link_to_canary, link_to_folder, dangling_link, pipe])
def test_converted_weights_without_a_plain_record_are_converted_anew(
    tmp_path: Path, private: Path, plant: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "e5-small-v1"
    folder.mkdir()
    plant(folder / "monoxkit-packaged.json", private)
    assert not packaged._stands_whole(folder)
