"""Graphs at random: cut down or not, they give what they gave."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from monox_kit.exporting.last_layer import slice_last_layer
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding

HIDDEN, NUM_TOKENS = 6, 8
Dim = int | str  # "B" rows, "L" tokens, or fixed
Feed = dict[str, npt.NDArray[np.int64]]


@dataclass
class Builder:
    """A graph that grows by an operator at a time, the newest values being read most.

    Attributes:
        draw: makes all choices.
        shapes: of every value that operators may read.
    """

    draw: random.Random
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    shapes: dict[str, tuple[Dim, ...]] = field(default_factory=dict)

    def weight(self, *dims: int) -> str:
        values = np.random.default_rng(self.draw.randrange(2**32)).normal(size=dims) / 2
        return self.constant(values.astype(np.float32))

    def constant(self, values: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], *shape: Dim, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.shapes[name] = shape
        return name

    def grow(self) -> None:
        """Add one operator, if the one that was drawn can take the value that was drawn."""
        name = self.draw.choice([*list(self.shapes)[-2:], "hidden"])
        shape = self.shapes[name]
        steps = [self._alone, self._with_weight, self._with_another, self._normalized]
        steps += [self._transposed, self._product, self._attention, self._reshaped, self._gathered]
        self.draw.choice(steps)(name, shape)

    def _alone(self, name: str, shape: tuple[Dim, ...]) -> None:
        self.add(self.draw.choice(["Tanh", "Erf", "Sigmoid", "Identity"]), [name], *shape)

    def _with_weight(self, name: str, shape: tuple[Dim, ...]) -> None:
        fixed = [dim if isinstance(dim, int) and self.draw.random() < 0.7 else 1 for dim in shape]
        other = self.weight(*fixed[self.draw.randrange(len(shape)) :])
        pair = [name, other] if self.draw.random() < 0.5 else [other, name]
        self.add(self.draw.choice(["Add", "Mul", "Max"]), pair, *shape)

    def _with_another(self, name: str, shape: tuple[Dim, ...]) -> None:
        other = self.draw.choice([*list(self.shapes)[-3:], "hidden", "mask"])
        if len(self.shapes[other]) > len(shape):
            return
        tail = shape[len(shape) - len(self.shapes[other]) :]
        if all(mine in (dim, 1) or dim == 1 for mine, dim in zip(tail, self.shapes[other])):
            wide = [dim if mine == 1 else mine for mine, dim in zip(tail, self.shapes[other])]
            whole = (*shape[: len(shape) - len(wide)], *wide)
            self.add(self.draw.choice(["Add", "Mul", "Sub"]), [name, other], *whole)

    def _normalized(self, name: str, shape: tuple[Dim, ...]) -> None:
        if self.draw.random() < 0.5 and isinstance(shape[-1], int):
            scale = [name, self.weight(shape[-1])]
            self.add("LayerNormalization", scale, *shape, axis=-1)
        else:
            self.add("Softmax", [name], *shape, axis=self.draw.randrange(-len(shape), len(shape)))

    def _transposed(self, name: str, shape: tuple[Dim, ...]) -> None:
        order = self.draw.sample(range(len(shape)), len(shape))
        self.add("Transpose", [name], *(shape[axis] for axis in order), perm=order)

    def _product(self, name: str, shape: tuple[Dim, ...]) -> None:
        if isinstance(shape[-1], int):
            out = self.draw.choice([3, HIDDEN])
            self.add("MatMul", [name, self.weight(shape[-1], out)], *shape[:-1], out)
        elif shape == ("B", HIDDEN, "L"):
            self.add("Tanh", [self.add("MatMul", ["hidden", name], "B", "L", "L")], "B", "L", "L")
        elif shape == ("B", "L", "L"):
            self.add("MatMul", [name, "hidden"], "B", "L", HIDDEN)

    def _attention(self, name: str, shape: tuple[Dim, ...]) -> None:
        if shape == ("B", "L", HIDDEN):
            other = self.draw.choice([one for one, dims in self.shapes.items() if dims == shape])
            self.add("Attention", [name, other, name], *shape, q_num_heads=2, kv_num_heads=2)

    def _reshaped(self, name: str, shape: tuple[Dim, ...]) -> None:
        match shape:
            case (*before, 6) if before:
                target = self.constant([0] * len(before) + self.draw.choice([[2, 3], [2, -1]]))
                self.add("Reshape", [name, target], *before, 2, 3)
            case (*before, 2, 3) if before:
                self.add("Reshape", [name, self.constant([0] * len(before) + [-1])], *before, 6)
            case _ if twins := [one for one, dims in self.shapes.items() if dims == shape]:
                # The target comes from another value, which may be needed for nothing else.
                target = self.add("Shape", [self.draw.choice(twins)], len(shape))
                del self.shapes[target]
                self.add("Reshape", [name, target], *shape)

    def _gathered(self, name: str, shape: tuple[Dim, ...]) -> None:
        if len(shape) == 3 and shape[1] == "L":
            index = self.constant(np.array([0]))
            self.add("Gather", [name, index], shape[0], 1, shape[2], axis=1)


def random_graph(seed: int) -> onnx.ModelProto:
    """Reads tokens and a mask; takes the first token of one value, and may give others whole."""
    build = Builder(random.Random(seed))
    table = build.weight(NUM_TOKENS, HIDDEN)
    build.nodes.append(helper.make_node("Gather", [table, "input_ids"], ["hidden"]))
    build.nodes.append(helper.make_node("Cast", ["attention_mask"], ["numbers"], to=1))
    ends = build.constant([2])
    build.nodes.append(helper.make_node("Unsqueeze", ["numbers", ends], ["mask"]))
    build.shapes |= {"mask": ("B", "L", 1), "hidden": ("B", "L", HIDDEN)}
    for _ in range(build.draw.randint(3, 20)):
        build.grow()
    rows = [one for one, dims in build.shapes.items() if dims[:2] == ("B", "L") and len(dims) == 3]
    first = build.constant(build.draw.choice([0, [0]]))
    taken = build.add("Gather", [rows[-1], first], axis=1)
    outputs = [build.add("ReduceSum", [taken, build.constant([-1])], keepdims=0)]
    if build.draw.random() < 0.3:
        outputs.append(build.draw.choice(rows))
    if build.draw.random() < 0.3:
        whole = build.draw.choice(list(build.shapes)[:-2])
        outputs.append(build.add("ReduceMean", [whole], keepdims=0))
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    given_back = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(outputs)]
    graph = helper.make_graph(build.nodes, "graph", inputs, given_back, build.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def outputs_of(path: Path, feeds: list[Feed]) -> list[list[npt.NDArray[np.float32]]]:
    session = onnxruntime.InferenceSession(str(path))
    names = [one.name for one in session.get_inputs()]
    return [session.run(None, {name: feed[name] for name in names}) for feed in feeds]


def batch(num_rows: int, length: int) -> Feed:
    tokens = np.random.default_rng(length).integers(0, NUM_TOKENS, (num_rows, length))
    mask = np.ones((num_rows, length), np.int64)
    mask[0, length // 2 + 1 :] = 0
    return {"input_ids": tokens, "attention_mask": mask}


@given(seed=st.integers(0, 2**32 - 1))
def test_the_outputs_stay(seed: int) -> None:
    encoded = Encoded(
        np.arange(NUM_TOKENS, dtype=np.int64),
        None,
        np.array([NUM_TOKENS], np.int64),
        np.zeros(1, np.int64),
    )
    texts = Texts(encoded, np.zeros(1, np.int64), Padding(0), np.arange(1))
    feeds = [batch(1, 1), batch(3, 5), batch(2, 20), batch(4, 4)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(random_graph(seed), str(path))
        expected = outputs_of(path, feeds)

        slice_last_layer(Path(folder), texts, max_length=24)

        for one, other in zip(expected, outputs_of(path, feeds)):
            for value, again in zip(one, other, strict=True):
                assert value.shape == again.shape
                np.testing.assert_allclose(again, value, rtol=1e-4, atol=1e-5)
