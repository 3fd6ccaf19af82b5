"""Every write that must survive a crash. No other module of the package opens a file for writing.

The order is always: write into a temporary sibling, fsync each file, fsync the folder, rename into
place, fsync the parent. A reader therefore sees the old state or the whole new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from monox_kit.errors import ConfigError, MonoxError, StorageError, StoreError

Made = TypeVar("Made")

# Errors of the disk, as opposed to errors of the caller.
_DISK_ERRNOS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
) | {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ESTALE}
# What a rename says where something else than an empty folder stands at the new name.
_TAKEN_ERRNOS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
# Rust says the number, C++ the reason.
_NATIVE_ERROR = re.compile(r"\(os error (?P<number>[0-9]+)\)|No space left on device")
_TEMPORARY_PREFIX = ".tmp-"
# How a file is opened that must be the one at its path, and must not make us wait: a pipe would.
_NOT_ELSEWHERE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SIBLING = re.compile(r"\.tmp-(?P<name>.+)-[a-z0-9_]{8}(-old)?")


def storage_error(error: OSError, path: str | os.PathLike[str]) -> StorageError:
    """A `StorageError` that names the path, the system's reason and the next step."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    step = {
        errno.ENOSPC: "Free some space or choose another folder, then run the same command again.",
        errno.EDQUOT: "Free some of your quota or choose another folder, then run again.",
        errno.EROFS: "Choose a folder that can be written to.",
        errno.EACCES: "Choose a folder that you may write to.",
        errno.EPERM: "Choose a folder that you may write to.",
    }.get(error.errno or 0, "Check the disk, then run the same command again.")
    return StorageError(f"{path}: expected to write here, found: {reason}. {step}")


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the disk's own refusals inside the block into `StorageError`s that name `path`."""
    try:
        yield
    except MonoxError:
        raise
    except OSError as error:
        if error.errno in _DISK_ERRNOS:
            raise storage_error(error, error.filename or path) from error
        raise
    except Exception as error:
        # Native writers (safetensors, protobuf) wrap the system's error in one of their own.
        found = _NATIVE_ERROR.search(str(error))
        number = int(found["number"] or errno.ENOSPC) if found else 0
        if number in _DISK_ERRNOS:
            raise storage_error(OSError(number, ""), path) from error
        raise


def fsync_folder(folder: Path) -> None:
    """Make the folder's own entries (names, renames) durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make every file below `folder`, and every folder's entries, durable.

    Files get the permissions of a new one, which those of `folder` tell: some writers, safetensors
    for one, make theirs readable by their owner alone.

    Raises:
        StorageError: something else than a plain file with one name is there.
    """
    mode = 0o666 & folder.stat().st_mode
    for parent, folders, names in os.walk(folder, topdown=False, onerror=_raise):
        for name in folders:
            _require(not os.path.islink(os.path.join(parent, name)), parent, name)
        for name in names:
            path = os.path.join(parent, name)
            # Looked at first: opening a device may already do something.
            _require(stat.S_ISREG(os.lstat(path).st_mode), parent, name)
            descriptor = os.open(path, os.O_RDONLY | _NOT_ELSEWHERE)
            try:
                found = os.fstat(descriptor)
                _require(stat.S_ISREG(found.st_mode) and found.st_nlink == 1, parent, name)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(parent))


def _require(is_ours: bool, parent: str, name: str) -> None:
    """Refuse what none of our writers makes: another process has put it there."""
    if not is_ours:
        raise StorageError(
            f"{os.path.join(parent, name)}: another process put a link or a special file into the "
            "folder that is being written. Give a folder in which nobody else writes."
        )


def make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Create `folder` and its parents where absent, durably: the name of each in the one above.

    Raises:
        ConfigError: a file stands at the path.
        StorageError: the disk refused.
    """
    with disk_errors(folder):
        try:
            absent = list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
            if absent:
                # Of a killed process that came no further, the name of this one may not be durable.
                _fsync_name(absent[-1].parent)
            for path in reversed(absent):
                path.mkdir(mode, exist_ok=True)
                fsync_folder(path.parent)
            if not folder.is_dir():
                raise FileExistsError(folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"{folder}: expected a folder, found a file. Give another output folder."
            ) from error
    return folder


def _fsync_name(folder: Path) -> None:
    """Make the name of a folder that stood already durable, where it lies in one of our own."""
    above = folder.absolute().parent
    # A mount point's name is in no folder; one in a folder that we may not list is not of our make.
    if folder.stat().st_dev == above.stat().st_dev:
        with contextlib.suppress(PermissionError):
            fsync_folder(above)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Replace `path` with what the block writes, durably: it holds the old bytes or all the new.

    Yields:
        A binary stream. On any error in the block, `path` is left as it was.

    Raises:
        ConfigError: a folder stands at `path`.
        StorageError: the disk refused.
    """
    with disk_errors(path):
        if path.is_dir():
            raise ConfigError(
                f"{path}: expected a file to write, found a folder. Give a file name."
            )
        make_folder(path.parent)
        temporary, descriptor = _new_sibling(path.parent / _TEMPORARY_PREFIX, _open_new)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            is_new = not os.path.lexists(path)
            os.replace(temporary, path)
            try:
                fsync_folder(path.parent)
            except OSError:
                if is_new:  # as `_rename_folder`; of an older file nothing is left to go back to
                    os.rename(path, temporary)
                raise
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def scratch_file() -> Iterator[BinaryIO]:
    """Yield a stream over an unnamed temporary file, to write and read; it vanishes with the block.

    Raises:
        StorageError: the disk refused.
    """
    with disk_errors(tempfile.gettempdir()), tempfile.TemporaryFile() as stream:
        yield stream


@contextlib.contextmanager
def linked_folder(files: Mapping[str, bytes], links: Mapping[str, Path]) -> Iterator[Path]:
    """Yield a private temporary folder of small files and of links; it vanishes with the block.

    Args:
        files: content by name.
        links: by name, the files that are shown under it.

    Raises:
        StorageError: the disk refused.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(tempfile.gettempdir()):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="monoxkit-"))
            folder = Path(name)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            for file, target in links.items():
                (folder / file).symlink_to(target)
        yield folder


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, durably; see `new_file`."""
    with new_file(path) as stream:
        stream.write(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` with `value` as indented JSON, durably."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(path, text.encode())


@contextlib.contextmanager
def new_folder(
    final: Path, *, replace: bool = False, verify: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Build a folder aside and rename it to `final` when the block ends without an error.

    Args:
        final: where the finished folder will stand; an empty folder there is taken. A link is
            followed, and stays.
        replace: whether an existing folder at `final` gives way to the new one; without it an
            existing folder is an error.
        verify: called with the finished temporary folder after its fsync and before the rename.

    Yields:
        The temporary sibling folder to write into. On any error it is removed.

    Raises:
        ConfigError: `final` exists and `replace` is off, also where it came while the block ran; or
            a file stands there.
        StorageError: the disk refused, or another process put a link into the new folder.
    """
    with disk_errors(final):
        final = resolved(final)
        if final.exists() and not final.is_dir():
            raise ConfigError(
                f"{final}: expected a folder, found a file. Give another output folder."
            )
        if not replace and not is_free(final):
            raise ConfigError(f"{final}: expected no folder yet, found one. Give another output.")
        make_folder(final.parent)
        temporary, _ = _new_sibling(final.parent / f"{_TEMPORARY_PREFIX}{final.name}-", os.mkdir)
        try:
            yield temporary
            fsync_tree(temporary)
            if verify is not None:
                verify(temporary)
            _rename_folder(temporary, final, replace=replace)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def resolved(path: Path) -> Path:
    """The path that a link at `path` leads to, where there may be nothing; `path` if it is none.

    A stage calls it on its output before any work: a folder cannot take the place of a link.

    Raises:
        ConfigError: the link leads back to itself.
        StorageError: the disk refused.
    """
    with disk_errors(path):
        if not os.path.islink(path):
            return path
        found = Path(os.path.realpath(path))
        if os.path.islink(found):
            raise ConfigError(f"{path}: this link leads back to itself. Give another output.")
        return found


def is_free(path: Path) -> bool:
    """Whether a new folder may be made at `path`: nothing is there, or an empty folder.

    Raises:
        StorageError: the disk refused.
    """
    with disk_errors(path):
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))


@contextlib.contextmanager
def new_member(path: Path) -> Iterator[BinaryIO]:
    """Create one file of a folder under construction, where `new_folder` makes it durable.

    Yields:
        A binary stream. What is written in the block need not be there at once.

    Raises:
        StorageError: the disk refused.
    """
    with disk_errors(path), path.open("xb") as stream:
        yield stream


class AppendedFile:
    """A file that grows at its end, such as a log. Use as a context manager.

    What was appended before `sync` returned is on the disk; of what came later, a lost power may
    leave any part.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; created with its folder where absent.

        Raises:
            StoreError: a link or something else stands there.
            StorageError: the disk refused.
        """
        self._path = path
        make_folder(path.parent)
        self._descriptor = open_plain(path, os.O_WRONLY | os.O_APPEND, "Move it away.")
        with disk_errors(path):
            fsync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def append(self, content: bytes) -> None:
        """Add `content` at the end.

        Raises:
            StorageError: the disk refused.
        """
        with disk_errors(self._path):
            while content:
                content = content[os.write(self._descriptor, content) :]

    def sync(self) -> None:
        """Make what was appended durable.

        Raises:
            StorageError: the disk refused.
        """
        with disk_errors(self._path):
            os.fsync(self._descriptor)


def _rename_folder(temporary: Path, final: Path, *, replace: bool) -> None:
    """Put `temporary` at `final`; a folder to replace is moved aside first and removed last."""
    retired: Path | None = None
    if replace and final.exists():
        prefix = f"{_TEMPORARY_PREFIX}{final.name}-"
        retired = Path(tempfile.mkdtemp(prefix=prefix, suffix="-old", dir=final.parent))
        os.rename(final, retired)
    try:
        os.rename(temporary, final)  # takes the place of nothing but an empty folder
    except OSError as error:
        if replace or error.errno not in _TAKEN_ERRNOS:
            raise
        raise ConfigError(
            f"{final}: expected no folder yet, found what came meanwhile; it was left as it is. "
            "See that no other process writes there, then run the same command again."
        ) from error
    try:
        fsync_folder(final.parent)
    except OSError:
        # A failed fsync is not believed later either: a second one may succeed without the data.
        os.rename(final, temporary)
        if retired is not None:
            os.rename(retired, final)
        raise
    if retired is not None:
        shutil.rmtree(retired, ignore_errors=True)


def remove_leftovers(final: Path) -> None:
    """Remove the temporary siblings that killed writers of the folder `final` left behind.

    Call it while holding `final`'s lock: a sibling of a writer at work looks the same.
    """
    remove_all_leftovers(final.parent, {final.name})


def remove_all_leftovers(parent: Path, of: Collection[str] | None = None) -> None:
    """Remove the temporary files and folders of killed writers in `parent`; hold its lock.

    Args:
        parent: where to look.
        of: the names of the folders whose temporary siblings go; None for all there are.
    """
    with disk_errors(parent):
        leftovers = list(parent.glob(f"{_TEMPORARY_PREFIX}*"))
    for leftover in leftovers:
        # mkdtemp ends a name with 8 characters that hold no hyphen: `data` does not match `data-2`.
        ours = _SIBLING.fullmatch(leftover.name)
        if of is not None and (ours is None or ours["name"] not in of):
            continue
        remove_leftover(leftover)


def remove_leftover(path: Path) -> None:
    """Remove what a killed writer left at `path`, file or folder; absent is fine.

    Raises:
        StorageError: the disk refused to remove a file.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_file(path)


def remove_file(path: Path) -> None:
    """Remove the file at `path`, durably with the next fsync of its folder; absent is fine."""
    with disk_errors(path):
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove `folder` and everything in it; absent is fine."""
    with disk_errors(folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def open_plain(path: Path, flags: int, step: str) -> int:
    """A descriptor of the plain file at `path`, created where absent; programs do not inherit it.

    Args:
        path: the file.
        flags: how to open it.
        step: what the user should do where something else stands there, for the message.

    Raises:
        StoreError: a link or something else stands there.
        StorageError: the disk refused.
    """
    found = "a link or a folder"
    with disk_errors(path):
        try:
            descriptor = os.open(path, flags | os.O_CREAT | _NOT_ELSEWHERE, 0o666)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            found = "a special file"
        except OSError as error:
            if error.errno == errno.ENXIO:  # a pipe that nobody reads
                found = "a special file"
            elif error.errno not in (errno.ELOOP, errno.EISDIR):
                raise
    raise StoreError(f"{path}: expected a plain file, found {found}. {step}")


def _raise(error: OSError) -> None:
    """For `os.walk`, which passes over folders that it cannot list: their files would be missed."""
    raise error


def _new_sibling(prefix: Path, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Make something under a name that nothing has: the prefix and 8 characters.

    Not `mkstemp` and `mkdtemp`, which make it private: the permissions that the umask leaves can
    be asked for only by changing it, for all threads of the process.
    """
    while True:
        path = prefix.with_name(prefix.name + secrets.token_hex(4))
        with contextlib.suppress(FileExistsError):
            return path, make(path)


def _open_new(path: Path) -> int:
    """A descriptor of a new file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOT_ELSEWHERE, 0o666)
