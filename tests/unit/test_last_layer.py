"""The last layer for the classified token: the same logits, from one token's products."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
import transformers

from monox_kit.errors import ModelError
from monox_kit.exporting.config import FORMS
from monox_kit.exporting.graph import write_form
from monox_kit.exporting.last_layer import slice_last_layer
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding
from tests.tiny_models import tokens_seen

MAX_LENGTH = 40

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


def sliced(folder: Path, max_length: int = MAX_LENGTH) -> int:
    """How many operators were cut, on texts of tokens below 8."""
    tokens = np.arange(1, 8, dtype=np.int64)
    encoded = Encoded(tokens, None, np.array([len(tokens)], np.int64), np.zeros(1, np.int64))
    texts = Texts(encoded, np.zeros(1, np.int64), Padding(0), np.arange(1))
    return slice_last_layer(folder, texts, max_length)


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

    assert sliced(tmp_path) > num_cut

    for num_rows, length in ((1, 1), (3, 17), (2, 40)):
        feed = batch(num_rows, length)
        expected = scored(whole, feed)
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(scored(tmp_path / "model.onnx", feed), expected, atol=1e-5)
    after = tokens_seen(tmp_path / "model.onnx", batch(3, 17))
    assert set(before) == {17}
    assert sorted(after) == [1] * num_cut + [17] * (len(before) - num_cut)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["model.onnx", "whole.onnx"]


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
    "softmax over tokens": ("last = Softmax <axis = 1> (hidden)", 0),
    "normalized over tokens too": (
        "s = Shape (hidden)\n f = Constant <value: tensor = int64[1] {1}> ()\n"
        " t = Constant <value: tensor = int64[1] {3}> ()\n h = Slice (s, f, t)\n"
        " one = ConstantOfShape <value: tensor = float[1] {1}> (h)\n"
        " last = LayerNormalization <axis = 1> (hidden, one)",
        0,
    ),
    "scaled token by token": (
        "i = Constant <value: tensor = int64 {0}> ()\n p = Gather (hidden, i)\n"
        " last = LayerNormalization <axis = -1> (hidden, p)",
        0,
    ),
    "its own variance is read": (
        "last, m, v = LayerNormalization <axis = -1> (hidden, scale)\n"
        " mean = ReduceMean <axes = [1, 2], keepdims = 0> (v)",
        0,
    ),
    "no variance is read": ("last, m, v = LayerNormalization <axis = -1> (hidden, scale)", 1),
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
    "an operator of others": ("last = com.microsoft.Gelu (hidden)", 0),
    "split along the other tokens": (
        "k = Transpose <perm = [0, 2, 1]> (hidden)\n p = MatMul (hidden, k)\n"
        " f = Constant <value: tensor = int64[4] {0, 0, 1, -1}> ()\n r = Reshape (p, f)\n"
        " e = Tanh (r)\n s = Shape (p)\n b = Reshape (e, s)\n last = MatMul (b, hidden)",
        1,
    ),
    "a matrix of tokens for all rows": (
        "i = Constant <value: tensor = int64 {0}> ()\n p = Gather (hidden, i)\n"
        " k = Transpose <perm = [0, 2, 1]> (hidden)\n w = MatMul (k, hidden)\n"
        " last = MatMul (p, w)",
        0,
    ),
    "columns of a product": (
        "k = Transpose <perm = [0, 2, 1]> (hidden)\n p = MatMul (hidden, k)\n"
        " t = Transpose <perm = [0, 2, 1]> (p)\n last = MatMul (t, hidden)",
        2,
    ),
    "read by an inner graph": (
        "a = Tanh (hidden)\n q = Sin (hidden)\n most = ReduceMax <keepdims = 0> (attention_mask)\n"
        " is_any = Cast <to = 9> (most)\n"
        " b = If (is_any) <then_branch = one () => (float[p, r, t] y)"
        " {x = Softmax <axis = 1> (a) y = Add (x, q)}, else_branch = two () => (float[p, r, t] z)"
        " {z = Identity (a)}>\n c = Add (a, b)\n last = Erf (c)",
        2,
    ),
    "a mask in another layout": (
        "t = Transpose <perm = [2, 0, 1]> (hidden)\n m = Cast <to = 1> (attention_mask)\n"
        " u = Mul (t, m)\n last = Transpose <perm = [1, 2, 0]> (u)",
        3,
    ),
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
    more = ", float mean" if "mean =" in body else ""
    path = write_graph(tmp_path, body, f"float[batch, 3] logits{more}", ONE)
    before = path.read_bytes()
    feed = {"input_ids": np.arange(15).reshape(3, 5) % 8, "attention_mask": np.ones((3, 5), int)}
    feed["attention_mask"][1, 3:] = 0
    session = onnxruntime.InferenceSession(before)
    outputs = [one.name for one in session.get_outputs()]
    expected = session.run(outputs, {one.name: feed[one.name] for one in session.get_inputs()})

    assert sliced(tmp_path) == num_cut

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
    assert sliced(tmp_path) == 0
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
    assert sliced(tmp_path) == 1
    assert (tmp_path / "model.onnx.data").read_bytes() == data
    assert path.stat().st_size < 2_000
    np.testing.assert_allclose(scored(path, feed), expected, rtol=1e-5)


def require_cut_at(folder: Path, body: str, num_cut: int, *, opset: int, ir_version: int) -> None:
    """Check how many operators are cut in a graph of another opset, and its logits."""
    path = write_graph(folder, body, "float[batch, 3] logits", ONE)
    made = onnx.load(str(path))
    made.opset_import[0].version, made.ir_version = opset, ir_version
    onnx.save(made, str(path))
    feed = batch(2, 5) | {"input_ids": np.arange(10).reshape(2, 5) % 8}
    expected = scored(path, feed)
    assert sliced(folder) == num_cut
    np.testing.assert_allclose(scored(path, feed), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("causal", "num_cut"), [(1, 0), (0, 1)])
def test_causal_attention_is_left_whole(tmp_path: Path, causal: int, num_cut: int) -> None:
    body = (
        f"last = Attention <is_causal = {causal}, q_num_heads = 2, kv_num_heads = 2>"
        " (hidden, hidden, hidden)"
    )
    require_cut_at(tmp_path, body, num_cut, opset=23, ir_version=11)


def test_a_token_taken_from_the_end_and_a_number_in_the_operator(tmp_path: Path) -> None:
    tail = (
        "first = Constant <value_int = 0> ()\n taken = Gather <axis = -2> (last, first)\n"
        " logits = MatMul (taken, head)"
    )
    write_graph(tmp_path, "last = Tanh (hidden)", "float[batch, 3] logits", tail)
    assert sliced(tmp_path) == 1


def test_names_that_are_taken(tmp_path: Path) -> None:
    body = (
        "a = MatMul (hidden, weight)\n taken_name = ReduceMean <axes = [1], keepdims = 0> (hidden)"
        "\n last = Erf (a)"
    )
    tail = f"{ONE}\n number = Cast <to = 1> (first_axis)\n mean = Mul (taken_name, number)"
    path = write_graph(tmp_path, body, "float[batch, 3] logits, float[batch, 6] mean", tail)
    made = onnx.load(str(path))
    # What the rewriting would call the slice, and a constant 1, of another value.
    new_names = {"taken_name": "hidden/first1", "first_axis": "first_token/1"}
    for node in made.graph.node:
        for names in (node.input, node.output):
            names[:] = [new_names.get(name, name) for name in names]
    for weight in made.graph.initializer:
        if weight.name == "first_axis":
            weight.CopyFrom(onnx.numpy_helper.from_array(np.array([5]), "first_token/1"))
    onnx.save(made, str(path))
    feed = batch(2, 9) | {"input_ids": np.arange(18).reshape(2, 9) % 8}
    session = onnxruntime.InferenceSession(path.read_bytes())
    names = [one.name for one in session.get_inputs()]
    expected = session.run(None, {name: feed[name] for name in names})

    assert sliced(tmp_path) == 2

    found = onnxruntime.InferenceSession(str(path)).run(None, {name: feed[name] for name in names})
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("axis", "num_cut"), [("", 0), ("<axis = 2>", 1)])
def test_softmax_of_old_takes_all_axes_from_its_own(
    tmp_path: Path, axis: str, num_cut: int
) -> None:
    require_cut_at(tmp_path, f"last = Softmax {axis} (hidden)", num_cut, opset=12, ir_version=7)


def test_a_token_that_nobody_reads_is_not_computed(tmp_path: Path) -> None:
    body = "a = Tanh (hidden)\n d = Sin (hidden)\n last = Erf (a)"
    tail = f"{ONE}\n unread = Gather <axis = 1> (d, zero)"
    path = write_graph(tmp_path, body, "float[batch, 3] logits", tail)
    assert sliced(tmp_path) == 2
    graph = onnx.load(str(path)).graph
    left = [node.op_type for node in graph.node]
    assert not {"weight", "scale"} & {one.name for one in graph.initializer}
    assert "Sin" not in left
    assert left.count("Slice") == 1


def test_segments_are_all_the_first(tmp_path: Path) -> None:
    """Any other does not exist in a model with one."""
    made = transformers.RobertaForSequenceClassification._from_config(
        transformers.RobertaConfig(**SIZES, type_vocab_size=1), attn_implementation="eager"
    )
    write_form(made.eval(), tmp_path, FORMS["opset17-eager"], token_types=True)
    assert sliced(tmp_path) > 4


UNLIKE = (
    # As long as 16 at least: on the batches that shapes are seen on it looks like a fixed axis.
    "s = Shape (hidden)\n one = Constant <value: tensor = int64[1] {1}> ()\n"
    " two = Constant <value: tensor = int64[1] {2}> ()\n length = Slice (s, one, two)\n"
    " least = Constant <value: tensor = int64[1] {16}> ()\n"
    " none = Constant <value: tensor = int64[4] {0, 0, 0, 0}> ()\n"
    " end = Constant <value: tensor = int64[1] {0}> ()\n"
    " same = Constant <value: tensor = int64[2] {0, 0}> ()\n"
    " longer = Max (length, least)\n more = Sub (longer, length)\n"
    " ends = Concat <axis = 0> (none, more, end)\n padded = Pad (hidden, ends)\n"
    " keys = Transpose <perm = [0, 2, 1]> (padded)\n scores = MatMul (hidden, keys)\n"
    " half = Div (longer, two)\n split = Concat <axis = 0> (same, two, half)\n"
    " halves = Reshape (scores, split)\n t = Tanh (halves)\n"
    " whole = Concat <axis = 0> (same, longer)\n joined = Reshape (t, whole)\n"
    " last = MatMul (joined, padded)"
)


def test_a_cut_graph_that_gives_something_else_is_not_kept(tmp_path: Path) -> None:
    path = write_graph(tmp_path, UNLIKE, "float[batch, 3] logits", ONE)
    before = path.read_bytes()
    with pytest.raises(ModelError, match="the last layer is computed for all tokens: "):
        sliced(tmp_path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "body",
    [
        "i = Constant <value: tensor = int64 {99}> ()\n a = Gather <axis = 2> (hidden, i)\n"
        " b = Unsqueeze (a, first_axis)\n last = Add (hidden, b)",
        "four = Constant <value: tensor = int64 {4}> ()\n"
        " parts = SplitToSequence <axis = 1> (hidden, four)\n"
        " last = ConcatFromSequence <axis = 1> (parts)",
    ],
    ids=["does not run", "holds a sequence"],
)
def test_a_graph_that_cannot_be_followed_is_left_as_it_was(tmp_path: Path, body: str) -> None:
    path = write_graph(tmp_path, body, "float[batch, 3] logits", ONE)
    before = path.read_bytes()
    with pytest.raises(ModelError, match="for all tokens: "):
        sliced(tmp_path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_it_is_not_tried_on_texts_too_long_for_the_memory(tmp_path: Path) -> None:
    body = (  # has positions for 512 tokens, and fails beyond
        "dims = Constant <value: tensor = int64[2] {512, 6}> ()\n"
        " positions = ConstantOfShape <value: tensor = float[1] {2}> (dims)\n"
        " s = Shape (hidden)\n one = Constant <value: tensor = int64[1] {1}> ()\n"
        " two = Constant <value: tensor = int64[1] {2}> ()\n length = Slice (s, one, two)\n"
        " own = Slice (positions, first_axis, length)\n last = Add (hidden, own)"
    )
    write_graph(tmp_path, body, "float[batch, 3] logits", ONE)
    assert sliced(tmp_path, max_length=8192) == 1


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_graph(tmp_path, "last = Tanh (hidden)", "float[batch, 3] logits", ONE)
    before, save = path.read_bytes(), onnx.save

    def fill(made: onnx.ModelProto, where: str) -> None:
        save(made, where)
        raise OSError(errno.ENOSPC, "No space left on device", where)

    monkeypatch.setattr(onnx, "save", fill)
    with pytest.raises(OSError, match="No space left"):
        sliced(tmp_path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
