"""The training loop at its seams: gradients, dev sets, signals, what is not finite, the log."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from monox_kit.digest import digest_file
from monox_kit.durable import AppendedFile
from monox_kit.errors import (
    CheckpointError,
    ConfigError,
    CorpusError,
    ModelError,
    MonoxError,
    NotFinite,
    StorageError,
    StoreError,
)
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.progress import Silent
from monox_kit.store import LogitStore
from monox_kit.training import training_run
from monox_kit.training.batches import Batch, Batches
from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.config import LoopConfig, StudentConfig, TeacherConfig
from monox_kit.training.evaluate import Evaluator
from monox_kit.training.log import TrainingLog
from monox_kit.training.run import train_student, train_teacher
from monox_kit.training.step import Stepper
from monoxkit_cli.app import main
from tests.notes import Notes
from tests.stopped_training import Killed, before_step, kill
from tests.tiny_models import bert_classifier, bert_encoder, corpus_of, labelled_rows, write_jsonl

LOOP = LoopConfig(
    max_steps=8,
    batch_size=5,
    learning_rate=5e-3,
    max_length=16,
    eval_every=3,
    checkpoint_every=2,
    precision="fp32",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(24, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(12, seed=2))
    for seed, lang in enumerate(("de", "fr"), 3):
        rows = [{**row, "lang": lang} for row in labelled_rows(9 + seed, seed=seed)]
        write_jsonl(folder / f"dev.{lang}.jsonl", rows)
    bert_encoder(folder / "encoder")
    without_dropout(shutil.copytree(folder / "encoder", folder / "still"))
    bert_classifier(folder / "teacher")
    corpus = corpus_of(folder / "train.jsonl")
    config = LabelConfig(teacher="torch", model=str(folder / "teacher"), corpus=corpus)
    label_corpus(config, folder / "store")
    return folder


def without_dropout(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def config_of(files: Path, **loop: Any) -> TeacherConfig:
    return TeacherConfig(
        model=str(files / "encoder"),
        train=corpus_of(files / "train.jsonl"),
        dev=corpus_of(files / "dev.jsonl"),
        loop=replace(LOOP, **loop),
    )


def student_of(files: Path, **changes: Any) -> StudentConfig:
    config = StudentConfig(
        model=str(files / "encoder"),
        method="kd",
        store=(files / "store",),
        dev=corpus_of(files / "dev.jsonl"),
        loop=LOOP,
    )
    return replace(config, **changes)


def events(path: Path, name: str) -> list[dict[str, Any]]:
    """The log's events of one name, from a finished model's folder or a checkpoints' folder."""
    log = next(p for p in (path / "training.jsonl", path / "log.jsonl") if p.exists())
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in found if event["event"] == name]


# Gradients


@pytest.mark.parametrize("accumulate", [2, 3, 9])
def test_micro_batches_change_the_rounding_alone(
    files: Path, tmp_path: Path, accumulate: int
) -> None:
    """Five rows in parts of 3 + 2, 2 + 2 + 1 and 1 each; the last batch of the epoch has four."""
    still = replace(config_of(files), model=str(files / "still"))
    parts = replace(still, loop=replace(LOOP, accumulate=accumulate))
    train_teacher(still, tmp_path / "whole")
    train_teacher(parts, tmp_path / "parts")
    for one, other in zip(events(tmp_path / "whole", "step"), events(tmp_path / "parts", "step")):
        for key in ("loss", "grad_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-4)
        for key in ("step", "rows", "tokens", "learning_rate"):
            assert other[key] == one[key]


def test_the_first_gradient_is_that_of_the_mean_over_the_rows(files: Path, tmp_path: Path) -> None:
    """Against PyTorch's own: no micro-batches, no clipping, no loop."""
    rows = [json.loads(line) for line in (files / "train.jsonl").read_text().splitlines()]
    names = sorted({row["label"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(files / "still")
    seen: list[tuple[float, float]] = []
    take = Stepper.take

    def compared(self: Stepper, step: int, batch: Batch) -> Any:
        if step == 0:
            chosen = [rows[row] for row in batch.rows]
            encoded = tokenizer(
                [row["text"] for row in chosen],
                padding=True,
                truncation=True,
                max_length=LOOP.max_length,
                return_tensors="pt",
            )
            targets = torch.tensor([names.index(row["label"]) for row in chosen])
            loss = torch.nn.functional.cross_entropy(self._model(**encoded).logits, targets)
            found = torch.autograd.grad(loss, list(self._trainable.values()), allow_unused=True)
            norm = torch.cat([grad.flatten() for grad in found if grad is not None]).norm()
            seen.append((loss.item(), norm.item()))
        return take(self, step, batch)

    config = replace(config_of(files, accumulate=3, max_steps=1), model=str(files / "still"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "take", compared)
        train_teacher(config, tmp_path / "teacher")
    (step,) = events(tmp_path / "teacher", "step")
    assert (step["loss"], step["grad_norm"]) == pytest.approx(seen[0], rel=1e-5)


# Dev sets


def test_patience_ends_the_run_and_the_best_weights_stay(files: Path, tmp_path: Path) -> None:
    # Without a rate worth the name no evaluation is better than the first.
    config = config_of(
        files, learning_rate=1e-12, max_steps=40, eval_every=2, patience=3, checkpoint_every=100
    )
    summary = train_teacher(config, tmp_path / "teacher")
    assert (summary.stopped_early, summary.num_steps) == (True, summary.best_step + 6)
    assert summary.history[-1]["step"] == summary.num_steps
    assert events(tmp_path / "teacher", "end")[0]["stopped_early"] is True
    assert "ended early" in (tmp_path / "teacher" / "README.md").read_text()


def test_an_early_end_comes_at_the_same_step_after_a_kill(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(files, learning_rate=1e-12, max_steps=40, eval_every=2, patience=3)
    whole = train_teacher(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, whole.num_steps - 1, kill)
        with pytest.raises(Killed):
            train_teacher(config, tmp_path / "killed")
    resumed = train_teacher(config, tmp_path / "killed")
    assert (resumed.num_steps, resumed.history) == (whole.num_steps, whole.history)


def test_other_languages_are_reported_and_choose_nothing(files: Path, tmp_path: Path) -> None:
    alone = train_student(student_of(files), tmp_path / "alone")
    reported = corpus_of(files / "dev.de.jsonl", files / "dev.fr.jsonl")
    both = train_student(student_of(files, report_dev=reported), tmp_path / "both")
    assert digest_file(tmp_path / "alone" / "model.safetensors") == digest_file(
        tmp_path / "both" / "model.safetensors"
    )
    assert (both.selected_on, both.history) == (["dev"], alone.history)
    assert {name: result["rows"] for name, result in both.dev_sets.items()} == {
        "dev": 12,
        "de": 12,
        "fr": 13,
    }
    card = (tmp_path / "both" / "README.md").read_text()
    assert "chose the weights. The stores hold text in en." in card
    assert card.count("reported alone") == 4  # in the data, and in the results
    logged = events(tmp_path / "both", "evaluation")[-1]["sets"]
    assert set(logged) == {"dev", "de", "fr"}


def test_select_on_chooses_by_the_mean_and_the_card_says_so(files: Path, tmp_path: Path) -> None:
    config = student_of(
        files,
        report_dev=corpus_of(files / "dev.de.jsonl", files / "dev.fr.jsonl"),
        select_on=("de", "fr"),
    )
    summary = train_student(config, tmp_path / "student")
    assert summary.selected_on == ["de", "fr"]
    for chosen, logged in zip(summary.history, events(tmp_path / "student", "evaluation")):
        for key in ("accuracy", "loss"):
            mean = np.mean([logged["sets"][lang][key] for lang in ("de", "fr")])
            assert chosen[key] == pytest.approx(mean)
    card = (tmp_path / "student" / "README.md").read_text()
    assert "The dev sets de, fr chose the weights, as --select-on asked" in card
    assert "not zero-shot" in card


def test_the_card_tells_data_teacher_store_objective_and_results(
    files: Path, tmp_path: Path
) -> None:
    from monox_kit.store import LogitStore

    summary = train_student(student_of(files), tmp_path / "student")
    card = (tmp_path / "student" / "README.md").read_text()
    store = LogitStore.open(files / "store")
    told = store.manifest.fingerprint
    for part in (
        store.digest,
        told["teacher"],
        told["teacher_digest"],
        told["corpus_digest"],
        "objective `kd`",
        "24 soft rows",
        f"{100 * summary.dev_accuracy:.1f} %",
        "`dev.jsonl`",
    ):
        assert part in card
    assert str(files) not in card
    record = json.loads((tmp_path / "student" / "monoxkit.json").read_text())
    assert record["provenance"]["origin"]["stores"][0]["digest"] == store.digest


@pytest.mark.parametrize(
    ("dev", "labelled", "told"),
    [
        ("dev.jsonl", "train.jsonl", "The dev set, in en, chose the weights. The gold-labelled "),
        ("dev.jsonl", None, "The dev set, in en, chose the weights. The stores hold text in en."),
        (
            "dev.de.jsonl",
            None,
            "The dev set, in de, chose the weights. The stores hold text in en.",
        ),
        ("no-lang.jsonl", "train.jsonl", "The dev set chose the weights. Its rows do not name "),
    ],
)
def test_the_card_says_of_the_dev_sets_language_what_was_checked(
    files: Path, tmp_path: Path, dev: str, labelled: str | None, told: str
) -> None:
    plain = [{k: v for k, v in row.items() if k != "lang"} for row in labelled_rows(6)]
    write_jsonl(tmp_path / "no-lang.jsonl", plain)
    folder = tmp_path if dev == "no-lang.jsonl" else files
    config = student_of(
        files,
        dev=corpus_of(folder / dev),
        labelled=corpus_of(files / labelled) if labelled else None,
        loop=replace(LOOP, max_steps=1),
    )
    train_student(config, tmp_path / "student")
    assert told in (tmp_path / "student" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"select_on": ("de",)}, ConfigError, "`select_on`: .* dev set de, only dev"),
        ({"select_on": ()}, ConfigError, "`select_on`: .* only dev"),
        ({"dev": ("dev.jsonl", "dev.de.jsonl")}, ConfigError, "`dev`: .*: de, en"),
        (
            {"dev": ("dev.de.jsonl",), "labelled": ("train.jsonl",)},
            ConfigError,
            "`dev`: it is in de, .* in en",
        ),
        ({"report_dev": ("no-lang.jsonl",)}, CorpusError, "`report_dev`: row "),
    ],
)
def test_dev_sets_that_would_hide_a_choice_are_refused(
    files: Path, tmp_path: Path, changes: dict[str, Any], error: type[MonoxError], message: str
) -> None:
    plain = [{k: v for k, v in row.items() if k != "lang"} for row in labelled_rows(6)]
    write_jsonl(tmp_path / "no-lang.jsonl", plain)
    for name in ("dev", "report_dev", "labelled"):
        if name in changes:
            folder = tmp_path if "no-lang.jsonl" in changes[name] else files
            changes = {**changes, name: corpus_of(*(folder / path for path in changes[name]))}
    with pytest.raises(error, match=message):
        train_student(student_of(files, **changes), tmp_path / "student")


# What a run depends on, and what it leaves


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"epochs": 3}, {"epochs": 5}),  # max_steps counts
        ({"batch_tokens": 64, "batch_size": 5}, {"batch_tokens": 64, "batch_size": 7}),
        ({"freeze_layers": 1, "embeddings": "full"}, {"freeze_layers": 1, "embeddings": "frozen"}),
    ],
)
def test_a_setting_in_whose_place_another_counts_makes_no_other_run(
    files: Path, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    train_teacher(config_of(files, **first), tmp_path / "teacher")
    assert train_teacher(config_of(files, **second), tmp_path / "teacher").reused


def test_the_order_of_the_sets_to_select_on_makes_no_other_run(files: Path, tmp_path: Path) -> None:
    reported = corpus_of(files / "dev.de.jsonl", files / "dev.fr.jsonl")
    for names in (("de", "fr"), ("fr", "de")):
        config = student_of(files, report_dev=reported, select_on=names)
        assert train_student(config, tmp_path / "student").reused == (names == ("fr", "de"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_finished_model_whose_files_were_changed_is_not_taken_for_finished(
    files: Path, tmp_path: Path, name: str
) -> None:
    train_teacher(config_of(files), tmp_path / "teacher")
    path = tmp_path / "teacher" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    kind = "model" if name.startswith("model") else "tokenizer"
    with pytest.raises(ModelError, match=f"teacher: expected {kind}_digest .* a file was changed"):
        train_teacher(config_of(files), tmp_path / "teacher")
    path.unlink()
    with pytest.raises(ModelError, match=r"teacher: expected .*, found"):
        train_teacher(config_of(files), tmp_path / "teacher")


@pytest.mark.parametrize(
    "loop",
    [
        {"checkpoint_every": 100},
        {"checkpoint_every": 2},
        {"checkpoint_every": 100, "learning_rate": 1e-12, "max_steps": 40, "patience": 1},
    ],
)
def test_a_disk_that_is_full_under_the_model_folder_costs_no_step(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: dict[str, Any]
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("no space")

    whole = train_teacher(config_of(files, **loop), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "save_classifier", refuse)
        with pytest.raises(StorageError):
            train_teacher(config_of(files, **loop), tmp_path / "teacher")
    monkeypatch.setattr(Stepper, "take", lambda *_: pytest.fail("a step was taken again"))
    resumed = train_teacher(config_of(files, **loop), tmp_path / "teacher")
    assert (resumed.num_steps, resumed.history) == (whole.num_steps, whole.history)
    for name in ("checkpoint", "end"):
        steps = [event["step"] for event in events(tmp_path / "teacher", name)]
        assert steps == [event["step"] for event in events(tmp_path / "whole", name)]
        assert len(set(steps)) == len(steps)
    assert digest_file(tmp_path / "teacher" / "model.safetensors") == digest_file(
        tmp_path / "whole" / "model.safetensors"
    )


def test_no_batch_is_drawn_that_is_not_trained_on(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = 0
    after = Batches.after

    def counted(self: Batches, position: Any) -> Iterator[Batch]:
        nonlocal drawn
        for batch in after(self, position):
            drawn += 1
            yield batch

    monkeypatch.setattr(Batches, "after", counted)
    config = config_of(files, learning_rate=1e-12, max_steps=40, eval_every=2, patience=3)
    assert train_teacher(config, tmp_path / "teacher").num_steps == drawn < 40


# Signals


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Signals as in a terminal; a suite in the background may have been started to ignore them."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(files: Path, out: Path) -> list[str]:
    return (
        f"train-teacher --model {files}/encoder --train {files}/train.jsonl --dev "
        f"{files}/dev.jsonl --out {out} --max-steps 8 --batch-size 5 --learning-rate 0.005 "
        "--max-length 16 --eval-every 3 --checkpoint-every 100 --precision fp32 --json"
    ).split()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_at_the_end_of_its_step_with_a_checkpoint(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    number: int,
    code: int,
) -> None:
    assert main(command(files, tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        before_step(patch, 4, lambda _stepper: signal.raise_signal(number))
        assert main(command(files, tmp_path / "stopped")) == code
    checkpoints = tmp_path / "stopped.checkpoints"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-000005"]
    assert [event["step"] for event in events(checkpoints, "step")] == [1, 2, 3, 4, 5]
    assert "saved at step 5 of 8" in capsys.readouterr().err
    assert main(command(files, tmp_path / "stopped")) == 0
    assert digest_file(tmp_path / "stopped" / "model.safetensors") == digest_file(
        tmp_path / "whole" / "model.safetensors"
    )


def in_the_last_save(patch: pytest.MonkeyPatch) -> None:
    save = Checkpoints.save

    def signalled(self: Checkpoints, state: Any) -> None:
        save(self, state)
        if state.step == 8:
            signal.raise_signal(signal.SIGTERM)

    patch.setattr(Checkpoints, "save", signalled)


def at_the_end_of_the_log(patch: pytest.MonkeyPatch) -> None:
    add = TrainingLog.add

    def signalled(self: TrainingLog, event: str, step: int, **values: Any) -> None:
        add(self, event, step, **values)
        if event == "end":
            signal.raise_signal(signal.SIGTERM)

    patch.setattr(TrainingLog, "add", signalled)


def before_the_model_is_written(patch: pytest.MonkeyPatch) -> None:
    save = training_run.save_classifier

    def signalled(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        save(*arguments)

    patch.setattr(training_run, "save_classifier", signalled)


@pytest.mark.parametrize(
    "inject", [in_the_last_save, at_the_end_of_the_log, before_the_model_is_written]
)
def test_a_signal_after_the_last_step_ends_the_run_and_costs_no_step(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inject: Callable[..., None]
) -> None:
    assert main(command(files, tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        inject(patch)
        assert main(command(files, tmp_path / "stopped")) == 143
    assert not (tmp_path / "stopped").exists()
    monkeypatch.setattr(Stepper, "take", lambda *_: pytest.fail("a step was taken again"))
    assert main(command(files, tmp_path / "stopped")) == 0
    assert [event["step"] for event in events(tmp_path / "stopped", "end")] == [8]
    assert digest_file(tmp_path / "stopped" / "model.safetensors") == digest_file(
        tmp_path / "whole" / "model.safetensors"
    )


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_ends_the_run_at_once(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_stepper: Stepper) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    before_step(monkeypatch, 4, twice)
    assert main(command(files, tmp_path / "stopped")) == 143
    assert not list((tmp_path / "stopped.checkpoints").glob("step-*"))


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(command(files, tmp_path / "whole")) == 0
    evaluate = Evaluator.evaluate

    def interrupted(self: Evaluator, classifier: Any, on_batch: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        evaluate(self, classifier, on_batch)
        pytest.fail("the evaluation went on")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", interrupted)
        assert main(command(files, tmp_path / "stopped")) == 143
    # Evaluated when resumed, at the step that asked for it.
    assert main(command(files, tmp_path / "stopped")) == 0
    for name in ("step", "evaluation"):
        steps = [event["step"] for event in events(tmp_path / "stopped", name)]
        assert steps == [event["step"] for event in events(tmp_path / "whole", name)]
    assert digest_file(tmp_path / "stopped" / "model.safetensors") == digest_file(
        tmp_path / "whole" / "model.safetensors"
    )


# What is not finite


def poison(tensors: list[torch.Tensor], value: float) -> None:
    tensors[-1].data.view(-1)[0] = value


def in_store(patch: pytest.MonkeyPatch, value: float) -> None:
    read = LogitStore.logits

    def poisoned(self: LogitStore, rows: Any) -> Any:
        logits = read(self, rows).copy()
        logits[rows == 7, 1] = value
        return logits

    patch.setattr(LogitStore, "logits", poisoned)


def in_loss(patch: pytest.MonkeyPatch, value: float) -> None:
    def act(stepper: Stepper) -> None:
        loss = stepper._loss
        stepper._loss = lambda logits, targets: loss(logits, targets) * value

    before_step(patch, 4, act)


def in_gradient(patch: pytest.MonkeyPatch, value: float) -> None:
    before_step(
        patch,
        4,
        lambda stepper: stepper._trainable["classifier.bias"].register_hook(
            lambda gradient: gradient * value
        ),
    )


def in_weights(patch: pytest.MonkeyPatch, value: float) -> None:
    before_step(patch, 4, lambda stepper: poison(list(stepper._trainable.values()), value))


def in_optimizer(patch: pytest.MonkeyPatch, value: float) -> None:
    def act(stepper: Stepper) -> None:
        poison([stepper._optimizer.state[stepper._trainable["classifier.bias"]]["exp_avg"]], value)

    before_step(patch, 4, act)


def in_squares(patch: pytest.MonkeyPatch, value: float) -> None:
    """An infinity of these stops the parameter, and leaves the weights finite."""

    def act(stepper: Stepper) -> None:
        state = stepper._optimizer.state[stepper._trainable["classifier.bias"]]
        poison([state["exp_avg_sq"]], value)

    before_step(patch, 4, act)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("inject", "error", "message"),
    [
        (in_store, StoreError, r"/store: expected finite teacher logits, found .* in row 7\."),
        (in_loss, NotFinite, "step 5: expected a finite loss, found (nan|inf)"),
        (in_gradient, NotFinite, "step 5: expected finite gradients, .*classifier.bias"),
        (in_weights, NotFinite, "step 5: expected finite weights, found .* in classifier.bias"),
        (in_optimizer, NotFinite, "step 5: expected finite optimizer state, .*exp_avg"),
        (in_squares, NotFinite, "step 5: expected finite optimizer state, .*exp_avg_sq"),
    ],
)
def test_what_is_not_finite_stops_the_run_in_its_step_by_name(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inject: Callable[..., None],
    error: type[MonoxError],
    message: str,
    value: float,
) -> None:
    inject(monkeypatch, value)
    with pytest.raises(error, match=message) as caught:
        train_student(student_of(files), tmp_path / "student")
    assert not (tmp_path / "student").exists()
    checkpoints = tmp_path / "student.checkpoints"
    (logged,) = events(checkpoints, "error")
    assert logged["message"] == str(caught.value)
    for step in events(checkpoints, "step"):
        assert np.isfinite([step["loss"], step["grad_norm"]]).all()
    # The cause is gone: the run goes on, and its log still tells of it.
    monkeypatch.undo()
    train_student(student_of(files), tmp_path / "student")
    assert events(tmp_path / "student", "error") == [logged]
    assert [event["step"] for event in events(tmp_path / "student", "step")] == list(range(1, 9))


# The log


def test_a_log_that_was_torn_or_written_into_is_put_right(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 5, kill)
        with pytest.raises(Killed):
            train_teacher(config_of(files), tmp_path / "teacher")
    log = tmp_path / "teacher.checkpoints" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["step"] == 5  # a step that the checkpoint of step 4 does not know
    log.write_bytes(b"".join([*lines[:2], b"\xff not JSON\n", *lines[2:], b'{"event": "st']))
    progress = Notes()
    train_teacher(config_of(files), tmp_path / "teacher", progress=progress)
    assert [event["step"] for event in events(tmp_path / "teacher", "step")] == list(range(1, 9))
    assert [event["step"] for event in events(tmp_path / "teacher", "resume")] == [4]
    assert any("line 3 is no event" in note for note in progress.notes)


@pytest.mark.parametrize("lost", ["the file", "a line"])
def test_a_log_that_lost_steps_is_told_of_and_tells_of_it(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 5, kill)
        with pytest.raises(Killed):
            train_teacher(config_of(files), tmp_path / "teacher")
    log = tmp_path / "teacher.checkpoints" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"event": "step", "step": 2,' not in line]
    assert len(kept) == len(lines) - 1
    log.write_bytes(b"".join(kept))
    if lost == "the file":
        log.unlink()
    missing = 4 if lost == "the file" else 1
    progress = Notes()
    train_teacher(config_of(files), tmp_path / "teacher", progress=progress)
    assert any(f"log.jsonl: {missing} of the 4 finished steps" in note for note in progress.notes)
    (resumed,) = events(tmp_path / "teacher", "resume")
    assert (resumed["step"], resumed["missing_steps"]) == (4, missing)


def test_what_a_log_tells_of_checkpoints_is_on_the_disk_at_once(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    append, sync, save = AppendedFile.append, AppendedFile.sync, Checkpoints.save

    def appended(self: AppendedFile, content: bytes) -> None:
        done.append(json.loads(content)["event"])
        append(self, content)

    monkeypatch.setattr(AppendedFile, "append", appended)
    monkeypatch.setattr(AppendedFile, "sync", lambda self: (done.append("sync"), sync(self)))
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state: (done.append("save"), save(self, state))
    )
    train_teacher(config_of(files, max_steps=2), tmp_path / "teacher")
    assert done[-6:] == ["evaluation", "sync", "save", "checkpoint", "sync", "end"]


def test_a_run_whose_checkpoints_are_gone_does_not_start_over_unasked(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 5, kill)
        with pytest.raises(Killed):
            train_teacher(config_of(files), tmp_path / "teacher")
    for folder in (tmp_path / "teacher.checkpoints").glob("step-*"):
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="expected the checkpoint of step 4, found none"):
        train_teacher(config_of(files), tmp_path / "teacher")


def test_the_bar_shows_loss_speed_and_dev_result(files: Path, tmp_path: Path) -> None:
    class Task:
        def __init__(self) -> None:
            self.details: list[str] = []

        def detail(self, text: str) -> None:
            self.details.append(text)

        def advance(self, amount: int = 1) -> None: ...
        def __enter__(self) -> Task:
            return self

        def __exit__(self, *error: object) -> None: ...

    class Watched(Silent):
        def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Any:
            return bar

    bar = Task()
    train_teacher(config_of(files), tmp_path / "teacher", progress=Watched())
    last = bar.details[-2]  # the one before the last evaluation's
    for part in ("loss ", "dev ", " rows/s", " tokens/s"):
        assert part in last


def test_tensorboard_without_its_package_is_refused_with_the_command(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    config = config_of(files, tensorboard=str(tmp_path / "board"))
    with pytest.raises(ConfigError, match=r"pip install 'monoxkit\[tensorboard\]'"):
        train_teacher(config, tmp_path / "teacher")
    assert not (tmp_path / "board").exists()


def test_tensorboard_has_every_step_once_after_a_kill(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_of(files, tensorboard=str(tmp_path / "board"))
    with monkeypatch.context() as patch:
        before_step(patch, 5, kill)
        with pytest.raises(Killed):
            train_teacher(config, tmp_path / "teacher")
    train_teacher(config, tmp_path / "teacher")
    found = EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    for name, logged in (("step/loss", "step"), ("evaluation/sets/dev/accuracy", "evaluation")):
        steps = [event.step for event in found.Scalars(name)]
        assert steps == [event["step"] for event in events(tmp_path / "teacher", logged)]
