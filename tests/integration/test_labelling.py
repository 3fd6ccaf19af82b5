"""Labelling at its public seam: backends agree, every row once and in order, resumable."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import ConfigError, CorpusError, ModelError, StoreMismatch
from monox_kit.export import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus, teacher
from monox_kit.store import LogitStore
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(50, seed=1))
    write_jsonl(folder / "pairs.jsonl", labelled_rows(20, seed=2, pairs=True))
    bert_classifier(folder / "model")
    export_model(ExportConfig(model=str(folder / "model"), max_length=32), folder / "bundle")
    return folder


def config_for(files: Path, backend: str = "torch", name: str = "corpus.jsonl") -> LabelConfig:
    return LabelConfig(
        teacher=backend,  # type: ignore[arg-type]
        model=str(files / ("bundle" if backend == "onnx" else "model")),
        corpus=CorpusConfig(paths=(str(files / name),)),
        max_length=32,
        shard_rows=16,
        batch_tokens=64,
    )


def logits_one_by_one(files: Path, name: str) -> np.ndarray:
    """The oracle: transformers, one text at a time, no padding."""
    tokenizer = AutoTokenizer.from_pretrained(str(files / "model"))
    model = AutoModelForSequenceClassification.from_pretrained(str(files / "model")).eval()
    rows = []
    for row in (
        labelled_rows(50, seed=1)
        if name == "corpus.jsonl"
        else labelled_rows(20, seed=2, pairs=True)
    ):
        pair = (row["text_pair"],) if "text_pair" in row else ()
        inputs = tokenizer(row["text"], *pair, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name) for backend in ("torch", "onnx") for name in ("corpus.jsonl", "pairs.jsonl")],
)
def test_stored_logits_are_those_of_one_text_at_a_time(
    files: Path, tmp_path: Path, backend: str, name: str
) -> None:
    label_corpus(config_for(files, backend, name), tmp_path / "store")
    store = LogitStore.open(tmp_path / "store", verify="full")
    expected = logits_one_by_one(files, name)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(store.logits(slice(None)), expected, atol=1e-4)
    source = (
        labelled_rows(50, seed=1)
        if name == "corpus.jsonl"
        else labelled_rows(20, seed=2, pairs=True)
    )
    assert [store.text(row) for row in range(len(store))] == [row["text"] for row in source]
    assert [store.id(row) for row in range(len(store))] == [row["id"] for row in source]
    names = [store.labels.names[label] for label in store.gold(slice(None))]
    assert names == [row["label"] for row in source]


@pytest.mark.parametrize("failing_shard", [0, 2, 3])
def test_a_run_that_fails_continues_to_the_same_store(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_shard: int
) -> None:
    label_corpus(config_for(files), tmp_path / "whole")
    score = teacher.score_texts
    calls = itertools.count()

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == failing_shard:
            raise RuntimeError("power cut")
        return score(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "score_texts", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            label_corpus(config_for(files), tmp_path / "store")
    summary = label_corpus(config_for(files), tmp_path / "store")
    assert summary.num_resumed_rows == 16 * failing_shard
    whole, resumed = (LogitStore.open(tmp_path / n, verify="full") for n in ("whole", "store"))
    assert whole.digest == resumed.digest


def test_a_finished_store_is_left_as_it_is(files: Path, tmp_path: Path) -> None:
    first = label_corpus(config_for(files), tmp_path / "store")
    again = label_corpus(config_for(files), tmp_path / "store")
    assert again.store_digest == first.store_digest
    assert (again.num_resumed_rows, again.rows_per_s) == (50, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_length": 16}, "max_length"),
        ({"dtype": "float16"}, "dtype"),
        ({"shard_rows": 8}, "shard_rows"),
        ({"ignore_labels": True}, "gold_labels"),
    ],
)
def test_another_configuration_is_refused_by_field(
    files: Path, tmp_path: Path, change: dict[str, object], field: str
) -> None:
    label_corpus(config_for(files), tmp_path / "store")
    with pytest.raises(StoreMismatch, match=field):
        label_corpus(replace(config_for(files), **change), tmp_path / "store")  # type: ignore[arg-type]


def test_another_teacher_is_refused(files: Path, tmp_path: Path) -> None:
    label_corpus(config_for(files), tmp_path / "store")
    other = bert_classifier(tmp_path / "model", seed=5)
    with pytest.raises(StoreMismatch, match="teacher_digest"):
        label_corpus(replace(config_for(files), model=str(other)), tmp_path / "store")


def test_a_changed_corpus_is_refused_at_resume(files: Path, tmp_path: Path) -> None:
    rows = labelled_rows(20, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    label_corpus(config, tmp_path / "store")
    rows[3]["text"] += " omicron"
    write_jsonl(corpus, rows)
    with pytest.raises(StoreMismatch, match="corpus_digest"):
        label_corpus(config, tmp_path / "store")


def test_a_corpus_that_changes_while_it_is_labelled_never_completes(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(40, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    scan = Corpus.scan

    def scan_then_edit(self: Corpus, **kwargs: object) -> object:
        summary = scan(self, **kwargs)  # type: ignore[arg-type]
        rows[30]["text"] = "changed"
        write_jsonl(corpus, rows)
        return summary

    monkeypatch.setattr(Corpus, "scan", scan_then_edit)
    with pytest.raises(CorpusError, match="changed while it was labelled"):
        label_corpus(config, tmp_path / "store")
    assert not (tmp_path / "store" / "complete.json").exists()


def test_rows_that_changed_before_the_last_shard_are_never_committed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back after the failed run, the corpus is labelled as it is, not as it was in between."""
    rows = labelled_rows(40, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    scan = Corpus.scan

    def scan_then_edit(self: Corpus, **kwargs: object) -> object:
        summary = scan(self, **kwargs)  # type: ignore[arg-type]
        write_jsonl(corpus, [{**rows[0], "text": "changed"}, *rows[1:]])
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "scan", scan_then_edit)
        with pytest.raises(CorpusError, match="changed while it was labelled"):
            label_corpus(config, tmp_path / "store")
    write_jsonl(corpus, rows)
    assert label_corpus(config, tmp_path / "store").num_resumed_rows == 0
    assert LogitStore.open(tmp_path / "store").text(0) == rows[0]["text"]


def test_a_moved_teacher_goes_on_and_options_of_the_other_backend_are_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_corpus(config_for(files), tmp_path / "store")
    monkeypatch.chdir(files)
    relative = replace(config_for(files), model="model")
    assert label_corpus(relative, tmp_path / "store").rows_per_s is None
    with pytest.raises(ConfigError, match="--provider cuda: expected with an ONNX bundle only"):
        label_corpus(replace(relative, provider="cuda"), tmp_path / "store")
    onnx = replace(config_for(files, "onnx"), device="cuda")
    with pytest.raises(ConfigError, match="--device cuda: expected with a PyTorch model only"):
        label_corpus(onnx, tmp_path / "store")


def test_a_bad_row_is_found_before_the_model_runs(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(40, seed=4)
    rows[39]["label"] = "unheard of"
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    monkeypatch.setattr(teacher, "score_texts", lambda *args, **kwargs: pytest.fail("model ran"))
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    with pytest.raises(CorpusError, match="unheard of"):
        label_corpus(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_models_that_cannot_label_are_refused(files: Path, tmp_path: Path) -> None:
    encoder = bert_encoder(tmp_path / "encoder")
    with pytest.raises(ModelError, match="expected a fine-tuned classifier"):
        label_corpus(replace(config_for(files), model=str(encoder)), tmp_path / "store")
    with pytest.raises(ModelError, match=r"monoxkit export .* --out BUNDLE"):
        label_corpus(replace(config_for(files), teacher="onnx"), tmp_path / "store")
    with pytest.raises(ConfigError, match="at most 64 tokens"):
        label_corpus(replace(config_for(files), max_length=65), tmp_path / "store")
