"""SmoothQuant on an ONNX graph: a few huge activation channels are moved into the weights.

Activations have one scale for all channels in int8, weights one per output. Where a few channels of
an activation are tens of times larger than the rest, all others are rounded away. Dividing each
channel by a factor and multiplying its row of the weights by the same changes nothing in fp32, and
makes both easy to round.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models" (2022), equation 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s
from monox_kit.exporting.graph import drop_unused_weights, save_graph
from monox_kit.models.onnx_backend import open_session

# How much of the difficulty moves into the weights. The paper's 0.5 is for weights with one scale;
# ours have one per output. What other values give: benchmarks/LOG.md.
_ALPHA = 0.7
_LEAST = 1e-5  # channels that are never active

Floats = npt.NDArray[np.float32]


def smoothed(graph: Any, feeds: Iterable[dict[str, Int64s]], work: Path) -> Any:
    """The same function with smoothed inputs of its matrix products.

    Args:
        graph: an `onnx.ModelProto` in fp32; it is changed.
        feeds: calibration inputs.
        work: a folder under construction, for a graph that shows its activations.
    """
    from onnx import helper, numpy_helper

    weights = {value.name: value for value in graph.graph.initializer}
    products: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and len(weight.dims) == 2:
            products.setdefault(node.input[0], []).append(node)
    ranges = _ranges(graph, list(products), feeds, work)
    scalings = {}
    for name, nodes in products.items():
        arrays = [numpy_helper.to_array(weights[node.input[1]]) for node in nodes]
        reach = np.max([np.abs(array).max(axis=1) for array in arrays], axis=0)
        factor = _factors(ranges[name], reach)
        scalings[name] = helper.make_node("Mul", [name, f"{name}/inv"], [f"{name}/smooth"])
        inverse = numpy_helper.from_array((1 / factor).astype(np.float32), f"{name}/inv")
        graph.graph.initializer.append(inverse)
        for node, array in zip(nodes, arrays):
            # A new weight: another product may share the old one with another factor.
            scaled = f"{node.input[1]}/{node.name or node.output[0]}/smooth"
            content = numpy_helper.from_array(array * factor[:, None], scaled)
            graph.graph.initializer.append(content)
            node.input[0], node.input[1] = f"{name}/smooth", scaled
    _insert(graph, scalings)
    drop_unused_weights(graph.graph)
    return graph


def _factors(reach: Floats, weight_reach: Floats) -> Floats:
    """[K] what each input channel is divided by, with a geometric mean of 1."""
    active, weight = np.maximum(reach, _LEAST), np.maximum(weight_reach, _LEAST)
    factor = active**_ALPHA / weight ** (1 - _ALPHA)
    return np.asarray(factor / np.exp(np.log(factor).mean()), np.float32)


def _ranges(
    graph: Any, names: list[str], feeds: Iterable[dict[str, Int64s]], work: Path
) -> dict[str, Floats]:
    """The largest absolute value of every channel of the named activations."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    for name in names:
        watched.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    found: dict[str, Floats] = {}
    save_graph(watched, work, "watched.onnx")
    session = open_session(work / "watched.onnx", "cpu")
    for feed in feeds:
        for name, value in zip(names, session.run(names, feed)):
            reach = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], reach) if name in found else reach
    return found


def _insert(graph: Any, scalings: dict[str, Any]) -> None:
    """Put each scaling before the first node that uses it."""
    waiting = {node.output[0]: node for node in scalings.values()}
    ordered = []
    for node in graph.graph.node:
        ordered += [waiting.pop(name) for name in node.input if name in waiting]
        ordered.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(ordered)
