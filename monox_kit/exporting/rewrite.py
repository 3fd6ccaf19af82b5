"""A graph rewritten by its operators' meaning, and kept where it gives what it gave before.

What a rewriting needs to know of a graph, it sees: the shape of every value on real tokens. What
it makes is run beside the graph that it was made of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from monox_kit.data import Int64s, TokenBatch
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.exporting.token_slices import Dims
from monox_kit.models.agreement import FP32_TOLERANCE
from monox_kit.models.folder import ONNX_FILE
from monox_kit.models.onnx_backend import open_session
from monox_kit.models.scoring import Texts

# Batches that shapes are seen on. An axis of length 1 in both is broadcast, an equal one is fixed.
_SEEN = ((3, 11), (2, 7))
# Of the batches that a rewritten graph is checked on: attention's scores grow with the square,
# those of 8,192 tokens would take gigabytes.
_LONGEST = 512
_SCRATCH_FILE = "rewritten.onnx"
Feed = dict[str, Int64s]
# Of every value of a graph, its shape on two batches that differ in both sizes.
Shapes: TypeAlias = dict[str, tuple[Dims, Dims]]
ShapesOf: TypeAlias = Callable[[], Shapes]


def rewritten(
    folder: Path,
    texts: Texts,
    max_length: int,
    change: Callable[[Any, ShapesOf], int],
    *,
    otherwise: str,
) -> int:
    """Change the `model.onnx` of a folder under construction; how many operators were changed.

    Args:
        folder: the graph's; weights beside it stay there.
        texts: real ones, tokenized, that the graphs are run on.
        max_length: the most tokens of a text.
        change: is given the `onnx.ModelProto`, which it changes, and what tells its values' shapes.
        otherwise: what is so where the graph is left as it was, for the message.

    Raises:
        ModelError: the graph is left as it was, because it does not run, cannot be followed, or
            gives something else when it is changed.
        OSError: the disk is full, or cannot be written to.
    """
    import onnx

    path, scratch = folder / ONNX_FILE, folder / _SCRATCH_FILE
    batches = _Batches(texts, max_length)
    try:
        # Weights beside the graph stay there; it only names them.
        model = onnx.load(str(path), load_external_data=False)
        changed = change(model, lambda: _seen_shapes(model, scratch, batches))
        if changed:
            onnx.save(model, str(scratch))
            _require_equal(path, scratch, batches)
            shutil.move(scratch, path)
        return changed
    except (OSError, MemoryError, ProviderError):
        raise
    except Exception as error:  # graphs and runtimes raise whatever they meet; the whole one stands
        raise ModelError(f"{otherwise}: {first_line(error)}") from error
    finally:
        scratch.unlink(missing_ok=True)


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators that an `onnx.ModelProto` is written in."""
    return next(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))


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


def _require_equal(before: Path, after: Path, batches: _Batches) -> None:
    """Compare the outputs of both graphs."""
    sessions = [open_session(path, "cpu") for path in (before, after)]
    for size in batches.checked():
        expected, found = (one.run(None, batches.feed(one, size)) for one in sessions)
        for one, other in zip(expected, found):
            if one.shape != other.shape:
                raise ModelError(
                    f"the rewritten graph's output is {other.shape}, the one before's {one.shape}."
                )
            most = FP32_TOLERANCE * max(1.0, float(np.abs(one).max(initial=0)))
            if not np.allclose(one, other, rtol=0, atol=most, equal_nan=True):
                raise ModelError(
                    f"the rewritten graph's output differs by {np.abs(one - other).max():.1e} from "
                    f"the other's at {size[0]} x {size[1]} tokens; rounding explains {most:.1e}."
                )


def _seen_shapes(model: Any, scratch: Path, batches: _Batches) -> Shapes:
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
    shapes: Shapes = dict(zip(names, zip(*seen)))
    for weight in model.graph.initializer:
        shapes[weight.name] = (tuple(weight.dims), tuple(weight.dims))
    return shapes
