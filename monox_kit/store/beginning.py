"""Who may begin a store in a folder, and who waits: the bytes of the store's lock file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from monox_kit.errors import StorageError, StoreError
from monox_kit.locks import RangeLocks
from monox_kit.store.folder import require_local
from monox_kit.store.format import (
    COMPLETE_FILE,
    LOCK_FILE,
    MAX_SHARDS,
    SCAN_FILE,
    SHARDS_FOLDER,
    STORE_FILE,
)
from monox_kit.store.record import corrupt, is_there

# Bytes of the lock file: the first for what is the whole store's, then one for each shard; behind
# them one for what comes before there is a store.
WHOLE = 0
_BEGINNING = 1 + MAX_SHARDS
# Times that a folder may be gone between being made and being locked.
_MOST_LOST = 100
_PAUSE_S = 0.02


def store_locks(folder: Path) -> RangeLocks:
    """The locks of the store at `folder`, to be entered."""
    advice = (
        "; parts can be labelled into stores of their own and put together by "
        "`monoxkit store merge`"
    )
    return RangeLocks(folder / LOCK_FILE, advice)


def shard_bytes(claimed: range) -> tuple[int, int]:
    """Where the bytes of consecutive shards lie in the lock file."""
    return WHOLE + 1 + claimed.start, WHOLE + 1 + claimed.stop


@contextmanager
def beginning(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Take turns in beginning a store, so that what comes before it is done once.

    A folder that was made here goes again where the block has begun no store in it.

    Args:
        folder: the store's folder.
        waiting: called where another has the turn, before the wait.

    Raises:
        StoreCorrupt: the folder holds shards without a `store.json`.
        StoreError: it holds something else, or is a file.
        ConfigError: it is a URL.
        StorageError: the disk refused, or has no locks.
    """
    with ExitStack() as turn:
        is_ours = False
        lost = 0
        while not is_ours:
            require_own_folder(folder)
            is_new = not folder.exists()
            try:
                with ExitStack() as attempt:
                    locks = attempt.enter_context(store_locks(folder))
                    attempt.enter_context(locks.turn(_BEGINNING, waiting))
                    # Who had the turn before may have removed the folder, and this lock with it.
                    is_ours = locks.is_current
                    if is_ours:
                        turn.push(attempt.pop_all())
            except FileNotFoundError as error:
                # That too; but where no folder can be made it is always so.
                lost += 1
                if lost == _MOST_LOST:
                    raise StorageError(
                        f"{folder}: expected a place where folders can be made, found: "
                        f"{error.strerror}. Give another folder."
                    ) from error
                time.sleep(_PAUSE_S)
        try:
            yield
        finally:
            if is_new and not is_there(folder / STORE_FILE):
                _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that holds the lock file alone."""
    with suppress(OSError):
        if os.listdir(folder) == [LOCK_FILE]:
            os.unlink(folder / LOCK_FILE)
            os.rmdir(folder)


def require_own_folder(folder: Path) -> None:
    """Check that a store may be created or continued in `folder`; absent and empty are fine.

    Raises:
        StoreCorrupt: it holds shards without a `store.json`.
        StoreError: it holds something else, or is a file.
        ConfigError: it is a URL.
    """
    require_local(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise StoreError(f"{folder}: expected a folder, found a file. Give another folder.")
    if os.path.lexists(folder / STORE_FILE):
        return  # listing 100,000 shards takes 50 ms
    # Shards are looked for first: another writer may create the store meanwhile, them last.
    shards = folder / SHARDS_FOLDER
    holds_shards = shards.is_dir() and any(
        not name.startswith(".tmp-") for name in os.listdir(shards)
    )
    names = {name for name in os.listdir(folder) if not name.startswith(".tmp-")}
    foreign = names - {STORE_FILE, COMPLETE_FILE, SHARDS_FOLDER, LOCK_FILE, SCAN_FILE}
    if STORE_FILE in names:
        return
    if foreign:
        raise StoreError(
            f"{folder}: expected an empty folder or a logit store, found {min(foreign)!r}. "
            "Give another folder."
        )
    if COMPLETE_FILE in names or holds_shards:
        step = "Restore it from a copy, or delete the folder and run `monoxkit label` again."
        raise corrupt(folder / STORE_FILE, "the file", "none", step)
