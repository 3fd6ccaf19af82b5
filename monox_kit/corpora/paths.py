"""What paths stand for: local files, globs and URLs, resolved before anything is read."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from monox_kit.errors import ConfigError, CorpusError, CorpusUnreadable

COMPRESSION_SUFFIXES = {".gz": "gz", ".zst": "zst"}
HUB_PREFIX = "hub:"

_GLOB_CHARACTERS = frozenset("*?[")
# `de`, `ast`, `pt_BR`, `zh-Hans`: ISO 639 in lower case, then script or region.
_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(?:[_-][A-Z][A-Za-z]{1,3}){0,2}")
# Keys of an fsspec file system's `info`, in lower case, under which it tells what changes with a
# file's content: S3 and web servers, Google, Azure, others.
_CHECKSUMS = ("etag", "md5hash", "crc32c", "content-md5", "content_md5", "md5", "checksum")
# Parts of file names that look like tags of three letters and are usually not meant as such.
_NOT_LANGUAGES = frozenset({"all", "dev", "new", "old", "out", "raw", "tmp", "txt", "val"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        name: the path or URL, as it starts error messages; reading it again gives this file.
        location: the path that `filesystem` opens.
        size_bytes: size in storage; None where the file system does not tell.
        filesystem: an fsspec file system; None for local paths.
    """

    name: str
    location: str
    size_bytes: int | None
    filesystem: Any = None

    @property
    def bare_name(self) -> str:
        """The last part of the path in lower case, without a compression suffix."""
        name = _file_name(self.name)
        return name.removesuffix(f".{self.compression}") if self.compression else name

    @property
    def compression(self) -> str:
        """`gz`, `zst` or nothing, by the file's name."""
        return COMPRESSION_SUFFIXES.get(os.path.splitext(_file_name(self.name))[1], "")

    def open(self) -> BinaryIO:
        """A new binary stream over the bytes as they are stored."""
        if self.filesystem is None:
            return open(self.location, "rb")
        return cast(BinaryIO, self.filesystem.open(self.location, "rb"))

    def state(self) -> tuple[int, int | str] | None:
        """Size in bytes, and what changes with the content; None where that is not told.

        The latter is a local file's time of modification in nanoseconds, and of others the ETag
        or checksum that their file system knows.
        """
        try:
            if self.filesystem is None:
                status = os.stat(self.location)
                return status.st_size, status.st_mtime_ns
            self.filesystem.invalidate_cache()  # drivers keep what they have listed
            told = self.filesystem.info(self.location)
        except Exception:  # each protocol has errors of its own; reading will say what is wrong
            return None
        info = {key.lower(): value for key, value in told.items()}
        if type(info.get("size")) is int:
            for value in map(info.get, _CHECKSUMS):
                # A weak ETag is that of equal meaning, not of equal bytes.
                if isinstance(value, str) and value and not value.startswith("W/"):
                    return info["size"], value
        return None

    def unreadable(self, error: Exception) -> CorpusUnreadable:
        """The error for a failure to open, read or decompress the file."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        kind = {"gz": "a readable gzip file", "zst": "a readable zstd file"}
        expected = kind.get(self.compression, "a readable file")
        return CorpusUnreadable(
            f"{self.name}: expected {expected}, found: {one_line(reason)}. "
            "Check the file, or write or fetch it again."
        )


def resolve_paths(paths: Sequence[str]) -> tuple[SourceFile | str, ...]:
    """The files of every path in the order given, those of one glob sorted by name.

    A path that exists as it is written is that file, whatever characters it has. A glob (`*`, `?`,
    `[...]`, `**`) stands for the files that it matches; folders among the matches are left out.
    A path with `://` is opened with fsspec. Hub datasets (`hub:NAME`) are passed through as text.

    Raises:
        ConfigError: `paths` is empty, or the same file is named twice.
        CorpusError: a path matches nothing, is a folder, or its file system is not installed.
    """
    if not paths or not all(paths):
        raise ConfigError("corpus: expected at least one path, found none. Give a file or a glob.")
    files: list[SourceFile | str] = []
    seen: dict[str, str] = {}
    for path in paths:
        for file in _resolve(path):
            name = file if isinstance(file, str) else file.name
            key = _identity(file)
            if key in seen:
                raise ConfigError(
                    f"{name}: expected each file once, found it by {seen[key]!r} and by {path!r}. "
                    "Leave one of them out."
                )
            seen[key] = path
            files.append(file)
    return tuple(files)


def file_states(files: Sequence[SourceFile | str]) -> list[tuple[str, int, int | str]] | None:
    """Name and `SourceFile.state` of every file; None where one has none, as hub datasets.

    A local file's name is its path from the folder that holds all of them: a corpus may be mounted
    elsewhere on another machine.
    """
    local = {
        file.name: os.path.abspath(file.location)
        for file in files
        if isinstance(file, SourceFile) and file.filesystem is None
    }
    above = os.path.commonpath([os.path.dirname(path) for path in local.values()]) if local else ""
    states = []
    for file in files:
        if isinstance(file, str) or (state := file.state()) is None:
            return None
        name = os.path.relpath(local[file.name], above) if file.name in local else file.name
        states.append((name, *state))
    return states


def lang_from_name(path: str) -> str | None:
    """The language tag before a file's suffix, `de` for `test.de.jsonl.gz`; None without one."""
    parts = re.split(r"[/\\]", path)[-1].split(".")
    if len(parts) > 1 and f".{parts[-1].lower()}" in COMPRESSION_SUFFIXES:
        parts.pop()
    if len(parts) < 3:
        return None
    tag = parts[-2]
    return tag if _LANGUAGE_TAG.fullmatch(tag) and tag not in _NOT_LANGUAGES else None


def one_line(reason: object, most: int = 300) -> str:
    """Somebody else's error message, made fit for one line of ours."""
    text = " ".join(str(reason).split()).rstrip(".")
    return text if len(text) <= most else f"{text[:most]}..."


def _resolve(path: str) -> Iterator[SourceFile | str]:
    if os.path.lexists(path):
        yield _local_file(path)
    elif path.startswith(HUB_PREFIX):
        yield path
    elif "://" in path:
        yield from _remote_files(path)
    elif _GLOB_CHARACTERS.intersection(path):
        found = [name for name in glob.glob(path, recursive=True) if not os.path.isdir(name)]
        if not found:
            raise CorpusError(
                f"{path}: expected files that match, found none. Check the pattern and the folder."
            )
        yield from map(_local_file, sorted(found))
    else:
        raise _not_found(path)


def _local_file(path: str) -> SourceFile:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CorpusUnreadable(
            f"{path}: expected a file, found: {error.strerror}. Check the path."
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise _folder(path)
    if not stat.S_ISREG(status.st_mode):
        raise CorpusError(
            f"{path}: expected a file that can be read twice, found a pipe or device. "
            "Write its content to a file first."
        )
    return SourceFile(path, path, status.st_size)


def _remote_files(url: str) -> Iterator[SourceFile]:
    filesystem, location = _filesystem(url)
    try:
        if filesystem.isdir(location):
            raise _folder(url)
        if filesystem.exists(location):
            yield _remote_file(url, filesystem, location)
            return
        # One glob of a URL stays in its file system, so that chained URLs keep their first part.
        found = filesystem.glob(location) if _GLOB_CHARACTERS.intersection(location) else []
        locations = sorted(str(name) for name in found if not filesystem.isdir(name))
    except CorpusError:
        raise
    # Each protocol has errors of its own: no credentials, no route, no such bucket.
    except Exception as error:
        raise CorpusUnreadable(
            f"{url}: expected a file to read, found: {one_line(error) or type(error).__name__}. "
            "Check the address and the access to it."
        ) from error
    if not locations:
        raise _not_found(url)
    for location in locations:
        yield _remote_file(str(filesystem.unstrip_protocol(location)), filesystem, location)


def _remote_file(name: str, filesystem: Any, location: str) -> SourceFile:
    size = filesystem.size(location)
    return SourceFile(name, location, None if size is None else int(size), filesystem)


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it."""
    try:
        import fsspec  # local files need no fsspec
    except ImportError as error:
        raise CorpusUnreadable(
            f"{url}: expected the package fsspec for URLs, found none. Run `pip install fsspec`."
        ) from error

    protocol = url.split("://", 1)[0].rsplit("::", 1)[-1]
    try:
        filesystem, location = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise CorpusUnreadable(
            f"{url}: expected the package that opens {protocol}:// addresses, found: "
            f"{one_line(error)}. Run `pip install {_package(protocol, error)}`."
        ) from error
    except Exception as error:
        raise CorpusError(
            f"{url}: expected an address that fsspec opens, found: {one_line(error)}. "
            "Correct the address, or download the file and give its path."
        ) from error
    return filesystem, str(location)


def _package(protocol: str, error: ImportError) -> str:
    """What to install for a protocol: fsspec's extra where it has one, else the missing module."""
    extras = importlib.metadata.metadata("fsspec").get_all("Provides-Extra") or []
    if protocol in extras:
        return f'"fsspec[{protocol}]"'
    cause = error.__cause__
    return (cause.name if isinstance(cause, ImportError) else error.name) or protocol


def _identity(file: SourceFile | str) -> str:
    """Equal for two names of one file."""
    if isinstance(file, str):
        return file
    return os.path.realpath(file.location) if file.filesystem is None else file.name


def _file_name(name: str) -> str:
    """The last part of a path or URL, in lower case; a web address's query is no part of it."""
    if name.startswith(("http://", "https://")):
        name = re.split(r"[?#]", name, maxsplit=1)[0]
    return name.rsplit("/", 1)[-1].lower()


def _folder(path: str) -> CorpusError:
    return CorpusError(
        f"{path}: expected a file, found a folder. Give its files, such as "
        f"'{path.rstrip('/')}/*.jsonl'."
    )


def _not_found(path: str) -> CorpusError:
    return CorpusError(f"{path}: expected a file, found nothing there. Check the path.")
