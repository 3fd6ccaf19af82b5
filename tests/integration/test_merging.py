"""Parts labelled on machines that share no disk become the store of one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import StoreMismatch
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.store import LogitStore, merge_stores, store_stats
from tests.store_samples import tree
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(50, seed=1))
    write_jsonl(folder / "other.jsonl", labelled_rows(30, seed=2))
    bert_classifier(folder / "model")
    return folder


def config_for(files: Path, name: str = "corpus.jsonl") -> LabelConfig:
    return LabelConfig(
        teacher="torch",
        model=str(files / "model"),
        corpus=CorpusConfig(paths=(str(files / name),)),
        max_length=32,
        shard_rows=16,
        batch_tokens=64,
    )


def test_shard_ranges_of_two_machines_become_the_store_of_one(files: Path, tmp_path: Path) -> None:
    whole = label_corpus(config_for(files), tmp_path / "whole")
    for name, shards in {"a": (0, 1), "b": (1, 4)}.items():
        label_corpus(replace(config_for(files), begin=True), tmp_path / name)
        part = label_corpus(replace(config_for(files), shard_range=shards), tmp_path / name)
        assert not part.complete
    report = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert report.store_digest == whole.store_digest
    before = tree(tmp_path / "out")
    again = label_corpus(config_for(files), tmp_path / "out")
    assert (again.num_resumed_rows, again.complete) == (50, True)
    assert tree(tmp_path / "out") == before


def test_stores_of_two_corpora_become_one(files: Path, tmp_path: Path) -> None:
    for name in ("corpus", "other"):
        label_corpus(config_for(files, f"{name}.jsonl"), tmp_path / name)
    merge_stores([tmp_path / "corpus", tmp_path / "other"], tmp_path / "out")
    merged = LogitStore.open(tmp_path / "out", verify="full")
    expected = [
        LogitStore.open(tmp_path / name).logits(slice(None)) for name in ("corpus", "other")
    ]
    np.testing.assert_array_equal(merged.logits(slice(None)), np.concatenate(expected))
    assert store_stats(tmp_path / "out").num_labelled == 80
    with pytest.raises(StoreMismatch, match="corpus_digest"):
        label_corpus(config_for(files), tmp_path / "out")
