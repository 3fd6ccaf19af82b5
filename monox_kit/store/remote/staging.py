"""Folders in which shards lie on their way to a URL; a killed run's is removed by the next run."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from monox_kit.cache import made_cache
from monox_kit.durable import remove_folder
from monox_kit.errors import ConfigError
from monox_kit.locks import RangeLocks
from monox_kit.store.address import store_url
from monox_kit.store.format import LOCK_FILE

# Bytes of the lock file: the first for making and removing folders, then one for each folder.
_TURN = 0
# Of folders that were made here; whatever else lies beside them is somebody else's.
_NAME = re.compile(r"shards-([1-9][0-9]{0,5})", re.ASCII)


def staging_root(asked: str | None = None) -> Path:
    """The folder that staging folders are made in: below the one asked for, else in the cache.

    Each machine has its own: locks may hold on one machine only.

    Raises:
        ConfigError: it is a URL.
        StorageError: none is asked for, and there is no cache that can be believed.
    """
    above = made_cache() if asked is None else Path(asked)
    if asked is not None and store_url(asked) is not None:
        raise ConfigError(f"`staging` {asked}: expected a folder, found a URL. Give a folder.")
    return above / "monoxkit-staging" / platform.node()


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Have a folder below `root` for the block, alone; it is removed with all that is in it.

    The folder is named by a number that no process holds. What killed ones left is removed, and
    nothing else.

    Args:
        root: may be shared by any number of processes; created where absent.

    Raises:
        StorageError: the disk refused, or has no locks.
    """
    with RangeLocks(root / LOCK_FILE) as locks:
        with locks.turn(_TURN):
            _remove_dead(root)
            number = next(each for each in count(1) if locks.took(each, each + 1))
        folder = root / f"shards-{number}"
        try:
            yield folder
        finally:
            remove_folder(folder)


def remove_dead_folders(root: Path) -> None:
    """Remove what killed processes left below `root`.

    Raises:
        StorageError: the disk refused, or has no locks.
    """
    if root.is_dir():
        with RangeLocks(root / LOCK_FILE) as locks, locks.turn(_TURN):
            _remove_dead(root)


def _remove_dead(root: Path) -> None:
    """Remove the folders that no process holds."""
    for match in [_NAME.fullmatch(path.name) for path in root.iterdir() if path.is_dir()]:
        if match is not None:
            with RangeLocks(root / LOCK_FILE) as locks:
                if locks.took(int(match[1]), int(match[1]) + 1):
                    remove_folder(root / match[0])
