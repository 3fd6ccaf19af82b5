"""Training with other batches and other treatments of the word embedding, at its public seam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.digest import digest_file
from monox_kit.errors import ConfigError
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.training import training_run
from monox_kit.training.config import LoopConfig, TeacherConfig
from monox_kit.training.run import train_teacher
from monox_kit.training.summary import TrainingSummary
from tests.stopped_training import Killed, before_step, kill
from tests.tiny_models import WORDS, bert_encoder, labelled_rows, weights, write_jsonl

LOOP = LoopConfig(
    max_steps=8, batch_size=4, learning_rate=5e-3, max_length=16, eval_every=3, checkpoint_every=2
)
WORD = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(24, seed=1))
    dev = labelled_rows(12, seed=2)
    for row in dev:
        row["text"] += " schrift courrier"  # words that are not trained on
    write_jsonl(folder / "dev.jsonl", dev)
    bert_encoder(folder / "encoder")
    return folder


def train(files: Path, out: Path, **changes: Any) -> TrainingSummary:
    config = TeacherConfig(
        model=str(files / "encoder"),
        train=CorpusConfig(paths=(str(files / "train.jsonl"),)),
        dev=CorpusConfig(paths=(str(files / "dev.jsonl"),)),
        loop=replace(LOOP, **changes),
    )
    return train_teacher(config, out)


def test_tokens_that_do_not_occur_stay_as_pretrained(files: Path, tmp_path: Path) -> None:
    train(files, tmp_path / "model", embeddings="full")
    before, after = weights(files / "encoder")[WORD], weights(tmp_path / "model")[f"bert.{WORD}"]
    moved = (before != after).any(axis=1)
    tokenizer = load_model(str(tmp_path / "model")).tokenizer
    (never,) = set(tokenizer.encode(["schrift"]).input_ids) - set(
        tokenizer.encode([" ".join(WORDS[:18])]).input_ids
    )
    assert not moved[never]
    assert moved[tokenizer.encode(["game"]).input_ids].all()


def test_the_dev_accuracy_of_a_run_is_that_of_the_saved_model(files: Path, tmp_path: Path) -> None:
    """Dev text has tokens that training has not."""
    summary = train(files, tmp_path / "model", precision="fp32", max_steps=3)
    model = load_model(str(tmp_path / "model"))
    labels = model.classifier.labels
    dev = read_labelled(CorpusConfig(paths=(str(files / "dev.jsonl"),)), labels)
    logits = score(model.classifier, model.tokenizer, dev).logits
    gold = np.array([labels.index(d.label or "", d.id) for d in dev])
    assert (logits.argmax(axis=1) == gold).mean() == summary.dev_accuracy
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    assert -log_p[np.arange(len(gold)), gold].mean() == pytest.approx(summary.dev_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "stop_at"),
    [
        ({"embeddings": "frozen"}, 5),
        ({"batch_tokens": 64, "workers": 2}, 3),
        ({"batch_tokens": 48, "eval_every": None}, 7),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    stop_at: int,
) -> None:
    whole = train(files, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        before_step(patch, stop_at, kill)
        with pytest.raises(Killed):
            train(files, tmp_path / "resumed", **changes)
    resumed = train(files, tmp_path / "resumed", **changes)
    assert resumed.history == whole.history
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "resumed"))
    assert digest_file(first) == digest_file(second)


def test_batches_by_tokens_are_evaluated_at_the_end_of_every_epoch(
    files: Path, tmp_path: Path
) -> None:
    summary = train(files, tmp_path / "model", batch_tokens=96, eval_every=None, max_steps=12)
    steps = [int(result["step"]) for result in summary.history]
    assert len(steps) > 1 and steps[-1] == 12
    # 24 rows of up to 16 tokens: an epoch is 2 to 8 batches.
    assert all(2 <= b - a <= 8 for a, b in zip([0, *steps], steps[:-1]))


def test_workers_are_no_part_of_what_a_run_is(files: Path, tmp_path: Path) -> None:
    train(files, tmp_path / "model", max_steps=1)
    assert train(files, tmp_path / "model", max_steps=1, workers=3).reused


def test_batches_by_tokens_need_a_number_of_steps(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`batch_tokens` 64: .*`max_steps`"):
        train(files, tmp_path / "model", batch_tokens=64, max_steps=None)


def test_embeddings_below_frozen_layers_are_frozen(files: Path, tmp_path: Path) -> None:
    train(files, tmp_path / "model", embeddings="full", freeze_layers=1, max_steps=2)
    np.testing.assert_array_equal(
        weights(tmp_path / "model")[f"bert.{WORD}"], weights(files / "encoder")[WORD]
    )


def test_the_mode_that_is_gone_says_what_to_use() -> None:
    with pytest.raises(ConfigError, match=r"`embeddings` sparse: .*monoxkit trim"):
        LoopConfig(embeddings="sparse")  # type: ignore[arg-type]


def test_a_run_of_that_mode_is_told_apart_by_name(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "embedding_mode", lambda loop: "sparse")
        before_step(patch, 5, kill)
        with pytest.raises(Killed):
            train(files, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"embeddings.*sparse.*full"):
        train(files, tmp_path / "model")
