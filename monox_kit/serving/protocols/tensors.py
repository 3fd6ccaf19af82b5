"""Tensors of the Open Inference Protocol: in JSON, or behind it in Triton's binary form.

Source: triton-inference-server/server, docs/protocol/extension_binary_data.md: the header
`Inference-Header-Content-Length` tells where the JSON ends; a tensor's `binary_data_size` tells how
many of the bytes behind it are its own, in the order of the tensors. Numbers are little-endian; a
text has its length in 4 bytes before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from monox_kit.serving.contract import Kind, Refused, Request

HEADER = "Inference-Header-Content-Length"
_LENGTH_BYTES = 4
_NUMBERS = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


class InputParameters(msgspec.Struct):
    """How an input is given; other ones are ignored."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None


class InputTensor(msgspec.Struct):
    """An input of texts."""

    name: Annotated[str, Meta(extra_json_schema={"enum": ["text", "text_pair"]})]
    shape: Annotated[
        list[Annotated[int, Meta(ge=0)]],
        Meta(max_length=2, description="[n] or [n, 1].", extra_json_schema={"minItems": 1}),
    ]
    datatype: Annotated[str, Meta(extra_json_schema={"enum": ["BYTES"]})]
    parameters: InputParameters | None = None
    data: Annotated[
        list[str | list[str]] | None, Meta(description="The texts, flat or nested.")
    ] = None


class TensorParameters(msgspec.Struct):
    """How an output is given."""

    binary_data_size: int


class Tensor(msgspec.Struct):
    """An output."""

    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | UnsetType = UNSET
    data: list[str | float | bool] | UnsetType = UNSET


def split(request: Request) -> tuple[bytes, bytes | None]:
    """The body's JSON, and the bytes behind it; None where the header says nothing of such.

    Raises:
        Refused: the header names no place in the body.
    """
    value = request.headers.get(HEADER.lower())
    if value is None:
        return request.body, None
    length = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else -1
    if not 0 <= length <= len(request.body):
        raise Refused(
            Kind.INVALID,
            f"{HEADER} {value[:40]!a}: expected a number of bytes up to the body's "
            f"{len(request.body)}.",
        )
    return request.body[:length], request.body[length:]


def texts_of(inputs: list[InputTensor], rest: bytes | None) -> list[list[str]]:
    """The texts of each input, in the order of their tensors.

    Args:
        inputs: the tensors.
        rest: the bytes behind the JSON; None where there cannot be any.

    Raises:
        Refused: a tensor is of another type or shape, or not of the bytes that it names.
    """
    found, place = [], 0
    for one in inputs:
        if one.datatype != "BYTES":
            raise Refused(
                Kind.INVALID,
                f"`inputs`: {one.name[:40]}: expected the datatype BYTES, found "
                f"{one.datatype[:40]!a}.",
            )
        size = None if one.parameters is None else one.parameters.binary_data_size
        if size is None:
            texts = _flat(one)
        elif one.data is not None or rest is None or place + size > len(rest):
            raise Refused(
                Kind.INVALID,
                f"`inputs`: {one.name[:40]}: its `binary_data_size` {size} is not of bytes behind "
                f"the JSON, whose length {HEADER} tells.",
            )
        else:
            texts = _read_texts(rest[place : place + size], one.name)
            place += size
        if one.shape not in ([len(texts)], [len(texts), 1]):
            raise Refused(
                Kind.INVALID,
                f"`inputs`: {one.name[:40]}: expected the shape [n] or [n, 1] of its {len(texts)} "
                f"elements, found {one.shape}.",
            )
        found.append(texts)
    if rest is not None and place != len(rest):
        raise Refused(
            Kind.INVALID,
            f"The body holds {len(rest)} bytes behind the JSON, of which tensors name {place}.",
        )
    return found


def _flat(one: InputTensor) -> list[str]:
    """The texts of a tensor in JSON, row by row."""
    if one.data is None:
        raise Refused(Kind.INVALID, f"`inputs`: {one.name[:40]}: it has no `data`.")
    texts: list[str] = []
    for each in one.data:
        texts += [each] if isinstance(each, str) else each
    return texts


def _read_texts(content: bytes, name: str) -> list[str]:
    """The texts of a tensor in bytes."""
    texts, place = [], 0
    while place < len(content):
        start = place + _LENGTH_BYTES
        end = start + int.from_bytes(content[place:start], "little")
        if end > len(content) or start > len(content):
            raise Refused(Kind.INVALID, f"`inputs`: {name[:40]}: its bytes end within an element.")
        try:
            texts.append(content[start:end].decode())
        except UnicodeDecodeError as error:
            raise Refused(
                Kind.INVALID,
                f"`inputs`: {name[:40]}: element {len(texts)} is not encoded in UTF-8.",
            ) from error
        place = end
    return texts


def written_tensors(outputs: Iterable[tuple[str, str, Any, bool]]) -> tuple[list[Tensor], bytes]:
    """Tensors for the JSON, and the bytes behind it.

    Args:
        outputs: name, datatype, values ([N] or [N, C]; texts are lists of strings), and whether
            they go behind the JSON.
    """
    tensors, parts = [], []
    for name, datatype, values, is_binary in outputs:
        array = np.asarray(values, dtype=object if datatype == "BYTES" else _NUMBERS[datatype])
        flat = array.ravel().tolist()
        tensor = Tensor(name, datatype, list(array.shape))
        if not is_binary:
            tensor.data = flat
        else:
            part = _texts_written(flat) if datatype == "BYTES" else array.tobytes()
            tensor.parameters = TensorParameters(len(part))
            parts.append(part)
        tensors.append(tensor)
    return tensors, b"".join(parts)


def _texts_written(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(len(each).to_bytes(_LENGTH_BYTES, "little") + each for each in encoded)
