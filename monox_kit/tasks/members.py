"""The files of a release as it was published: in a folder, or in an archive that stays packed.

Members of archives are read where they are; nothing is ever written to disk under a name that an
archive gives, so that no such name can lead anywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self, TypeAlias, cast

from monox_kit.corpora.blocks import read_blocks, read_lines
from monox_kit.corpora.detection import known_encoding
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.rows import Dialect, Meter
from monox_kit.errors import ConfigError, CorpusError, CorpusUnreadable

# The releases have a few dozen files of at most a few hundred MB.
MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 8 << 30
MAX_NAME_LENGTH = 4096  # characters; no file system takes a longer path
MAX_TAR_HEADER_BYTES = 1 << 20  # extended attributes need some kB
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Beside each file, macOS packs another of its own that has the same name.
_OF_MACOS = re.compile(r"(?:^|/)(?:__MACOSX/|\._)")
_LISTED = 10
_SPARSE = "a sparse file (tar --sparse), which is not read"


# Name and size; None of what is no plain file, such as folders, links and devices.
_Listed: TypeAlias = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class _Zip:
    """Opens members of a zip file, as a file system does."""

    path: Path

    def open(self, location: str, mode: str) -> BinaryIO:
        """A new stream over a member's bytes, whose checksum is compared at its end."""
        return cast(BinaryIO, zipfile.ZipFile(self.path).open(location))

    def listed(self) -> Iterator[_Listed]:
        """Each member."""
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                yield info.filename, None if info.is_dir() else info.file_size


class TarHeader(tarfile.TarInfo):
    """A member's header; one that extends it is read into memory, so that its size is bounded.

    No release has sparse files, whose maps go on for as long as the archive says.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header that a block holds.

        Raises:
            ValueError: more blocks belong to it than to any header of a release, or any number.
        """
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and info.size > MAX_TAR_HEADER_BYTES:
            raise ValueError(f"a header of {info.size:,} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError(_SPARSE)
        return info

    def _proc_gnusparse_10(self, *_: object) -> None:
        """Refuse the map that stands before a file's bytes; tarfile calls this to read it."""
        raise ValueError(_SPARSE)


class _TarMember(tarfile.ExFileObject):
    """A member's stream, which closes its archive too."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        super().__init__(archive, info)
        self._archive = archive

    def close(self) -> None:
        """Close the stream and the archive."""
        super().close()
        self._archive.close()


@dataclass(frozen=True, slots=True)
class _Tar:
    """Opens members of a tar file, compressed or not, as a file system does."""

    path: Path

    def open(self, location: str, mode: str) -> BinaryIO:
        """A new stream over a member's bytes."""
        archive = tarfile.open(self.path, tarinfo=TarHeader)  # noqa: SIM115 (the member's stream closes it)
        archive.fileobject = _TarMember
        for info in archive:
            if info.name == location and info.isreg():
                return cast(BinaryIO, archive.extractfile(info))
        archive.close()
        raise FileNotFoundError(f"no member {location}")

    def listed(self) -> Iterator[_Listed]:
        """Each member."""
        with tarfile.open(self.path, tarinfo=TarHeader) as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header
                yield info.name, info.size if info.isreg() else None


def release_files(paths: Sequence[str]) -> list[SourceFile]:
    """All files of some folders and archives, by path and then by name.

    Raises:
        ConfigError: a path is not there, or is neither folder nor archive.
        CorpusUnreadable: an archive is damaged, or holds more than a release does.
    """
    return [file for path in paths for file in _files_of(Path(path))]


def the_file(files: Sequence[SourceFile], pattern: str, what: str) -> SourceFile:
    """The one file whose path matches.

    Args:
        files: of the release.
        pattern: a regular expression of the end of the path.
        what: the file that is meant, for messages.

    Raises:
        CorpusError: none does; or several, of which it is not known which one is meant.
    """
    found = matching(files, pattern)
    if not found:
        names = sorted(file.name for file in files)
        shown = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        raise CorpusError(
            f"`source`: expected {what}, found {len(names)} other files ({shown or 'none'}). Give "
            "the release's folder or archive, several where it comes in parts."
        )
    if len(found) > 1:
        raise CorpusError(
            f"`source`: expected {what} once, found {', '.join(file.name for file in found[:5])}. "
            "Give the release once, as a folder or as an archive."
        )
    return found[0]


def matching(files: Sequence[SourceFile], pattern: str) -> list[SourceFile]:
    """The files whose path ends as a regular expression says."""
    wanted = re.compile(rf"(?:^|/){pattern}$")
    return [file for file in files if wanted.search(file.name)]


def in_encoding(file: SourceFile, encoding: str | None) -> SourceFile:
    """The file, read in an encoding; None goes by its first bytes."""
    if encoding is None:
        return file
    return replace(file, dialect=Dialect(encoding=known_encoding(encoding)))


def lines_of(file: SourceFile) -> Iterator[tuple[int, str]]:
    r"""Each line of a text file with its number from 1, without "\n" or "\r\n".

    Raises:
        CorpusError: the file cannot be read, is cut or damaged, or is not of its encoding.
    """
    for _, first, lines in read_lines(file, Meter()):
        for number, line in enumerate(lines, first):
            yield number, line.removesuffix("\r")


def digest_member(file: SourceFile) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        CorpusUnreadable: it cannot be read, or is damaged.
    """
    digest = hashlib.sha256()
    for block in read_blocks(file, Meter()):
        digest.update(block)
    return digest.hexdigest()


def _files_of(path: Path) -> Iterator[SourceFile]:
    if path.is_dir():
        yield from _in_folder(path)
        return
    if not path.is_file():
        raise ConfigError(f"`source` {path}: there is no such folder or archive. Correct the path.")
    name = path.name.lower()
    archive: _Zip | _Tar
    if name.endswith(".zip"):
        archive = _Zip(path)
    elif name.endswith(_TAR_NAMES):
        archive = _Tar(path)
    else:
        raise ConfigError(
            f"`source` {path}: expected a folder or an archive (.zip, {', '.join(_TAR_NAMES)}), "
            "found another file. Give the archive as it was published, or the folder that it makes."
        )
    try:
        listed = list(_bounded(path, archive.listed()))
    except CorpusUnreadable:
        raise
    # Both modules raise errors of zlib, lzma and their own.
    except Exception as error:
        raise CorpusUnreadable(
            f"{path}: expected a readable archive, found: {one_line(error)}. Fetch it again."
        ) from error
    for member, size in listed:
        yield SourceFile(
            name=f"{path}/{member}", location=member, size_bytes=size, filesystem=archive
        )


def _in_folder(folder: Path) -> Iterator[SourceFile]:
    for member, size in list(_bounded(folder, _walked(folder))):
        path = folder / member
        yield SourceFile(name=str(path), location=str(path), size_bytes=size)


def _walked(folder: Path) -> Iterator[_Listed]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            # A pipe or a device would be waited for.
            size = path.stat().st_size if path.is_file() else None
            yield path.relative_to(folder).as_posix(), size


def _bounded(path: Path, members: Iterator[_Listed]) -> Iterator[tuple[str, int]]:
    """The files among the members of a folder or an archive.

    Raises:
        CorpusUnreadable: it is no release: it would be listed, or read, without an end.
    """
    for number, (name, size) in enumerate(members, 1):
        if number > MAX_MEMBERS or len(name) > MAX_NAME_LENGTH:
            found = (
                f"more than {MAX_MEMBERS:,} members"
                if number > MAX_MEMBERS
                else f"a name of {len(name):,} characters"
            )
            raise CorpusUnreadable(
                f"{path}: expected a release, found {found}. Give the folder or archive of the "
                "release itself."
            )
        if size is None or _OF_MACOS.search(name):
            continue
        if size > MAX_MEMBER_BYTES:
            raise CorpusUnreadable(
                f"{path}/{name}: expected at most {MAX_MEMBER_BYTES >> 30} GiB, found a file of "
                f"{size:,} bytes. Give the release as it was published."
            )
        yield name, size
