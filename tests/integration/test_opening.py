"""Models are tried when they are opened: padding, ids, shapes; and what logits must be anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel, initialization

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet, Logits, TokenBatch
from monox_kit.errors import ConfigError, ModelError, NotFinite
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.run import export_model
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.run import label_corpus
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.load import load_model
from monox_kit.models.padding import EqualLengths, by_length
from monox_kit.models.scoring import checked_logits, score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.prediction import PredictConfig, predict
from monox_kit.stage import kept_tokenization, require_same_run
from monox_kit.store import LogitStore
from monox_kit.training.config import LoopConfig
from monox_kit.training.run import TeacherConfig, train_teacher
from tests.notes import Notes
from tests.tiny_families import FAMILIES, PADDING_SENSITIVE, write_family
from tests.tiny_models import LABELS, WORDS, bert_classifier, labelled_rows, write_jsonl

TEXTS = [" ".join(GOLDEN_TEXTS[row].split()[:n]) for row, n in zip(range(20), (1, 2, 5, 9, 12) * 4)]


def documents(texts: list[str]) -> list[Document]:
    return [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]


def one_at_a_time(model: Any, folder: Path, family: str, texts: list[str]) -> Logits:
    """[N, C] logits of plain transformers, no text beside another."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_logits_alone_and_among_longer_ones(
    tmp_path: Path, family: str
) -> None:
    model = write_family(tmp_path, family)
    expected = one_at_a_time(model, tmp_path, family, TEXTS)
    loaded = load_model(str(tmp_path), max_length=64)
    assert isinstance(loaded.classifier, EqualLengths) == (family in PADDING_SENSITIVE)
    found = score(loaded.classifier, loaded.tokenizer, documents(TEXTS), batch_tokens=4096).logits
    scale = max(0.25, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * scale)


def test_models_opened_by_several_threads_keep_their_tied_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers replaces `tie_weights` while it loads: overlapping, it is never put back."""
    write_family(tmp_path, "bart")
    original, enter = PreTrainedModel.tie_weights, initialization.no_tie_weights
    overlap = Barrier(2)

    @contextmanager
    def enter_and_leave_together() -> Iterator[None]:
        with suppress(BrokenBarrierError):
            overlap.wait(timeout=0.5)
        with enter():
            with suppress(BrokenBarrierError):
                overlap.wait(timeout=0.5)
            yield

    monkeypatch.setattr(initialization, "no_tie_weights", enter_and_leave_together)
    try:
        with ThreadPoolExecutor(2) as pool:
            models = list(pool.map(load_model, [str(tmp_path)] * 2))
        assert PreTrainedModel.tie_weights is original
    finally:
        monkeypatch.setattr(PreTrainedModel, "tie_weights", original)
    rows = [score(one.classifier, one.tokenizer, documents(TEXTS)).logits for one in models]
    np.testing.assert_array_equal(*rows)


def test_batches_are_split_by_length_on_either_side() -> None:
    mask = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]])
    ids = np.arange(1, 13).reshape(4, 3) * mask
    found = {
        place: row.tolist()
        for places, part in by_length(TokenBatch(np.arange(4), ids, mask, ids))
        for place, row in zip(places.tolist(), part.input_ids)
        if part.attention_mask.all() and part.token_type_ids is not None
    }
    assert found == {0: [1, 2, 3], 1: [5, 6], 2: [7, 8], 3: [12]}


def test_training_where_padding_counts_has_the_gradient_of_texts_alone(tmp_path: Path) -> None:
    from monox_kit.training.step import Stepper

    model = write_family(tmp_path, "fnet")
    tokenizer = Tokenizer(tmp_path, 64)
    encoded = tokenizer.encode(TEXTS[:6])
    from monox_kit.models.batching import pad_batch

    batch = pad_batch(encoded, np.arange(6), tokenizer.padding)
    stepper: Any = Stepper.__new__(Stepper)
    stepper._model, stepper._equal_lengths = model, True
    weights = torch.arange(18.0).reshape(6, 3)
    (stepper._logits(batch, "cpu") * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for row in range(6):
        alone = pad_batch(encoded, np.array([row]), tokenizer.padding)
        inputs = {
            "input_ids": torch.from_numpy(alone.input_ids),
            "token_type_ids": torch.from_numpy(alone.token_type_ids),
        }
        (model(**inputs).logits[0] * weights[row]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused_when_opened(tmp_path: Path) -> None:
    folder = bert_classifier(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    before = len(tokenizer)
    tokenizer.add_tokens(["<brand>", "<model>"])
    tokenizer.save_pretrained(str(folder))
    corpus = write_jsonl(tmp_path / "c.jsonl", labelled_rows(4))
    message = rf"ids up to {before + 1}, .* {before} rows"
    with pytest.raises(ModelError, match=message):
        load_model(str(folder))
    with pytest.raises(ModelError, match=message):
        export_model(ExportConfig(model=str(folder)), tmp_path / "bundle")
    config = LabelConfig(
        model=str(folder), corpus=CorpusConfig(paths=(str(corpus),)), teacher="torch"
    )
    with pytest.raises(ModelError, match=message):
        label_corpus(config, tmp_path / "store")
    assert not (tmp_path / "bundle").exists() and not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported BERT classifier."""
    root = tmp_path_factory.mktemp("bundle")
    bert_classifier(root / "model", seed=5)
    export_model(ExportConfig(model=str(root / "model")), root / "bundle")
    return root / "bundle"


def edited(bundle: Path, folder: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Path:
    """A copy of the bundle whose graph's logits pass through more nodes."""
    shutil.copytree(bundle, folder)
    model = onnx.load(str(folder / "model.onnx"))
    output = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["exact" if name == output.name else name for name in node.output]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    model.graph.node.extend(nodes)
    (folder / "model.onnx.data").unlink(missing_ok=True)
    del output.type.tensor_type.shape.dim[:]
    for size in ("rows", len(LABELS)):
        dimension = output.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
    onnx.save(model, str(folder / "model.onnx"))
    return folder


@pytest.mark.parametrize("shape", ["[1, C]", "[C]"])
def test_a_graph_that_gives_one_row_for_a_batch_is_refused_when_opened(
    bundle: Path, tmp_path: Path, shape: str
) -> None:
    keep = 1 if shape == "[1, C]" else 0
    node = onnx.helper.make_node("ReduceMean", ["exact", "axes"], ["logits"], keepdims=keep)
    folder = edited(bundle, tmp_path / "mean", node, axes=np.array([0]))
    if keep == 0:
        model = onnx.load(str(folder / "model.onnx"))
        del model.graph.output[0].type.tensor_type.shape.dim[0]
        onnx.save(model, str(folder / "model.onnx"))
    with pytest.raises(ModelError, match=r"expected logits of shape \[\d, 3\]|2 axes"):
        load_model(str(folder))


def not_finite_for_a_word(bundle: Path, folder: Path) -> tuple[Path, str]:
    """A graph whose logits are NaN for texts with one id, and a text that holds it."""
    word = WORDS[20]
    tokenizer = Tokenizer(bundle, 16)
    ids = tokenizer.encode([word]).input_ids
    make = onnx.helper.make_node
    nodes = [
        make("Equal", ["input_ids", "id"], ["found"]),
        make("Cast", ["found"], ["counts"], to=onnx.TensorProto.FLOAT),
        make("ReduceMax", ["counts", "axis"], ["any"], keepdims=1),
        make("Sub", ["one", "any"], ["rest"]),
        make("Div", ["any", "zero"], ["infinite"]),  # NaN where the word is not: 0 / 0
        make("Greater", ["any", "zero"], ["is_bad"]),
        make("Where", ["is_bad", "infinite", "zero"], ["error"]),
        make("Add", ["exact", "error"], ["logits"]),
    ]
    constants = {
        "id": np.array(ids[1]),
        "axis": np.array([1]),
        "one": np.float32([1]),
        "zero": np.float32([0]),
    }
    return edited(bundle, folder, *nodes, **constants), word


def test_logits_that_are_not_finite_are_an_error_that_names_the_row(
    bundle: Path, tmp_path: Path
) -> None:
    folder, word = not_finite_for_a_word(bundle, tmp_path / "nan")
    rows = [{"id": str(n), "text": text, "label": "mail", "lang": "en"} for n, text in enumerate(
        ["alpha", "beta gamma", "delta", f"zeta {word}", "eta"]
    )]  # fmt: skip
    corpus = CorpusConfig(paths=(str(write_jsonl(tmp_path / "c.jsonl", rows)),))
    with pytest.raises(NotFinite, match=r"^row 3: .*\[inf"):
        evaluate(EvaluateConfig(model=str(folder), test=corpus))
    config = LabelConfig(model=str(folder), corpus=corpus, teacher="onnx")
    with pytest.raises(NotFinite, match=r"^row 3: expected finite logits"):
        label_corpus(config, tmp_path / "store")
    loaded = load_model(str(folder))
    with pytest.raises(NotFinite, match=r"^row 1: "):
        score(loaded.classifier, loaded.tokenizer, documents(["alpha", word]))


def test_what_a_model_raises_names_the_rows_of_the_batch(tmp_path: Path) -> None:
    write_family(tmp_path, "bart")
    loaded = load_model(str(tmp_path), max_length=32)
    texts = ["The parcel arrived", "late </s> but", "two days late"]
    with pytest.raises(ModelError, match=r"^rows 0, 1, 2: .*<eos>"):
        score(loaded.classifier, loaded.tokenizer, documents(texts), batch_tokens=4096)


class Wrong:
    """A classifier that gives what it was told."""

    labels, concurrency = LabelSet(LABELS), 1

    def __init__(self, logits: np.ndarray) -> None:
        self._logits = logits

    def logits(self, batch: TokenBatch) -> Logits:
        return self._logits


@pytest.mark.parametrize("shape", [(1, 3), (3,), (2, 2), (3, 2), (2, 3, 1), ()])
def test_no_shape_but_texts_by_labels_comes_in(shape: tuple[int, ...]) -> None:
    batch = TokenBatch(np.arange(2), np.ones((2, 4), np.int64), np.ones((2, 4), np.int64))
    classifier = Wrong(np.zeros(shape, np.float32))
    for wrapped in (classifier, EqualLengths(classifier)):
        with pytest.raises(ModelError, match=r"^rows 5, 7: .*\[2, 3\]"):
            checked_logits(wrapped, batch, np.array([7, 5]))


def test_every_command_that_scores_reports_what_it_truncated(tmp_path: Path) -> None:
    folder = bert_classifier(tmp_path / "model")
    texts = ["alpha", "beta " * 10, "gamma " * 8, "beta " * 10]
    rows = [
        {"id": str(n), "text": text, "label": "mail", "lang": "en"} for n, text in enumerate(texts)
    ]
    corpus = CorpusConfig(paths=(str(write_jsonl(tmp_path / "c.jsonl", rows)),))
    whole = Tokenizer(folder, 512).encode(texts).lengths
    lost = int(np.maximum(whole - 6, 0).sum())
    notes = Notes()
    report = evaluate(EvaluateConfig(model=str(folder), test=corpus, max_length=6), progress=notes)
    tokens = int(whole.sum())
    counted = {
        "num_rows": 4, "num_truncated_rows": 3, "num_truncated_tokens": lost, "num_tokens": tokens,
    }  # fmt: skip
    assert report.to_json()["truncation"] == counted
    config = LabelConfig(model=str(folder), corpus=corpus, teacher="torch", max_length=6)
    summary = label_corpus(config, tmp_path / "store", progress=notes).to_json()
    assert (summary["num_truncated_rows"], summary["num_truncated_tokens"]) == (3, lost)
    assert summary["num_document_tokens"] == tokens
    shares = f"75.0% of the rows, {lost / tokens:.1%} of the tokens"
    told = [note for note in notes.notes if "were truncated to 6 tokens" in note]
    assert len(told) == 2 and all(shares in note for note in told)
    predicted = predict(
        PredictConfig(model=str(folder), input=corpus, max_length=6), tmp_path / "p.jsonl"
    )
    assert predicted.truncation == counted
    exported = export_model(
        ExportConfig(model=str(folder), max_length=6, check=corpus, calibration_rows=1),
        tmp_path / "bundle",
        progress=notes,
    )
    assert exported.truncation == {
        "num_rows": 3,
        "num_truncated_rows": 2,
        "num_truncated_tokens": int(np.maximum(whole[:3] - 6, 0).sum()),
        "num_tokens": int(whole[:3].sum()),
    }
    saved = json.loads((tmp_path / "bundle" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 6


def half_labelled(folder: Path, tmp_path: Path) -> tuple[LabelConfig, Path]:
    corpus = write_jsonl(tmp_path / "c.jsonl", labelled_rows(12))
    config = LabelConfig(
        model=str(folder),
        corpus=CorpusConfig(paths=(str(corpus),)),
        teacher="torch",
        shard_rows=4,
        shard_range=(0, 1),
        max_length=16,
    )
    whole = replace(config, shard_range=None)
    label_corpus(replace(whole, begin=True), tmp_path / "store")
    label_corpus(config, tmp_path / "store")
    return whole, tmp_path / "store"


def test_a_store_is_continued_under_the_same_tokenization_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = half_labelled(bert_classifier(tmp_path / "model"), tmp_path)
    fingerprint = json.loads((store / "store.json").read_text())["fingerprint"]
    digest = Tokenizer(tmp_path / "model", 99).ids_digest
    assert fingerprint["tokenizer_ids"] == digest
    other = {"tokenizer_ids": "0" * 64, "tokenized_with": "tokenizers 9.9"}
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "fingerprint", lambda _: other)
        with pytest.raises(ModelError) as raised:
            label_corpus(config, store)
    message = str(raised.value)
    assert "store.json" in message and "tokenizers 9.9" in message
    assert digest[:12] in message and "000000000000" in message
    with monkeypatch.context() as patch:  # another version that tokenizes alike
        patch.setattr(Tokenizer, "fingerprint", lambda _: {**other, "tokenizer_ids": digest})
        label_corpus(replace(config, shard_range=(1, 2)), store)
    assert label_corpus(config, store).complete


def test_a_store_that_does_not_say_how_it_was_tokenized_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert_classifier(tmp_path / "model")
    with monkeypatch.context() as patch:  # as 0.1.0 began stores
        patch.setattr(Tokenizer, "fingerprint", lambda _: {})
        config, store = half_labelled(folder, tmp_path)
    assert "tokenizer_ids" not in json.loads((store / "store.json").read_text())["fingerprint"]
    assert label_corpus(config, store).complete
    assert len(LogitStore.open(store)) == 12


def test_fingerprints_of_runs_without_the_field_are_taken() -> None:
    now = {"tokenizer_ids": "a" * 64, "tokenized_with": "tokenizers 2"}
    assert kept_tokenization({}, now, "x") == {}
    begun = {"tokenizer_ids": "a" * 64, "tokenized_with": "tokenizers 1"}
    assert kept_tokenization(begun, now, "x") == begun
    with pytest.raises(ModelError, match=r"^x: .*tokenizers 1.*tokenizers 2"):
        kept_tokenization({**begun, "tokenizer_ids": "b" * 64}, now, "x")


def test_a_folder_of_the_same_run_is_told_by_its_tokenization(tmp_path: Path) -> None:
    now = {"command": "export", "tokenizer_digest": "d", "tokenizer_ids": "a" * 64}
    require_same_run({"command": "export", "tokenizer_digest": "d"}, now, tmp_path)  # of 0.1.0
    require_same_run({**now, "tokenized_with": "tokenizers 1"}, now, tmp_path)
    with pytest.raises(ModelError, match="tokenization"):
        require_same_run({**now, "tokenizer_ids": "b" * 64}, now, tmp_path)
    with pytest.raises(ConfigError, match="tokenizer"):  # of other files: the nearer reason
        other = {**now, "tokenizer_ids": "b" * 64, "tokenizer_digest": "e"}
        require_same_run(other, now, tmp_path)


def test_a_model_that_sees_padding_is_trained_and_saved_with_its_truncation(
    tmp_path: Path,
) -> None:
    write_family(tmp_path / "fnet", "fnet")
    rows = labelled_rows(12, seed=1)
    train = CorpusConfig(paths=(str(write_jsonl(tmp_path / "train.jsonl", rows)),))
    dev = CorpusConfig(paths=(str(write_jsonl(tmp_path / "dev.jsonl", labelled_rows(6, seed=2))),))
    config = TeacherConfig(
        model=str(tmp_path / "fnet"),
        train=train,
        dev=dev,
        loop=LoopConfig(max_steps=6, batch_size=4, max_length=8, precision="fp32"),
    )
    summary = train_teacher(config, tmp_path / "teacher")
    lengths = Tokenizer(tmp_path / "fnet", 512).encode([row["text"] for row in rows]).lengths
    lost = np.maximum(lengths - 8, 0)
    # Two epochs of all rows.
    assert summary.truncation["train"] == {
        "num_rows": 24,
        "num_truncated_rows": 2 * int((lost > 0).sum()),
        "num_truncated_tokens": 2 * int(lost.sum()),
        "num_tokens": 2 * int(lengths.sum()),
    }
    assert summary.truncation["dev"]["num_rows"] == 6
    saved = json.loads((tmp_path / "teacher" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 8
    assert isinstance(load_model(str(tmp_path / "teacher")).classifier, EqualLengths)
    record = json.loads((tmp_path / "teacher" / "monoxkit.json").read_text())
    digest = Tokenizer(tmp_path / "teacher", 8).ids_digest
    assert record["provenance"]["run"]["tokenizer_ids"] == digest
    assert train_teacher(config, tmp_path / "teacher").reused
