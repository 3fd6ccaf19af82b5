"""Any number of labels a row, from labelled text to an evaluated student, on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import MULTI_LABEL, SINGLE_LABEL, LabelSet
from monox_kit.demo.own_data import count_rows
from monox_kit.errors import ConfigError, CorpusError, LabelMismatchError
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.folder import open_folder
from monox_kit.store import LogitStore
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig, TeacherConfig
from monox_kit.training.run import train_student, train_teacher
from monoxkit_cli.app import main
from tests.tiny_models import LABELS, WORDS, bert_encoder, corpus_of, write_jsonl

TOPICS = {"games": "game", "mail": "mail", "text": "font"}
LOOP = LoopConfig(
    max_steps=4, batch_size=8, learning_rate=5e-3, max_length=16, eval_every=2, checkpoint_every=2
)


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Texts with the topic words of any number of labels among them."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        label = [name for name in LABELS if generator.random() < 0.5]
        words = [WORDS[at] for at in generator.integers(0, 18, 3)]
        text = " ".join([*words, *(TOPICS[name] for name in label)])
        rows.append({"id": f"row-{index}", "text": text, "label": label, "lang": "en"})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, an encoder, a teacher and its store."""
    folder = tmp_path_factory.mktemp("multi")
    for name, count, seed in (("train", 96, 1), ("dev", 16, 2), ("test.en", 16, 3)):
        write_jsonl(folder / f"{name}.jsonl", rows_of(count, seed))
    german = [{**row, "lang": "de"} for row in rows_of(16, 4)]
    write_jsonl(folder / "test.de.jsonl", german)
    labels = {"names": list(LABELS), "problem_type": MULTI_LABEL}
    (folder / "labels.json").write_text(json.dumps(labels))
    bert_encoder(folder / "encoder")
    loop = replace(LOOP, max_steps=160, eval_every=40, learning_rate=3e-3, batch_size=16)
    config = TeacherConfig(
        model=str(folder / "encoder"),
        train=corpus_of(folder / "train.jsonl"),
        dev=corpus_of(folder / "dev.jsonl"),
        loop=loop,
    )
    train_teacher(config, folder / "teacher")
    unlabelled = [{**row, "label": None} for row in rows_of(24, 5)]
    write_jsonl(folder / "more.jsonl", unlabelled)
    label_corpus(
        LabelConfig(
            teacher="torch",
            model=str(folder / "teacher"),
            corpus=corpus_of(folder / "dev.jsonl", folder / "more.jsonl"),
            shard_rows=16,
        ),
        folder / "store",
    )
    return folder


def student_config(files: Path, method: str, **changes: Any) -> StudentConfig:
    config = StudentConfig(
        model=str(files / "encoder"),
        method=method,  # type: ignore[arg-type]
        store=(files / "store",) if method in ("pl", "kd") else (),
        labelled=None if method == "kd" else corpus_of(files / "train.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=LOOP,
    )
    return replace(config, **changes)


def test_a_teacher_learns_every_label_by_itself(files: Path) -> None:
    folder = open_folder(str(files / "teacher"))
    assert folder.labels == LabelSet(LABELS, MULTI_LABEL)
    assert folder.config["problem_type"] == MULTI_LABEL  # as other tools read it
    assert folder.record is not None
    summary = folder.record.provenance["summary"]
    # Every class of every row has a micro-F1 of about 2/3: half of the labels are right.
    share = np.mean([len(row["label"]) / len(LABELS) for row in rows_of(16, 2)])
    assert summary["dev_micro_f1"] > 2 * share / (1 + share) + 0.05
    assert summary["dev_accuracy"] is None
    assert set(summary["dev_sets"]["dev"]) == {"micro_f1", "loss", "rows"}
    assert "micro-F1" in (files / "teacher" / "README.md").read_text()
    assert "accuracy" not in (files / "teacher" / "training.jsonl").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(str(files / "teacher"))
    assert model.config.problem_type == MULTI_LABEL


def test_a_store_holds_the_lists(files: Path) -> None:
    store = LogitStore.open(files / "store", verify="full")
    assert store.labels == LabelSet(LABELS, MULTI_LABEL)
    wanted = [tuple(row["label"]) for row in rows_of(16, 2)] + [None] * 24
    assert [document.label for document in store.documents()] == wanted


@pytest.mark.parametrize(
    ("method", "objective"),
    [
        ("ce", {}),
        ("pl", {"threshold": None}),
        ("kd", {"alpha": 0.5, "min_confidence": None}),
        ("kd", {"kd_loss": "kl", "temperature": 2.0, "temperature_on": "both"}),
        ("kd", {"kd_loss": "mse"}),
    ],
)
def test_every_objective_trains_a_student(
    files: Path, tmp_path: Path, method: str, objective: dict[str, Any]
) -> None:
    # A quarter of the rows is left out, however sure the teacher has become.
    store = LogitStore.open(files / "store")
    sure = float(np.quantile(store.manifest.problem.confidence(store.logits(slice(None))), 0.25))
    given = {name: sure if value is None else value for name, value in objective.items()}
    config = student_config(files, method, objective=ObjectiveConfig(**given))
    summary = train_student(config, tmp_path / "student")
    assert summary.dev_micro_f1 is not None
    decided = LogitStore.open(files / "store").logits(slice(None)) > 0
    if "threshold" in objective or "min_confidence" in objective:
        # Every class that a row has counts; a row with two of them counts twice.
        counts = [sum(each.values()) for each in summary.classes.values()]
        assert counts == decided.sum(axis=0).tolist()
    if method == "pl":
        rows = {name: n for name, n in summary.counts.items() if name != "gold_rows"}
        assert sum(rows.values()) == len(decided)
    if objective.get("alpha"):
        assert summary.counts["of_them_gold_rows"] <= 16


def test_averaged_teachers_and_self_training(files: Path, tmp_path: Path) -> None:
    store = files / "store"
    both = student_config(files, "kd", store=(store, store), combine="average")
    one = train_student(student_config(files, "kd"), tmp_path / "one")
    assert train_student(both, tmp_path / "both").dev_loss == pytest.approx(one.dev_loss, abs=1e-4)
    config = student_config(
        files, "self-training", unlabelled=corpus_of(files / "more.jsonl"), rounds=1
    )
    summary = train_student(config, tmp_path / "rounds")
    assert [set(each) & {"dev_accuracy", "dev_micro_f1"} for each in summary.rounds] == [
        {"dev_micro_f1"}
    ] * 2


def test_a_student_is_chosen_and_evaluated_by_micro_f1(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student"
    line = (
        f"train-student --model {files}/encoder --method kd --store {files}/store "
        f"--dev {files}/dev.jsonl --report-dev {files}/test.de.jsonl --select-on de "
        f"--out {student} --max-steps 4 --batch-size 8 --max-length 16"
    )
    assert main(line.split()) == 0
    assert "micro-F1" in capsys.readouterr().out
    test = [f"{files}/test.en.jsonl", f"{files}/test.de.jsonl"]
    assert main(["evaluate", str(student), "--test", *test]) == 0
    shown = capsys.readouterr().out
    assert "micro-F1" in shown and "subset" in shown
    report = evaluate(EvaluateConfig(model=str(student), test=CorpusConfig(paths=tuple(test))))
    assert report.measure == "micro_f1"
    assert report.target_average == report.languages["de"].micro_f1


def test_an_export_is_checked_by_all_decisions(files: Path, tmp_path: Path) -> None:
    config = ExportConfig(model=str(files / "teacher"), precision="fp32")
    export_model(config, tmp_path / "bundle")
    bundle = open_folder(str(tmp_path / "bundle"))
    assert bundle.labels.is_multi
    label_corpus(
        LabelConfig(
            teacher="onnx", model=str(tmp_path / "bundle"), corpus=corpus_of(files / "dev.jsonl")
        ),
        tmp_path / "store",
    )
    expected = LogitStore.open(files / "store").logits(slice(0, 16))
    found = LogitStore.open(tmp_path / "store", verify="full").logits(slice(None))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_does_not_fit_is_refused_by_name(files: Path, tmp_path: Path) -> None:
    config = student_config(files, "ce")
    single = tmp_path / "labels.json"
    single.write_text(json.dumps({"names": list(LABELS)}))
    with pytest.raises(CorpusError, match="a list in place of one label"):
        train_student(replace(config, labels=single), tmp_path / "a")
    with pytest.raises(LabelMismatchError, match=f"expected problem_type {SINGLE_LABEL}"):
        train_student(student_config(files, "kd", labels=single), tmp_path / "b")
    alone = write_jsonl(tmp_path / "alone" / "train.jsonl", rows_of(8, 9))
    with pytest.raises(CorpusError, match=r"one label"):
        train_student(replace(config, labelled=corpus_of(alone)), tmp_path / "c")
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"text": "a game", "label": "games"}])
    with pytest.raises(CorpusError, match=r"plain\.jsonl, line 1: expected a list of labels"):
        train_student(replace(config, dev=corpus_of(plain)), tmp_path / "d")
    gone = write_jsonl(tmp_path / "gone.jsonl", [{"text": "x", "label": None}] * 9)
    label_corpus(
        LabelConfig(teacher="torch", model=str(files / "teacher"), corpus=corpus_of(gone)),
        tmp_path / "store",
    )
    mixed = student_config(
        files, "kd", store=(tmp_path / "store",), objective=ObjectiveConfig(alpha=0.5)
    )
    with pytest.raises(ConfigError, match="`alpha`: "):
        train_student(mixed, tmp_path / "e")
    with pytest.raises(CorpusError, match=r"labels\.json: expected problem_type single.*one by on"):
        count_rows(files, {})
