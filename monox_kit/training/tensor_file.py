"""The header of a safetensors file, checked before the library maps the file.

Source: the format's description in the safetensors repository (8 bytes of header length, little
endian; a JSON object of names to dtype, shape and data_offsets; the data).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

from monox_kit.errors import CheckpointError

_LENGTH_BYTES = 8
# 10,000 tensors with names of 100 letters take 2 MB. Parsed, JSON takes many times its own memory.
_MAX_HEADER_BYTES = 1 << 23
_DTYPE_BYTES = {"F32": 4, "U8": 1}


def read_header(stream: BinaryIO, num_bytes: int, path: Path) -> None:
    """Check that a file of `num_bytes` is a safetensors file of float32 and uint8 tensors.

    Raises:
        CheckpointError: it is another kind of file, or its tensors do not fill it exactly.
    """
    start = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(num_bytes - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise _damaged(path, f"starts with {start[:4]!r}")
    try:
        header = json.loads(_read_all(stream, length), object_pairs_hook=_distinct)
        header.pop("__metadata__", None)
        spans = sorted(_span(entry) for entry in header.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"has a header with {error!r}"[:120]) from error
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise _damaged(path, f"has tensors that overlap or leave a gap at byte {end}")
        end = stop
    if end != num_bytes - _LENGTH_BYTES - length:
        raise _damaged(path, f"has {end} bytes of tensors by its header")


def _read_all(stream: BinaryIO, length: int) -> bytes:
    parts = []
    while length and (part := stream.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key that is given twice")
    return value


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    """(first byte, byte behind the last) of a tensor's data."""
    begin, stop = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, stop, *shape)):
        raise ValueError("a size that is none")
    if stop - begin != _DTYPE_BYTES[entry["dtype"]] * math.prod(shape):
        raise ValueError("a shape that its bytes do not fill")
    return begin, stop


def _damaged(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: expected a safetensors file, found one that {found}. The checkpoint is damaged."
    )
