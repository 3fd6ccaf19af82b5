"""Word embeddings in int8: what the graph computes and holds, and where they stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from monox_kit.errors import ModelError
from monox_kit.exporting.embeddings import (
    embedding_bytes,
    quantize_embeddings,
    rounded_rows,
    word_tables,
)

ROWS, WIDTH = 9, 4
TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
TABLE[3] = 0  # padding's
TABLE[5] *= 1000  # a scale for each row: this one takes nothing from the others
POSITIONS = np.random.default_rng(1).normal(size=(7, WIDTH)).astype(np.float32)


def write_graph(folder: Path, nodes: list[Any]) -> Path:
    """A graph from `input_ids` to `out` with the weights that the nodes name."""
    folder.mkdir()
    weights = {
        "words": TABLE,
        "places": POSITIONS,
        "at": np.arange(3),
        "all": np.array([-1]),
        "halves": TABLE.astype(np.float16),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [None, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def two_lookups() -> list[Any]:
    """Words by their ids and by the same ids as one row of int32, and positions beside them."""
    return [
        helper.make_node("Gather", ["words", "input_ids"], ["first"]),
        helper.make_node("Reshape", ["input_ids", "all"], ["row"]),
        helper.make_node("Cast", ["row"], ["small"], to=TensorProto.INT32),
        helper.make_node("Gather", ["words", "small"], ["flat"], axis=0),
        helper.make_node("Shape", ["first"], ["shape"]),
        helper.make_node("Reshape", ["flat", "shape"], ["second"]),
        helper.make_node("Gather", ["places", "at"], ["position"], axis=0),
        helper.make_node("Add", ["first", "second"], ["sum"]),
        helper.make_node("Add", ["sum", "position"], ["out"]),
    ]


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-1000, 1000, width=16),
    )
)
def test_rounding_is_to_the_nearest_of_255_values_of_the_row(table: np.ndarray) -> None:
    values, scales = rounded_rows(table)
    assert values.dtype == np.int8
    assert values.min() >= -127
    # Half a step, and what float32 division loses on top of it.
    error = np.abs(values.astype(np.float64) * scales - table)
    assert (error <= 0.5 * scales * (1 + 1e-5)).all()
    assert (values[(table == 0).all(axis=1)] == 0).all()


def test_the_graph_looks_rounded_rows_up_wherever_tokens_are(tmp_path: Path) -> None:
    source = write_graph(tmp_path / "fp32", two_lookups())
    (tmp_path / "int8").mkdir()
    quantize_embeddings(source, tmp_path / "int8")
    ids = np.array([[1, 3, 5], [8, 0, 5]])
    scales = np.abs(TABLE).max(axis=1, keepdims=True) / 127
    scales[3] = 1
    rounded = np.rint(TABLE / scales) * scales
    session = onnxruntime.InferenceSession(str(tmp_path / "int8" / "model.onnx"))
    (found,) = session.run(None, {"input_ids": ids})
    np.testing.assert_allclose(found, 2 * rounded[ids] + POSITIONS[:3], rtol=1e-5, atol=1e-6)
    assert embedding_bytes(source) == ROWS * WIDTH * 4
    assert embedding_bytes(tmp_path / "int8") == ROWS * WIDTH + ROWS * 4


def test_a_session_holds_int8_too(tmp_path: Path) -> None:
    folder = write_graph(tmp_path / "graph", two_lookups())
    quantize_embeddings(folder, folder)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    graph = onnx.load(str(tmp_path / "optimized.onnx")).graph
    # What is constant has been folded by now.
    tables = [one for one in graph.initializer if tuple(one.dims) == (ROWS, WIDTH)]
    assert [one.data_type for one in tables] == [TensorProto.INT8]


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        (
            [
                helper.make_node("Gather", ["words", "input_ids"], ["states"]),
                helper.make_node("Transpose", ["words"], ["columns"]),
                helper.make_node("MatMul", ["states", "columns"], ["out"]),
            ],
            "Transpose",
        ),
        ([helper.make_node("Gather", ["places", "at"], ["out"])], "no token"),
        (
            [
                helper.make_node("Gather", ["halves", "input_ids"], ["states"]),
                helper.make_node("Cast", ["states"], ["out"], to=TensorProto.FLOAT),
            ],
            "FLOAT16",
        ),
    ],
)
def test_what_cannot_be_rounded_is_left_as_it_is(
    tmp_path: Path, nodes: list[Any], named: str
) -> None:
    folder = write_graph(tmp_path / "graph", nodes)
    before = (folder / "model.onnx").read_bytes()
    with pytest.raises(ModelError, match=named):
        quantize_embeddings(folder, folder)
    assert (folder / "model.onnx").read_bytes() == before


def test_rows_by_another_axis_are_no_look_up() -> None:
    node = helper.make_node("Gather", ["words", "input_ids"], ["out"], axis=1)
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(TABLE, "words")])
    with pytest.raises(ModelError, match="no token"):
        word_tables(graph)
