"""What paths stand for: local files, globs and URLs, resolved before anything is read."""

from __future__ import annotations

import importlib.metadata
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from monox_kit.corpora.patterns import has_pattern, matching_files
from monox_kit.corpora.rows import Dialect, package
from monox_kit.errors import ConfigError, CorpusError, CorpusUnreadable
from monox_kit.unseen import is_near

COMPRESSION_SUFFIXES = {".gz": "gz", ".zst": "zst"}
HUB_PREFIX = "hub:"

# What is read from elsewhere. Others of fsspec's open archives, caches and lists of references that
# name further files, or run a shell's commands; the URL of a stranger's recipe may be any of them.
PROTOCOLS = (
    *("file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"),
    *("hf", "hdfs", "webhdfs", "sftp", "ftp", "oss", "oci", "memory"),
)
_LOCAL = ("file", "local")
# `FILE:text=message,label=queue`: other columns for one path.
_OWN_COLUMNS = re.compile(
    r"(?s)(?P<path>.+?):(?P<columns>(?:text|pair|label|id|lang)=[^,=]+"
    r"(?:,(?:text|pair|label|id|lang)=[^,=]+)*)"
)
# Keys of an fsspec file system's `info`, in lower case, under which it tells what changes with a
# file's content: S3 and web servers, Google, Azure, others.
_CHECKSUMS = ("etag", "md5hash", "crc32c", "content-md5", "content_md5", "md5", "checksum")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset of a hub to read.

    Attributes:
        name: `hub:NAME[:CONFIG][@SPLIT]`.
        columns: as of `SourceFile`.
    """

    name: str
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        name: the path or URL, as it starts error messages; reading it again gives this file.
        location: the path that `filesystem` opens.
        size_bytes: size in storage; None where the file system does not tell.
        filesystem: an fsspec file system; None for local paths.
        columns: the file's own columns, as (`text`, name of the column).
        dialect: how its characters are read.
    """

    name: str
    location: str
    size_bytes: int | None
    filesystem: Any = None
    columns: tuple[tuple[str, str], ...] = ()
    dialect: Dialect = field(default_factory=Dialect)

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


def resolve_paths(paths: Sequence[str]) -> tuple[SourceFile | HubDataset, ...]:
    """The files of every path in the order given, those of one glob sorted by name.

    A path that exists as it is written is that file, whatever characters it has. A glob (`*`, `?`,
    `[...]`, `**`) stands for the files that it matches; folders among the matches are left out.
    A path with `://` is opened with fsspec, where its protocol is one of `PROTOCOLS`. A path may
    end in `:text=COLUMN` for columns of its own. Hub datasets (`hub:NAME`) are passed through.

    Raises:
        ConfigError: `paths` is empty, the same file is named twice, or a protocol is not taken.
        CorpusError: a path matches nothing, is a folder or a link out of its glob's folder, or its
            file system is not installed.
    """
    if not paths or not all(paths):
        raise ConfigError("corpus: expected at least one path, found none. Give a file or a glob.")
    files: list[SourceFile | HubDataset] = []
    seen: dict[str, str] = {}
    for given in paths:
        path, columns = split_columns(given)
        for found in _resolve(path):
            file = replace(found, columns=columns)
            key = _identity(file)
            if key in seen:
                raise ConfigError(
                    f"{file.name}: expected each file once, found it by {seen[key]!r} and by "
                    f"{given!r}. Leave one of them out."
                )
            seen[key] = given
            files.append(file)
    return tuple(files)


def split_columns(given: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A path and its own columns, from `FILE:text=message,label=queue`.

    Raises:
        ConfigError: a column is given twice.
    """
    found = None if os.path.lexists(given) else _OWN_COLUMNS.fullmatch(given)
    if found is None:
        return given, ()
    columns = [tuple(each.split("=")) for each in found["columns"].split(",")]
    if len({field for field, _ in columns}) < len(columns):
        raise ConfigError(f"{given}: it names a column twice. Leave one of them out.")
    return found["path"], tuple((field, column) for field, column in columns)


def with_columns(path: str, columns: Sequence[tuple[str, str]]) -> str:
    """A path with its own columns; the inverse of `split_columns`."""
    own = ",".join(f"{field}={column}" for field, column in columns)
    return f"{path}:{own}" if own else path


def absolute_path(given: str) -> str:
    """A local file's path from the root on, for a process in another folder; others as they are."""
    path, columns = split_columns(given)
    return with_columns(os.path.abspath(path) if os.path.lexists(path) else path, columns)


def file_states(
    files: Sequence[SourceFile | HubDataset],
) -> list[tuple[str, int, int | str]] | None:
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
        if isinstance(file, HubDataset) or (state := file.state()) is None:
            return None
        name = os.path.relpath(local[file.name], above) if file.name in local else file.name
        states.append((with_columns(name, file.columns), *state))
    return states


def one_line(reason: object, most: int = 300) -> str:
    """Somebody else's error message, made fit for one line of ours."""
    text = " ".join(str(reason).split()).rstrip(".")
    return text if len(text) <= most else f"{text[:most]}..."


def _resolve(path: str) -> Iterator[SourceFile | HubDataset]:
    if os.path.lexists(path):
        yield _local_file(path)
    elif path.startswith(HUB_PREFIX):
        yield HubDataset(path)
    elif "://" in path:
        yield from _of_url(path)
    elif has_pattern(path):
        found = matching_files(path)
        if not found:
            raise CorpusError(
                f"{path}: expected files that match, found none. Check the pattern and the folder."
            )
        yield from map(_local_file, found)
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


def _of_url(url: str) -> Iterator[SourceFile | HubDataset]:
    protocol, _, path = url.partition("://")
    # `zip://a::https://b` is a chain: what it opens is said by each of its links.
    if protocol.lower() not in PROTOCOLS or "::" in url:
        found = "a chain of several" if "::" in url else f"{protocol}://"
        raise ConfigError(
            f"{url}: expected one of the protocols {', '.join(PROTOCOLS)}, found {found}. Download "
            "the file and give its path."
        )
    if protocol.lower() in _LOCAL:
        yield from _resolve(path)  # by the rules of local paths: no pipe, no device
    else:
        yield from _remote_files(url, protocol.lower())


def _remote_files(url: str, protocol: str) -> Iterator[SourceFile]:
    filesystem, location = _filesystem(url)
    try:
        # To fsspec a web address is a folder where its page has links: it would read it whole.
        is_web = protocol in ("http", "https")
        if not is_web and filesystem.isdir(location):
            raise _folder(url)
        if filesystem.exists(location):
            yield _remote_file(url, filesystem, location)
            return
        found = filesystem.glob(location) if has_pattern(location) and not is_web else []
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
    fsspec = package("fsspec", url, "URLs", "fsspec")
    protocol = url.split("://", 1)[0]
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


def _identity(file: SourceFile | HubDataset) -> str:
    """Equal for two names of one file."""
    if isinstance(file, HubDataset):
        return file.name
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
    near = None if "://" in path else _nearly_named(path)
    hint = f", or give {near}, which is there" if near else ""
    return CorpusError(f"{path}: expected a file, found nothing there. Check the path{hint}.")


def _nearly_named(path: str) -> str | None:
    """A file whose name is nearly a path's last part, in its folder; None where there is none."""
    folder, wanted = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            here = sorted(entry.name for entry in entries if entry.is_file())
    except OSError:  # a folder that is not there, or that cannot be listed
        return None
    near = [name for name in here if is_near(name.casefold(), wanted.casefold())]
    return os.path.join(folder, near[0]) if near else None
