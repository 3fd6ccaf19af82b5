"""Layouts: what the servers' own code reads in the folders that are written for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer as RustTokenizer

import monox_kit as mk
from monox_kit.data import MULTI_LABEL, LabelSet
from monox_kit.errors import ConfigError, ModelError
from monox_kit.exporting.config import FORMS, ExportConfig
from monox_kit.exporting.layouts import lay_out, require_servable
from monox_kit.exporting.run import export_model
from monox_kit.models.folder import BundleRecord, open_folder, write_record
from monox_kit.models.load import examine, open_tokenizer
from monox_kit.models.tokenizer import Tokenizer
from tests.integration.older_environment import read_by_older
from tests.tiny_models import LABELS, bert_classifier

TEXTS = ["game alpha beta", "mail", "font " * 40]
MAX_LENGTH = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_classifier(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def tei(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tei") / "out"
    config = ExportConfig(
        model=str(model), layout="tei", precision="int8", max_length=MAX_LENGTH, min_agreement=0.5
    )
    assert FORMS["opset17-eager"].opset == export_model(config, out).opset
    assert export_model(config, out).reused
    return out


def served_by_tei(folder: Path, texts: list[str]) -> list[dict[str, float]]:
    """What text-embeddings-inference computes, from the files and keys that its code reads.

    Source: `router/src/lib.rs`, `core/src/tokenization.rs`, `backends/ort/src/lib.rs`.
    """
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"][0].endswith("Classification")
    assert {"model_type", "max_position_embeddings", "hidden_size", "num_hidden_layers"} <= {
        *config
    }
    cut = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(cut)
    rows = [row.ids for row in tokenizer.encode_batch(texts)]
    length = max(map(len, rows))
    ids = np.array([row + [config["pad_token_id"]] * (length - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    logits = session.run(None, {one.name: arrays[one.name] for one in session.get_inputs()})[0]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    assert {name: int(index) for index, name in config["id2label"].items()} == config["label2id"]
    return [
        {config["id2label"][str(column)]: float(share) for column, share in enumerate(row)}
        for row in shares
    ]


def test_tei_computes_the_bundles_probabilities(tei: Path) -> None:
    loaded = mk.load(str(tei), check=True)
    # One text at a time: int8 ranges are those of a batch.
    served = [served_by_tei(tei, [text])[0] for text in TEXTS]
    expected = [loaded.probabilities([text])[0] for text in TEXTS]
    for row, wanted in zip(served, expected):
        assert list(row) == list(LABELS)
        np.testing.assert_allclose(list(row.values()), wanted, atol=1e-5)
    assert np.isfinite(list(served_by_tei(tei, TEXTS)[0].values())).all()
    graph = onnx.load(str(tei / "model.onnx"))
    versions = {one.domain: one.version for one in graph.opset_import}
    # onnxruntime 1.22 reads IR version 10.
    assert versions[""] <= 20 and graph.ir_version <= 10
    assert versions.keys() <= {"", "ai.onnx", "com.microsoft"}


def test_what_tei_computes_otherwise_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        ExportConfig(model=str(model), layout="tei", graph="opset23")
    for part in ("`layout` tei", "opset23", "20", "opset17-eager"):
        assert part in str(refusal.value)
    assert ExportConfig(model=str(model), layout="triton", graph="opset23").forms == tuple(FORMS)
    tokenizer = Tokenizer(model, MAX_LENGTH)
    several = LabelSet(LABELS, MULTI_LABEL)
    for labels, equal_lengths, word in (
        (several, False, "several labels"),
        (LabelSet(LABELS), True, "pads"),
    ):
        with pytest.raises(ModelError, match=word):
            require_servable("tei", labels, tokenizer, equal_lengths=equal_lengths)
        require_servable("triton", labels, tokenizer, equal_lengths=equal_lengths)
    shutil.copytree(model, tmp_path / "left")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    text = json.dumps({**settings, "truncation_side": "left"})
    (tmp_path / "left" / "tokenizer_config.json").write_text(text)
    left = open_tokenizer(open_folder(str(tmp_path / "left")))
    with pytest.raises(ModelError, match="on the right"):
        require_servable("tei", LabelSet(LABELS), left, equal_lengths=False)


def bare_bundle(folder: Path, tokenizer: Tokenizer, inputs: tuple[str, ...]) -> None:
    """A folder under construction as the export leaves it, with a graph of these inputs."""
    folder.mkdir()
    values = [onnx.helper.make_tensor_value_info(name, 7, ["B", "L"]) for name in inputs]
    graph = onnx.helper.make_graph([], "g", values, [])
    onnx.save(onnx.helper.make_model(graph), str(folder / "model.onnx"))
    (folder / "config.json").write_text("{}")
    record = BundleRecord(
        labels=LabelSet(('a: "b"', "größer", "text")),
        max_length=tokenizer.max_length,
        backend="onnx",
        precision="int8",
        has_pairs=None,
    )
    write_record(folder, record, "card")


def test_a_graph_without_a_mask_is_not_for_tei(model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(model, MAX_LENGTH)
    bare_bundle(tmp_path / "bare", tokenizer, ("input_ids",))
    with pytest.raises(ModelError, match="attention_mask"):
        lay_out("tei", tmp_path / "bare", tmp_path / "out", tokenizer)


def test_a_label_of_two_lines_is_not_for_triton(model: Path) -> None:
    tokenizer = Tokenizer(model, MAX_LENGTH)
    with pytest.raises(ModelError, match=r"'a\\nb'"):
        require_servable("triton", LabelSet(("a\nb", "c")), tokenizer, equal_lengths=False)
    require_servable("tei", LabelSet(("a\nb", "c")), tokenizer, equal_lengths=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tritons_own_message_reads_the_repository(
    model: Path, tmp_path: Path, older_python: Path
) -> None:
    out = tmp_path / "my student"
    config = ExportConfig(model=str(model), layout="triton")
    export_model(config, out)
    assert export_model(config, out).reused
    bare_bundle(tmp_path / "bare", Tokenizer(model, MAX_LENGTH), ("input_ids",))
    lay_out("triton", tmp_path / "bare", tmp_path / "bare", Tokenizer(model, MAX_LENGTH))
    folder, bare = out / "my_student", tmp_path / "bare" / "bare"
    found, other = read_by_older(older_python, [(folder, "triton"), (bare, "triton")])
    assert [path.name for path in out.iterdir()] == ["my_student"]
    assert found["name"] == "my_student"
    assert (found["backend"], found["default_model_filename"]) == ("onnxruntime", "model.onnx")
    assert found["max_batch_size"] > 1 and "dynamic_batching" in found
    graph = onnx.load(str(folder / "1" / "model.onnx")).graph

    def tensor(value: Any, of_values: str) -> dict[str, Any]:
        # Of the axes Triton adds the first, that of the batch.
        axes = value.type.tensor_type.shape.dim[1:]
        dims = [str(axis.dim_value) if axis.HasField("dim_value") else "-1" for axis in axes]
        return {"name": value.name, "data_type": of_values, "dims": dims}

    assert found["input"] == [tensor(value, "TYPE_INT64") for value in graph.input]
    labelled = {**tensor(graph.output[0], "TYPE_FP32"), "label_filename": "labels.txt"}
    assert found["output"] == [labelled]
    assert (folder / "labels.txt").read_text().splitlines() == list(LABELS)
    assert other["input"] == [{"name": "input_ids", "data_type": "TYPE_INT64", "dims": ["-1"]}]
    assert (bare / "labels.txt").read_text() == 'a: "b"\ngrößer\ntext\n'
    # Version 1 is the bundle.
    assert examine(str(folder / "1")).verdict == "passed"
    assert len(mk.load(str(folder / "1"), check=True).predict(TEXTS)) == len(TEXTS)
