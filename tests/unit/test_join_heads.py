"""Attention with joined heads: the same logits to the bit, without the transpositions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from monox_kit.errors import ModelError
from monox_kit.exporting.attention import join_heads
from monox_kit.exporting.config import FORMS
from monox_kit.exporting.graph import write_form
from monox_kit.exporting.last_layer import slice_last_layer
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding
from tests.unit.test_last_layer import batch, model, scored

TOKENS = np.arange(1, 8, dtype=np.int64)
TEXTS = Texts(
    Encoded(TOKENS, None, np.array([len(TOKENS)], np.int64), np.zeros(1, np.int64)),
    np.zeros(1, np.int64),
    Padding(0),
    np.arange(1),
)


def operators(folder: Path) -> Counter[str]:
    graph = onnx.load(str(folder / "model.onnx")).graph
    return Counter(node.op_type for node in graph.node)


def written(folder: Path, name: str, form: str = "opset23", *, cut: bool = False) -> None:
    write_form(model(name, form), folder, FORMS[form], token_types=False)
    if cut:
        assert slice_last_layer(folder, TEXTS, 40) > 0


@pytest.mark.parametrize("cut", [False, True], ids=["all tokens", "the first token's last layer"])
@pytest.mark.parametrize("name", ["Bert", "XLMRoberta", "DistilBert"])
def test_heads_stay_where_they_are_and_logits_are_equal_to_the_bit(
    tmp_path: Path, name: str, cut: bool
) -> None:
    written(tmp_path, name, cut=cut and name != "DistilBert")
    before = operators(tmp_path)
    feeds = [batch(1, 1), batch(3, 11), batch(2, 40)]
    expected = [scored(tmp_path / "model.onnx", feed) for feed in feeds]
    assert join_heads(tmp_path, TEXTS, 40) == before["Attention"] == 2
    after = operators(tmp_path)
    assert before["Transpose"] - after["Transpose"] == 4 * 2
    assert before["Reshape"] - after["Reshape"] == 4 * 2
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    for feed, logits in zip(feeds, expected):
        np.testing.assert_array_equal(scored(tmp_path / "model.onnx", feed), logits)
    assert join_heads(tmp_path, TEXTS, 40) == 0


def test_a_graph_without_the_operator_is_left_as_it_is(tmp_path: Path) -> None:
    written(tmp_path, "Bert", "opset17-eager")
    before = (tmp_path / "model.onnx").read_bytes()
    assert join_heads(tmp_path, TEXTS, 40) == 0
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_heads_that_something_else_reads_stay_split(tmp_path: Path) -> None:
    written(tmp_path, "Bert")
    path = tmp_path / "model.onnx"
    graph = onnx.load(str(path))
    first = next(node for node in graph.graph.node if node.op_type == "Attention")
    graph.graph.output.append(helper.make_tensor_value_info(first.output[0], 1, None))
    onnx.save(graph, str(path))
    # What reads the output beside the operator that joins the heads: here, whoever runs the graph.
    assert join_heads(tmp_path, TEXTS, 40) == 1
    assert operators(tmp_path)["Attention"] == 2


def test_a_graph_that_gives_something_else_is_not_kept(tmp_path: Path) -> None:
    written(tmp_path, "Bert")
    path = tmp_path / "model.onnx"
    graph = onnx.load(str(path))
    for node in graph.graph.node:
        if node.op_type == "Attention":  # a bound on the scores that only split heads are given
            node.attribute.append(helper.make_attribute("q_num_heads", 1))
    onnx.save(graph, str(path))
    before = path.read_bytes()
    with pytest.raises(ModelError):
        join_heads(tmp_path, TEXTS, 40)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
