"""The last layer for the one token that is classified.

A classification head that reads the first token's state leaves unread what the last layer computes
for all others: of a layer's six products, all but those of keys and values. Taking the token before
them instead of after gives the same logits, and spares ten of the twelve parts of a layer's work.

The graph is rewritten by its operators' meaning, whatever the model is called: the slice that takes
the token is moved up through every operator that treats tokens one by one, until one mixes them.
The rewritten graph is kept where it gives what the whole one gives on real tokens.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Int64s, TokenBatch
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.exporting.token_slices import TOKENS, Dims, TokenSlices, attribute_of
from monox_kit.models.agreement import FP32_TOLERANCE
from monox_kit.models.folder import ONNX_FILE
from monox_kit.models.onnx_backend import open_session
from monox_kit.models.scoring import Texts

# Batches that shapes are seen on. An axis of length 1 in both is broadcast, an equal one is fixed.
_SEEN = ((3, 11), (2, 7))
# Of the batches that the cut graph is checked on. Attention's scores grow with its square: those of
# 8,192 tokens would take gigabytes.
_LONGEST = 512
_SCRATCH_FILE = "sliced.onnx"
Feed = dict[str, Int64s]


def slice_last_layer(folder: Path, texts: Texts, max_length: int) -> int:
    """Rewrite the `model.onnx` of a folder under construction; how many operators were cut down.

    A graph that does not take the first token by a constant index is left as it is, with 0.

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
        moved = TokenSlices(model.graph, list(model.graph.node), shapes, opset).move_up(seeds)
        if moved:
            onnx.save(model, str(scratch))
            _require_equal(path, scratch, batches)
            shutil.move(scratch, path)
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
        input_ids = np.where(mask == 1, tokens, self.texts.padding.token_id)
        known = TokenBatch(np.arange(size[0]), input_ids, mask, np.zeros(size, np.int64)).arrays
        names = [value.name for value in session.get_inputs()]
        if unknown := [name for name in names if name not in known]:
            raise ModelError(f"the graph takes {', '.join(unknown)} beside {', '.join(known)}.")
        return {name: known[name] for name in names}


def _require_equal(whole: Path, cut: Path, batches: _Batches) -> None:
    """Compare the outputs of both graphs."""
    sessions = [open_session(path, "cpu") for path in (whole, cut)]
    for size in batches.checked():
        expected, found = (one.run(None, batches.feed(one, size)) for one in sessions)
        for one, other in zip(expected, found):
            if one.shape != other.shape:
                raise ModelError(
                    f"the cut graph's output is {other.shape}, the whole one's {one.shape}."
                )
            most = FP32_TOLERANCE * max(1.0, float(np.abs(one).max(initial=0)))
            if not np.allclose(one, other, rtol=0, atol=most, equal_nan=True):
                raise ModelError(
                    f"the cut graph's output differs by {np.abs(one - other).max():.1e} from the "
                    f"whole one's at {size[0]} x {size[1]} tokens; rounding explains {most:.1e}."
                )


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
