"""Long texts: one policy in tokens, logits, stores, training, bundles and predictions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import monox_kit as mk
from monox_kit.data import MULTI_LABEL, LabelSet, Logits
from monox_kit.errors import ConfigError, ModelError, StoreMismatch
from monox_kit.evaluation.run import EvaluateConfig, evaluate
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.folder import BundleRecord
from monox_kit.models.load import load_model
from monox_kit.models.long_texts import Long, reduced, window_starts
from monox_kit.models.scoring import BatchDone, score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.prediction.config import PredictConfig
from monox_kit.prediction.run import predict
from monox_kit.store import LogitStore
from monox_kit.training.config import LoopConfig, StudentConfig, TeacherConfig
from monox_kit.training.run import train_student, train_teacher
from tests.integration.test_scoring import Sums, documents
from tests.tiny_models import WORDS, bert_classifier, bert_encoder, corpus_of, write_jsonl

CUT = 8
WINDOWS: tuple[Long, ...] = ("windows:mean", "windows:max")
TOPICS = {"games": "game", "mail": "mail", "text": "font"}


def long_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts of 1 to 24 words that end in the word of their label."""
    generator = np.random.Generator(np.random.Philox(seed))
    rows = []
    for number in range(count):
        label = list(TOPICS)[number % 3]
        words = [WORDS[at] for at in generator.integers(0, 18, int(generator.integers(1, 24)))]
        text = " ".join([*words, TOPICS[label]])
        rows.append({"id": f"{number}", "text": text, "label": label, "lang": "en"})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    for name, count, seed in (("train", 30, 1), ("dev", 9, 2), ("test.de", 12, 3)):
        write_jsonl(folder / f"{name}.jsonl", long_rows(count, seed))
    bert_encoder(folder / "encoder")
    bert_classifier(folder / "model")
    return folder


def loop(**changes: Any) -> LoopConfig:
    values = {"max_steps": 4, "batch_size": 4, "max_length": CUT, "precision": "fp32", **changes}
    return LoopConfig(**values)


def teacher(files: Path, out: Path, **changes: Any) -> Any:
    config = TeacherConfig(
        model=str(files / "encoder"),
        train=corpus_of(files / "train.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=loop(**changes),
    )
    return train_teacher(config, out)


def student(files: Path, store: Path, out: Path, **changes: Any) -> Any:
    config = StudentConfig(
        model=str(files / "encoder"),
        method="kd",
        dev=corpus_of(files / "dev.jsonl"),
        store=(store,),
        loop=loop(**changes),
    )
    return train_student(config, out)


def labelled(files: Path, store: Path, **changes: Any) -> LogitStore:
    values: dict[str, Any] = {
        "model": str(files / "model"), "teacher": "torch", "max_length": CUT,
        "corpus": corpus_of(files / "train.jsonl"), "shard_rows": 16, **changes,
    }  # fmt: skip
    label_corpus(LabelConfig(**values), store)
    return LogitStore.open(store, verify="full")


@given(length=st.integers(2, 500), budget=st.integers(1, 60))
def test_windows_are_full_few_and_cover_a_text(length: int, budget: int) -> None:
    if length <= budget:
        return
    starts = window_starts(length, budget)
    assert starts[0] == 0 and starts[-1] == length - budget
    assert len(starts) == -(-length // budget)
    steps = np.diff(starts)
    assert (steps > 0).all() and (steps <= budget).all() and np.ptp(steps) <= 1


@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI_LABEL])
@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_logits_of_windows_become_those_of_texts(
    problem_type: Any, sizes: list[int], seed: int
) -> None:
    generator = np.random.Generator(np.random.Philox(seed))
    labels = LabelSet(("a", "b", "c"), problem_type)
    logits = generator.normal(size=(sum(sizes), 3)).astype(np.float32) * 5
    windows = np.array(sizes, np.int64)
    means = reduced(logits, windows, "windows:mean", labels)
    most = reduced(logits, windows, "windows:max", labels)
    start = 0
    for row, size in enumerate(sizes):
        own = logits[start : start + size].astype(np.float64)
        start += size
        if size == 1:
            np.testing.assert_array_equal(means[row], own[0])
            np.testing.assert_array_equal(most[row], own[0])
            continue
        np.testing.assert_allclose(means[row], own.mean(axis=0), rtol=1e-5)
        if problem_type == MULTI_LABEL:
            np.testing.assert_allclose(most[row], own.max(axis=0), rtol=1e-6)
            continue
        shares = np.exp(own) / np.exp(own).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(np.exp(most[row]), shares.max(axis=0), rtol=1e-4)


_TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=20
)


@pytest.mark.parametrize("long", WINDOWS)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=_TEXTS, budget=st.integers(8, 200))
def test_every_text_has_the_logits_of_its_own_windows(
    files: Path, long: Long, texts: list[str], budget: int
) -> None:
    """Whatever shares a batch: windows are made, scored and reduced here one by one."""
    tokenizer, whole = Tokenizer(files / "model", CUT, long), Tokenizer(files / "model", 512)
    done: list[BatchDone] = []
    classifier = Sums()
    found = score(
        classifier, tokenizer, documents(texts), batch_tokens=budget, on_batch=done.append
    )
    count = 0
    expected: dict[str, Logits] = {}
    for text in texts:
        ids = whole.encode([text]).input_ids
        rows = [ids]
        if len(ids) > CUT:
            body, inner = ids[1:-1], CUT - 2
            starts = window_starts(len(body), inner)
            rows = [np.r_[ids[:1], body[at : at + inner], ids[-1:]] for at in starts]
        count += 0 if text in expected else len(rows)
        logits = np.array([[row.sum(), len(row)] for row in rows], np.float32)
        sizes = np.array([len(rows)], np.int64)
        expected[text] = reduced(logits, sizes, long, classifier.labels)[0]
    np.testing.assert_array_equal(found.logits, np.stack([expected[text] for text in texts]))
    assert classifier.rows == count
    assert sum(one.num_rows for one in done) == len(texts)
    assert sum(one.num_tokens for one in done) == found.num_tokens
    assert not found.truncated.any() and found.truncation.num_truncated_rows == 0


def test_short_texts_have_the_same_logits_under_every_policy(files: Path) -> None:
    texts = ["alpha beta", "game", "mu nu xi"]
    head = mk.load(str(files / "model"), max_length=CUT).logits(texts)
    for long in ("head-tail", *WINDOWS):
        model = mk.load(str(files / "model"), max_length=CUT, long=long)  # type: ignore[arg-type]
        np.testing.assert_array_equal(model.logits(texts), head)


def test_what_a_model_was_trained_with_is_what_every_command_does(
    files: Path, tmp_path: Path
) -> None:
    """Teacher, bundle, store, student and predictions read head and tail; nobody is told again."""
    trained = teacher(files, tmp_path / "teacher", long="head-tail")
    assert BundleRecord.read(tmp_path / "teacher" / "monoxkit.json").long == "head-tail"
    assert teacher(files, tmp_path / "teacher", long="head-tail").reused and not trained.reused
    told = mk.load(str(tmp_path / "teacher"), long="head")
    texts = [row["text"] for row in long_rows(12, 3)]
    own = mk.load(str(tmp_path / "teacher"))
    assert own.loaded.tokenizer.long == "head-tail"
    assert np.abs(own.logits(texts) - told.logits(texts)).max() > 2e-5
    export_model(ExportConfig(model=str(tmp_path / "teacher")), tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle" / "monoxkit.json").read_text())["long"] == "head-tail"
    assert "head-tail" in (tmp_path / "bundle" / "README.md").read_text()
    bundle = mk.load(str(tmp_path / "bundle"), check=True)
    np.testing.assert_allclose(bundle.logits(texts), own.logits(texts), atol=2e-6)
    store = labelled(
        files, tmp_path / "store", model=str(tmp_path / "bundle"), teacher="onnx", max_length=None
    )
    assert store.manifest.fingerprint["long"] == "head-tail"
    stored = [row["text"] for row in long_rows(30, 1)]
    np.testing.assert_allclose(store.logits(slice(None)), bundle.logits(stored), atol=2e-6)
    with pytest.raises(ConfigError, match=r"`store` .*`long` head-tail, .*as head\. Give `long`"):
        student(files, tmp_path / "store", tmp_path / "student")
    student(files, tmp_path / "store", tmp_path / "student", long="head-tail")
    test = corpus_of(files / "test.de.jsonl")
    report = evaluate(EvaluateConfig(model=str(tmp_path / "student"), test=test))
    assert report.long == "head-tail" and report.truncation["num_truncated_rows"] > 0
    made = predict(PredictConfig(model=str(tmp_path / "student"), input=test), tmp_path / "p.jsonl")
    run = json.loads((tmp_path / "p.jsonl.run.json").read_text())["run"]
    assert run["long"] == "head-tail" and not made.reused
    with pytest.raises(ConfigError, match="long"):
        config = PredictConfig(model=str(tmp_path / "student"), input=test, long="windows:mean")
        predict(config, tmp_path / "p.jsonl")


def test_the_head_is_what_it_was_before_there_was_a_choice(files: Path, tmp_path: Path) -> None:
    plain = labelled(files, tmp_path / "plain")
    asked = labelled(files, tmp_path / "asked", long="head")
    assert "long" not in plain.manifest.fingerprint and plain.digest == asked.digest
    first = teacher(files, tmp_path / "teacher")
    assert teacher(files, tmp_path / "teacher", long="head").reused and not first.reused
    record = json.loads((tmp_path / "teacher" / "monoxkit.json").read_text())
    assert "long" not in record["provenance"]["run"] and record["long"] == "head"
    del record["long"]  # as records of 0.1.0 are
    (tmp_path / "teacher" / "monoxkit.json").write_text(json.dumps(record))
    assert load_model(str(tmp_path / "teacher")).tokenizer.long == "head"
    record["long"] = "middle"
    (tmp_path / "teacher" / "monoxkit.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="expected long as monoxkit writes it, found 'middle'"):
        load_model(str(tmp_path / "teacher"))


@pytest.mark.parametrize("long", WINDOWS)
def test_windows_label_and_evaluate_on_both_backends(
    files: Path, tmp_path: Path, long: Long
) -> None:
    export_model(ExportConfig(model=str(files / "model"), max_length=CUT), tmp_path / "bundle")
    by_torch = labelled(files, tmp_path / "torch", long=long)
    bundle = str(tmp_path / "bundle")
    by_onnx = labelled(files, tmp_path / "onnx", model=bundle, teacher="onnx", long=long)
    values = [store.logits(slice(None)) for store in (by_torch, by_onnx)]
    np.testing.assert_allclose(*values, atol=1e-3)
    heads = labelled(files, tmp_path / "head").logits(slice(None))
    lengths = (
        Tokenizer(files / "model", 512).encode([row["text"] for row in long_rows(30, 1)]).lengths
    )
    same = (values[0] == heads).all(axis=1)
    assert same[lengths <= CUT].all() and not same[lengths > CUT].any()
    complete = json.loads((tmp_path / "torch" / "complete.json").read_text())["summary"]
    assert complete["rows"] == 30 and complete["num_truncated_rows"] == 0
    assert complete["num_tokens"] > lengths.sum()
    with pytest.raises(StoreMismatch, match=r"what is read of longer texts.*windows"):
        labelled(files, tmp_path / "torch")
    with pytest.raises(ConfigError, match=rf"`long` {long}.* and the student .*as head"):
        student(files, tmp_path / "torch", tmp_path / "student")
    assert not student(files, tmp_path / "torch", tmp_path / "student", long="head").reused
    test = corpus_of(files / "test.de.jsonl")
    report = evaluate(EvaluateConfig(model=bundle, test=test, long=long))
    assert report.long == long and report.truncation["num_truncated_rows"] == 0


def test_a_bundle_may_read_windows_by_itself(files: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        model=str(files / "model"), max_length=CUT, long="windows:mean",
        check=corpus_of(files / "train.jsonl"), calibration_rows=6, precision="int8-static",
        min_agreement=0.0,
    )  # fmt: skip
    export_model(config, tmp_path / "bundle")
    model = mk.load(str(tmp_path / "bundle"), check=True)
    assert model.loaded.tokenizer.long == "windows:mean"
    text = " ".join(WORDS[:18])
    assert not model.predict([text])[0].truncated
    assert mk.load(str(tmp_path / "bundle"), long="head").predict([text])[0].truncated
    with pytest.raises(ModelError, match=r"head of long texts, and this model windows:mean"):
        export_model(dataclasses.replace(config, layout="tei"), tmp_path / "tei")


def test_windows_are_refused_where_they_have_no_meaning(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`long` windows:mean: a model is trained on one row"):
        teacher(files, tmp_path / "teacher", long="windows:mean")
    model = mk.load(str(files / "model"), max_length=CUT, long="windows:max")
    with pytest.raises(ConfigError, match=r"`long` windows:max: it is for single texts"):
        model.predict([("alpha", "beta")])
    with pytest.raises(ConfigError, match="`long`: expected 'head'"):
        EvaluateConfig(model="m", test=corpus_of(files / "dev.jsonl"), long="tail")  # type: ignore[arg-type]
