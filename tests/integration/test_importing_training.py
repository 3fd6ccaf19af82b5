"""What was imported is a teacher like any other: students, averages, merges and their cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import monox_kit as mk
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import StoreMismatch
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.objectives import probabilities
from monox_kit.store import LogitStore, export_store, merge_stores
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig
from monox_kit.training.run import train_student
from tests.tiny_models import (
    LABELS,
    bert_classifier,
    bert_encoder,
    corpus_of,
    labelled_rows,
    weights,
    write_jsonl,
)

LOOP = LoopConfig(
    max_steps=4, batch_size=8, learning_rate=5e-3, max_length=16, eval_every=4, embeddings="frozen"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's store, exported, with its probabilities beside its logits."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(40, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(12, seed=2))
    (folder / "labels.json").write_text(json.dumps({"names": LABELS}))
    bert_encoder(folder / "encoder")
    bert_classifier(folder / "teacher")
    corpus = CorpusConfig(paths=(str(folder / "train.jsonl"),))
    label_corpus(
        LabelConfig(teacher="torch", model=str(folder / "teacher"), corpus=corpus, shard_rows=16),
        folder / "store",
    )
    export_store(folder / "store", folder / "store.parquet")
    table = pq.read_table(folder / "store.parquet")
    logits = np.stack(table["logits"].to_pylist()).astype(np.float32)
    given = probabilities(logits)
    table = table.append_column("probabilities", [given.tolist()])
    pq.write_table(table.append_column("answer", [given.argmax(axis=1)]), folder / "a.parquet")
    return folder


def imported(files: Path, out: Path, **settings: Any) -> Path:
    rows = settings.pop("rows", files / "a.parquet")
    mk.import_store(
        rows, out=out, labels=files / "labels.json", origin="gpt-x, prompt 7", **settings
    )
    return out


def student(files: Path, stores: Sequence[Path], out: Path, **changes: Any) -> Any:
    """The weights of a student of these stores."""
    config = StudentConfig(
        model=str(files / "encoder"),
        method="kd",
        store=tuple(stores),
        dev=corpus_of(files / "dev.jsonl"),
        loop=LOOP,
    )
    train_student(replace(config, **changes), out)
    return weights(out)


def test_imported_logits_give_the_same_student_to_the_bit(files: Path, tmp_path: Path) -> None:
    store = imported(files, tmp_path / "imported", logits_column="logits", gold_column="label")
    first, second = (LogitStore.open(each) for each in (files / "store", store))
    np.testing.assert_array_equal(first.logits(slice(None)), second.logits(slice(None)))
    np.testing.assert_array_equal(first.gold(slice(None)), second.gold(slice(None)))
    expected = student(files, [files / "store"], tmp_path / "expected")
    found = student(files, [store], tmp_path / "found")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name])
    card = (tmp_path / "found" / "README.md").read_text()
    assert "gpt-x, prompt 7" in card and "imported from files" in card


def test_imported_probabilities_give_the_student_of_these_probabilities(
    files: Path, tmp_path: Path
) -> None:
    """Float32 logs of probabilities: the soft targets differ in the seventh digit, and so on."""
    store = imported(files, tmp_path / "imported", probabilities_column="probabilities")
    kept = LogitStore.open(store).logits(slice(None))
    original = LogitStore.open(files / "store").logits(slice(None))
    for temperature in (0.1, 1.0):
        soft = [probabilities(each.astype(np.float64) / temperature) for each in (original, kept)]
        np.testing.assert_allclose(soft[1], soft[0], rtol=1e-5, atol=1e-12)
    expected = student(files, [files / "store"], tmp_path / "expected")
    found = student(files, [store], tmp_path / "found")
    moved = max(np.abs(value - found[name]).max() for name, value in expected.items())
    assert moved < 1e-4  # of steps of 5e-3
    # A second import of what was kept is that store, and its student the same to the bit.
    table = pq.read_table(files / "a.parquet").drop(["probabilities"])
    table = table.append_column("probabilities", [probabilities(kept).tolist()])
    pq.write_table(table, tmp_path / "again.parquet")
    again = imported(
        files,
        tmp_path / "again",
        rows=tmp_path / "again.parquet",
        probabilities_column="probabilities",
    )
    np.testing.assert_array_equal(LogitStore.open(again).logits(slice(None)), kept)


@pytest.mark.parametrize("method", ["kd", "pl"])
def test_students_learn_from_hard_labels(files: Path, tmp_path: Path, method: str) -> None:
    store = imported(files, tmp_path / "imported", label_column="answer", label_names=LABELS)
    changes: dict[str, Any] = {}
    if method == "pl":
        labelled = corpus_of(write_jsonl(tmp_path / "gold.jsonl", labelled_rows(9, seed=5)))
        changes = {"labelled": labelled, "objective": ObjectiveConfig(threshold=0.5)}
    found = student(files, [store], tmp_path / "out", method=method, **changes)
    assert all(np.isfinite(value).all() for value in found.values())


def test_an_import_is_averaged_with_a_models_store(files: Path, tmp_path: Path) -> None:
    """The answers' file has neither the corpus's gold labels nor its languages."""
    store = imported(files, tmp_path / "imported", logits_column="logits")
    fingerprints = [LogitStore.open(each).manifest.fingerprint for each in (files / "store", store)]
    assert fingerprints[0]["corpus_digest"] != fingerprints[1]["corpus_digest"]
    both = student(files, [files / "store", store], tmp_path / "both", combine="average")
    mean = student(files, [files / "store"], tmp_path / "one")
    for name, value in mean.items():
        np.testing.assert_allclose(both[name], value, atol=1e-4)


def test_imports_of_one_origin_are_merged(files: Path, tmp_path: Path) -> None:
    table = pq.read_table(files / "a.parquet")
    for name, part in (("a", table.slice(0, 25)), ("b", table.slice(25))):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    stores = [
        imported(files, tmp_path / name, rows=tmp_path / f"{name}.parquet", logits_column="logits")
        for name in ("a", "b")
    ]
    merge_stores(stores, tmp_path / "merged")
    whole = imported(files, tmp_path / "whole", logits_column="logits")
    merged = LogitStore.open(tmp_path / "merged", verify="full")
    np.testing.assert_array_equal(
        merged.logits(slice(None)), LogitStore.open(whole).logits(slice(None))
    )
    digests = {LogitStore.open(each).manifest.fingerprint["answers_digest"] for each in stores}
    assert len({*digests, merged.manifest.fingerprint["answers_digest"]}) == 3
    other = imported(
        files, tmp_path / "c", rows=tmp_path / "b.parquet", probabilities_column="probabilities"
    )
    with pytest.raises(StoreMismatch, match="answers"):
        merge_stores([stores[0], other], tmp_path / "refused")
    with pytest.raises(StoreMismatch, match="teacher"):
        merge_stores([stores[0], files / "store"], tmp_path / "refused")
