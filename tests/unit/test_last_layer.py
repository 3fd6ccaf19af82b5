"""The last layer for the classified token: the same logits, from one token's products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
import transformers

from monox_kit.export.graph import FORMS, write_form
from monox_kit.export.last_layer import slice_last_layer
from tests.tiny_models import tokens_seen

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "share_att_key": True,
}


def model(name: str, form: str) -> torch.nn.Module:
    more = DEBERTA if name == "DebertaV2" else {}
    config = getattr(transformers, f"{name}Config")(**SIZES, **more)
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}ForSequenceClassification")._from_config(
        config, attn_implementation=FORMS[form].attention
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def scored(path: Path, feed: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(["logits"], {one.name: feed[one.name] for one in session.get_inputs()})
    return logits


def batch(num_rows: int, length: int) -> dict[str, npt.NDArray[np.int64]]:
    random = np.random.default_rng(length)
    mask = np.ones((num_rows, length), np.int64)
    mask[0, length // 2 + 1 :] = 0
    return {"input_ids": random.integers(5, 99, mask.shape), "attention_mask": mask}


@pytest.mark.parametrize(
    ("name", "form", "num_cut"),
    [
        # Queries, the attention's output, and the two products of the feed-forward layer.
        ("Bert", "opset23", 4),
        ("Roberta", "opset23-eager", 4),
        ("XLMRoberta", "opset17-eager", 4),
        ("MPNet", "opset17-eager", 4),
        # Its queries meet positions too, of every token: what comes after attention is cut.
        ("DebertaV2", "opset17-eager", 3),
    ],
)
def test_the_last_layer_sees_one_token_and_gives_the_same_logits(
    tmp_path: Path, name: str, form: str, num_cut: int
) -> None:
    write_form(model(name, form), tmp_path, FORMS[form], token_types=False)
    whole = tmp_path / "whole.onnx"
    whole.write_bytes((tmp_path / "model.onnx").read_bytes())
    before = tokens_seen(whole, batch(3, 17))

    assert slice_last_layer(tmp_path) > num_cut

    for num_rows, length in ((1, 1), (3, 17), (2, 40)):
        feed = batch(num_rows, length)
        expected = scored(whole, feed)
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(scored(tmp_path / "model.onnx", feed), expected, atol=1e-5)
    after = tokens_seen(tmp_path / "model.onnx", batch(3, 17))
    assert set(before) == {17}
    assert sorted(after) == [1] * num_cut + [17] * (len(before) - num_cut)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert not (tmp_path / "watched.onnx").exists()


HEAD = """
<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
encoder (int64[batch, length] input_ids, int64[batch, length] attention_mask) => ({outputs})
<float[8, 6] table, float[6, 6] weight, float[6] scale, float[6, 3] head, int64[1] first_axis>
{{
  hidden = Gather (table, input_ids)
  zero = Constant <value: tensor = int64 {{0}}> ()
  {body}
}}
"""
ONE = "taken = Gather <axis = 1> (last, zero)\n logits = MatMul (taken, head)"
GRAPHS = {
    # (body, how many operators are cut)
    "token by token": ("a = MatMul (hidden, weight)\n b = Add (a, scale)\n last = Erf (b)", 3),
    "both sides of a sum": ("a = Tanh (hidden)\n b = MatMul (a, weight)\n last = Add (b, a)", 3),
    "normalized over hidden": ("last = LayerNormalization <axis = -1> (hidden, scale)", 1),
    "normalized over tokens too": ("last = Softmax <axis = 1> (hidden)", 0),
    "softmax over hidden": ("last = Softmax <axis = 2> (hidden)", 1),
    "mixed by a product": (
        "m = Cast <to = 1> (attention_mask)\n n = Unsqueeze (m, first_axis)\n"
        " t = Transpose <perm = [1, 0, 2]> (n)\n w = Transpose <perm = [0, 2, 1]> (t)\n"
        " s = MatMul (w, t)\n a = MatMul (s, hidden)\n last = Tanh (a)",
        # Row 0 of the scores is enough; they take all of `hidden`.
        4,
    ),
    "mask of rows": (
        "m = Cast <to = 1> (attention_mask)\n u = Constant <value: tensor = int64[1] {2}> ()\n"
        " c = Unsqueeze (m, u)\n last = Mul (hidden, c)",
        1,
    ),
    "one mask for all": (
        "z = Constant <value: tensor = float[1, 1, 6] {1, 2, 3, 4, 5, 6}> ()\n"
        " last = Mul (hidden, z)",
        1,
    ),
    "other layout": (
        "t = Transpose <perm = [1, 0, 2]> (hidden)\n e = Tanh (t)\n"
        " last = Transpose <perm = [1, 0, 2]> (e)",
        3,
    ),
    "heads and back": (
        "h = Constant <value: tensor = int64[4] {0, 0, 2, 3}> ()\n r = Reshape (hidden, h)\n"
        " e = Tanh (r)\n s = Shape (e)\n i = Constant <value: tensor = int64[2] {0, 1}> ()\n"
        " bl = Gather (s, i)\n x = Constant <value: tensor = int64[1] {6}> ()\n"
        " f = Concat <axis = 0> (bl, x)\n last = Reshape (e, f)",
        3,
    ),
    "tokens merged with rows": (
        "f = Constant <value: tensor = int64[2] {-1, 6}> ()\n r = Reshape (hidden, f)\n"
        " e = Tanh (r)\n s = Shape (hidden)\n last = Reshape (e, s)",
        0,
    ),
    "an operator of others": ("last = com.microsoft.QuickGelu (hidden)", 0),
    "read whole elsewhere": (
        "a = Tanh (hidden)\n last = Erf (a)\n mean = ReduceMean <axes = [1], keepdims = 0> (a)",
        1,
    ),
}


def write_graph(folder: Path, body: str, outputs: str, tail: str) -> Path:
    text = HEAD.format(body=f"{body}\n {tail}", outputs=outputs)
    made = onnx.parser.parse_model(text)
    random = np.random.default_rng(3)
    shapes = {"table": (8, 6), "weight": (6, 6), "scale": (6,), "head": (6, 3)}
    for name, shape in shapes.items():
        value = random.normal(size=shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "first_axis"))
    del made.graph.value_info[:]
    onnx.save(made, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize("name", list(GRAPHS))
def test_only_operators_that_keep_tokens_apart_are_cut(tmp_path: Path, name: str) -> None:
    body, num_cut = GRAPHS[name]
    more = ", float[batch, 6] mean" if "mean =" in body else ""
    path = write_graph(tmp_path, body, f"float[batch, 3] logits{more}", ONE)
    before = path.read_bytes()
    feed = {"input_ids": np.arange(15).reshape(3, 5) % 8, "attention_mask": np.ones((3, 5), int)}
    feed["attention_mask"][1, 3:] = 0
    session = onnxruntime.InferenceSession(before)
    outputs = [one.name for one in session.get_outputs()]
    expected = session.run(outputs, {one.name: feed[one.name] for one in session.get_inputs()})

    assert slice_last_layer(tmp_path) == num_cut

    assert (path.read_bytes() == before) == (num_cut == 0)
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(outputs, {one.name: feed[one.name] for one in session.get_inputs()})
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tail",
    [
        "one = Constant <value: tensor = int64 {1}> ()\n taken = Gather <axis = 1> (last, one)\n"
        " logits = MatMul (taken, head)",
        "taken = ReduceMean <axes = [1], keepdims = 0> (last)\n logits = MatMul (taken, head)",
        "number = ReduceMin <keepdims = 0> (attention_mask)\n taken = Gather <axis = 1>"
        " (last, number)\n logits = MatMul (taken, head)",
    ],
    ids=["another token", "the mean", "a computed token"],
)
def test_other_heads_leave_the_graph_as_it_is(tmp_path: Path, tail: str) -> None:
    path = write_graph(tmp_path, "last = Tanh (hidden)", "float[batch, 3] logits", tail)
    before = path.read_bytes()
    assert slice_last_layer(tmp_path) == 0
    assert path.read_bytes() == before


def test_weights_beside_the_graph_stay_there(tmp_path: Path) -> None:
    path = write_graph(tmp_path, "last = MatMul (hidden, weight)", "float[batch, 3] logits", ONE)
    whole = onnx.load(str(path))
    onnx.save(
        whole, str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    data = (tmp_path / "model.onnx.data").read_bytes()
    feed = batch(2, 9) | {"input_ids": np.ones((2, 9), np.int64)}
    expected = scored(path, feed)
    assert slice_last_layer(tmp_path) == 1
    assert (tmp_path / "model.onnx.data").read_bytes() == data
    assert path.stat().st_size < 2_000
    np.testing.assert_allclose(scored(path, feed), expected, rtol=1e-5)


def test_causal_attention_is_left_whole(tmp_path: Path) -> None:
    body = (
        "last = Attention <is_causal = 1, q_num_heads = 2, kv_num_heads = 2>"
        " (hidden, hidden, hidden)"
    )
    for causal, num_cut in ((1, 0), (0, 1)):
        folder = tmp_path / str(causal)
        folder.mkdir()
        text = body.replace("is_causal = 1", f"is_causal = {causal}")
        path = write_graph(folder, text, "float[batch, 3] logits", ONE)
        made = onnx.load(str(path))
        made.opset_import[0].version, made.ir_version = 23, 11
        onnx.save(made, str(path))
        feed = batch(2, 5) | {"input_ids": np.arange(10).reshape(2, 5) % 8}
        expected = scored(path, feed)
        assert slice_last_layer(folder) == num_cut
        np.testing.assert_allclose(scored(path, feed), expected, rtol=1e-5, atol=1e-6)
