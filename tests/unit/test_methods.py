"""Objectives on the path that training takes: stores, rows, batches, losses and gradients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, StoreError, StoreMismatch
from monox_kit.store import FolderWriter, LogitStore, StoreManifest
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig
from monox_kit.training.methods import Sources, Task, build_task
from monox_kit.training.optimizer import freeze
from monox_kit.training.rows import select_rows
from monox_kit.training.teachers import StoredTeacher
from tests.store_samples import write_shard

LABELS = LabelSet(("games", "mail", "text"))
GENERATOR = np.random.default_rng(11)
NUM_ROWS = 30
LOGITS = GENERATOR.normal(0, 2, (NUM_ROWS, 3)).astype(np.float32)
OTHER_LOGITS = GENERATOR.normal(0, 2, (NUM_ROWS, 3)).astype(np.float32)
# Every third row has no gold label.
GOLD = np.where(np.arange(NUM_ROWS) % 3 == 0, -1, GENERATOR.integers(0, 3, NUM_ROWS))
STUDENT = GENERATOR.normal(0, 2, (NUM_ROWS, 3)).astype(np.float32)
EVERY_ROW = np.arange(NUM_ROWS, dtype=np.int64)


def write_store(
    folder: Path,
    logits: np.ndarray,
    gold: Sequence[int] = (-1,) * NUM_ROWS,
    *,
    pairs: bool = False,
    text: str = "text",
    **fingerprint: Any,
) -> LogitStore:
    """A store of texts "text 0", "text 1", ... in shards of 8 rows."""
    manifest = StoreManifest(
        labels=LABELS,
        num_rows=len(logits),
        shard_rows=8,
        dtype="float32",
        has_pairs=pairs,
        fingerprint={"corpus_digest": "7d79", **fingerprint},
    )
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            part = slice(shard.start, shard.stop)
            documents = [
                Document(row, str(row), f"{text} {row}", f"pair {row}" if pairs else None)
                for row in range(shard.start, shard.stop)
            ]
            labels = np.array(gold[part], np.int32)
            write_shard(writer, shard, logits=logits[part], documents=documents, labels=labels)
        writer.complete()
    return LogitStore.open(folder)


def task_of(method: str, *stores: LogitStore, average: bool = False, **objective: Any) -> Task:
    """The task on stores, one after the other or averaged; without gold-labelled text."""
    teachers = [StoredTeacher(stores)] if average else [StoredTeacher([s]) for s in stores]
    return build_task(
        method, Sources(LABELS, [], teachers=teachers, objective=ObjectiveConfig(**objective))
    )


def gold_documents(count: int, start: int = 1000) -> list[Document]:
    return [
        Document(row, str(row), f"text {start + row}", None, LABELS.names[row % 3])
        for row in range(count)
    ]


def loss_and_gradient(task: Task, rows: np.ndarray, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Of one batch, as the training loop computes them."""
    _, _, targets = task.rows.batch(rows)
    student = torch.tensor(logits, requires_grad=True)
    loss = task.loss(student, targets)
    loss.backward()
    assert student.grad is not None
    return loss.item(), student.grad.numpy()


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    logits = logits.astype(np.float64) / temperature
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("settings", [{}, {"kd_loss": "kl"}, {"alpha": 0.4}])
def test_distilling_one_hot_logits_is_training_on_the_labels(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    gold = gold_documents(NUM_ROWS, start=0)
    labels = [LABELS.index(document.label or "", "") for document in gold]
    one_hot = np.eye(3, dtype=np.float32)[labels]
    store = write_store(tmp_path / "store", one_hot, labels)
    ce = build_task("ce", Sources(LABELS, gold))
    kd = task_of("kd", store, temperature=0.01, **settings)
    for rows in (EVERY_ROW, np.array([29, 3, 3, 17])):
        assert kd.rows.batch(rows)[0] == ce.rows.batch(rows)[0]
        expected, gradient = loss_and_gradient(ce, rows, STUDENT[rows])
        found, found_gradient = loss_and_gradient(kd, rows, STUDENT[rows])
        assert found == pytest.approx(expected, abs=1e-6)
        np.testing.assert_allclose(found_gradient, gradient, atol=1e-6)


def test_distilling_at_no_temperature_is_training_on_pseudo_labels(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS)
    gold = gold_documents(5)
    pl = build_task("pl", Sources(LABELS, gold, teachers=[StoredTeacher([store])]))
    kd = task_of("kd", store, temperature=1e-6)
    of_store = EVERY_ROW + len(gold)  # behind the gold rows, which are of other texts
    assert kd.rows.batch(EVERY_ROW)[0] == pl.rows.batch(of_store)[0]
    expected, gradient = loss_and_gradient(pl, of_store, STUDENT)
    found, found_gradient = loss_and_gradient(kd, EVERY_ROW, STUDENT)
    assert found == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found_gradient, gradient, atol=1e-6)


@pytest.mark.parametrize("temperature_on", ["teacher", "both"])
@pytest.mark.parametrize("kd_loss", ["ce", "kl"])
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_what_is_asked_for_is_the_loss_of_a_batch(
    tmp_path: Path, kd_loss: str, temperature_on: str, alpha: float
) -> None:
    store = write_store(tmp_path / "store", LOGITS, GOLD.tolist())
    task = task_of(
        "kd", store, temperature=2.0, temperature_on=temperature_on, kd_loss=kd_loss, alpha=alpha
    )
    student_temperature = 2.0 if temperature_on == "both" else 1.0
    q = softmax(LOGITS, 2.0)
    p, p1 = softmax(STUDENT, student_temperature), softmax(STUDENT)
    entropy = (q * np.log(q)).sum(axis=1) if kd_loss == "kl" else 0.0
    soft = student_temperature**2 * (entropy - (q * np.log(p)).sum(axis=1))
    weight = np.where(GOLD >= 0, alpha, 0.0)
    losses = weight * -np.log(p1[EVERY_ROW, GOLD]) + (1 - weight) * soft
    gradient = weight[:, None] * (p1 - np.eye(3)[GOLD])
    gradient += (1 - weight)[:, None] * student_temperature * (p - q)
    found, found_gradient = loss_and_gradient(task, EVERY_ROW, STUDENT)
    assert found == pytest.approx(losses.mean(), abs=1e-6)
    np.testing.assert_allclose(found_gradient, gradient / NUM_ROWS, atol=1e-6)


def test_mse_compares_logits(tmp_path: Path) -> None:
    task = task_of("kd", write_store(tmp_path / "store", LOGITS), kd_loss="mse")
    found, gradient = loss_and_gradient(task, EVERY_ROW, STUDENT)
    difference = STUDENT.astype(np.float64) - LOGITS
    assert found == pytest.approx((difference**2).mean(), abs=1e-6)
    np.testing.assert_allclose(gradient, 2 * difference / difference.size, atol=1e-6)


def test_gold_labels_of_the_stores_are_counted(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS, GOLD.tolist())
    assert task_of("kd", store).counts == {"soft_rows": NUM_ROWS}
    assert task_of("kd", store, alpha=0.5).counts == {
        "soft_rows": NUM_ROWS,
        "of_them_gold_rows": int((GOLD >= 0).sum()),
    }


def test_a_mix_with_gold_labels_that_no_store_has_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS)
    with pytest.raises(ConfigError, match="`alpha`: "):
        task_of("kd", store, alpha=0.5)


def test_pseudo_labels_are_counted_by_class_kept_and_left_out(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS)
    gold = gold_documents(3, start=0)  # the texts of rows 0, 1 and 2
    objective = ObjectiveConfig(threshold=0.6)
    teachers = [StoredTeacher([store])]
    task = build_task("pl", Sources(LABELS, gold, teachers=teachers, objective=objective))
    sure, labels = softmax(LOGITS).max(axis=1) >= 0.6, LOGITS.argmax(axis=1)
    fresh = EVERY_ROW >= 3
    for index, name in enumerate(LABELS.names):
        of_class = labels == index
        assert task.classes[name] == {
            "kept": (of_class & sure & fresh).sum(),
            "too little confidence": (of_class & ~sure).sum(),
            "text is gold-labelled": (of_class & sure & ~fresh).sum(),
        }
    counts = task.counts
    assert 0 < counts["below_threshold_rows"] < NUM_ROWS
    assert counts["gold_rows"] == 3
    assert sum(sum(each.values()) for each in task.classes.values()) == NUM_ROWS
    kept = EVERY_ROW[sure & fresh]
    texts, _, targets = task.rows.batch(np.arange(3, len(task.rows)))
    assert texts == [f"text {row}" for row in kept]
    np.testing.assert_array_equal(targets.labels.numpy(), labels[kept])


def test_soft_labels_are_restricted_by_confidence(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS)
    task = task_of("kd", store, min_confidence=0.6)
    sure = softmax(LOGITS).max(axis=1) >= 0.6
    assert 0 < sure.sum() < NUM_ROWS
    assert task.counts == {
        "soft_rows": sure.sum(),
        "below_min_confidence_rows": (~sure).sum(),
    }
    _, _, targets = task.rows.batch(np.arange(len(task.rows)))
    assert targets.teacher is not None
    np.testing.assert_array_equal(targets.teacher.numpy(), LOGITS[sure])
    with pytest.raises(ConfigError, match=r"`method` .*no row"):
        task_of("kd", store, min_confidence=1.0)


def test_a_batch_of_several_stores_keeps_its_order(tmp_path: Path) -> None:
    first = write_store(tmp_path / "first", LOGITS, pairs=True)
    second = write_store(tmp_path / "second", OTHER_LOGITS, pairs=True)
    task = task_of("kd", first, second)
    rows = np.array([59, 0, 30, 29])
    texts, pairs, targets = task.rows.batch(rows)
    assert texts == ["text 29", "text 0", "text 0", "text 29"]
    assert pairs == ["pair 29", "pair 0", "pair 0", "pair 29"]
    assert targets.teacher is not None
    expected = np.array([OTHER_LOGITS[29], LOGITS[0], OTHER_LOGITS[0], LOGITS[29]])
    np.testing.assert_array_equal(targets.teacher.numpy(), expected)
    some = targets[np.array([3, 0])]
    assert some.teacher is not None
    np.testing.assert_array_equal(some.teacher.numpy(), expected[[3, 0]])
    assert some.labels.tolist() == [-1, -1]


@pytest.mark.parametrize("weights", [None, (7.0, 3.0)])
@pytest.mark.parametrize("temperature", [0.1, 4.0])
def test_averaged_stores_are_one_teacher(
    tmp_path: Path, weights: tuple[float, float] | None, temperature: float
) -> None:
    stores = [write_store(tmp_path / "a", LOGITS), write_store(tmp_path / "b", OTHER_LOGITS)]
    objective = ObjectiveConfig(temperature=temperature)
    teachers = [StoredTeacher(stores, weights)]
    task = build_task("kd", Sources(LABELS, [], teachers=teachers, objective=objective))
    assert len(task.rows) == NUM_ROWS
    share = 0.7 if weights else 0.5
    q = share * softmax(LOGITS, temperature) + (1 - share) * softmax(OTHER_LOGITS, temperature)
    found, gradient = loss_and_gradient(task, EVERY_ROW, STUDENT)
    p = softmax(STUDENT)
    assert found == pytest.approx(-(q * np.log(p)).sum(axis=1).mean(), abs=1e-6)
    np.testing.assert_allclose(gradient, (p - q) / NUM_ROWS, atol=1e-6)


def test_averaged_teachers_choose_pseudo_labels_together(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", LOGITS), write_store(tmp_path / "b", OTHER_LOGITS)]
    gold = gold_documents(1)
    teachers = [StoredTeacher(stores)]
    task = build_task("pl", Sources(LABELS, gold, teachers=teachers))
    _, _, targets = task.rows.batch(EVERY_ROW + 1)
    mean = (softmax(LOGITS) + softmax(OTHER_LOGITS)) / 2
    np.testing.assert_array_equal(targets.labels.numpy(), mean.argmax(axis=1))
    assert (mean.argmax(axis=1) != LOGITS.argmax(axis=1)).any()


def test_averaged_logits_are_compared_by_mse(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", LOGITS), write_store(tmp_path / "b", OTHER_LOGITS)]
    task = task_of("kd", *stores, average=True, kd_loss="mse")
    _, _, targets = task.rows.batch(EVERY_ROW)
    assert targets.teacher is not None
    np.testing.assert_allclose(targets.teacher.numpy(), (LOGITS + OTHER_LOGITS) / 2, atol=1e-6)


def test_stores_of_other_rows_are_not_averaged(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a", LOGITS)
    paired = write_store(tmp_path / "b", LOGITS, pairs=True, corpus_digest="9c01")
    fewer = write_store(tmp_path / "d", LOGITS[:20])
    other = write_store(tmp_path / "e", LOGITS, text="Text", corpus_digest="9c01")
    with pytest.raises(StoreMismatch, match=r"b: expected the text 'text 0' in row 0 as in .*a"):
        StoredTeacher([store, paired])
    with pytest.raises(StoreMismatch, match=r"d: expected 30 rows .* found 20"):
        StoredTeacher([store, fewer])
    with pytest.raises(StoreMismatch, match=r"e: .*'text 0' in row 0 .* found 'Text 0'"):
        StoredTeacher([store, other])
    with pytest.raises(ConfigError, match=r"`store_weight`: expected one weight .* 2 stores"):
        StoredTeacher([store, store], [1.0])
    # The digest of a corpus also sees its ids, gold labels and languages.
    for name, digest in (("f", "9c01"), ("g", None)):
        same = write_store(tmp_path / name, LOGITS, corpus_digest=digest)
        assert len(StoredTeacher([store, same])) == 30


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("ce", {"temperature": 1.0}, "`temperature` 1.0: .*`method` kd"),
        ("pl", {"alpha": 0.5}, "`alpha` 0.5: .*`method` kd"),
        ("kd", {"threshold": 0.5}, "`threshold` 0.5: .*`method` pl or self-training"),
        ("kd", {"kd_loss": "mse", "temperature": 1.0}, "`temperature` 1.0: .*`kd_loss`"),
        ("kd", {"kd_loss": "mse", "temperature_on": "both"}, "`temperature_on` both: .*`kd_loss`"),
    ],
)
def test_a_setting_that_the_objective_would_ignore_is_refused(
    method: Any, changes: dict[str, Any], message: str
) -> None:
    dev = CorpusConfig(paths=("dev.jsonl",))
    with pytest.raises(ConfigError) as caught:
        StudentConfig(model="M", dev=dev, method=method, objective=ObjectiveConfig(**changes))
    assert re.match(message, str(caught.value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("use", ["selected", "one after the other", "averaged"])
def test_logits_that_are_not_finite_are_named_with_their_store_and_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, value: float
) -> None:
    first = write_store(tmp_path / "first", LOGITS)
    second = write_store(tmp_path / "second", OTHER_LOGITS)
    read = LogitStore.logits

    def spoilt(self: LogitStore, rows: np.ndarray) -> np.ndarray:
        logits = read(self, rows).copy()
        if self is second:
            logits[rows == 7, 1] = value
        return logits

    monkeypatch.setattr(LogitStore, "logits", spoilt)
    with pytest.raises(StoreError, match=r"/second: .*row 7\."):
        if use == "selected":
            select_rows(StoredTeacher([second]), 0.0)
        task = task_of("kd", first, second, average=use == "averaged")
        task.rows.batch(np.array([3, 7 if use == "averaged" else NUM_ROWS + 7]))


def test_frozen_layers_of_mpnet_share_no_trained_table() -> None:
    from transformers import MPNetConfig, MPNetForSequenceClassification

    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
    model = MPNetForSequenceClassification(MPNetConfig(num_hidden_layers=2, **size))
    freeze(model, LoopConfig(freeze_layers=2))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained and all(name.startswith("classifier.") for name in trained), trained


def test_a_threshold_that_leaves_no_pseudo_label_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", LOGITS)
    teachers = [StoredTeacher([store])]
    objective = ObjectiveConfig(threshold=1.0)
    sources = Sources(LABELS, gold_documents(3), teachers=teachers, objective=objective)
    with pytest.raises(ConfigError, match=r"`threshold` 1: .* \d+ "):
        build_task("pl", sources)
