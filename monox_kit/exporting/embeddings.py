"""Word embeddings in int8: a scale for each row, and float32 again for a batch's tokens alone.

A multilingual model is mostly its table of word embeddings, and of a table only the rows of a
batch's tokens are read. The graph gathers their int8 values and their scales, and multiplies the
two. Runtimes fold what is constant when a session is built, and both tables go through the batch's
ids first: memory holds the bytes too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.errors import ModelError
from monox_kit.exporting.graph import drop_unused_weights, read_names, save_graph
from monox_kit.models.folder import ONNX_DATA_FILE, ONNX_FILE

Floats = npt.NDArray[np.float32]
Int8s = npt.NDArray[np.int8]

_IDS = "input_ids"
# Operators whose output is the ids that they are given, in another shape or type, or more of them.
_CARRIERS = frozenset(
    ("Cast", "Concat", "Expand", "Identity", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
_LARGEST = 127  # symmetric: a zero stays one, as padding's rows are


def quantize_embeddings(source: Path, folder: Path) -> None:
    """Write the graph of `source` with its word embeddings in int8 to `folder`, or over itself.

    Position and type embeddings are small and stay as they are.

    Raises:
        ModelError: the word embeddings are no table of their own in the graph.
    """
    import onnx

    model = onnx.load(str(source / ONNX_FILE))
    for name in word_tables(model.graph):
        _replace_table(model.graph, name)
    drop_unused_weights(model.graph)
    for path in (folder / ONNX_FILE, folder / ONNX_DATA_FILE):
        path.unlink(missing_ok=True)  # onnx appends to a file of weights that is there
    save_graph(model, folder)


def word_tables(graph: Any) -> list[str]:
    """The names of the [V, H] weights of an `onnx.GraphProto` that tokens are looked up in.

    NNCF rounds them itself, row by row: those are not among them.

    Raises:
        ModelError: there is none, or one is used for something else too.
    """
    weights = {weight.name for weight in graph.initializer}
    tables = list(dict.fromkeys(node.input[0] for node in _lookups(graph)))
    if not any(name in weights or name in _rounded(graph) for name in tables):
        raise ModelError("the graph looks no token up in a table of word embeddings.")
    found = [name for name in tables if name in weights]
    for name in found:
        users = [node for node in graph.node if name in read_names(node)]
        others = sorted({node.op_type for node in users if not _is_lookup_in(name, node)})
        if others:
            raise ModelError(
                f"the word embeddings {name} are used by {', '.join(others)} too, which would have "
                "to multiply by all of their rows."
            )
    return found


def rounded_rows(table: Floats) -> tuple[Int8s, Floats]:
    """A [V, H] table as int8 and the [V, 1] scales of its rows, whose product is nearest to it."""
    scales = np.abs(table).max(axis=1, keepdims=True) / np.float32(_LARGEST)
    scales[scales == 0] = 1
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def embedding_bytes(folder: Path) -> int:
    """The bytes of the word embeddings in a folder's graph, scales among them; 0 where untold."""
    import onnx

    graph = onnx.load(str(folder / ONNX_FILE), load_external_data=False).graph
    rounded, names = _rounded(graph), set()
    for node in _lookups(graph):
        names |= rounded.get(node.input[0], {node.input[0]})
    return sum(
        int(np.prod(weight.dims)) * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        for weight in graph.initializer
        if weight.name in names
    )


def _lookups(graph: Any) -> list[Any]:
    """The nodes that take rows of a table by the tokens' ids."""
    ids, found = {_IDS}, []
    for node in graph.node:
        if node.op_type in _CARRIERS and ids & set(node.input):
            ids.update(node.output)
        if node.op_type == "Gather" and node.input[1] in ids and _axis(node) == 0:
            found.append(node)
    return found


def _rounded(graph: Any) -> dict[str, set[str]]:
    """What is made float of integers and scales, by name, with the names of those."""
    return {
        node.output[0]: set(node.input) for node in graph.node if node.op_type == "DequantizeLinear"
    }


def _is_lookup_in(name: str, node: Any) -> bool:
    return node.op_type == "Gather" and node.input[0] == name and _axis(node) == 0


def _axis(node: Any) -> int:
    return next((one.i for one in node.attribute if one.name == "axis"), 0)


def _replace_table(graph: Any, name: str) -> None:
    """Put the rounded table and its scales in, and after each look-up what multiplies the two."""
    from onnx import TensorProto, helper, numpy_helper

    table = next(weight for weight in graph.initializer if weight.name == name)
    if table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        kind = TensorProto.DataType.Name(table.data_type)
        raise ModelError(
            f"the word embeddings {name} are {list(table.dims)} of {kind}; rows of float32 can be "
            "rounded."
        )
    values, scales = rounded_rows(numpy_helper.to_array(table))
    rows, factors = f"{name}/int8", f"{name}/scale"
    graph.initializer.extend(
        [numpy_helper.from_array(values, rows), numpy_helper.from_array(scales, factors)]
    )
    nodes = []
    for node in graph.node:
        if not _is_lookup_in(name, node):
            nodes.append(node)
            continue
        ids, result = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [rows, ids], [f"{result}/int8"], axis=0),
            helper.make_node("Gather", [factors, ids], [f"{result}/scale"], axis=0),
            helper.make_node("Cast", [f"{result}/int8"], [f"{result}/float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{result}/float", f"{result}/scale"], [result]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
