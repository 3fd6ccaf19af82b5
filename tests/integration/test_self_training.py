"""Self-training's rounds on tiny random models: what each learns from, resuming, refusing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.digest import digest_file
from monox_kit.errors import ConfigError, ModelError, StorageError
from monox_kit.models.folder import BundleRecord
from monox_kit.store import LogitStore
from monox_kit.training import log, self_training
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig
from monox_kit.training.run import train_student
from monox_kit.training.step import Stepper
from monox_kit.training.summary import TrainingSummary
from tests.stopped_training import Killed
from tests.tiny_models import bert_encoder, corpus_of, labelled_rows, write_jsonl

LOOP = LoopConfig(
    max_steps=4,
    batch_size=8,
    learning_rate=5e-3,
    max_length=16,
    eval_every=2,
    checkpoint_every=2,
    precision="fp32",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(18, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(12, seed=2))
    # Another task's labels, which are not looked at.
    unlabelled = [{**row, "label": f"kind {i}"} for i, row in enumerate(labelled_rows(30, seed=3))]
    write_jsonl(folder / "unlabelled.jsonl", unlabelled)
    bert_encoder(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def finished(files: Path) -> tuple[Path, TrainingSummary]:
    """An uninterrupted run of two rounds after the first."""
    return files / "whole", train_student(config_of(files), files / "whole")


def config_of(files: Path, **changes: Any) -> StudentConfig:
    config = StudentConfig(
        model=str(files / "encoder"),
        method="self-training",
        labelled=corpus_of(files / "train.jsonl"),
        unlabelled=corpus_of(files / "unlabelled.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=LOOP,
    )
    return replace(config, **changes)


def copied(run: Path, to: Path) -> Path:
    """A finished run with its rounds."""
    shutil.copytree(run, to)
    shutil.copytree(run.parent / f"{run.name}.rounds", to.parent / f"{to.name}.rounds")
    return to


def test_each_round_learns_from_the_labels_of_the_one_before(
    files: Path, finished: tuple[Path, TrainingSummary]
) -> None:
    out, summary = finished
    rounds = out.parent / "whole.rounds"
    assert [each["num_steps"] for each in summary.rounds] == [4, 4, 4]
    assert summary.num_steps == 12
    assert summary.rounds[0]["counts"] == {"gold_rows": 18}
    for number in (1, 2):
        store = LogitStore.open(rounds / f"round-{number:02d}" / "store", verify="full")
        record = summary.rounds[number]
        assert record["store_digest"] == store.digest
        assert len(store) == 30 and store.info().num_labelled == 0
        left_out = record["counts"]["store_rows_with_gold_text"]
        assert record["counts"]["pseudo_labelled_rows"] == 30 - left_out
        assert record["num_rows"] == 18 + 30 - left_out
        before = BundleRecord.read(rounds / f"round-{number - 1:02d}" / "model" / "monoxkit.json")
        assert before.provenance["summary"]["dev_loss"] == summary.rounds[number - 1]["dev_loss"]
    first, second = (LogitStore.open(rounds / f"round-0{n}" / "store") for n in (1, 2))
    assert np.abs(first.logits(slice(None)) - second.logits(slice(None))).max() > 0


def test_each_round_has_a_board_of_its_own(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scalars: dict[str, list[int]] = {}

    class Board:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            self.steps = scalars.setdefault(log_dir, [])

        def add_scalar(self, name: str, value: float, step: int) -> None:
            if name == "step/loss":
                self.steps.append(step)

        def flush(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(log, "_board_class", lambda: Board)
    loop = replace(LOOP, max_steps=2, tensorboard=str(tmp_path / "board"))
    train_student(config_of(files, loop=loop, rounds=1), tmp_path / "student")
    assert scalars == {f"{tmp_path}/board/round-{number:02d}": [1, 2] for number in (0, 1)}


def test_a_kept_model_that_was_changed_is_not_taken_for_finished(
    files: Path, finished: tuple[Path, TrainingSummary], tmp_path: Path
) -> None:
    out = copied(finished[0], tmp_path / "copy")
    content = bytearray((out / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="copy: expected model_digest"):
        train_student(config_of(files), out)


def test_round_zero_is_training_on_gold_labels_alone(
    files: Path, finished: tuple[Path, TrainingSummary], tmp_path: Path
) -> None:
    ce = replace(config_of(files), method="ce", unlabelled=None)
    train_student(ce, tmp_path / "ce")
    ours = files / "whole.rounds" / "round-00" / "model" / "model.safetensors"
    assert digest_file(tmp_path / "ce" / "model.safetensors") == digest_file(ours)


def test_the_round_with_the_best_dev_result_is_kept(
    finished: tuple[Path, TrainingSummary],
) -> None:
    out, summary = finished
    kept = [each for each in summary.rounds if each["kept"]]
    assert len(kept) == 1
    best = max(summary.rounds, key=lambda each: (each["dev_accuracy"], -each["dev_loss"]))
    assert kept == [best]
    assert (summary.dev_accuracy, summary.dev_loss) == (best["dev_accuracy"], best["dev_loss"])
    model = out.parent / "whole.rounds" / f"round-{best['round']:02d}" / "model"
    assert digest_file(out / "model.safetensors") == digest_file(model / "model.safetensors")
    assert {path.name for path in out.iterdir()} == {path.name for path in model.iterdir()}
    record = BundleRecord.read(out / "monoxkit.json")
    assert record.provenance["run"]["method"] == "self-training"
    assert json.loads(json.dumps(summary.to_record())) == record.provenance["summary"]
    card = (out / "README.md").read_text()
    assert f"| {best['round']} (kept) |" in card
    assert [entry["round"] for entry in summary.history] == [0, 0, 1, 1, 2, 2]


def test_a_finished_run_returns_at_once_without_its_rounds(
    files: Path, finished: tuple[Path, TrainingSummary], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    again = train_student(config_of(files), out)
    assert again.reused
    assert list(again.rounds) == list(finished[1].rounds)
    assert not (tmp_path / "out.rounds").exists()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("learning_rate", {"loop": replace(LOOP, learning_rate=1e-3)}),
        ("threshold", {"objective": ObjectiveConfig(threshold=0.4)}),
        ("rounds", {"rounds": 1}),
    ],
)
def test_another_run_is_refused_by_name(
    files: Path,
    finished: tuple[Path, TrainingSummary],
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
) -> None:
    out = copied(finished[0], tmp_path / "out")
    with pytest.raises(ConfigError, match=f"out: .*`{name}` differs"):
        train_student(config_of(files, **changes), out)
    shutil.rmtree(out)
    if name != "rounds":
        with pytest.raises(ConfigError, match=rf"out\.rounds: .*`{name}` differs"):
            train_student(config_of(files, **changes), out)


def test_other_unlabelled_text_is_refused_by_name(
    files: Path, finished: tuple[Path, TrainingSummary], tmp_path: Path
) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", labelled_rows(8, seed=9))
    out = copied(finished[0], tmp_path / "out")
    shutil.rmtree(out)
    with pytest.raises(ConfigError, match=r"out\.rounds: .*text of `unlabelled`"):
        train_student(config_of(files, unlabelled=corpus_of(other)), out)


def test_more_rounds_go_on_from_those_that_are_there(
    files: Path,
    finished: tuple[Path, TrainingSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = copied(finished[0], tmp_path / "out")
    shutil.rmtree(out)
    steps = counted(monkeypatch, Stepper, "take")
    summary = train_student(config_of(files, rounds=3), out)
    assert len(steps) == 4
    assert len(summary.rounds) == 4
    for ours, theirs in zip(summary.rounds, finished[1].rounds):
        assert {**ours, "kept": None} == {**theirs, "kept": None}


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """The calls of a function from now on."""
    calls: list[int] = []
    original: Callable[..., Any] = getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counting)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "at", "steps_left"),
    [
        (Stepper, "take", 3, 10),  # in round 0, behind its checkpoint at step 2
        (self_training, "label_corpus", 0, 8),  # between training and labelling
        (self_training, "train_objective", 1, 8),  # between labelling and training
        (Stepper, "take", 7, 6),  # in round 1
        (self_training, "_commit", 0, 0),
    ],
)
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bits(
    files: Path,
    finished: tuple[Path, TrainingSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    at: int,
    steps_left: int,
) -> None:
    whole, summary = finished
    original = getattr(owner, name)
    calls: list[int] = []

    def killed(*arguments: Any, **options: Any) -> Any:
        if len(calls) == at:
            raise Killed
        calls.append(1)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            train_student(config_of(files), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    steps = counted(monkeypatch, Stepper, "take")
    resumed = train_student(config_of(files), tmp_path / "out")
    assert len(steps) == steps_left
    assert resumed.history == summary.history
    for ours, theirs in zip(resumed.rounds, summary.rounds):
        assert ours["store_digest"] == theirs["store_digest"]
    first, second = whole / "model.safetensors", tmp_path / "out" / "model.safetensors"
    assert digest_file(first) == digest_file(second)


def test_several_processes_are_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"`method` self-training: .* 2 were started"):
        train_student(config_of(files), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_sets_that_choose_the_weights_choose_the_round(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = [{**row, "lang": "de"} for row in labelled_rows(15, seed=11)]
    write_jsonl(tmp_path / "dev.de.jsonl", german)
    results = [
        {"dev": {"accuracy": 0.9 - n / 10, "loss": 1.0, "rows": 12.0}, "de": de}
        for n, de in enumerate(
            {"accuracy": accuracy, "loss": loss, "rows": 15.0}
            for accuracy, loss in ((0.2, 0.5), (0.4, 1.1), (0.4, 1.0))
        )
    ]
    original = self_training.train_objective

    def with_results(config: StudentConfig, out: Path, **options: Any) -> TrainingSummary:
        found = results[int(out.parent.name.removeprefix("round-"))]
        return replace(
            original(config, out, **options),
            dev_accuracy=found["dev"]["accuracy"],
            dev_loss=found["dev"]["loss"],
            dev_sets=found,
        )

    monkeypatch.setattr(self_training, "train_objective", with_results)
    config = config_of(files, report_dev=corpus_of(tmp_path / "dev.de.jsonl"), select_on=("de",))
    summary = train_student(config, tmp_path / "out")
    assert [each["kept"] for each in summary.rounds] == [False, False, True]
    assert summary.dev_sets == results[2]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| 2 (kept) |" in card and "results in these languages are not zero-shot" in card
    kept = tmp_path / "out.rounds" / "round-02" / "model" / "training.jsonl"
    assert (tmp_path / "out" / "training.jsonl").read_bytes() == kept.read_bytes()


def test_a_folder_of_other_files_beside_the_output_is_kept(files: Path, tmp_path: Path) -> None:
    rounds = tmp_path / "out.rounds"
    rounds.mkdir()
    (rounds / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"out\.rounds: .*thesis\.tex"):
        train_student(config_of(files), tmp_path / "out")
    (rounds / "run.json").write_text("{")
    with pytest.raises(StorageError, match=r"run\.json: expected the record of a run"):
        train_student(config_of(files), tmp_path / "out")


def test_what_self_training_needs_and_does_not_get_is_named(files: Path, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", labelled_rows(6, seed=8, pairs=True))
    for message, changes in {
        "`unlabelled`: .* text to label": {"unlabelled": None},
        "`labelled`: ": {"labelled": None},
        "`unlabelled`: .*pairs": {"unlabelled": corpus_of(pairs)},
        "`unlabelled` .*: .* `method` self-training": {"method": "ce"},
        "`rounds` 3: .* `method` self-training": {
            "method": "ce",
            "unlabelled": None,
            "rounds": 3,
        },
        "`alpha` 0.5: .* `method` kd": {"objective": ObjectiveConfig(alpha=0.5)},
        "`combine` average: .* `method` pl or kd": {"combine": "average"},
        "`store_weight` 1.0: .*`combine` average": {"store_weight": (1.0,)},
    }.items():
        with pytest.raises(ConfigError, match=message):
            train_student(config_of(files, **changes), tmp_path / "out")
    assert not (tmp_path / "out.rounds").exists()
