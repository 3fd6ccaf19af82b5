"""Locks between processes and machines: on bytes of a file, released by the kernel, never left.

They are open file description locks of Linux (`F_OFD_SETLK`): NFS knows them, threads of one
process are as strange to each other as processes are, and a process that dies has none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from monox_kit.durable import make_folder, open_plain, remove_leftovers, resolved
from monox_kit.errors import FolderBusy, StorageError, StoreError, StoreLocked, StoreLockLost

# What a call tells of an open file that somebody removed: NFS knows it no more.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
# struct flock of Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi"


class RangeLocks:
    """Advisory locks on single bytes and ranges of one empty file, each for a thing of its own.

    Use as a context manager; leaving it releases all. They are this process's alone: a program
    that it starts never has them, and a child that it forks lets go of them without releasing
    them, so that neither keeps a lock alive. Whoever removes the file takes them away: others would
    lock a new one. No lock is given on a file that is no longer at its path, and a holder that
    writes for long asks again with `require_current`.
    """

    def __init__(self, path: Path, advice: str = "") -> None:
        """Names the file; it is created with its folder where absent.

        Args:
            path: the file.
            advice: what else can be done on a file system without locks, for the message.
        """
        self._path = path
        self._advice = advice
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        self._descriptor = open_plain(self._path, os.O_RDWR, "Delete it: it holds nothing.")
        _range_locks().add(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go()  # of the only copy: the kernel releases the locks

    @property
    def held(self) -> bool:
        """Whether this process, and not its parent, is in the block."""
        return self._descriptor is not None

    def require_current(self) -> None:
        """Check that the file is still the one at its path, which others lock.

        Raises:
            StoreLockLost: it is not.
            StorageError: the system does not tell.
        """
        try:
            opened, found = os.fstat(self._open_descriptor()), os.lstat(self._path)
        except OSError as error:
            if error.errno in _GONE:
                raise self._lost() from error
            raise StorageError(
                f"{self._path}: expected to find out about the lock file, found: "
                f"{error.strerror}. Check the disk, then run the same command again."
            ) from error
        if not os.path.samestat(opened, found):
            raise self._lost()

    def let_go(self) -> None:
        """Close the file; the locks stay with a process that shares it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def take(self, start: int, stop: int, what: str) -> None:
        """Hold bytes [start, stop) until the end of the block.

        Args:
            start: first byte.
            stop: behind the last; nothing is locked where it is not greater.
            what: what the bytes stand for, for the message.

        Raises:
            StoreLocked: another holds one of them, or removed the file.
            StorageError: the file system has no locks.
        """
        if not self.took(start, stop):
            raise StoreLocked(
                f"{self._path.parent}: expected no other writer of {what}, found one. "
                "Wait for it to end, or take what it leaves."
            )

    def took(self, start: int, stop: int) -> bool:
        """Hold bytes [start, stop) until the end of the block; False where another has one.

        Raises:
            StoreLockLost: another removed the file.
            StorageError: the file system has no locks.
        """
        return stop <= start or self._set(fcntl.F_WRLCK, start, stop, wait=False)

    @contextlib.contextmanager
    def turn(self, byte: int) -> Iterator[None]:
        """Hold one byte for the block; others wait for their turn.

        Raises:
            StoreLockLost: another removed the file, before the turn came.
            StorageError: the file system has no locks.
        """
        self._set(fcntl.F_WRLCK, byte, byte + 1, wait=True)
        try:
            yield
        finally:
            self._set(fcntl.F_UNLCK, byte, byte + 1, wait=True)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("expected to be used in a with statement")
        return self._descriptor

    def _set(self, kind: int, start: int, stop: int, *, wait: bool) -> bool:
        """Set or release a lock; False where another holds it and `wait` is off."""
        request = struct.pack(_FLOCK, kind, os.SEEK_SET, start, stop - start, 0)
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._open_descriptor(), command, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno in _GONE and kind == fcntl.F_UNLCK:
                return True  # with the file
            if error.errno in _GONE:
                raise self._lost() from error
            raise StorageError(
                f"{self._path}: expected a file system with locks, found: {error.strerror}. "
                f"Give a folder on one that has them{self._advice}."
            ) from error
        if kind != fcntl.F_UNLCK:
            self.require_current()  # it may have been removed since it was opened
        return True

    def _lost(self) -> StoreLockLost:
        return StoreLockLost(
            f"{self._path}: expected the lock file that this process opened, found that it was "
            "removed or replaced. Let nobody touch it, see that no other process writes there, "
            "then run the same command again."
        )


@contextlib.contextmanager
def exclusive_lock(path: Path, folder: Path) -> Iterator[None]:
    """Hold the one lock of the file at `path` for the block, as `RangeLocks` holds a byte.

    Raises:
        FolderBusy: another process, or another part of this one, holds it, or removed the file.
        StorageError: the file system has no locks, or a link or something else is at the path.
    """
    with contextlib.ExitStack() as stack:
        try:
            locks = stack.enter_context(RangeLocks(path))
        except StoreError as error:  # of no store here
            raise StorageError(str(error)) from error
        try:
            is_ours = locks.took(0, 1)
        except StoreLockLost as error:
            raise FolderBusy(
                f"{folder}: another process removed the lock file {path} while this one took it. "
                "Run the same command again."
            ) from error
        if not is_ours:
            raise FolderBusy(
                f"{folder}: another process is writing this folder and holds the lock {path}. "
                "Wait for it to end, or give another folder."
            )
        yield


@contextlib.contextmanager
def owned_folder(final: Path) -> Iterator[None]:
    """Be the only process that builds the folder `final`; what killed ones left is removed.

    A link is followed: the lock is that of the folder which it leads to.

    Raises:
        FolderBusy: another process is building it.
    """
    final = resolved(final)
    with exclusive_lock(final.parent / f".{final.name}.lock", final):
        remove_leftovers(final)
        yield


@functools.cache
def _range_locks() -> weakref.WeakSet[RangeLocks]:
    """The locks that this process may hold; children that it forks let go of them."""
    locks: weakref.WeakSet[RangeLocks] = weakref.WeakSet()

    def let_all_go() -> None:
        for one in list(locks):
            one.let_go()

    os.register_at_fork(after_in_child=let_all_go)
    return locks
