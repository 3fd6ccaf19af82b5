"""The folder for what can be made again: weights, run plans, compiled graphs, shards for a URL.

What lies there is believed, so only this user and root may write to it. It is made for this user
alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from monox_kit.durable import make_folder
from monox_kit.errors import ConfigError, StorageError

VARIABLE: Final = "MONOXKIT_CACHE"
_STEP: Final = f"Set {VARIABLE} to a folder of your own."


def default_cache() -> Path:
    """The cache, which need not be there yet.

    `$MONOXKIT_CACHE` where set, else `monoxkit` below `$XDG_CACHE_HOME`, else `~/.cache/monoxkit`.

    Raises:
        StorageError: the user has no home folder, or others may write to the cache.
    """
    path = _named()
    reason = _distrusted(path)
    if reason is not None:
        raise StorageError(f"{path}: the cache is not used, because {reason}. {_STEP}")
    return path


def made_cache() -> Path:
    """The cache, made where absent.

    Raises:
        StorageError: as `default_cache`, or the disk refused.
    """
    path = default_cache()
    try:
        return make_folder(path, mode=0o700)
    except (ConfigError, StorageError) as error:
        raise StorageError(f"{error} {_STEP}") from error


def keep_fonts() -> None:
    """Let matplotlib keep in the cache what it knows of fonts, not in folders of its own at home.

    For commands, before it is imported: a program's own settings of it would be lost.
    """
    with contextlib.suppress(StorageError):  # it then makes a temporary folder
        os.environ.setdefault("MPLCONFIGDIR", str(made_cache() / "matplotlib"))


def is_own(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, or to root, who may do anything anyway."""
    return status.st_uid in (os.geteuid(), 0)


def read_own(path: Path, most_bytes: int) -> bytes:
    """The content of a file in the cache, at most so many bytes of it.

    Raises:
        OSError: it is not there, no plain file, or another user's.
    """
    with open_own(path) as stream:
        return stream.read(most_bytes)


def open_own(path: Path) -> BinaryIO:
    """A file in the cache, opened for reading.

    Raises:
        OSError: it is not there, no plain file, or another user's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) and is_own(status)):
            raise PermissionError(f"{path}: not a plain file of this user")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def true_folders(folder: Path) -> list[Path]:
    """The folders that the files of a folder lie in: itself; in a hub's cache also that of blobs.

    There HUB/KIND--OWNER--NAME/snapshots/REVISION/FILE is a link into HUB/KIND--OWNER--NAME/blobs.
    """
    real = folder.resolve()
    snapshots = (above.parent for above in (real, *real.parents))
    return [real] + [
        path.parent / "blobs"
        for path in snapshots
        if path.name == "snapshots" and path.parent.name.startswith(("models--", "datasets--"))
    ]


def _named() -> Path:
    """Where the cache is by the environment.

    Raises:
        StorageError: the environment names no folder, and the user has no home folder.
    """
    try:
        if own := os.environ.get(VARIABLE):
            return Path(own).expanduser()
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        # The XDG base directory specification: relative paths are to be ignored.
        above = xdg if xdg.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:  # neither HOME nor an entry among the users
        raise StorageError(
            f"{VARIABLE}: there is no folder for the cache, because this user has no home folder. "
            f"{_STEP}"
        ) from error
    return above / "monoxkit"


def _distrusted(path: Path) -> str | None:
    """Why what lies there cannot be believed; None where it can, or nothing is there."""
    try:
        link = os.lstat(path)
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be looked at ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    for status in (link, found):
        if not is_own(status):
            return f"it belongs to the user with the id {status.st_uid}"
    # A group of the user's own number is the user's alone, as most systems make them.
    group_writes = found.st_mode & stat.S_IWGRP and found.st_gid != found.st_uid
    if found.st_mode & stat.S_IWOTH or group_writes:
        return "others may write to it"
    return None
