"""Training at its public seam, on tiny random models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.digest import digest_file
from monox_kit.errors import (
    ConfigError,
    LabelMismatchError,
    StoreCorrupt,
)
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.folder import BundleRecord
from monox_kit.training import checkpoint
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig, TeacherConfig
from monox_kit.training.run import train_student, train_teacher
from tests.notes import Notes
from tests.stopped_training import Killed, before_step, kill
from tests.tiny_models import (
    bert_classifier,
    bert_encoder,
    corpus_of,
    labelled_rows,
    weights,
    write_jsonl,
)

LOOP = LoopConfig(
    max_steps=6, batch_size=4, learning_rate=5e-3, max_length=16, eval_every=3, checkpoint_every=2
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(24, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(12, seed=2))
    unlabelled = [{"id": r["id"], "text": r["text"]} for r in labelled_rows(40, seed=3)]
    write_jsonl(folder / "unlabelled.jsonl", unlabelled)
    bert_encoder(folder / "encoder")
    bert_classifier(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def store(files: Path) -> Path:
    corpus = corpus_of(files / "train.jsonl", files / "unlabelled.jsonl")
    config = LabelConfig(teacher="torch", model=str(files / "teacher"), corpus=corpus)
    label_corpus(config, files / "store")
    return files / "store"


def teacher_config(files: Path, loop_config: LoopConfig = LOOP) -> TeacherConfig:
    return TeacherConfig(
        model=str(files / "encoder"),
        train=corpus_of(files / "train.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=loop_config,
    )


def student_config(files: Path, method: str, **changes: object) -> StudentConfig:
    config = StudentConfig(
        model=str(files / "encoder"),
        method=method,  # type: ignore[arg-type]
        store=() if method == "ce" else (files / "store",),
        labelled=corpus_of(files / "train.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=replace(LOOP, embeddings="frozen"),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def test_a_teacher_learns_what_its_labels_say(files: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "many.jsonl", labelled_rows(90, seed=7))
    settings = replace(
        LOOP, max_steps=200, eval_every=50, batch_size=16, learning_rate=3e-3, max_length=48
    )
    config = replace(teacher_config(files, settings), train=corpus_of(rows))
    summary = train_teacher(config, tmp_path / "teacher")
    # The topic word decides. Chance is 1/3 with a loss of ln 3; 12 rows, so no finer bound.
    assert summary.dev_accuracy >= 0.6
    assert summary.dev_loss < 0.8 * np.log(3)
    assert summary.counts == {"gold_rows": 90}
    assert not (tmp_path / "teacher.checkpoints").exists()


@pytest.mark.parametrize(
    ("method", "stop_at"), [("ce", 1), ("ce", 5), ("pl", 3), ("kd", 4), ("kd", 7)]
)
def test_a_killed_run_ends_with_the_same_bits(
    files: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    stop_at: int,
) -> None:
    """Dropout on, parts frozen, killed within and after the first epoch (5 or fewer steps)."""
    config = student_config(
        files, method, loop=replace(LOOP, max_steps=8, batch_size=16, freeze_layers=1)
    )
    whole = train_student(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, stop_at, kill)
        with pytest.raises(Killed):
            train_student(config, tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    resumed = train_student(config, tmp_path / "resumed")
    assert resumed.history == whole.history
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "resumed"))
    assert digest_file(first) == digest_file(second)


def test_a_finished_run_is_reused_and_another_is_refused(files: Path, tmp_path: Path) -> None:
    first = train_teacher(teacher_config(files), tmp_path / "teacher")
    again = train_teacher(teacher_config(files), tmp_path / "teacher")
    assert again.reused and not first.reused
    assert again.dev_accuracy == first.dev_accuracy
    with pytest.raises(ConfigError, match=r"`learning_rate` differs: 0\.005 then, 0\.001 now"):
        train_teacher(
            teacher_config(files, replace(LOOP, learning_rate=1e-3)), tmp_path / "teacher"
        )


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: checkpoint.Checkpoints, progress: object) -> None:
        raise Killed

    whole = train_teacher(teacher_config(files), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "remove", killed)
        with pytest.raises(Killed):
            train_teacher(teacher_config(files), tmp_path / "teacher")
    (newest,) = sorted((tmp_path / "teacher.checkpoints").glob("step-*"))[-1:]
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    (tmp_path / "teacher").rename(tmp_path / "moved")
    progress = Notes()
    resumed = train_teacher(teacher_config(files), tmp_path / "teacher", progress=progress)
    expected = f"{newest}/optimizer.safetensors: expected digest"
    assert sum(expected in note for note in progress.notes) == 1
    assert progress.notes[0].endswith("games 8, mail 8, text 8")  # the classes are shown first
    assert resumed.history == whole.history
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "teacher"))
    assert digest_file(first) == digest_file(second)


@pytest.mark.parametrize("method", ["ce", "pl", "kd"])
def test_frozen_parts_keep_their_pretrained_values(
    files: Path, store: Path, tmp_path: Path, method: str
) -> None:
    config = student_config(files, method, loop=replace(LOOP, freeze_layers=1))
    train_student(config, tmp_path / method)
    before, after = weights(files / "encoder"), weights(tmp_path / method)
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(after[f"bert.{name}"], before[name])
    lower = "encoder.layer.0.output.dense.weight"
    np.testing.assert_array_equal(after[f"bert.{lower}"], before[lower])
    upper = "encoder.layer.1.output.dense.weight"
    assert np.abs(after[f"bert.{upper}"] - before[upper]).max() > 0


def test_each_method_trains_on_the_rows_that_the_paper_gives_it(
    files: Path, store: Path, tmp_path: Path
) -> None:
    counts = {
        method: train_student(student_config(files, method), tmp_path / method).counts
        for method in ("ce", "pl", "kd")
    }
    assert counts["ce"] == {"gold_rows": 24}
    assert counts["kd"] == {"soft_rows": 64}
    assert counts["pl"]["gold_rows"] == 24
    # Equal texts of the unlabelled file and the labelled one count as gold too.
    left_out = counts["pl"]["store_rows_with_gold_text"]
    assert counts["pl"]["pseudo_labelled_rows"] == 64 - left_out
    assert left_out >= 24


def test_a_threshold_of_one_half_keeps_the_confident_rows(
    files: Path, store: Path, tmp_path: Path
) -> None:
    everything = train_student(student_config(files, "pl"), tmp_path / "all").counts
    config = student_config(files, "pl", objective=ObjectiveConfig(threshold=0.5))
    some = train_student(config, tmp_path / "some").counts
    below = some["below_threshold_rows"]
    assert 0 < below < 64
    assert some["pseudo_labelled_rows"] < everything["pseudo_labelled_rows"]


def test_single_texts_and_pairs_do_not_mix(files: Path, store: Path, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", labelled_rows(9, seed=8, pairs=True))
    config = student_config(files, "pl", labelled=corpus_of(pairs))
    with pytest.raises(ConfigError, match="`store`, `labelled`: "):
        train_student(config, tmp_path / "student")


def test_a_flipped_bit_in_a_store_is_found(files: Path, store: Path, tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "store"
    shutil.copytree(store, damaged)
    path = damaged / "shards" / "000000" / "logits.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"logits\.npy"):
        train_student(student_config(files, "kd", store=(damaged,)), tmp_path / "student")


def test_a_folder_of_other_files_beside_the_output_is_kept(files: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher.checkpoints").mkdir()
    (tmp_path / "teacher.checkpoints" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"checkpoints: .* thesis\.tex"):
        train_teacher(teacher_config(files), tmp_path / "teacher")
    assert (tmp_path / "teacher.checkpoints" / "thesis.tex").exists()


def test_runs_of_another_precision_follow_in_one_process(files: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        config = teacher_config(files, replace(LOOP, precision=precision, max_steps=1))
        assert train_teacher(config, tmp_path / precision).precision == precision


def test_labels_beside_files_of_a_glob_count_and_beside_urls_are_said_not_to(
    files: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "text" / "train.jsonl", labelled_rows(24, seed=1))
    (tmp_path / "text" / "labels.json").write_text('{"names": ["text", "mail", "games"]}')
    content = (tmp_path / "text" / "train.jsonl").read_bytes()
    fsspec.filesystem("memory").pipe("/labels/train.jsonl", content)
    settings = replace(LOOP, max_steps=1)
    for number, (path, first, told) in enumerate(
        (
            (f"{tmp_path}/t*t/train.jsonl", "text", False),
            (f"file://{tmp_path}/text/train.jsonl", "text", False),
            ("memory://labels/train.jsonl", "games", True),
        )
    ):
        config = replace(teacher_config(files, settings), train=CorpusConfig(paths=(path,)))
        progress = Notes()
        train_teacher(config, tmp_path / f"{number}", progress=progress)
        labels = BundleRecord.read(tmp_path / f"{number}" / "monoxkit.json").labels
        assert labels.names[0] == first
        assert any("labels.json is looked for" in note for note in progress.notes) == told
        assert any("stands beside" in note for note in progress.notes) == (not told)


def test_a_store_of_other_labels_is_refused(files: Path, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text('{"names": ["games", "post", "text"]}')
    with pytest.raises(LabelMismatchError, match="label 1 'mail' here and 'post' there"):
        train_student(student_config(files, "kd", labels=labels), tmp_path / "student")


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("ce", {"labelled": None, "store": ()}, "labelled"),
        ("pl", {"labelled": None}, "labelled"),
        ("pl", {"store": ()}, "store"),
        ("kd", {"store": ()}, "store"),
        ("ce", {"store": (Path("store"),)}, "`store` .*: .* `method` pl or kd"),
        ("self-training", {"store": (Path("store"),)}, "`store` .*: .* `method` pl or kd"),
        ("kd", {"combine": "average"}, "`combine` average: expected at least 2 stores, found 1"),
    ],
)
def test_what_a_method_needs_and_does_not_get_is_named(
    files: Path, store: Path, tmp_path: Path, method: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_student(student_config(files, method, **changes), tmp_path / "student")


def test_more_frozen_layers_than_the_model_has_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most the model's 2 layers, found 3"):
        train_teacher(teacher_config(files, replace(LOOP, freeze_layers=3)), tmp_path / "teacher")


def test_a_trained_model_exports(files: Path, tmp_path: Path) -> None:
    train_teacher(teacher_config(files), tmp_path / "teacher")
    summary = export_model(ExportConfig(model=str(tmp_path / "teacher")), tmp_path / "bundle")
    assert summary.candidates["fp32"]["agreement"]["max_delta"] < 1e-4
