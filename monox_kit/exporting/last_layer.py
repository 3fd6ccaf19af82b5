"""The last layer for the one token that is classified.

A classification head that reads the first token's state leaves unread what the last layer computes
for all others: of a layer's six products, all but those of keys and values. Taking the token before
them instead of after gives the same logits, and spares ten of the twelve parts of a layer's work.

The graph is rewritten by its operators' meaning, whatever the model is called: the slice that takes
the token is moved up through every operator that treats tokens one by one, until one mixes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.exporting.rewrite import ShapesOf, opset_of, rewritten
from monox_kit.exporting.token_slices import TOKENS, TokenSlices, attribute_of
from monox_kit.models.scoring import Texts


def slice_last_layer(folder: Path, texts: Texts, max_length: int) -> int:
    """Rewrite the `model.onnx` of a folder under construction; how many operators were cut down.

    A graph that does not take the first token by a constant index is left as it is, with 0.

    Raises:
        ModelError: the graph is left as it was, because it does not run, cannot be followed, or
            gives something else when it is cut.
        OSError: the disk is full, or cannot be written to.
    """
    return rewritten(
        folder, texts, max_length, _cut, otherwise="the last layer is computed for all tokens"
    )


def _cut(model: Any, shapes_of: ShapesOf) -> int:
    seeds = [node for node in model.graph.node if _takes_first(model.graph, node)]
    if not seeds:
        return 0
    shapes = shapes_of()
    seeds = [node for node in seeds if len(shapes.get(node.input[0], ((), ()))[0]) == 3]
    slices = TokenSlices(model.graph, list(model.graph.node), shapes, opset_of(model))
    return slices.move_up(seeds)


def _takes_first(graph: Any, node: Any) -> bool:
    """Whether the node takes index 0 along the tokens' axis."""
    if node.op_type != "Gather" or attribute_of(node, "axis", 0) not in (TOKENS, TOKENS - 3):
        return False
    index = _constant(graph, node.input[1])
    return index is not None and int(index.reshape(-1)[0]) == 0


def _constant(graph: Any, name: str) -> Any:
    """The one number of an initializer or a Constant; None where it is another or computed."""
    from onnx import TensorProto, numpy_helper

    values = [weight for weight in graph.initializer if weight.name == name]
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            if (number := attribute_of(node, "value_int", None)) is not None:
                return np.array(number)
            values += [value for value in (attribute_of(node, "value", None),) if value is not None]
    if not values or any(size != 1 for size in values[0].dims):
        return None
    if values[0].data_location == TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(values[0])
