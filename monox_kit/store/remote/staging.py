"""Folders in which shards lie on their way to a URL; a killed run's is removed by the next run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from monox_kit.durable import remove_folder
from monox_kit.errors import StoreLocked
from monox_kit.locks import RangeLocks
from monox_kit.store.format import LOCK_FILE

# Bytes of the lock file: the first for making and removing folders, then one for each folder.
_TURN = 0


def staging_root(asked: str | None = None) -> Path:
    """The folder that staging folders are made in: the one asked for, else one in the cache."""
    from monox_kit.packaged import default_cache  # converts weights too: not needed to read stores

    return default_cache() / "staging" if asked is None else Path(asked)


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Have a folder below `root` for the block, alone; it is removed with all that is in it.

    The folder is named by a number that no process holds. What killed ones left is removed.

    Args:
        root: may be shared by any number of processes; created where absent.

    Raises:
        StorageError: the disk refused, or has no locks.
    """
    with RangeLocks(root / LOCK_FILE) as locks:
        with locks.turn(_TURN):
            for name in [path.name for path in root.iterdir() if path.name.isdecimal()]:
                _remove_where_dead(root, int(name))
            number = next(each for each in count(1) if _took(locks, each))
        folder = root / str(number)
        try:
            yield folder
        finally:
            remove_folder(folder)


def _remove_where_dead(root: Path, number: int) -> None:
    """Remove a folder that no process holds."""
    with RangeLocks(root / LOCK_FILE) as locks:
        if _took(locks, number):
            remove_folder(root / str(number))


def _took(locks: RangeLocks, number: int) -> bool:
    with suppress(StoreLocked):
        locks.take(number, number + 1, f"folder {number}")
        return True
    return False
