"""Locks: one holder at a time, gone with its process, and never kept alive by a child of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from monox_kit.errors import FolderBusy, StorageError, StoreLocked, StoreLockLost
from monox_kit.locks import RangeLocks, exclusive_lock, owned_folder
from tests.children import fork, sleep_in_a_fork, sleep_in_a_program


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "store" / "lock"
    with (
        exclusive_lock(lock, lock.parent),
        pytest.raises(FolderBusy, match=r"^[^:]*/store: another process .* the lock .*/store/lock"),
        exclusive_lock(lock, lock.parent),
    ):
        pytest.fail("the block must not run")
    with exclusive_lock(lock, lock.parent):
        pass


def test_an_owned_folder_has_one_builder_and_starts_clean(tmp_path: Path) -> None:
    (tmp_path / ".tmp-model-abcdefgh").mkdir()
    final = tmp_path / "model"
    with owned_folder(final):
        assert names(tmp_path) == [".model.lock"]
        with (
            pytest.raises(FolderBusy, match=r"^[^:]*/model: another process"),
            owned_folder(final),
        ):
            pytest.fail("the block must not run")


@pytest.mark.parametrize("start_child", [sleep_in_a_fork, sleep_in_a_program])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_child_does_not_keep_its_parents_folder(
    tmp_path: Path, start_child: Callable[[], int], is_killed: bool
) -> None:
    """As a worker of a training run would that outlives it."""
    final = tmp_path / "model"
    reports, reporting = os.pipe()

    def own() -> None:
        with owned_folder(final):
            os.write(reporting, f"{start_child()}\n".encode())
            if is_killed:
                signal.pause()

    owner = fork(own)
    child = int(os.read(reports, 20))
    try:
        if is_killed:
            with pytest.raises(FolderBusy), owned_folder(final):
                pytest.fail("the block must not run")
            os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        os.kill(child, 0)  # still there
        with owned_folder(final):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_gives_nothing_back(tmp_path: Path) -> None:
    with RangeLocks(tmp_path / "lock") as locks:
        locks.take(0, 1, "the file")
        os.waitpid(fork(locks.__exit__), 0)
        with RangeLocks(tmp_path / "lock") as other, pytest.raises(StoreLocked):
            other.take(0, 1, "the file")


def test_a_turn_is_waited_for(tmp_path: Path) -> None:
    path, gone = tmp_path / "lock", Event()

    def second() -> None:
        with RangeLocks(path) as locks, locks.turn(7):
            gone.set()

    with RangeLocks(path) as locks:
        with locks.turn(7):
            thread = Thread(target=second)
            thread.start()
            assert not gone.wait(0.1)
        thread.join(500)
    assert gone.is_set()


def test_a_lock_file_that_another_removed_is_not_current(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with RangeLocks(path) as locks:
        locks.require_current()
        for change in (path.unlink, path.touch):
            change()
            with pytest.raises(StoreLockLost, match="/lock: "):
                locks.require_current()


@pytest.mark.parametrize("is_new", [False, True])
def test_nobody_gets_a_lock_on_a_file_that_another_removed(tmp_path: Path, is_new: bool) -> None:
    """Else two would have it: one of the old file, one of the new."""
    path = tmp_path / "lock"
    with RangeLocks(path) as locks:
        path.unlink()
        if is_new:
            path.touch()
        for get in (
            lambda: locks.took(0, 1),
            lambda: locks.take(0, 1, "the file"),
            lambda: locks.turn(0).__enter__(),
        ):
            with pytest.raises(StoreLockLost, match="/lock: "):
                get()
    with exclusive_lock(path, path.parent):
        pass


def test_a_file_that_its_server_forgot_is_lost_and_gives_its_locks_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does with one that another machine removed: every call on it ends in ESTALE."""

    def stale(*arguments: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with RangeLocks(tmp_path / "lock") as locks, locks.turn(3):
        for owner, name in ((fcntl, "fcntl"), (os, "fstat")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, stale)
                with pytest.raises(StoreLockLost, match="removed or replaced"):
                    locks.took(0, 1)
        monkeypatch.setattr(fcntl, "fcntl", stale)  # at the end of the turn too


def test_a_disk_that_does_not_tell_of_the_file_is_no_loss_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RangeLocks(tmp_path / "lock") as locks:
        monkeypatch.setattr(os, "lstat", fail)
        with pytest.raises(StorageError, match=r"/lock: .*Input/output"):
            locks.require_current()


def test_a_file_system_that_knows_no_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with RangeLocks(tmp_path / "lock", "; or merge") as locks:
        monkeypatch.setattr(fcntl, "fcntl", fail)
        with pytest.raises(StorageError, match=r"found: No locks available.*; or merge\.$"):
            locks.took(0, 1)
