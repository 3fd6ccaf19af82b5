"""Bytes of a file, decompressed, and the lines in them: bounded memory whatever the size."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from monox_kit.corpora.detection import HEAD_BYTES, UTF_8, encoding_of, refuse_other_content
from monox_kit.corpora.paths import SourceFile
from monox_kit.corpora.rows import MAX_VALUE_BYTES, Meter, Start, package
from monox_kit.errors import CorpusError, MonoxError

BLOCK_BYTES = 1 << 18
# Fed to the decompressor at once. A zstd block of 4 bytes can hold 128 KiB, so that this bounds
# what a hostile file makes it return to 32 MiB; 64 KiB pieces measured no faster.
_ZSTD_INPUT_BYTES = 1 << 10


def read_blocks(file: SourceFile, meter: Meter, offset: int = 0) -> Iterator[bytes]:
    """The decompressed bytes of `file` in order, in non-empty blocks of about `BLOCK_BYTES`.

    Args:
        file: what to read.
        meter: told the position in storage.
        offset: bytes to leave out at the beginning; 0 for a compressed file.

    Raises:
        CorpusUnreadable: the file cannot be opened or read, or its compressed stream is cut or
            damaged.
    """
    try:
        with file.open() as raw:
            if offset:
                _skip(raw, offset)
            for block in _decompressed(raw, file):
                meter.file_bytes = raw.tell()
                yield block
    except MonoxError:
        raise
    # Remote file systems and decompressors each raise errors of their own.
    except Exception as error:
        raise file.unreadable(error) from error


def _skip(raw: BinaryIO, offset: int) -> None:
    """Move to a byte offset, by reading where the file system cannot seek."""
    try:
        raw.seek(offset)
    except (OSError, ValueError):  # a stream over HTTP raises the latter
        while (left := offset - raw.tell()) > 0 and raw.read(min(left, BLOCK_BYTES)):
            pass


def _decompressed(raw: BinaryIO, file: SourceFile) -> Iterator[bytes]:
    if file.compression == "gz":
        with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    elif file.compression == "zst":
        yield from _unzstd(raw, file)
    else:
        while block := raw.read(BLOCK_BYTES):
            yield block


def _unzstd(raw: BinaryIO, file: SourceFile) -> Iterator[bytes]:
    """The content of all zstd frames of a stream.

    Written around `decompressobj` because zstandard's stream reader takes a cut file for a
    finished one (seen with 0.25).
    """
    zstandard = package("zstandard", file.name, "zstd input", "zstandard")
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    pending = bytearray()
    while compressed := raw.read(BLOCK_BYTES):
        for start in range(0, len(compressed), _ZSTD_INPUT_BYTES):
            piece = compressed[start : start + _ZSTD_INPUT_BYTES]
            while piece:
                frame = frame or decompressor.decompressobj()
                pending += frame.decompress(piece)
                piece = b""
                if frame.eof:
                    piece, frame = frame.unused_data, None
            if len(pending) >= BLOCK_BYTES:
                yield bytes(pending)
                pending.clear()
    if pending:
        yield bytes(pending)
    if frame is not None:
        raise EOFError("compressed file ended before the end of its zstd frame")


def read_lines(
    file: SourceFile, meter: Meter, start: Start | None = None, *, guess: bool = False
) -> Iterator[tuple[int | None, int, list[str]]]:
    r"""The lines of a text file, block by block: (bytes before it, number from 1, its lines).

    Only "\n" ends a line, and it is removed; a "\r" before it stays. A byte order mark at the start
    is removed. A final "\n" does not begin another line. The bytes before are None where reading
    cannot begin there: in a compressed file, and in another encoding than UTF-8.

    Args:
        file: what to read.
        meter: told the position in storage, and which encoding was guessed.
        start: where to begin, at the start of a line; None for `meter.start`.
        guess: whether an encoding of one byte a character is guessed; else bytes that are not
            UTF-8 are an error.

    Raises:
        CorpusError: as for `read_blocks`; the file holds something else than text; bytes are not
            of its encoding; a line exceeds `MAX_VALUE_BYTES`.
    """
    start = start or meter.start
    number, offset = start.line, start.offset
    blocks = read_blocks(file, meter, offset)
    encoding = UTF_8
    if offset == 0:  # files of other encodings are read from the top alone
        encoding, blocks = _examined(file, blocks, meter, guess)
    if encoding != UTF_8:
        blocks = _transcoded(blocks, encoding, file.name)
    begins = encoding == UTF_8 and not file.compression
    unfinished: list[bytes] = []
    unfinished_bytes = 0
    for block in blocks:
        end = block.rfind(b"\n")
        if end < 0:
            unfinished.append(block)
            unfinished_bytes += len(block)
        else:
            head = b"".join((*unfinished, block[:end]))
            # Let go of before the lines are used: they may be 64 MiB.
            unfinished = [block[end + 1 :]]
            unfinished_bytes = len(block) - end - 1
            num_bytes = len(head) + 1
            lines = _decode(head, file.name, number, offset).split("\n")
            del head, block
            yield offset if begins else None, number, lines
            number += len(lines)
            offset += num_bytes
        if unfinished_bytes > MAX_VALUE_BYTES:
            raise CorpusError(
                f"{file.name}, line {number}: expected a line of at most {MAX_VALUE_BYTES >> 20} "
                "MiB, found a longer one. Write one document a line, or check the format."
            )
    tail = b"".join(unfinished)
    if tail:
        text = _decode(tail, file.name, number, offset)
        if text:
            yield offset if begins else None, number, [text]


def _examined(
    file: SourceFile, blocks: Iterator[bytes], meter: Meter, guess: bool
) -> tuple[str, Iterator[bytes]]:
    """A file's encoding by what was said or its first bytes, and all its blocks."""
    first: list[bytes] = []
    num_bytes = 0
    for block in blocks:
        first.append(block)
        num_bytes += len(block)
        if num_bytes >= HEAD_BYTES:
            break
    head = b"".join(first)[:HEAD_BYTES]
    refuse_other_content(head, file.name)
    encoding = file.dialect.encoding or encoding_of(head, file.name, guess, meter.note)
    return encoding, chain(first, blocks)


def _transcoded(blocks: Iterator[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """Blocks of another encoding in UTF-8, none of them empty."""
    decoder = codecs.getincrementaldecoder(encoding)()
    num_bytes = num_lines = 0
    for block in chain(blocks, [b""]):
        num_bytes += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            place, line = "", num_lines + 1
            if isinstance(error, UnicodeDecodeError):  # UTF-16 without its mark is the other one
                before = error.object[: error.start].decode(encoding, "ignore")
                line += before.count("\n")
                position = num_bytes - len(error.object) + error.start
                place = f" byte 0x{error.object[error.start]:02x} at byte offset {position}"
            raise CorpusError(
                f"{name}, line {line}: expected {encoding}, found{place or f' {error}'}. Give the "
                "file's own encoding with `encoding`, or convert it to UTF-8."
            ) from None
        num_lines += text.count("\n")
        if text:
            yield text.encode()


def _decode(content: bytes, name: str, number: int, offset: int) -> str:
    """The text of whole lines, the first of which has this number and byte offset in the file."""
    if offset == 0 and content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
        offset = len(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = number + content.count(b"\n", 0, error.start)
        raise CorpusError(
            f"{name}, line {line}: expected UTF-8, found byte 0x{content[error.start]:02x} at byte "
            f"offset {offset + error.start}. Name the file's own encoding, such as `encoding` "
            "cp1252, or correct the line where the rest is UTF-8."
        ) from None
