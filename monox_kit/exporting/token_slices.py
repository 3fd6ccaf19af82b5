"""Moving the slice that takes the first token up through a graph.

Each operator has a rule: how a slice of its output becomes slices of its inputs, if it treats
tokens one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monox_kit.exporting.graph import drop_unread, read_names

TOKENS = 1  # the axis of the tokens in [B, L, H]
# Below this opset Softmax takes all axes from its own on together.
_SOFTMAX_OF_ONE_AXIS = 13

# Operators whose every output value depends on the input values at its own place alone.
# fmt: off
_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Not", "Or", "Pow",
    "Reciprocal", "Relu", "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
)
# fmt: on

Dims = tuple[int, ...]


def attribute_of(node: Any, name: str, default: Any) -> Any:
    """An attribute of an `onnx.NodeProto`, or `default`."""
    from onnx import helper

    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


@dataclass(frozen=True, slots=True)
class _Move:
    """How a slice of a node's output becomes slices of its inputs.

    Attributes:
        inputs: axis by position of the input; the others stay whole.
        shape: the new target of a Reshape.
    """

    inputs: dict[int, int]
    shape: tuple[int, ...] | None = None


@dataclass(slots=True)
class TokenSlices:
    """The slices of a graph's values: index 0 along an axis, kept as an axis of length 1.

    Attributes:
        graph: an `onnx.GraphProto`; it is changed.
        nodes: of the graph, in order.
        shapes: of its values before the change, on two batches.
        opset: of ONNX's own operators.
        open: the name of each slice that is not computed yet, by value and axis.
        constants: the names of int64 constants that were added, by value.
        names: all that are taken.
    """

    graph: Any
    nodes: list[Any]
    shapes: dict[str, tuple[Dims, Dims]]
    opset: int
    open: dict[tuple[str, int], str] = field(default_factory=dict)
    constants: dict[tuple[int, ...], str] = field(default_factory=dict)
    names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {name for node in self.nodes for name in _all_names(node)}
        for values in (self.graph.initializer, self.graph.input, self.graph.output):
            self.names |= {value.name for value in values}

    def move_up(self, seeds: list[Any]) -> int:
        """Slice what the seeds read, and move the slices up; how many operators they passed."""
        for node in seeds:
            node.input[0] = self._slice(node.input[0], TOKENS)
        moved = 0
        while step := sum(self._pass(name, axis) for name, axis in list(self.open)):
            moved += step
        if moved:
            self._place()
        return moved

    def _slice(self, name: str, axis: int) -> str:
        if (name, axis) not in self.open:
            self.open[name, axis] = self._free_name(f"{name}/first{axis}")
        return self.open[name, axis]

    def _free_name(self, wanted: str) -> str:
        while wanted in self.names:
            wanted += "_"
        self.names.add(wanted)
        return wanted

    def _pass(self, name: str, axis: int) -> bool:
        """Let the node that makes a value make its slice instead, where nobody reads the whole."""
        live, _ = self._live()
        node = next((one for one in live if name in one.output), None)
        if node is None or self._is_read(name, axis, live):
            return False
        others = [other for other in node.output if other not in ("", name)]
        if node.output[0] != name or any(self._is_read(other, None, live) for other in others):
            return False
        move = self._move(node, axis)
        if move is None:
            return False
        for position, along in move.inputs.items():
            node.input[position] = self._slice(node.input[position], along)
        if move.shape is not None:
            node.input[1] = self._integers(move.shape)
            # With `allowzero` a 0 would be a length of 0.
            kept = [one for one in node.attribute if one.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
        node.output[0] = self.open.pop((name, axis))
        return True

    def _move(self, node: Any, axis: int) -> _Move | None:
        """The rule of the node's operator; None where it mixes tokens, or is not known."""
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or any(name and name not in self.shapes for name in node.input):
            return None
        return rule(self, node, axis)

    def _rank(self, name: str) -> int:
        return len(self.shapes[name][0])

    def _elementwise(self, node: Any, axis: int) -> _Move:
        rank = self._rank(node.output[0])
        axes = {
            position: self._own_axis(name, axis, rank)
            for position, name in enumerate(node.input)
            if name
        }
        return _Move({position: own for position, own in axes.items() if own is not None})

    def _layer_norm(self, node: Any, axis: int) -> _Move | None:
        rank = self._rank(node.output[0])
        # Scale and bias may differ from token to token.
        if any(self._own_axis(name, axis, rank) is not None for name in node.input[1:] if name):
            return None
        return _Move({0: axis}) if axis < attribute_of(node, "axis", -1) % rank else None

    def _softmax(self, node: Any, axis: int) -> _Move | None:
        takes_one = self.opset >= _SOFTMAX_OF_ONE_AXIS
        along = attribute_of(node, "axis", -1 if takes_one else 1) % self._rank(node.output[0])
        is_apart = axis != along if takes_one else axis < along
        return _Move({0: axis}) if is_apart else None

    def _matmul(self, node: Any, axis: int) -> _Move | None:
        rank = self._rank(node.output[0])
        is_row = axis == rank - 2 and self._rank(node.input[0]) == rank
        return _Move({0: axis}) if is_row else None

    def _transpose(self, node: Any, axis: int) -> _Move:
        order = attribute_of(node, "perm", list(reversed(range(self._rank(node.output[0])))))
        return _Move({0: order[axis]})

    def _own_axis(self, name: str, axis: int, rank: int) -> int | None:
        """Where a broadcast input has the output's axis; None where it is the same all along it."""
        along = axis - (rank - self._rank(name))
        if along < 0 or all(dims[along] == 1 for dims in self.shapes[name]):
            return None
        return along

    def _reshape(self, node: Any, axis: int) -> _Move | None:
        """One that leaves the axis and those before it alone."""
        before, after = self.shapes[node.input[0]], self.shapes[node.output[0]]
        if any(a[: axis + 1] != b[: axis + 1] for a, b in zip(before, after)):
            return None
        rest, other = (dims[axis + 1 :] for dims in after)
        if rest != other:
            return None
        return _Move({0: axis}, (*[0] * axis, 1, *rest))  # 0: as in the input

    def _attention(self, node: Any, axis: int) -> _Move | None:
        """The queries' axis, where each sees all keys that the mask leaves."""
        names = [*node.input, "", "", ""][:6]
        if any(names[4:]) or len(node.input) > 6 or attribute_of(node, "is_causal", 0):
            return None
        if axis != (2 if self._rank(names[0]) == 4 else 1):
            return None
        inputs = {0: axis}
        if names[3]:
            # The mask goes over scores [B, heads, L, L].
            along = self._own_axis(names[3], 2, 4)
            inputs |= {} if along is None else {3: along}
        return _Move(inputs)

    def _live(self) -> tuple[list[Any], set[str]]:
        """The nodes and the names that the graph's outputs need, slices included."""
        makers = {name: node for node in self.nodes for name in node.output if name}
        sources = {sliced: name for (name, _), sliced in self.open.items()}
        waiting = [value.name for value in self.graph.output]
        seen: set[str] = set()
        live: dict[int, Any] = {}
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in sources:
                waiting.append(sources[name])
            elif (node := makers.get(name)) is not None and id(node) not in live:
                live[id(node)] = node
                waiting += read_names(node)
        return list(live.values()), seen

    def _is_read(self, name: str, axis: int | None, live: list[Any]) -> bool:
        """Whether a value is read as a whole, or sliced along another axis."""
        return (
            any(name == value.name for value in self.graph.output)
            or any(other == name and along != axis for other, along in self.open)
            or any(name in read_names(node) for node in live)
        )

    def _place(self) -> None:
        """Compute the open slices where their values are, and drop what nobody reads any more."""
        from onnx import helper

        _, needed = self._live()
        slices: dict[str, list[Any]] = {}
        for (name, axis), sliced in self.open.items():
            if sliced not in needed:
                continue
            bounds = [self._integers((value,)) for value in (0, 1, axis)]
            slices.setdefault(name, []).append(
                helper.make_node("Slice", [name, *bounds], [sliced], name=f"{sliced}/Slice")
            )
        nodes: list[Any] = []
        for node in self.nodes:
            nodes.append(node)
            for name in node.output:
                nodes += slices.get(name, [])
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        drop_unread(self.graph)

    def _integers(self, values: tuple[int, ...]) -> str:
        """The name of an int64 constant."""
        from onnx import numpy_helper

        if values not in self.constants:
            name = self._free_name(f"first_token/{'x'.join(map(str, values))}")
            array = np.array(values, np.int64)
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self.shapes[name] = (array.shape, array.shape)
            self.constants[values] = name
        return self.constants[values]


def _all_names(node: Any) -> Iterator[str]:
    """Every value that an `onnx.NodeProto` reads or makes, and those of its inner graphs."""
    yield from (*node.input, *node.output)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for values in (inner.input, inner.output, inner.initializer):
                yield from (value.name for value in values)
            for one in inner.node:
                yield from _all_names(one)


_RULES: dict[str, Callable[[TokenSlices, Any, int], _Move | None]] = {
    **dict.fromkeys(_ELEMENTWISE, TokenSlices._elementwise),
    "LayerNormalization": TokenSlices._layer_norm,
    "Softmax": TokenSlices._softmax,
    "LogSoftmax": TokenSlices._softmax,
    "MatMul": TokenSlices._matmul,
    "Transpose": TokenSlices._transpose,
    "Reshape": TokenSlices._reshape,
    "Attention": TokenSlices._attention,
}
