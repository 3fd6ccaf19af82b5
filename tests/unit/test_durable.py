"""Durable writes: a reader sees the old state or the whole new one, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monox_kit import durable
from monox_kit.errors import ConfigError, StorageError, StoreError
from monox_kit.store.folder import StoreFolder, require_own_folder, require_own_shards


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    durable.write_file(target, b"old")
    durable.write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["a.bin"]


def test_json_is_readable_text_and_refuses_nan(tmp_path: Path) -> None:
    durable.write_json(tmp_path / "a.json", {"name": "日本", "rows": 2})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "name": "日本",\n  "rows": 2\n}\n'
    )
    with pytest.raises(ValueError, match="JSON"):
        durable.write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError("crash"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    durable.write_file(tmp_path / "a", b"old")

    def write_half() -> None:
        with durable.new_file(tmp_path / "a") as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        durable.write_file(tmp_path / "file", b"")
        with durable.new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


class Calls:
    """Records fsync and rename calls by the path that they concern, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        fsync, replace, rename = os.fsync, os.replace, os.rename

        def record_fsync(descriptor: int) -> None:
            self.seen.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
            fsync(descriptor)

        def record_replace(source: Any, target: Any) -> None:
            self.seen.append(f"rename to {Path(target).name}")
            replace(source, target)

        def record_rename(source: Any, target: Any) -> None:
            self.seen.append(f"rename to {Path(target).name}")
            rename(source, target)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "replace", record_replace)
        monkeypatch.setattr(os, "rename", record_rename)

    def named(self, name: str) -> list[str]:
        """The calls, with every temporary path called `name`."""
        return [
            f"{call.split(' .tmp-')[0]} {name}" if ".tmp-" in call else call for call in self.seen
        ]


def test_file_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    calls = Calls(monkeypatch)
    durable.write_file(tmp_path / "out" / "a", b"new")
    assert calls.named("temporary") == ["fsync temporary", "rename to a", "fsync out"]


def test_folder_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    calls = Calls(monkeypatch)
    with durable.new_folder(tmp_path / "out" / "shard") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "logits").write_bytes(b"1")
        (folder / "record").write_bytes(b"2")
    assert calls.named("temporary") == [
        "fsync logits",
        "fsync inner",
        "fsync record",
        "fsync temporary",
        "rename to shard",
        "fsync out",
    ]


def test_new_folders_reach_the_disk_from_the_top_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process can have left one name that is not durable: that of the last one there."""
    (tmp_path / "root" / "here").mkdir(parents=True)
    calls = Calls(monkeypatch)
    mkdir = os.mkdir

    def record_mkdir(path: Any, *arguments: Any) -> None:
        calls.seen.append(f"mkdir {Path(path).name}")
        mkdir(path, *arguments)

    monkeypatch.setattr(os, "mkdir", record_mkdir)
    durable.make_folder(tmp_path / "root" / "here" / "a" / "b")
    assert calls.seen == ["fsync root", "mkdir a", "fsync here", "mkdir b", "fsync a"]
    calls.seen.clear()
    durable.make_folder(tmp_path / "root" / "here" / "a" / "b")
    assert calls.seen == []


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_a_failed_fsync_is_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The kernel tells once, and forgets the pages that it could not write."""
    fsync, calls = os.fsync, iter(range(9))

    def failing_fsync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    def write() -> None:
        with durable.new_folder(tmp_path / "shard") as folder:
            (folder / "a").write_text("a")
        durable.write_file(tmp_path / "file", b"new")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(StorageError, match=f"{tmp_path}.*: .*Input/output error"):
        write()
    assert names(tmp_path) == (["shard"] if failing > 2 else [])


def test_a_folder_appears_only_when_finished(tmp_path: Path) -> None:
    final = tmp_path / "shard"
    with durable.new_folder(final) as folder:
        (folder / "a").write_text("a")
        assert not final.exists()
    assert (final / "a").read_text() == "a"
    assert names(tmp_path) == ["shard"]


@pytest.mark.parametrize("error", [RuntimeError("crash"), KeyboardInterrupt()])
@pytest.mark.parametrize("there_before", [True, False])
def test_an_error_leaves_the_old_folder(
    tmp_path: Path, error: BaseException, there_before: bool
) -> None:
    final = tmp_path / "shard"
    if there_before:
        with durable.new_folder(final) as folder:
            (folder / "a").write_text("old")

    def write_half() -> None:
        with durable.new_folder(final, replace=True) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert names(tmp_path) == (["shard"] if there_before else [])
    if there_before:
        assert (final / "a").read_text() == "old"


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    final = tmp_path / "shard"
    with durable.new_folder(final) as folder:
        (folder / "old").write_text("old")
    with (
        pytest.raises(ConfigError, match="expected no folder yet"),
        durable.new_folder(final),
    ):
        pytest.fail("the block must not run")
    with durable.new_folder(final, replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(final) == ["new"]
    assert names(tmp_path) == ["shard"]


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "shard"

    def build() -> None:
        with durable.new_folder(final) as folder:
            (folder / "ours").write_text("ours")
            final.mkdir()
            (final / "others").write_text("others")

    with pytest.raises(ConfigError, match="/shard: "):
        build()
    assert names(final) == ["others"]
    assert names(tmp_path) == ["shard"]


def test_an_empty_folder_that_came_meanwhile_is_taken(tmp_path: Path) -> None:
    with durable.new_folder(tmp_path / "shard") as folder:
        (folder / "ours").write_text("ours")
        (tmp_path / "shard").mkdir()
    assert names(tmp_path / "shard") == ["ours"]


def test_a_folder_that_fails_its_check_never_appears(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        assert (folder / "a").read_text() == "a"
        raise StorageError("read back other bytes")

    with (
        pytest.raises(StorageError, match="other bytes"),
        durable.new_folder(tmp_path / "shard", verify=refuse) as folder,
    ):
        (folder / "a").write_text("a")
    assert names(tmp_path) == []


def test_outputs_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="found a folder"):
        durable.write_file(tmp_path / "folder", b"")
    with pytest.raises(ConfigError, match="found a file"), durable.new_folder(tmp_path / "file"):
        pytest.fail("the block must not run")
    with pytest.raises(ConfigError, match="found a file"):
        durable.write_file(tmp_path / "file" / "below", b"")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space"),
        OSError(errno.EIO, "bad block"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("I/O error: Disk quota exceeded (os error 122)"),
        RuntimeError("[model.onnx] write failed: No space left on device"),
    ],
)
def test_refusals_of_the_disk_name_the_path(tmp_path: Path, error: Exception) -> None:
    def write() -> None:
        with durable.new_folder(tmp_path / "shard"):
            raise error

    with pytest.raises(StorageError, match=f"{tmp_path}/shard: "):
        write()
    assert names(tmp_path) == []


def test_errors_that_are_not_the_disks_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), durable.new_folder(tmp_path / "shard"):
        (tmp_path / "absent").read_text()
    with pytest.raises(RuntimeError), durable.new_folder(tmp_path / "shard"):
        raise RuntimeError("I/O error: No such file or directory (os error 2)")
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from monox_kit.durable import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1]) / 'shard') as folder:\n"
        "    (folder / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert finished.returncode == -9
    # What killed writers of `shard-2` and of a file leave behind.
    (tmp_path / ".tmp-shard-2-abcdefgh").mkdir()
    (tmp_path / ".tmp-abcdefgh").write_text("half")
    assert len(names(tmp_path)) == 3
    durable.remove_leftovers(tmp_path / "shard")
    assert names(tmp_path) == [".tmp-abcdefgh", ".tmp-shard-2-abcdefgh"]
    (tmp_path / "kept").write_text("")
    durable.remove_all_leftovers(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_remove_folder_accepts_an_absent_one(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    durable.remove_folder(tmp_path / "a")
    durable.remove_folder(tmp_path / "a")
    assert names(tmp_path) == []


def test_files_that_a_library_makes_private_become_as_readable_as_the_rest(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with durable.new_folder(tmp_path / "model") as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "weights").touch(mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model" / "inner" / "weights").stat().st_mode) == 0o644


def test_what_is_appended_stands_behind_what_was_there(tmp_path: Path) -> None:
    for part in (b"one\n", b"two\n"):
        with durable.AppendedFile(tmp_path / "new" / "log") as log:
            log.append(part)
            log.sync()
    assert (tmp_path / "new" / "log").read_bytes() == b"one\ntwo\n"


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"years of work")
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match=r"/log: .*link"):
        durable.AppendedFile(tmp_path / "log")
    assert (tmp_path / "other").read_bytes() == b"years of work"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_named_where_something_is_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "")

    with durable.AppendedFile(tmp_path / "log") as log:
        monkeypatch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match=r"log: .*No space left"):
            log.append(b"line")
            log.sync()


@pytest.mark.parametrize(
    "look",
    [
        lambda path: durable.new_folder(path).__enter__(),
        lambda path: durable.new_file(path).__enter__(),
        durable.is_free,
        durable.make_folder,
        require_own_folder,
        require_own_shards,
        StoreFolder,
    ],
    ids=["folder", "file", "is free", "make", "store", "shards", "opened"],
)
def test_a_disk_that_cannot_even_be_looked_at_is_named(
    look: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there"
    path.mkdir()
    stat_of = os.stat

    def refuse(name: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if os.fspath(name).startswith(str(path)):
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(name))
        return stat_of(name, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(StorageError, match=r"there.*Input/output error"):
        look(path)
