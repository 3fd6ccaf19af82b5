"""Headers of a Parquet file's pages: how much memory a column takes, before it is decoded.

Arrow unpacks a page whole, of up to 2 GiB, and the file's metadata need not be true: the headers
are what it goes by.

Source: parquet-format's parquet.thrift (PageHeader) and Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_HEADER_BYTES = 1 << 12
# Minima and maxima stand in headers; Arrow takes none that are larger.
_MOST_HEADER_BYTES = 16 << 20
_DICTIONARY = 2
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY = range(9)
_STRUCT = 12
_MOST_NESTED = 16


class Page(NamedTuple):
    """One page of a column.

    Attributes:
        num_bytes: unpacked.
        num_values: in it, nulls included.
        is_dictionary: whether it holds the distinct values that others name by number.
    """

    num_bytes: int
    num_values: int
    is_dictionary: bool


def column_pages(stream: BinaryIO, chunk: Any) -> Iterator[Page]:
    """The pages of a column of a row group, in order; only their headers are read.

    Raises:
        ValueError: a header is damaged.
    """
    at: int = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    end = at + chunk.total_compressed_size
    left = chunk.num_values
    while at < end and left > 0:
        header, num_bytes = _read_header(stream, at)
        kind, unpacked, packed = (header.get(number, -1) for number in (1, 2, 3))
        if not all(isinstance(each, int) and each >= 0 for each in (kind, unpacked, packed)):
            raise ValueError(f"a damaged page header at byte {at}")
        values = next((header[number].get(1, 0) for number in (5, 7, 8) if number in header), 0)
        yield Page(unpacked, values, kind == _DICTIONARY)
        left -= 0 if kind == _DICTIONARY else values
        at += num_bytes + packed


def _read_header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header at a byte of the file, and its length."""
    wanted = _HEADER_BYTES
    while True:
        stream.seek(at)
        content = stream.read(wanted)
        reader = _Compact(content)
        try:
            return reader.struct(), reader.at
        except IndexError:
            if len(content) < wanted or wanted >= _MOST_HEADER_BYTES:
                raise ValueError(f"a damaged page header at byte {at}") from None
            wanted *= 16


class _Compact:
    """Thrift's compact protocol, as far as page headers need it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct by their numbers."""
        if depth > _MOST_NESTED:
            raise ValueError("a page header that is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while (byte := self._byte()) != _STOP:
            number = number + (byte >> 4) if byte >> 4 else self._integer()
            fields[number] = self._value(byte & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind == _DOUBLE:
            return self._skip(8)
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError("a page header with a field of an unknown type")

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _skip(self, num_bytes: int) -> None:
        self.at += num_bytes
        if self.at > len(self._content):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a page header with a number of more than 64 bits")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
