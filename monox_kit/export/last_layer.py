"""The last layer for the one token that is classified.

A classification head that reads the first token's state leaves unread what the last layer computes
for all others: of a layer's six products, all but those of keys and values. Taking the token before
them instead of after gives the same logits, and spares ten of the twelve parts of a layer's work.

The graph is rewritten by its operators' meaning, whatever the model is called: the slice that takes
the token is moved up through every operator that treats tokens one by one, until one mixes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.bundle import ONNX_FILE
from monox_kit.export.graph import drop_unused_weights, read_names
from monox_kit.onnx_model import open_session

_TOKENS = 1  # the axis of the tokens in [B, L, H]
# Batches that shapes are seen on. An axis of length 1 in both is broadcast, an equal one is fixed.
_SEEN = ((3, 11), (2, 7))
_WATCHED_FILE = "watched.onnx"

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


def slice_last_layer(folder: Path) -> int:
    """Rewrite the `model.onnx` of a folder under construction; how many operators were cut down.

    A graph that does not take the first token by a constant index is left as it is, with 0.
    """
    import onnx

    path = folder / ONNX_FILE
    # Weights beside the graph stay there; it only names them.
    model = onnx.load(str(path), load_external_data=False)
    seeds = [node for node in model.graph.node if _takes_first(model.graph, node)]
    if not seeds:
        return 0
    shapes = _seen_shapes(model, folder)
    seeds = [node for node in seeds if len(shapes.get(node.input[0], ((), ()))[0]) == 3]
    moved = _Slices(model.graph, list(model.graph.node), shapes).move_up(seeds)
    if moved:
        onnx.save(model, str(path))
    return moved


def _takes_first(graph: Any, node: Any) -> bool:
    """Whether the node takes index 0 along the tokens' axis."""
    if node.op_type != "Gather" or _attribute(node, "axis", 0) != _TOKENS:
        return False
    index = _constant(graph, node.input[1])
    return index is not None and index.size == 1 and int(index.reshape(-1)[0]) == 0


def _constant(graph: Any, name: str) -> Any:
    """The value of an initializer or a Constant; None where it is computed."""
    from onnx import numpy_helper

    for weight in graph.initializer:
        if weight.name == name:
            return numpy_helper.to_array(weight)
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            value = _attribute(node, "value", None)
            return None if value is None else numpy_helper.to_array(value)
    return None


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _seen_shapes(model: Any, folder: Path) -> dict[str, tuple[Dims, Dims]]:
    """The shape of every value of the graph, on two batches of different size."""
    import onnx

    # The graph itself is given more outputs for a while: its weights may be gigabytes.
    outputs = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in outputs
    )
    onnx.save(model, str(folder / _WATCHED_FILE))  # beside the weights that it names
    del model.graph.output[len(outputs) :]
    try:
        session = open_session(folder / _WATCHED_FILE, "cpu")
        seen = []
        for size in _SEEN:
            feed = {value.name: np.ones(size, np.int64) for value in session.get_inputs()}
            seen.append([np.shape(value) for value in session.run(names, feed)])
    finally:
        (folder / _WATCHED_FILE).unlink()
    shapes: dict[str, tuple[Dims, Dims]] = dict(zip(names, zip(*seen)))
    for weight in model.graph.initializer:
        shapes[weight.name] = (tuple(weight.dims), tuple(weight.dims))
    return shapes


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
class _Slices:
    """The slices of a graph's values: index 0 along an axis, kept as an axis of length 1.

    Attributes:
        graph: an `onnx.GraphProto`; it is changed.
        nodes: of the graph, in order.
        shapes: of its values before the change, on two batches.
        open: the name of each slice that is not computed yet, by value and axis.
    """

    graph: Any
    nodes: list[Any]
    shapes: dict[str, tuple[Dims, Dims]]
    open: dict[tuple[str, int], str] = field(default_factory=dict)

    def move_up(self, seeds: list[Any]) -> int:
        """Slice what the seeds read, and move the slices up; how many operators they passed."""
        for node in seeds:
            node.input[0] = self._slice(node.input[0], _TOKENS)
        moved = 0
        while step := sum(self._pass(name, axis) for name, axis in list(self.open)):
            moved += step
        if moved:
            self._place()
        return moved

    def _slice(self, name: str, axis: int) -> str:
        return self.open.setdefault((name, axis), f"{name}/first{axis}")

    def _pass(self, name: str, axis: int) -> bool:
        """Let the node that makes a value make its slice instead, where nobody reads the whole."""
        live = self._live()
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
        first = _attribute(node, "axis", -1) % self._rank(node.output[0])
        return _Move({0: axis}) if axis < first else None

    def _softmax(self, node: Any, axis: int) -> _Move | None:
        along = _attribute(node, "axis", -1) % self._rank(node.output[0])
        return _Move({0: axis}) if axis != along else None

    def _matmul(self, node: Any, axis: int) -> _Move | None:
        rank = self._rank(node.output[0])
        is_row = axis == rank - 2 and self._rank(node.input[0]) == rank
        return _Move({0: axis}) if is_row else None

    def _transpose(self, node: Any, axis: int) -> _Move:
        order = _attribute(node, "perm", list(reversed(range(self._rank(node.output[0])))))
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
        if rest != other or 0 in rest:
            return None
        return _Move({0: axis}, (*[0] * axis, 1, *rest))  # 0: as in the input

    def _attention(self, node: Any, axis: int) -> _Move | None:
        """The queries' axis, where each sees all keys that the mask leaves."""
        names = [*node.input, "", "", ""][:6]
        if any(names[4:]) or len(node.input) > 6 or _attribute(node, "is_causal", 0):
            return None
        if axis != (2 if self._rank(names[0]) == 4 else 1):
            return None
        inputs = {0: axis}
        if names[3]:
            # The mask goes over scores [B, heads, L, L].
            along = self._own_axis(names[3], 2, 4)
            inputs |= {} if along is None else {3: along}
        return _Move(inputs)

    def _live(self) -> list[Any]:
        """The nodes that the graph's outputs need, slices included."""
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
        return list(live.values())

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

        live = {id(node) for node in self._live()}
        slices: dict[str, list[Any]] = {}
        for (name, axis), sliced in self.open.items():
            bounds = [self._integers((value,)) for value in (0, 1, axis)]
            slices.setdefault(name, []).append(
                helper.make_node("Slice", [name, *bounds], [sliced], name=f"{sliced}/Slice")
            )
        made = {name for node in self.nodes for name in node.output}
        kept = [one for name, found in slices.items() if name not in made for one in found]
        for node in self.nodes:
            if id(node) in live:
                kept.append(node)
            for name in node.output:
                kept += slices.get(name, [])
        del self.graph.node[:]
        self.graph.node.extend(kept)
        names = {name for node in kept for name in node.output}
        known = [value for value in self.graph.value_info if value.name in names]
        del self.graph.value_info[:]
        self.graph.value_info.extend(known)
        drop_unused_weights(self.graph)

    def _integers(self, values: tuple[int, ...]) -> str:
        """The name of an int64 constant."""
        from onnx import numpy_helper

        name = f"first_token/{'x'.join(map(str, values))}"
        if name not in self.shapes:
            array = np.array(values, np.int64)
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self.shapes[name] = (array.shape, array.shape)
        return name


_RULES: dict[str, Callable[[_Slices, Any, int], _Move | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _Slices._elementwise),
    "LayerNormalization": _Slices._layer_norm,
    "Softmax": _Slices._softmax,
    "LogSoftmax": _Slices._softmax,
    "MatMul": _Slices._matmul,
    "Transpose": _Slices._transpose,
    "Reshape": _Slices._reshape,
    "Attention": _Slices._attention,
}
