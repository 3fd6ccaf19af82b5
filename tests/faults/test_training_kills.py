"""A training run that is killed at any moment ends, resumed, with the bits it would have had."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from monox_kit.digest import digest_file
from tests.checkpoint_samples import expect_equal, newest, write
from tests.faults.runs import RunServer, needs_strace
from tests.faults.states import COMPLETE, EPOCH_STEPS, TRAINING_STEPS, some
from tests.tiny_models import bert_encoder, labelled_rows, write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with dropout, and rows for it."""
    folder = tmp_path_factory.mktemp("files")
    bert_encoder(folder / "encoder")
    write_jsonl(folder / "train.jsonl", labelled_rows(24, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(12, seed=2))
    return folder


@pytest.fixture(scope="module")
def trainer(files: Path) -> Iterator[RunServer]:
    with RunServer("training", str(files)) as server:
        yield server


@pytest.fixture(scope="module")
def whole(trainer: RunServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing happened to leaves."""
    out = tmp_path_factory.mktemp("whole") / "teacher"
    outcome = trainer.run(out)
    assert outcome.exit_code == 0, outcome.message
    return out


def what_remains(out: Path) -> dict[str, object]:
    """The trained bits, and what the log tells of every step, times aside."""
    events = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    steps = [
        [event[key] for key in ("step", "loss", "grad_norm", "learning_rate", "rows", "tokens")]
        for event in events
        if event["event"] == "step"
    ]
    evaluations = [event for event in events if event["event"] == "evaluation"]
    return {
        "weights": digest_file(out / "model.safetensors"),
        "steps": steps,
        "evaluations": evaluations,
        "ends": sum(event["event"] == "end" for event in events),
    }


def test_the_log_of_a_whole_run_has_every_step_once(whole: Path) -> None:
    remains = what_remains(whole)
    assert [step[0] for step in remains["steps"]] == list(range(1, TRAINING_STEPS + 1))  # type: ignore[index,attr-defined]
    assert len(remains["evaluations"]) == TRAINING_STEPS // EPOCH_STEPS  # type: ignore[arg-type]
    assert remains["ends"] == 1


@pytest.mark.parametrize(
    "number", [pytest.param(3, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_kills_before_any_step_change_no_bit(
    trainer: RunServer, tmp_path: Path, whole: Path, number: int | None
) -> None:
    draw = random.Random(6)
    borders = range(EPOCH_STEPS, TRAINING_STEPS, EPOCH_STEPS)
    others = [draw.randrange(TRAINING_STEPS) for _ in range(20)]
    expected = what_remains(whole)
    for at in [*borders, *others] if number is None else [*some(borders, 1), *others[:number]]:
        out = tmp_path / f"killed-{at}"
        for kill_at in (at, draw.randrange(at, TRAINING_STEPS)):  # and again when it is resumed
            outcome = trainer.run(out, kill_at=kill_at)
            assert outcome.killed and not out.exists(), outcome
        outcome = trainer.run(out)
        assert outcome.exit_code == 0, outcome.message
        assert what_remains(out) == expected, f"killed before step {at + 1}"
        assert not out.with_name(f"{out.name}.checkpoints").exists()
        shutil.rmtree(out)


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(10, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_kill_at_any_system_call_of_a_save_leaves_the_newest_whole_checkpoint(
    tmp_path: Path, number: int | None
) -> None:
    write(tmp_path / "before", 2, 4)
    with RunServer("saving") as server:
        folder = Path(shutil.copytree(tmp_path / "before", tmp_path / "counted"))
        counted = server.run(folder, synced=True, faults=[])
        assert counted.exit_code == 0, counted.message
        expect_equal(newest(folder), 6)
        calls = [call for call in counted.calls if call.changes]
        # From before the new folder to after the old one, all five files between; how many calls
        # write a file is the writer's affair.
        assert calls[0].name.startswith("mkdir") and calls[-1].name == "rmdir"
        assert sum(call.name == "fsync" for call in calls) >= 5
        assert any(
            call.line.startswith("rename") and 'step-000006")' in call.line for call in calls
        )
        for call in some(calls, number):
            folder = Path(
                shutil.copytree(tmp_path / "before", tmp_path / f"{call.name}-{call.number}")
            )
            fault = call.fault("signal=SIGKILL")
            outcome = server.run(folder, synced=call.name == "fsync", faults=[fault])
            assert outcome.killed, outcome
            step = 6 if (folder / "step-000006").exists() else 4
            expect_equal(newest(folder), step)
            # The next process goes on from there and leaves nothing of the killed one.
            assert server.run(folder).exit_code == 0
            expect_equal(newest(folder), step + 2)
            left = sorted(path.name for path in folder.iterdir())
            assert left == [f"step-{step:06d}", f"step-{step + 2:06d}"], f"killed at {call.line}"
            shutil.rmtree(folder)


def newest_step(folder: Path) -> int:
    """Of the checkpoints in a folder."""
    return max(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


@needs_strace
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "number", [pytest.param(6, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_kill_at_any_system_call_of_the_last_save_and_after_it_loses_no_checkpoint(
    files: Path, tmp_path: Path, number: int | None
) -> None:
    """A run's own save, with its log and an old checkpoint that goes; then the model's folder."""
    num_steps = 4
    with RunServer("training", str(files), f"{num_steps}", "1") as trainer:
        assert trainer.run(tmp_path / "whole").exit_code == 0
        before = tmp_path / "before"
        assert trainer.run(before, kill_at=num_steps - 1).killed
        assert newest_step(tmp_path / "before.checkpoints") == num_steps - 1

        def begun(name: str) -> Path:
            shutil.copytree(f"{before}.checkpoints", tmp_path / f"{name}.checkpoints")
            return tmp_path / name

        counted = trainer.run(begun("counted"), synced=True, faults=[])
        assert counted.exit_code == 0, counted.message
        calls = [call for call in counted.calls if call.changes]
        last = f"step-{num_steps:06d}"
        first = next(index for index, call in enumerate(calls) if last in call.line)
        calls = calls[first - 1 :]
        assert calls[0].name == "fsync" and "log.jsonl" in calls[0].line
        assert calls[-1].name == "rmdir" and "counted.checkpoints" in calls[-1].line
        assert len(calls) >= 50
        for call in some(calls, number):
            out = begun(f"{call.name}-{call.number}")
            checkpoints = out.with_name(f"{out.name}.checkpoints")
            fault = call.fault("signal=SIGKILL")
            outcome = trainer.run(out, synced=call.name == "fsync", faults=[fault])
            assert outcome.killed, outcome
            # One always exists, until the model does; and the newest is the one that is used.
            newest_one = None if out.exists() else newest_step(checkpoints)
            outcome = trainer.run(out)
            assert outcome.exit_code == 0, f"{outcome.message}, killed at {call.line}"
            assert what_remains(out) == what_remains(tmp_path / "whole"), f"killed at {call.line}"
            if newest_one is not None:
                log = (out / "training.jsonl").read_text().splitlines()
                resumed = [event for event in map(json.loads, log) if event["event"] == "resume"]
                assert resumed[-1]["step"] == newest_one, f"killed at {call.line}"
            assert not checkpoints.exists()
            shutil.rmtree(out)
