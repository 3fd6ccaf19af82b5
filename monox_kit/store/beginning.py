"""Who may begin a store in a folder, and who waits: the bytes of the store's lock file.

Who has the turn says so in the file `.tmp-turn`, and what it failed with where others wait.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

from monox_kit.durable import disk_errors, remove_file, remove_leftover, write_file
from monox_kit.errors import (
    CorpusError,
    CorpusUnreadable,
    MonoxError,
    StorageError,
    StoreCorrupt,
    StoreError,
    StoreLockLost,
)
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
from monox_kit.store.record import PlainFolder, corrupt, is_there

# Bytes of the lock file: the first for what is the whole store's, then one for each shard; behind
# them three for what comes before there is a store: the turn; whether the turn's file is of who has
# it; and, shared, who waits.
WHOLE = 0
_BEGINNING = 1 + MAX_SHARDS
_NAMED = _BEGINNING + 1
_WAITING = _BEGINNING + 2
# Writers remove it with all that a killed one leaves: it holds nothing that is needed.
_TURN_FILE = ".tmp-turn"
# Times that a folder may be gone between being made and being locked, and that who waits looks for
# the name of who has the turn.
_MOST_LOST = 100
_MOST_LOOKS = 50
_PAUSE_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """What the turn's file holds.

    Attributes:
        host: where the process runs that has the turn.
        pid: its id there.
        since: when it got the turn, UTC.
        is_new: whether the store's folder was made for this turn, or one before it.
        about: what the outcome depends on.
        failure: the message of the `CorpusError` that it ended with; None while it is at work.
    """

    host: str
    pid: int
    since: str
    is_new: bool
    about: str | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        """Check what a file may hold otherwise.

        Raises:
            TypeError: a value is of another type.
        """
        for name, kind in get_type_hints(_Turn).items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(name)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, which began at {self.since}"


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
def beginning(
    folder: Path, about: Callable[[], str], waiting: Callable[[str], None]
) -> Iterator[None]:
    """Take turns in beginning a store, so that what comes before it is done once.

    A folder that was made here goes again where the block has begun no store in it. A `CorpusError`
    of the block is that of all who wait meanwhile and whose work is about the same, but for a
    `CorpusUnreadable`: their machines may read what this one cannot. Who comes later does the work
    again.

    Args:
        folder: the store's folder.
        about: tells, once the turn has come, what stands for all that such an error depends on.
        waiting: called where another has the turn, before the wait, with who it is; with no text
            where that is not known.

    Raises:
        CorpusError: the one that was waited for ended with it.
        StoreCorrupt: the folder holds shards without a `store.json`.
        StoreError: it holds something else, or is a file.
        ConfigError: it is a URL.
        StorageError: the disk refused, or has no locks.
    """
    with ExitStack() as stack:
        locks, is_new, has_waited = _taken(folder, waiting, stack)
        path, earlier = folder / _TURN_FILE, _read_turn(folder)
        remove_leftover(path)  # else who waits for this run may believe what it says
        is_new = is_new or (earlier is not None and earlier.is_new)
        failed = earlier if has_waited and earlier and earlier.failure is not None else None
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        turn = _Turn(host=platform.node(), pid=os.getpid(), since=since, is_new=is_new)
        is_handed_on = False
        try:
            turn = replace(turn, about=about())
            if failed is not None and failed.about == turn.about:
                turn = replace(failed, is_new=is_new)  # of the folder that stands there now
                raise CorpusError(f"{failed.failure} Found by {failed}; this run waited for it.")
            with ExitStack() as named:
                if not has_begun(folder):  # else this run's turn is over at once
                    _write_turn(path, turn, locks)
                    named.enter_context(locks.turn(_NAMED))
                yield
        except CorpusUnreadable:
            raise
        except CorpusError as error:
            with suppress(MonoxError, OSError):  # then each finds out by itself
                if locks.is_held(_WAITING):
                    _write_turn(path, replace(turn, failure=turn.failure or str(error)), locks)
                    is_handed_on = True
            raise
        finally:
            if not is_handed_on:
                with suppress(StorageError):  # the next writer removes it
                    remove_leftover(path)
                    if is_new and not is_there(folder / STORE_FILE):
                        _remove_unused(folder)


def _taken(
    folder: Path, waiting: Callable[[str], None], stack: ExitStack
) -> tuple[RangeLocks, bool, bool]:
    """Have the turn until `stack` ends.

    Returns:
        The locks, whether the folder was made here, and whether another had the turn before.
    """
    has_waited = False
    lost = 0
    while True:
        require_own_folder(folder)
        is_new = not is_there(folder)
        try:
            with ExitStack() as attempt:
                locks = attempt.enter_context(store_locks(folder))

                def wait(locks: RangeLocks = locks) -> None:
                    nonlocal has_waited
                    has_waited = True
                    locks.share(_WAITING)
                    waiting(_holder(folder, locks))

                attempt.enter_context(locks.turn(_BEGINNING, wait))
                locks.give_back(_WAITING)
                stack.push(attempt.pop_all())
                return locks, is_new, has_waited
        except (StoreLockLost, FileNotFoundError) as error:
            # Who had the turn before may have removed the folder, and this lock with it; but where
            # no folder can be made, or a file is never the same twice, it is always so.
            lost += 1
            if lost == _MOST_LOST and isinstance(error, OSError):
                raise StorageError(
                    f"{folder}: expected a place where folders can be made, found: "
                    f"{error.strerror}. Give another folder."
                ) from error
            if lost == _MOST_LOST:
                raise
            time.sleep(_PAUSE_S)


def _holder(folder: Path, locks: RangeLocks) -> str:
    """Who has the turn; no text where that is not known."""
    for _ in range(_MOST_LOOKS):
        if locks.is_held(_NAMED):  # before, the file may be of one that was killed
            return str(_read_turn(folder) or "")
        if not locks.is_held(_BEGINNING):
            break
        time.sleep(_PAUSE_S)
    return ""


def _write_turn(path: Path, turn: _Turn, locks: RangeLocks) -> None:
    with locks.turn(WHOLE):  # else a writer that begins removes the file that becomes this one
        write_file(path, json.dumps(asdict(turn)).encode())


def _read_turn(folder: Path) -> _Turn | None:
    """What the turn's file holds; None where there is none that can be read."""
    try:
        with PlainFolder(folder, "", may_be_link=True) as opened:
            return _Turn(**json.loads(opened.read_small(_TURN_FILE)))
    # Another version's, too; or nested too deep.
    except (StoreCorrupt, StorageError, ValueError, TypeError, RecursionError):
        return None


def has_begun(folder: Path) -> bool:
    """Whether nobody needs a turn: a store is begun, and it is complete or keeps a scan.

    In its turn a run puts first the store, then the scan. A store without a scan was begun by a run
    that died, or somebody deleted it: the next run makes it in its turn.

    Raises:
        StorageError: the system refused to look.
    """
    return is_there(folder / STORE_FILE) and (
        is_there(folder / SCAN_FILE) or is_there(folder / COMPLETE_FILE)
    )


def keep_scan(folder: Path, content: bytes) -> None:
    """Keep what a scan of the corpus has found beside the shards, until the store is complete.

    Runs that come meanwhile need no scan of their own. It is no part of the store.

    Args:
        folder: of a store that has been begun.
        content: what to keep.

    Raises:
        StoreError: a folder stands there.
        StorageError: the disk refused.
    """
    with store_locks(folder) as locks, locks.turn(WHOLE):
        if not is_there(folder / COMPLETE_FILE):
            _require_no_folder(folder / SCAN_FILE)
            write_file(folder / SCAN_FILE, content)


def remove_scan(folder: Path) -> None:
    """Remove what `keep_scan` has put; hold the whole store's lock.

    Raises:
        StoreError: a folder stands there.
        StorageError: the disk refused.
    """
    with disk_errors(folder / SCAN_FILE):
        _require_no_folder(folder / SCAN_FILE)
    remove_file(folder / SCAN_FILE)


def _require_no_folder(scan: Path) -> None:
    if scan.is_dir() and not scan.is_symlink():
        raise StoreError(
            f"{scan}: expected no folder of this name in a store, found one. Move it elsewhere."
        )


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
        StoreError: it holds something else, also where a store has files of its own, or is a file.
        ConfigError: it is a URL.
        StorageError: the disk refused.
    """
    require_local(folder)
    with disk_errors(folder):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise StoreError(f"{folder}: expected a folder, found a file. Give another folder.")
        _require_no_folder(folder / SCAN_FILE)
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
