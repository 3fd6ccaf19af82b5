"""The files that an ONNX graph names, found without reading its weights or importing onnx.

A protobuf message is a row of fields, each with its length: what is not asked for is stepped over,
so a graph with gigabytes of weights inside is read in the time of its nodes.

Source: onnx/onnx.proto (field numbers), protobuf's description of its encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from monox_kit.errors import ModelError

# (message, field number) -> the message of that field. What is not listed holds no tensor.
_PARTS = {
    ("model", 7): "graph",
    ("model", 20): "training",
    ("model", 25): "function",
    ("training", 1): "graph",
    ("training", 2): "graph",
    ("function", 7): "node",
    ("function", 11): "attribute",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("graph", 15): "sparse",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
    ("attribute", 22): "sparse",
    ("attribute", 23): "sparse",
    ("sparse", 1): "tensor",
    ("sparse", 2): "tensor",
    ("tensor", 13): "entry",
}
_NODE_OPERATOR, _ENTRY_KEY, _ENTRY_VALUE = ("node", 4), ("entry", 1), ("entry", 2)
_NODE_DOMAIN, _FUNCTION_DOMAIN = ("node", 7), ("function", 10)
_SHORT_FIELDS = {_NODE_OPERATOR, _NODE_DOMAIN, _FUNCTION_DOMAIN, _ENTRY_KEY, _ENTRY_VALUE}
_MAX_STRING_BYTES = 4096
# A graph of 24 layers has 50,000.
_MAX_FIELDS = 5_000_000
_FIXED_BYTES = {1: 8, 5: 4}
_MAX_DEPTH = 60  # messages in messages; a subgraph in a subgraph takes three
# Operators that make a runtime load a file which is no weights.
_LOADING_OPERATORS = {"EPContext"}
# Whose operators runtimes have built in; those of any other domain would come from a library.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}


def external_data(path: Path) -> tuple[str, ...]:
    """The files of a graph's weights that it names, below its folder, in name order.

    Raises:
        ModelError: the file is no ONNX graph, names a file outside its folder, or has a node that
            loads code, or that runtimes have no operator for.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            found = _Walk(data)
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(
            f"{path}: this is not an ONNX graph: {error}. Export the model again."
        ) from error
    operators = found.strings[_NODE_OPERATOR]
    if loading := sorted(operators & _LOADING_OPERATORS):
        raise ModelError(
            f"{path}: the graph has a node {loading[0]}, which loads compiled code from a file. "
            "Export the model again without it."
        )
    known = _DOMAINS | found.strings[_FUNCTION_DOMAIN]
    if strange := sorted(found.strings[_NODE_DOMAIN] - known):
        raise ModelError(
            f"{path}: the graph has operators of the domain {strange[0][:80]!r}, which runtimes "
            "have only from a library of its maker's. Export the model again without them."
        )
    for location in sorted(found.locations):
        _require_below(path, location)
    return tuple(sorted(found.locations))


class _Walk:
    """One pass over the messages of a file that lead to tensors and nodes.

    Attributes:
        strings: what stood in each of `_SHORT_FIELDS`.
        locations: of external data.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._num_fields = 0
        self.strings: dict[tuple[str, int], set[str]] = {key: set() for key in _SHORT_FIELDS}
        self.locations: set[str] = set()
        self._run()

    def _run(self) -> None:
        waiting = [("model", 0, len(self._data), 0)]
        has_graph = False
        while waiting:
            message, start, end, depth = waiting.pop()
            if depth > _MAX_DEPTH:
                raise ValueError(f"its messages nest more than {_MAX_DEPTH} deep")
            entry: dict[int, str] = {}
            for number, begin, stop in self._fields(start, end):
                key = (message, number)
                if part := _PARTS.get(key):
                    has_graph = has_graph or part == "graph"
                    waiting.append((part, begin, stop, depth + 1))
                elif key in _SHORT_FIELDS:
                    if stop - begin > _MAX_STRING_BYTES:
                        raise ValueError(f"it has a name of {stop - begin} bytes")
                    entry[number] = self._data[begin:stop].decode()
                    self.strings[key].add(entry[number])
            if message == "entry" and entry.get(_ENTRY_KEY[1]) == "location":
                self.locations.add(entry.get(_ENTRY_VALUE[1], ""))
        if not has_graph:
            raise ValueError("it holds no graph")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, first byte, byte behind the last) of each field with a length in a message."""
        place = start
        while place < end:
            self._num_fields += 1
            if self._num_fields > _MAX_FIELDS:
                raise ValueError(f"it has more than {_MAX_FIELDS} fields")
            key, place = self._number(place, end)
            number, kind = key >> 3, key & 7
            if kind == 0:
                _, place = self._number(place, end)
            elif kind in _FIXED_BYTES:
                place += _FIXED_BYTES[kind]
            elif kind == 2:
                length, place = self._number(place, end)
                if length > end - place:
                    raise ValueError("a field is longer than what holds it")
                yield number, place, place + length
                place += length
            else:
                raise ValueError(f"it has a field of kind {kind}")
        if place > end:
            raise ValueError("a field is longer than what holds it")

    def _number(self, place: int, end: int) -> tuple[int, int]:
        """A number of 7 bits a byte, and the place behind it."""
        value = shift = 0
        while place < end and shift < 70:
            byte = self._data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place
            shift += 7
        raise ValueError("a number does not end")


def _require_below(path: Path, location: str) -> None:
    """Check that external data stands below the graph's folder.

    A name with an asterisk is none: runtimes have markers of that form, for memory addresses.
    """
    parts = PurePosixPath(location).parts
    is_plain = location.isprintable() and not set(location) & set("\\*:")
    if not parts or parts[0] == "/" or ".." in parts or not is_plain:
        raise ModelError(
            f"{path}: the graph has weights at {location!r}, which is no file below its folder. "
            "Export the model again."
        )
