"""The last layer for the one token that is classified.

A classification head that reads the first token's state leaves unread what the last layer computes
for all others: of a layer's six products, all but those of keys and values. Taking the token before
them instead of after gives the same logits, and spares ten of the twelve parts of a layer's work.

The graph is rewritten by its operators' meaning, whatever the model is called: the slice that takes
the token is moved up through every operator that treats tokens one by one, until one mixes them.
The rewritten graph is kept where it gives what the whole one gives on real tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.agreement import FP32_TOLERANCE
from monox_kit.bundle import ONNX_FILE
from monox_kit.data import Int64s
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.export.graph import drop_unused_weights, read_names
from monox_kit.onnx_model import open_session
from monox_kit.scoring import Texts

_TOKENS = 1  # the axis of the tokens in [B, L, H]
# Batches that shapes are seen on. An axis of length 1 in both is broadcast, an equal one is fixed.
_SEEN = ((3, 11), (2, 7))
# Of the batches that the cut graph is checked on. Attention's scores grow with its square: those of
# 8,192 tokens would take gigabytes.
_LONGEST = 512
_SCRATCH_FILE = "sliced.onnx"
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
Feed = dict[str, Int64s]


def slice_last_layer(folder: Path, texts: Texts, max_length: int) -> int:
    """Rewrite the `model.onnx` of a folder under construction; how many operators were cut down.

    A graph that does not take the first token by a constant index is left as it is, with 0.

    Args:
        folder: of the graph, whose weights may lie beside it.
        texts: real text; the graph is tried on batches of its tokens.
        max_length: of the longest text that the graph will see, in tokens.

    Raises:
        ModelError: the graph is left as it was, because it does not run, cannot be followed, or
            gives something else when it is cut.
        OSError: the disk is full, or cannot be written to.
    """
    import onnx

    path, scratch = folder / ONNX_FILE, folder / _SCRATCH_FILE
    try:
        # Weights beside the graph stay there; it only names them.
        model = onnx.load(str(path), load_external_data=False)
        seeds = [node for node in model.graph.node if _takes_first(model.graph, node)]
        if not seeds:
            return 0
        batches = _Batches(texts, max_length)
        shapes = _seen_shapes(model, scratch, batches)
        seeds = [node for node in seeds if len(shapes.get(node.input[0], ((), ()))[0]) == 3]
        opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
        moved = _Slices(model.graph, list(model.graph.node), shapes, opset).move_up(seeds)
        if moved:
            onnx.save(model, str(scratch))
            _require_equal(path, scratch, batches)
            onnx.save(model, str(path))
        return moved
    except (OSError, MemoryError, ProviderError):
        raise
    except Exception as error:  # graphs and runtimes raise whatever they meet; the whole one stands
        raise ModelError(
            f"the last layer is computed for all tokens: {first_line(error)}"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Batches:
    """Batches of any shape, filled with real tokens."""

    texts: Texts
    max_length: int

    def seen(self) -> list[tuple[int, int]]:
        """Two sizes [B, L] that differ in both."""
        longest = (self.max_length, max(1, self.max_length // 2))
        return [(rows, min(length, most)) for (rows, length), most in zip(_SEEN, longest)]

    def checked(self) -> list[tuple[int, int]]:
        """Sizes [B, L] from the smallest to the longest."""
        return [(1, 1), *self.seen(), (2, min(self.max_length, _LONGEST))]

    def feed(self, session: Any, size: tuple[int, int]) -> Feed:
        """A batch of this size; its first row is padded beyond a third of it.

        Raises:
            ModelError: the graph takes something else than tokens.
        """
        mask = np.ones(size, np.int64)
        mask[0, size[1] // 3 + 1 :] = 0
        tokens = np.resize(self.texts.encoded.input_ids, size).astype(np.int64)
        known = {
            "input_ids": np.where(mask == 1, tokens, self.texts.pad_id),
            "attention_mask": mask,
            "token_type_ids": np.zeros(size, np.int64),
        }
        names = [value.name for value in session.get_inputs()]
        if not known.keys() >= set(names):
            raise ModelError(f"expected inputs among {', '.join(known)}, found {', '.join(names)}.")
        return {name: known[name] for name in names}


def _require_equal(whole: Path, cut: Path, batches: _Batches) -> None:
    """Compare the outputs of both graphs.

    Raises:
        ModelError: they differ by more than rounding.
    """
    sessions = [open_session(path, "cpu") for path in (whole, cut)]
    for size in batches.checked():
        expected, found = (one.run(None, batches.feed(one, size)) for one in sessions)
        for one, other in zip(expected, found):
            if one.shape != other.shape:
                raise ModelError(
                    f"expected an output of {one.shape} of the cut graph, found {other.shape}."
                )
            most = FP32_TOLERANCE * max(1.0, float(np.abs(one).max(initial=0)))
            if not np.allclose(one, other, rtol=0, atol=most, equal_nan=True):
                raise ModelError(
                    f"expected the cut graph's outputs within {most:.1e} of the whole one's, found "
                    f"{np.abs(one - other).max():.1e} at {size[0]} x {size[1]} tokens."
                )


def _takes_first(graph: Any, node: Any) -> bool:
    """Whether the node takes index 0 along the tokens' axis."""
    if node.op_type != "Gather" or _attribute(node, "axis", 0) not in (_TOKENS, _TOKENS - 3):
        return False
    index = _constant(graph, node.input[1])
    return index is not None and int(index.reshape(-1)[0]) == 0


def _constant(graph: Any, name: str) -> Any:
    """The one number of an initializer or a Constant; None where it is another or computed."""
    from onnx import TensorProto, numpy_helper

    values = [weight for weight in graph.initializer if weight.name == name]
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            if (number := _attribute(node, "value_int", None)) is not None:
                return np.array(number)
            values += [value for value in (_attribute(node, "value", None),) if value is not None]
    if not values or any(size != 1 for size in values[0].dims):
        return None
    if values[0].data_location == TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(values[0])


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _seen_shapes(model: Any, scratch: Path, batches: _Batches) -> dict[str, tuple[Dims, Dims]]:
    """The shape of every value of the graph, on two batches of different size."""
    import onnx

    # The graph itself is given more outputs for a while: its weights may be gigabytes.
    outputs = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in outputs
    )
    onnx.save(model, str(scratch))  # beside the weights that it names
    del model.graph.output[len(outputs) :]
    session = open_session(scratch, "cpu")
    seen = [
        [np.shape(value) for value in session.run(names, batches.feed(session, size))]
        for size in batches.seen()
    ]
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
            node.input[0] = self._slice(node.input[0], _TOKENS)
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
        return _Move({0: axis}) if axis < _attribute(node, "axis", -1) % rank else None

    def _softmax(self, node: Any, axis: int) -> _Move | None:
        takes_one = self.opset >= _SOFTMAX_OF_ONE_AXIS
        along = _attribute(node, "axis", -1 if takes_one else 1) % self._rank(node.output[0])
        is_apart = axis != along if takes_one else axis < along
        return _Move({0: axis}) if is_apart else None

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
        if rest != other:
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

        nodes, needed = self._live()
        live = {id(node) for node in nodes}
        slices: dict[str, list[Any]] = {}
        for (name, axis), sliced in self.open.items():
            if sliced not in needed:
                continue
            bounds = [self._integers((value,)) for value in (0, 1, axis)]
            slices.setdefault(name, []).append(
                helper.make_node("Slice", [name, *bounds], [sliced], name=f"{sliced}/Slice")
            )
        kept: list[Any] = []
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
