"""The encoders that people bring go the whole way: trained, exported in every form, labelling,
predicting, trimmed. Their logits are those of plain transformers in float32 at every step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import monox_kit as mk
from monox_kit.data import Document, Logits
from monox_kit.errors import ModelError
from monox_kit.exporting import ExportConfig, ExportSummary, export_model
from monox_kit.models.folder import FP32_FILE, ONNX_FILE, open_folder
from monox_kit.models.load import OpenModel, load_model
from monox_kit.models.scoring import score
from monox_kit.store import LogitStore
from tests.family_zoo import family_classifier
from tests.integration.test_families import (
    ENCODERS,
    plain_logits,
    quiet,
    require_as_listed,
    require_equal,
    sampled,
)
from tests.tiny_models import WORDS, corpus_of, labelled_rows, write_jsonl

_MAX_LENGTH = 60
# Texts of the words that the trimmed model keeps.
# Of the largest logit. Random weights: what int8 rounds is no smaller than what it keeps.
_INT8_TOLERANCE = 0.1
_TEXTS = [
    " ".join(WORDS[(5 * row + place) % 9] for place in range(length))
    for row, length in enumerate((1, 3, 9, 20, 45))
]
_DOCUMENTS = [Document(row=row, id=str(row), text=text) for row, text in enumerate(_TEXTS)]


def _logits(folder: Path) -> Logits:
    model = load_model(str(folder), max_length=_MAX_LENGTH)
    return score(model.classifier, model.tokenizer, _DOCUMENTS).logits


@pytest.mark.slow
@pytest.mark.parametrize("family", sampled(ENCODERS))
def test_an_encoder_goes_the_whole_way(family: str, tmp_path: Path) -> None:
    rows = labelled_rows(24, seed=3)
    labelled = write_jsonl(tmp_path / "train.jsonl", rows)
    texts = write_jsonl(tmp_path / "texts.en.jsonl", [{"text": text} for text in _TEXTS])
    with quiet():
        family_classifier(tmp_path / "start", family)
    trained = tmp_path / "trained"
    mk.train_teacher(
        model=str(tmp_path / "start"),
        train=labelled,
        dev=labelled,
        out=trained,
        max_steps=3,
        batch_size=8,
        max_length=_MAX_LENGTH,
        learning_rate=1e-3,
        precision="fp32",
    )
    expected = plain_logits(trained, _TEXTS)
    assert np.abs(expected - plain_logits(tmp_path / "start", _TEXTS)).max() > 1e-3
    require_equal(_logits(trained), expected)

    bundle = tmp_path / "bundle"
    _export(trained, "opset17-fused", tmp_path / "fused", expected)
    summary = _export(trained, "opset17-eager", bundle, expected, precision="int8")
    assert summary.precision == "int8"

    mk.label(teacher="onnx", model=str(bundle), corpus=texts, store=tmp_path / "store")
    stored = np.asarray(LogitStore.open(tmp_path / "store").logits(slice(None)))
    require_equal(stored, expected, _INT8_TOLERANCE)
    model = mk.load(str(bundle))
    np.testing.assert_array_equal(model.logits(_TEXTS), stored)
    decided = [model.labels.names[column] for column in stored.argmax(axis=1)]
    assert [one.label for one in model.predict(_TEXTS)] == decided

    trimmed = mk.trim(str(trained), corpus=texts, out=tmp_path / "small", max_length=_MAX_LENGTH)
    assert trimmed.num_rows_compared == len(_TEXTS)
    np.testing.assert_array_equal(_logits(tmp_path / "small"), _logits(trained))
    require_equal(plain_logits(tmp_path / "small", _TEXTS), expected)


def _export(
    model: Path, form: str, bundle: Path, expected: Logits, *, precision: str = "fp32"
) -> ExportSummary:
    """Export in one form; the fp32 graph has the logits of plain transformers."""
    summary = mk.export(
        str(model),
        out=bundle,
        graph=form,
        precision=precision,
        max_length=_MAX_LENGTH,
        min_agreement=0.5,
    )
    folder = open_folder(str(bundle))
    file = ONNX_FILE if precision == "fp32" else FP32_FILE
    opened = OpenModel(folder, "onnx")
    found = score(opened.classifier(file=file), opened.tokenizer, _DOCUMENTS).logits
    require_equal(found, expected, 1e-5)
    return summary


@pytest.mark.complete
@pytest.mark.parametrize("form", ["opset23", "opset23-eager"])
@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_exported_at_opset_23_where_the_page_says_so(
    family: str, form: str, tmp_path: Path
) -> None:
    require_as_listed(family, form, tmp_path)


@pytest.fixture(scope="module")
def long_modernbert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Logits]:
    """A ModernBERT whose windows see 64 tokens on each side, texts around that, and its logits."""
    folder = tmp_path_factory.mktemp("modernbert") / "m"
    changed = {"max_position_embeddings": 1024, "local_attention": 128}
    with quiet():
        family_classifier(folder, "modernbert", changed=changed)
    # Two of the tokens are special.
    lengths = [count - 2 for count in (10, 127, 128, 129, 130, 300, 1000)]
    texts = [
        " ".join(WORDS[(7 * row + 5 * place) % len(WORDS)] for place in range(length))
        for row, length in enumerate(lengths)
    ]
    return folder, texts, plain_logits(folder, texts, max_length=1024)


def test_a_sliding_window_sees_the_same_at_every_length(
    long_modernbert: tuple[Path, list[str], Logits],
) -> None:
    folder, texts, expected = long_modernbert
    model = load_model(str(folder), max_length=1024)
    documents = [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]
    found = score(model.classifier, model.tokenizer, documents, batch_tokens=7 * 1024)
    assert found.num_tokens == 10 + 127 + 128 + 129 + 130 + 300 + 1000
    require_equal(found.logits, expected)


@pytest.mark.slow
def test_an_exported_sliding_window_was_not_fixed_by_the_texts_that_it_was_checked_on(
    long_modernbert: tuple[Path, list[str], Logits], tmp_path: Path
) -> None:
    folder, texts, expected = long_modernbert
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": word} for word in WORDS])
    config = ExportConfig(
        model=str(folder), graph="opset17-eager", max_length=1024, check=corpus_of(short)
    )
    export_model(config, tmp_path / "bundle")
    model = load_model(str(tmp_path / "bundle"))
    documents = [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]
    for budget in (1, 7 * 1024):  # alone, and all in one batch
        found = score(model.classifier, model.tokenizer, documents, batch_tokens=budget)
        require_equal(found.logits, expected, 1e-5)


def test_weights_of_a_compiled_model_are_named(tmp_path: Path) -> None:
    with quiet():
        folder = family_classifier(tmp_path / "m", "bert")
    path = folder / "model.safetensors"
    tensors = load_file(str(path))
    save_file({f"_orig_mod.{name}": value for name, value in tensors.items()}, str(path))
    with pytest.raises(ModelError, match=r"model\.safetensors: .*_orig_mod\."):
        load_model(str(folder))


def test_a_tokenizer_without_a_padding_token_is_named(tmp_path: Path) -> None:
    with quiet():
        folder = family_classifier(tmp_path / "m", "roberta")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    changed = {key: value for key, value in settings.items() if key != "pad_token"}
    (folder / "tokenizer_config.json").write_text(json.dumps(changed), encoding="utf-8")
    saved = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("[PAD]", "[FILL]")
    (folder / "tokenizer.json").write_text(saved, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # The id of the model's own configuration is the last that is asked for.
    load_model(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    with pytest.raises(ModelError, match="padding token"):
        load_model(str(folder))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_rows_that_no_token_has_change_nothing(family: str, tmp_path: Path) -> None:
    """Published embeddings are filled up to a multiple of 64 rows, or of 8."""
    with quiet():
        family_classifier(tmp_path / "m", family, changed={"vocab_size": 640})
    expected = plain_logits(tmp_path / "m", _TEXTS)
    require_equal(_logits(tmp_path / "m"), expected)
    texts = write_jsonl(tmp_path / "texts.en.jsonl", [{"text": text} for text in _TEXTS])
    mk.trim(str(tmp_path / "m"), corpus=texts, out=tmp_path / "small", max_length=_MAX_LENGTH)
    np.testing.assert_array_equal(_logits(tmp_path / "small"), _logits(tmp_path / "m"))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_padding_on_the_left_changes_nothing(family: str, tmp_path: Path) -> None:
    with quiet():
        family_classifier(tmp_path / "m", family, padding_side="left")
    model = load_model(str(tmp_path / "m"), max_length=_MAX_LENGTH)
    assert model.tokenizer.padding.side == "left"
    require_equal(_logits(tmp_path / "m"), plain_logits(tmp_path / "m", _TEXTS))
