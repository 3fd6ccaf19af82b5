"""Manual pages in Debian packages: read where they are, nothing is unpacked.

Source: deb(5) for the outer archive, Debian Policy, section 12.1, for where pages lie.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monox_kit.errors import CorpusError
from monox_kit.tasks.members import TarHeader

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_DATA = "data.tar"
# Packages of pages have a few MB, the longest page some hundred kB.
_MAX_DATA_BYTES = 1 << 28
_MAX_PAGE_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 20
_PATH = re.compile(
    r"(?:\./)?usr/share/man/(?:(?P<locale>[^/]+)/)?man[0-9][^/]*/"
    r"(?P<name>[^/]+)\.(?P<section>[0-9])(?P<suffix>[a-z]*)(?P<gz>\.gz)?"
)
# In the first line of a page: '\" -*- coding: ISO-8859-1 -*-
_CODING = re.compile(rb"\A[.']\\\".*?coding:[ \t]*(?P<name>[A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class PageFile:
    """One page of a package.

    Attributes:
        where: the package's file and the member's name, for messages.
        language: the folder that it lies in, such as `pt_BR`; `en` where it lies in none.
        name: what the page is of: `open` of `open.2.gz`.
        section: the manual section, a digit.
        id: its name with the whole suffix: `open.2`, `NULL.3const`.
        source: its text; None of a link, which shows another page.
    """

    where: str
    language: str
    name: str
    section: str
    id: str
    source: str | None


def package_pages(path: Path) -> Iterator[PageFile]:
    """The manual pages of a package, in the order of its members.

    Raises:
        CorpusError: the package or a page is damaged, or a page is not of the encoding that it
            declares, which is UTF-8 where it declares none.
    """
    data = _data_member(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), tarinfo=TarHeader) as archive:
            for info in archive:
                match = _PATH.fullmatch(info.name)
                if match is None or not (info.isreg() or info.issym() or info.islnk()):
                    continue
                where = f"{path.name}/{info.name.removeprefix('./')}"
                source = None
                if info.isreg():
                    member = archive.extractfile(info)
                    assert member is not None  # of a plain file there is one
                    source = _page_text(where, member.read(), packed=bool(match["gz"]))
                language = (match["locale"] or "en").removesuffix(".UTF-8")
                name, section = match["name"], match["section"]
                id = f"{name}.{section}{match['suffix']}"
                yield PageFile(where, language, name, section, id, source)
            # What stands behind the archive's end counts into its checksum.
            while archive.fileobj is not None and archive.fileobj.read(_BLOCK_BYTES):
                pass
    except CorpusError:
        raise
    # The modules raise errors of zlib, lzma and their own.
    except Exception as error:
        raise _damaged(
            path.name, "a readable archive", f"{type(error).__name__}: {error}"
        ) from error


def _data_member(path: Path) -> bytes:
    """The archive of a package's files, still packed."""
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise _damaged(path.name, "a Debian package", "another file")
        while header := stream.read(_HEADER_BYTES):
            size = header[48:58].strip()
            if len(header) < _HEADER_BYTES or header[58:] != b"`\n" or not size.isdigit():
                break
            num_bytes = int(size)
            if header[:16].decode("latin-1").strip().rstrip("/").startswith(_DATA):
                if num_bytes > _MAX_DATA_BYTES:
                    raise _damaged(
                        path.name, f"at most {_MAX_DATA_BYTES >> 20} MiB", f"{num_bytes:,} bytes"
                    )
                data = stream.read(num_bytes)
                if len(data) < num_bytes:
                    raise _damaged(path.name, f"{num_bytes:,} bytes of {_DATA}", f"{len(data):,}")
                return data
            stream.seek(num_bytes + num_bytes % 2, io.SEEK_CUR)
    raise _damaged(path.name, f"a member {_DATA}", "none")


def _page_text(where: str, content: bytes, *, packed: bool) -> str:
    """A page's text in the encoding that it declares."""
    if packed:
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(_MAX_PAGE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(where, "a page packed with gzip", str(error)) from error
    if len(content) > _MAX_PAGE_BYTES:
        raise _damaged(where, f"at most {_MAX_PAGE_BYTES >> 20} MiB", "more")
    declared = _CODING.match(content)
    encoding = "utf-8" if declared is None else declared["name"].decode()
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise _damaged(f"{where}, line 1", "a known encoding", encoding) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _damaged(
            f"{where}, line {line}", f"text in {encoding}", f"the byte {content[error.start]:#04x}"
        ) from error


def _damaged(where: str, expected: str, found: str) -> CorpusError:
    return CorpusError(
        f"{where}: expected {expected}, found {found}. The file is damaged: fetch it again."
    )
