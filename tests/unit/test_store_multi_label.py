"""Stores whose rows may have any number of labels: written, read, checked, counted and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import MULTI_LABEL, Document, LabelSet
from monox_kit.errors import StoreCorrupt, StoreError, StoreMismatch
from monox_kit.store import (
    FolderWriter,
    LogitStore,
    StoreManifest,
    builder,
    export_store,
    merge_stores,
    store_stats,
    verify_store,
)
from tests.store_samples import FINGERPRINT, tree, write_shard
from tests.store_samples import write_store as write_single_store

LABELS = LabelSet(("games", "science", "sound"), MULTI_LABEL)
NUM_ROWS = 11
GENERATOR = np.random.default_rng(23)
LOGITS = GENERATOR.normal(0, 2, (NUM_ROWS, 3)).astype(np.float32)
GOLD = GENERATOR.integers(0, 2, (NUM_ROWS, 3)).astype(np.int8)
GOLD[::4] = -1
GOLD[1] = 0
GOLD[2] = LOGITS[2] > 0


def names_of(row: np.ndarray) -> tuple[str, ...] | None:
    return None if row[0] < 0 else tuple(np.array(LABELS.names)[row > 0].tolist())


def write_store(folder: Path, gold: np.ndarray = GOLD, **fingerprint: Any) -> Path:
    manifest = StoreManifest(
        labels=LABELS,
        num_rows=NUM_ROWS,
        shard_rows=4,
        dtype="float32",
        has_pairs=False,
        fingerprint={**FINGERPRINT, **fingerprint},
    )
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            part = slice(shard.start, shard.stop)
            rows = range(shard.start, shard.stop)
            documents = [Document(row=row, id=str(row), text=f"text {row}") for row in rows]
            write_shard(writer, shard, logits=LOGITS[part], documents=documents, labels=gold[part])
        writer.complete()
    return folder


def test_gold_labels_come_back(tmp_path: Path) -> None:
    store = LogitStore.open(write_store(tmp_path / "s"), verify="full")
    assert store.labels == LABELS
    rows = np.array([9, 0, 5, 5], np.int64)
    np.testing.assert_array_equal(store.gold(rows), GOLD[rows])
    assert [document.label for document in store.documents()] == [names_of(row) for row in GOLD]
    assert store.info().num_labelled == (GOLD[:, 0] >= 0).sum()
    with pytest.raises(StoreError, match="one label a row"):
        store.label(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda gold: gold.astype(np.int32), r"expected labels int8 \(4, 3\), found int32"),
        (lambda gold: gold[:, :2], r"expected labels int8 \(4, 3\), found int8 \(4, 2\)"),
        (lambda gold: gold + np.int8(gold > 0), r"labels of 0 and 1, .* in row \d"),
        (lambda gold: np.where(gold < 0, [-1, 0, -1], gold).astype(np.int8), r"in row 0"),
    ],
)
def test_labels_of_another_form_are_not_written(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        write_store(tmp_path / "s", change(GOLD))
    assert not list((tmp_path / "s" / "shards").iterdir())


def write_forged_store(folder: Path, place: Any, value: int) -> Path:
    """A store whose writer changed one label of shard 0, and took the digests of that."""
    real = builder._ArrayFile.write

    def forged(self: Any, content: memoryview) -> None:
        is_first = self._path.parent.name.startswith(".tmp-000000-")
        if self._path.name == "labels.npy" and is_first and self._num_bytes >= 128:
            labels = np.frombuffer(content, np.int8).reshape(-1, 3).copy()
            labels[place] = value
            content = memoryview(labels)
        real(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder._ArrayFile, "write", forged)
        return write_store(folder)


@pytest.mark.parametrize("place_and_value", [((0, 1), 0), ((1, 2), 2), ((1, 0), -1), ((3, 1), -2)])
def test_no_forged_label_passes(
    tmp_path: Path, place_and_value: tuple[tuple[int, int], int]
) -> None:
    place, value = place_and_value
    folder = write_forged_store(tmp_path / "s", place, value)
    says = r"labels\.npy: expected labels of 0 and 1, or -1 throughout a row"
    found = f"{says} in row {place[0]}, found another value".replace("\\", "")
    assert found in " ".join(verify_store(folder).problems)
    store = LogitStore.open(folder, verify="read")
    for read in (
        lambda: list(store.documents()),
        lambda: store_stats(folder),
        lambda: export_store(folder, tmp_path / "s.parquet"),
    ):
        with pytest.raises(StoreCorrupt, match=says):
            read()


def test_a_row_that_lost_its_labels_is_counted(tmp_path: Path) -> None:
    folder = write_forged_store(tmp_path / "s", 1, -1)
    assert "expected num_labelled 2, found 3" in " ".join(verify_store(folder).problems)


def test_statistics_count_every_class_by_itself(tmp_path: Path) -> None:
    found = store_stats(write_store(tmp_path / "s"))
    decided, gold = LOGITS > 0, GOLD > 0
    labelled = GOLD[:, 0] >= 0
    assert [one.predicted for one in found.labels] == decided.sum(axis=0).tolist()
    assert [one.gold for one in found.labels] == gold.sum(axis=0).tolist()
    assert [one.agreeing for one in found.labels] == (decided & gold).sum(axis=0).tolist()
    right = (decided == gold).all(axis=1) & labelled
    assert (found.num_labelled, found.num_agreeing) == (labelled.sum(), right.sum())
    assert found.num_agreeing > 0
    least = 1 / (1 + np.exp(-np.abs(LOGITS.astype(np.float64)).min(axis=1)))
    assert found.confidence is not None and found.entropy_nats is not None
    assert found.confidence.mean == pytest.approx(least.mean())
    assert 0 < found.entropy_nats.mean < 3 * np.log(2)


def test_an_export_is_read_back_as_it_was(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s")
    export_store(folder, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    table.validate(full=True)
    wanted = [names_of(row) for row in GOLD]
    assert table["label"].to_pylist() == [None if each is None else [*each] for each in wanted]
    assert table["label_index"].to_pylist() == [
        None if row[0] < 0 else np.flatnonzero(row).tolist() for row in GOLD
    ]
    corpus = Corpus(CorpusConfig(paths=(str(tmp_path / "s.parquet"),)))
    assert [document.label for document in corpus.documents()] == wanted


def test_datasets_reads_lists_of_class_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    export_store(write_store(tmp_path / "s"), tmp_path / "s.parquet")
    found = datasets.Dataset.from_parquet(
        str(tmp_path / "s.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert found.features["label_index"].feature.names == list(LABELS.names)
    assert found["label"][3] == [*(names_of(GOLD[3]) or ())]


def test_merged_stores_keep_the_labels(tmp_path: Path) -> None:
    parts = [write_store(tmp_path / name, corpus_digest=name) for name in ("a", "b")]
    merge_stores(parts, tmp_path / "m", shard_rows=5)
    store = LogitStore.open(tmp_path / "m", verify="full")
    np.testing.assert_array_equal(store.gold(slice(None)), np.concatenate([GOLD, GOLD]))
    single = write_single_store(tmp_path / "single")
    before = tree(single)
    with pytest.raises(StoreMismatch, match=r"problem_type"):
        merge_stores([parts[0], single], tmp_path / "n")
    assert tree(single) == before
