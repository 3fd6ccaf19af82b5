"""What an ONNX graph takes, gives and names, read without its weights and without importing onnx.

A protobuf message is a row of fields, each with its length: what is not asked for is stepped over,
so a graph with gigabytes of weights inside is read in the time of its nodes.

Source: onnx/onnx.proto (field numbers), protobuf's description of its encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

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
# onnx.TensorProto.DataType: the types that an input or an output of a classifier may have.
_TYPES = {1: "float", 6: "int32", 7: "int64", 10: "float16", 11: "double", 16: "bfloat16"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or an output of a graph, as the graph declares it.

    Attributes:
        name: as the graph has it.
        type: of its elements, by ONNX's name: int64, float, float16, ...
        axes: the length of each; a name or None where it may vary.
    """

    name: str
    type: str
    axes: tuple[int | str | None, ...]


def graph_interface(path: Path) -> tuple[list[GraphValue], list[GraphValue]]:
    """What a graph takes, its weights left out, and what it gives.

    Raises:
        ModelError: the file is no ONNX graph.
    """
    return _read(path, _interface)


def external_data(path: Path) -> tuple[str, ...]:
    """The files of a graph's weights that it names, below its folder, in name order.

    Raises:
        ModelError: the file is no ONNX graph, names a file outside its folder, or has a node that
            loads code, or that runtimes have no operator for.
    """
    found = _read(path, _Walk)
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


def _read(path: Path, what: Callable[[_Fields], T]) -> T:
    """What is asked of the fields of a graph's file."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            return what(_Fields(data))
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(
            f"{path}: this is not an ONNX graph: {error}. Export the model again."
        ) from error


def _interface(fields: _Fields) -> tuple[list[GraphValue], list[GraphValue]]:
    """See `graph_interface`."""
    graphs = list(fields.parts(fields.whole, 7))  # several are one, as protobuf reads them
    weights = {fields.text(t, 8) for graph in graphs for t in fields.parts(graph, 5)}
    inputs = [_value(fields, each) for graph in graphs for each in fields.parts(graph, 11)]
    outputs = [_value(fields, each) for graph in graphs for each in fields.parts(graph, 12)]
    return [each for each in inputs if each.name not in weights], outputs


def _value(fields: _Fields, info: slice) -> GraphValue:
    """A ValueInfoProto; one that is no tensor has the type "" and no axes."""
    tensors = [tensor for kind in fields.parts(info, 2) for tensor in fields.parts(kind, 1)]
    kind = [number for tensor in tensors for number in fields.numbers(tensor, 1)]
    shapes = [shape for tensor in tensors for shape in fields.parts(tensor, 2)]
    axes = [
        next(iter(fields.numbers(axis, 1)), None) or fields.text(axis, 2) or None
        for shape in shapes
        for axis in fields.parts(shape, 1)
    ]
    name = _TYPES.get(kind[-1], f"type {kind[-1]}") if kind else ""
    return GraphValue(fields.text(info, 1), name, tuple(axes))


class _Walk:
    """One pass over the messages of a file that lead to tensors and nodes.

    Attributes:
        strings: what stood in each of `_SHORT_FIELDS`.
        locations: of external data.
    """

    def __init__(self, fields: _Fields) -> None:
        self._fields = fields
        self.strings: dict[tuple[str, int], set[str]] = {key: set() for key in _SHORT_FIELDS}
        self.locations: set[str] = set()
        self._run()

    def _run(self) -> None:
        waiting = [("model", self._fields.whole, 0)]
        has_graph = False
        while waiting:
            message, place, depth = waiting.pop()
            if depth > _MAX_DEPTH:
                raise ValueError(f"its messages nest more than {_MAX_DEPTH} deep")
            entry: dict[int, str] = {}
            for number, value in self._fields.of(place):
                key = (message, number)
                if isinstance(value, int):
                    continue
                if part := _PARTS.get(key):
                    has_graph = has_graph or part == "graph"
                    waiting.append((part, value, depth + 1))
                elif key in _SHORT_FIELDS:
                    entry[number] = self._fields.string(value)
                    self.strings[key].add(entry[number])
            if message == "entry" and entry.get(_ENTRY_KEY[1]) == "location":
                self.locations.add(entry.get(_ENTRY_VALUE[1], ""))
        if not has_graph:
            raise ValueError("it holds no graph")


class _Fields:
    """The fields of the messages in a file.

    Attributes:
        whole: where the outermost message stands.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._num_fields = 0
        self.whole = slice(0, len(data))

    def parts(self, message: slice, number: int) -> Iterator[slice]:
        """Where the fields of a number stand that have a length."""
        found = (value for field, value in self.of(message) if field == number)
        return (value for value in found if isinstance(value, slice))

    def numbers(self, message: slice, number: int) -> Iterator[int]:
        """The whole numbers of a field's number."""
        found = (value for field, value in self.of(message) if field == number)
        return (value for value in found if isinstance(value, int))

    def text(self, message: slice, number: int) -> str:
        """The last text of a field's number; "" where there is none."""
        return next(reversed([self.string(each) for each in self.parts(message, number)]), "")

    def string(self, place: slice) -> str:
        """The text that stands somewhere."""
        if place.stop - place.start > _MAX_STRING_BYTES:
            raise ValueError(f"it has a name of {place.stop - place.start} bytes")
        return self._data[place].decode()

    def of(self, message: slice) -> Iterator[tuple[int, int | slice]]:
        """The number and the value of each field: whole numbers, and where the others stand."""
        place, end = message.start, message.stop
        while place < end:
            self._num_fields += 1
            if self._num_fields > _MAX_FIELDS:
                raise ValueError(f"it has more than {_MAX_FIELDS} fields")
            key, place = self._number(place, end)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, place = self._number(place, end)
                yield number, value
            elif kind in _FIXED_BYTES:
                place += _FIXED_BYTES[kind]
            elif kind == 2:
                length, place = self._number(place, end)
                if length > end - place:
                    raise ValueError("a field is longer than what holds it")
                yield number, slice(place, place + length)
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
