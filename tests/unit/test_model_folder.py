"""What a model folder declares: classes, positions, heads; against transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, LabelMismatchError, ModelError
from monox_kit.models.folder import open_folder
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.models.torch_backend import new_classifier
from tests.tiny_models import write_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 24,
    "pad_token_id": 1,
}
GPT = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 24, "pad_token_id": 1}
BART = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
    "max_position_embeddings": 24, "pad_token_id": 1,
}  # fmt: skip
EOS = {"eos_token_id": 3}  # the token behind every text of the tiny tokenizer
LIMITS = {
    "bert": (SMALL | {"pad_token_id": 0}, 24),
    "roberta": (SMALL, 22),
    "camembert": (SMALL | {"pad_token_id": 3}, 20),
    "longformer": (SMALL | {"attention_window": 4}, 22),
    "data2vec-text": (SMALL, 22),
    "roberta-prelayernorm": (SMALL, 22),
    "xlm-roberta-xl": (SMALL, 22),
    "xmod": (SMALL | {"languages": ["en_XX"], "default_language": "en_XX"}, 22),
    "luke": (SMALL | {"entity_vocab_size": 5, "entity_emb_size": 8}, 22),
    "mpnet": (SMALL, 22),
    "gpt2": (GPT, 24),
    "openai-gpt": (GPT, 24),
    "bart": (BART | {"eos_token_id": 7}, 24),
    "nystromformer": (SMALL | {"num_landmarks": 4, "segment_means_seq_len": 24}, 24),
}


def saved(folder: Path, model_type: str, *, head: bool = True, **settings: Any) -> Path:
    """A tiny model of a type, as transformers saves it, with a tokenizer."""
    folder.mkdir()
    rows = write_tokenizer(folder, token_types=model_type == "bert")
    config: Any = AutoConfig.for_model(model_type, vocab_size=rows, **settings)
    torch.manual_seed(0)
    maker: Any = AutoModelForSequenceClassification if head else AutoModel
    maker.from_config(config).save_pretrained(str(folder))
    return folder


def edited(folder: Path, *dropped: str, **values: Any) -> Path:
    """Remove and set keys of a folder's config.json."""
    config = json.loads((folder / "config.json").read_text()) | values
    kept = {name: value for name, value in config.items() if name not in dropped}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def _row(length: int) -> torch.Tensor:
    """A text of so many tokens, without padding, with the end that BART looks for."""
    return torch.tensor([[5] * (length - 1) + [7]])


@pytest.mark.parametrize("model_type", LIMITS)
def test_the_longest_input_is_what_the_model_has_positions_for(
    model_type: str, tmp_path: Path
) -> None:
    settings, limit = LIMITS[model_type]
    folder = open_folder(str(saved(tmp_path / "model", model_type, **settings)))
    assert folder.max_positions == limit
    assert folder.resolve_max_length(None) == limit
    with pytest.raises(ConfigError, match=str(limit)):
        folder.resolve_max_length(limit + 1)
    model = AutoModelForSequenceClassification.from_pretrained(
        str(folder.path), trust_remote_code=False
    )
    with torch.inference_mode():
        model(input_ids=_row(limit))
        if model_type != "longformer":  # it pads to a multiple of its window
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=_row(limit + 1))


@pytest.mark.parametrize(
    ("model_type", "settings", "number"), [("bert", SMALL, 2), ("bart", BART, 3)]
)
def test_default_classes_are_those_of_transformers(
    model_type: str, settings: dict[str, Any], number: int, tmp_path: Path
) -> None:
    path = saved(tmp_path / "model", model_type, **settings)
    edited(path, "id2label", "label2id", "num_labels")
    model = load_model(str(path), max_length=16)
    assert model.classifier.labels.names == tuple(f"LABEL_{index}" for index in range(number))
    scored = score(model.classifier, model.tokenizer, [Document(0, "0", "game font")])
    assert scored.logits.shape == (1, number)
    named = LabelSet(tuple("abc"[:number]))
    assert open_folder(str(path)).resolve_labels(named) == named


def test_a_number_of_classes_without_names_is_enough(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", "bert", num_labels=4, **SMALL)
    edited(path, "id2label", "label2id", num_labels=4)
    assert len(load_model(str(path), max_length=16).classifier.labels) == 4


def test_whole_numbers_are_names_as_readers_of_corpora_take_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", "bert", num_labels=3, **SMALL)
    edited(path, id2label={"0": 10, "2": 30, "1": 20})
    assert open_folder(str(path)).labels.names == ("10", "20", "30")


@pytest.mark.parametrize(
    ("id2label", "found"),
    [
        ({"0": True, "1": False}, "True"),
        ({"0": "same", "1": "same"}, "same"),
        (["a", "b"], "list"),
        ({"neg": 0, "pos": 1}, "neg"),
        ({"0": 0.5, "1": "b"}, "0.5"),
        ({"0": "only"}, "1"),
    ],
)
def test_what_are_no_names_is_told_with_the_file(
    id2label: object, found: str, tmp_path: Path
) -> None:
    path = edited(saved(tmp_path / "model", "bert", **SMALL), id2label=id2label)
    with pytest.raises(ModelError) as refusal:
        _ = open_folder(str(path)).labels
    assert str(refusal.value).startswith(f"{path}/config.json: ")
    assert found in str(refusal.value)


def test_without_architectures_the_weights_say_whether_there_is_a_head(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b"))
    names = {"0": "a", "1": "b"}
    path = edited(saved(tmp_path / "model", "bert", **SMALL), "architectures", id2label=names)
    model = load_model(str(path), max_length=16)
    assert model.classifier.labels == labels
    with pytest.raises(LabelMismatchError):
        new_classifier(model.folder, LabelSet(("a", "c")), 0)
    encoder = saved(tmp_path / "encoder", "bert", head=False, **SMALL)
    opened = open_folder(str(edited(encoder, "architectures")))
    with pytest.raises(ModelError, match="train-teacher"):
        _ = opened.labels
    assert new_classifier(opened, labels, 0).config.num_labels == 2


def test_what_the_door_loads_is_what_transformers_loads(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", "roberta", num_labels=3, **SMALL)
    model = load_model(str(path), max_length=16)
    text = "alpha game font mail"
    found = score(model.classifier, model.tokenizer, [Document(0, "0", text)]).logits
    plain = AutoModelForSequenceClassification.from_pretrained(str(path), trust_remote_code=False)
    ids = torch.from_numpy(model.tokenizer.encode([text]).input_ids)[None]
    with torch.inference_mode():
        expected = plain.eval()(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_folder_says_where_it_is_and_not_where_it_was_read_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", "bert", **SMALL)
    model = new_classifier(open_folder(str(path)), LabelSet(("LABEL_0", "LABEL_1")), 0)
    model.save_pretrained(str(tmp_path / "again"))
    assert "monoxkit-" not in (tmp_path / "again" / "config.json").read_text()
    shutil.rmtree(path)
    assert "monoxkit-" not in str(model.config.name_or_path)


def graph_of_positions(path: Path, rows: int) -> None:
    """A graph whose position table has so many rows, of which RoBERTa's two are never used."""
    table = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    constants = {"one": np.int64(1), "first": np.array([0, 0]), "table": table}
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Add", ["length", "one"], ["last"]),
        helper.make_node("Gather", ["table", "last"], ["position"]),
        helper.make_node("Gather", ["input_ids", "first"], ["ids"], axis=1),
        helper.make_node("Cast", ["ids"], ["words"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["words", "position"], ["logits"]),
    ]
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        nodes,
        "positions",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def test_a_graph_is_asked_for_its_longest_input(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", "roberta", **SMALL | {"max_position_embeddings": 98})
    (path / "model.safetensors").unlink()
    graph_of_positions(path / "model.onnx", 98)
    assert load_model(str(path), max_length=96).tokenizer.max_length == 96
    for length in (97, 98, 99):
        with pytest.raises(ConfigError, match=f"max_length.*{length}"):
            load_model(str(path), max_length=length)
