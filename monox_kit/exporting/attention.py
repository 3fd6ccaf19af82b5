"""Attention that takes the states as the products give them, all heads of a token in one row.

PyTorch's exporter splits the heads before its Attention operator, and joins them after it: four
transpositions a layer, each a copy of all states. The operator takes them unsplit as well, told how
many heads they have, and then reads and writes them where they are: the same numbers, to the bit.

Source: ONNX operator set 23, Attention, inputs of three dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monox_kit.exporting.graph import drop_unread, read_names
from monox_kit.exporting.rewrite import Shapes, ShapesOf, rewritten
from monox_kit.exporting.token_slices import Dims, attribute_of
from monox_kit.models.scoring import Texts

_HEADS_FIRST = [0, 2, 1, 3]  # [B, L, N, D] to [B, N, L, D], and back
_NUM_PARTS = 3  # queries, keys, values


def join_heads(folder: Path, texts: Texts, max_length: int) -> int:
    """Rewrite the `model.onnx` of a folder under construction; how many operators were changed.

    Raises:
        ModelError: the graph is left as it was, because it does not run, or gives something else
            when it is changed.
        OSError: the disk is full, or cannot be written to.
    """
    return rewritten(
        folder, texts, max_length, _join, otherwise="attention splits its heads in steps of its own"
    )


def _join(model: Any, shapes_of: ShapesOf) -> int:
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type == "Attention" and not node.domain]
    if not nodes:
        return 0
    shapes, heads = shapes_of(), _Heads(graph)
    changed = sum(heads.join(node, shapes) for node in nodes)
    if changed:
        drop_unread(graph)
    return changed


class _Heads:
    """Where heads are split and joined around the Attention operators of an `onnx.GraphProto`."""

    def __init__(self, graph: Any) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in read_names(node):
                self._readers.setdefault(name, []).append(node)
        for value in graph.output:  # read by whoever runs the graph
            self._readers.setdefault(value.name, []).append(None)

    def join(self, node: Any, shapes: Shapes) -> bool:
        """Let one operator take and give joined heads; whether they stand around it as expected."""
        split = [self._split(name, shapes) for name in node.input[:_NUM_PARTS]]
        joined = self._joined(node, shapes)
        if joined is None or None in split or len(node.input) > _NUM_PARTS + 1:
            return False
        sources, counts = zip(*(part for part in split if part is not None))
        if counts[1] != counts[2]:
            return False
        from onnx import helper

        node.input[:_NUM_PARTS] = sources
        node.attribute.extend(
            helper.make_attribute(name, count)
            for name, count in (("q_num_heads", counts[0]), ("kv_num_heads", counts[1]))
        )
        self._makers[joined].output[0] = ""  # nobody's now
        node.output[0] = joined
        return True

    def _split(self, name: str, shapes: Shapes) -> tuple[str, int] | None:
        """The states [B, L, N * D] that an input [B, N, L, D] is made of, and N."""
        turn: Any = self._makers.get(name)
        parts = self._makers.get(turn.input[0]) if _turns_heads(turn) else None
        if parts is None or parts.op_type != "Reshape":
            return None
        source = parts.input[0]
        num_heads = _num_heads(shapes.get(source), shapes.get(parts.output[0]))
        return None if num_heads is None else (source, num_heads)

    def _joined(self, node: Any, shapes: Shapes) -> str | None:
        """The states [B, L, N * D] that are made of the output alone."""
        turn: Any = self._only_reader(node.output[0]) if len(node.output) == 1 else None
        whole = self._only_reader(turn.output[0]) if _turns_heads(turn) else None
        if whole is None or whole.op_type != "Reshape":
            return None
        found = _num_heads(shapes.get(whole.output[0]), shapes.get(whole.input[0]))
        return None if found is None else str(whole.output[0])

    def _only_reader(self, name: str) -> Any:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 else None


def _turns_heads(node: Any) -> bool:
    return (
        node is not None
        and node.op_type == "Transpose"
        and list(attribute_of(node, "perm", ())) == _HEADS_FIRST
    )


def _num_heads(joined: tuple[Dims, Dims] | None, split: tuple[Dims, Dims] | None) -> int | None:
    """N, where the shapes on both batches are [B, L, N * D] and [B, L, N, D]."""
    found = set()
    for states, parts in zip(joined or (), split or ()):
        if len(parts) != 4 or states != (*parts[:2], parts[2] * parts[3]):
            return None
        found.add(parts[2])
    return found.pop() if len(found) == 1 else None
