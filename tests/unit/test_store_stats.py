"""The statistics of a store, against numpy over all of its rows at once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.data import Document, LabelSet
from monox_kit.errors import StoreCorrupt
from monox_kit.store import FolderWriter, LogitStore, StoreManifest, contents, store_stats
from tests.store_samples import FINGERPRINT, manifest, shard_arguments, write_shard, write_store

NUM_ROWS = 700
LABELS = LabelSet(("alpha", "beta", "gamma", "delta", "never"))


def random_store(folder: Path, *, has_pairs: bool, precision: str = "int8") -> dict[str, Any]:
    """A store of random rows with repeated texts; gives the values that went in."""
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 4, (NUM_ROWS, len(LABELS))).astype(np.float32)
    logits[:, 4] -= 100
    logits[:20] = logits[:20].round()  # some ties
    gold = generator.integers(-1, 4, NUM_ROWS).astype(np.int32)
    # "ab" with "c" and "a" with "bc" are different pairs.
    texts = [("ab", "a", "abc", "", "x")[k] + "y" * (k % 2) for k in generator.integers(0, 5, 350)]
    texts += [f"text {row}" for row in range(350)]
    pairs = [("c", "bc", "")[k] for k in generator.integers(0, 3, NUM_ROWS)]
    recomputed = generator.random(NUM_ROWS) < 0.1
    store = StoreManifest(
        labels=LABELS,
        num_rows=NUM_ROWS,
        shard_rows=256,
        dtype="float32",
        has_pairs=has_pairs,
        fingerprint={**FINGERPRINT, "precision": precision},
    )
    with FolderWriter(folder, store) as writer:
        for shard in writer.missing:
            mine = slice(shard.start, shard.stop)
            documents = [
                Document(
                    row=row,
                    id=str(row),
                    text=texts[row],
                    text_pair=pairs[row] if has_pairs else None,
                )
                for row in range(shard.start, shard.stop)
            ]
            write_shard(
                writer,
                shard,
                logits=logits[mine],
                documents=documents,
                labels=gold[mine],
                recomputed=recomputed[mine],
            )
        writer.complete()
    keys = list(zip(texts, pairs)) if has_pairs else texts
    return {"logits": logits, "gold": gold, "keys": keys, "recomputed": recomputed}


@pytest.mark.parametrize("has_pairs", [False, True])
def test_statistics_are_those_of_all_rows(
    tmp_path: Path, has_pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_PART_ROWS", 100)
    values = random_store(tmp_path / "s", has_pairs=has_pairs)
    found = store_stats(tmp_path / "s")
    logits, gold = values["logits"].astype(np.float64), values["gold"]
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    for index, label in enumerate(found.labels):
        assert label.label == LABELS.names[index]
        assert label.predicted == (predicted == index).sum()
        assert label.gold == (gold == index).sum()
        assert label.agreeing == ((predicted == index) & (gold == index)).sum()
    assert found.num_labelled == (gold >= 0).sum()
    assert found.agreement == pytest.approx((predicted == gold).sum() / (gold >= 0).sum())
    for spread, numbers, most in (
        (found.confidence, probabilities.max(axis=1), 1.0),
        (found.entropy_nats, entropy, math.log(5)),
    ):
        assert spread is not None
        assert spread.mean == pytest.approx(numbers.mean(), rel=1e-12)
        assert list(spread.quantiles) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
        for fraction, quantile in spread.quantiles.items():
            exact = np.quantile(numbers, float(fraction), method="inverted_cdf")
            assert quantile == pytest.approx(exact, abs=most * 2**-21 * 1.001)
    assert found.num_recomputed == values["recomputed"].sum()
    assert found.num_fast == NUM_ROWS - found.num_recomputed
    assert found.precision_rows == {"int8": found.num_fast, "fp32": found.num_recomputed}
    assert found.num_duplicates == NUM_ROWS - len(set(values["keys"]))
    assert (found.complete, found.num_rows, found.num_rows_done) == (True, NUM_ROWS, NUM_ROWS)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["num_rows"] == NUM_ROWS


def test_an_fp32_run_computes_all_rows_in_fp32(tmp_path: Path) -> None:
    random_store(tmp_path / "s", has_pairs=False, precision="fp32")
    assert store_stats(tmp_path / "s").precision_rows == {"fp32": NUM_ROWS}


def test_one_sure_class_has_no_entropy(tmp_path: Path) -> None:
    store = manifest(num_rows=1)
    with FolderWriter(tmp_path / "s", store) as writer:
        arguments = shard_arguments(store, writer.missing[0])
        arguments["logits"] = np.array([[-3e38, 3e38, -3e38]], np.float32)
        write_shard(writer, writer.missing[0], **arguments)
    found = store_stats(tmp_path / "s")
    assert found.confidence is not None
    assert found.entropy_nats is not None
    assert (found.confidence.mean, found.confidence.quantiles["0.5"]) == (1, 1)
    assert (found.entropy_nats.mean, found.entropy_nats.quantiles["0.95"]) == (0, 0)


def test_an_unfinished_store_counts_what_is_there(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        empty = store_stats(tmp_path / "s")
        shard = writer.missing[1]
        write_shard(writer, shard, **shard_arguments(manifest(), shard))
        found = store_stats(tmp_path / "s")
    assert (empty.complete, empty.num_rows, empty.num_rows_done) == (False, 11, 0)
    assert (empty.confidence, empty.entropy_nats, empty.agreement) == (None, None, None)
    assert empty.num_duplicates == 0
    assert (found.complete, found.num_rows, found.num_rows_done) == (False, 11, 4)
    assert sum(label.predicted for label in found.labels) == 4
    assert found.num_labelled == 3  # row 6 has no gold label


def test_a_changed_byte_is_not_counted(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s")
    path = folder / "shards" / "000001" / "logits.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    LogitStore.open(folder)
    with pytest.raises(StoreCorrupt, match=r"000001/logits\.npy: expected SHA-256"):
        store_stats(folder)
