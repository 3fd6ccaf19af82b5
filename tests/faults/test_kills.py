"""A run that is killed at any moment loses, doubles and changes no row: the next finishes it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import warnings
from itertools import cycle
from pathlib import Path

import pytest

from monox_kit.store import LogitStore, fetch_store
from tests.faults.runs import Call, Outcome, RunServer, needs_strace
from tests.faults.states import COMPLETE, SIX_SHARDS, entries, expect_right_or_incomplete, some
from tests.faults.stepping import CUTS, before_each_step, steps_of_a_run
from tests.object_store import object_store
from tests.store_samples import write_store

KILL = "signal=SIGKILL"


def changing(outcome: Outcome) -> list[Call]:
    """The traced calls of an undisturbed run that change the disk."""
    assert (outcome.killed, outcome.exit_code) == (False, 0), outcome.message
    return [call for call in outcome.calls if call.changes]


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(12, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_kill_at_any_system_call_and_again_at_resuming_changes_nothing(
    server: RunServer, tmp_path: Path, whole: Path, number: int | None
) -> None:
    calls = changing(server.run(tmp_path / "counted", synced=True, faults=[]))
    assert len(calls) >= 250
    draw = random.Random(4)
    for call in some(calls, number):
        folder = tmp_path / f"{call.name}-{call.number}"
        for again, point in enumerate((call, draw.choice(calls))):  # which may be the same
            # fsync changes nothing that a killed process leaves behind: done where it is counted.
            synced = point.name == "fsync"
            outcome = server.run(folder, synced=synced, faults=[point.fault(KILL)])
            # A resumed run has fewer calls, and may end before the point.
            assert outcome.killed or (again and outcome.exit_code == 0), outcome
            expect_right_or_incomplete(folder, whole)
        write_store(folder, SIX_SHARDS)
        assert entries(folder) == entries(whole), f"killed at {call.line}"
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "number", [pytest.param(8, id="sampled"), pytest.param(300, id="all", marks=COMPLETE)]
)
def test_kills_at_random_times_change_nothing(
    server: RunServer, tmp_path: Path, whole: Path, number: int
) -> None:
    expect_nothing_of_random_kills(server, tmp_path, whole, number)


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(6, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_kill_while_a_store_is_put_to_a_url_changes_nothing(
    tmp_path: Path, whole: Path, number: int | None
) -> None:
    with RunServer("putting") as server:
        calls = changing(server.run(tmp_path / "counted", faults=[]))
        assert len(calls) >= 250
        draw, num_killed = random.Random(6), 0
        for call in some(calls, number):
            folder = tmp_path / f"{call.name}-{call.number}"
            for point in (call, draw.choice(calls)):
                # Each thread counts its own calls: some points are never reached.
                outcome = server.run(folder, faults=[point.fault(KILL)])
                assert outcome.killed or outcome.exit_code == 0, outcome
                num_killed += outcome.killed
            assert server.run(folder).exit_code == 0
            with object_store():
                fetch_store(f"objects://{folder}/objects", folder / "fetched")
            assert entries(folder / "fetched") == entries(whole), f"killed at {call.line}"
            assert [path.name for path in (folder / "staging").iterdir()] == ["lock"]
            shutil.rmtree(folder)
        assert num_killed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a corpus of 60 rows."""
    from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

    folder = tmp_path_factory.mktemp("files")
    bert_classifier(folder / "model")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(60, seed=3))
    return folder


@pytest.mark.complete
@pytest.mark.timeout(3600)
def test_kills_of_labelling_at_random_times_change_nothing(files: Path, tmp_path: Path) -> None:
    with RunServer("labelling", str(files)) as server:
        # Of the same process's making: with other threads a logit's last bits are others.
        whole = tmp_path / "whole"
        assert server.run(whole).exit_code == 0
        assert LogitStore.open(whole).manifest.num_shards == 6
        expect_nothing_of_random_kills(server, tmp_path, whole, 100)


def expect_nothing_of_random_kills(
    server: RunServer, tmp_path: Path, whole: Path, number: int
) -> None:
    """Kill runs and those that resume them at random times; the third run finishes."""
    folder = tmp_path / "timed"
    begun = server.start(folder).once_exists(folder)
    took_s = begun.outcome().seconds
    draw = random.Random(5)
    folder = tmp_path / "killed"
    while number:
        first = server.start(folder).once_exists(folder).outcome(draw.uniform(0, took_s))
        expect_right_or_incomplete(folder, whole)
        server.start(folder).outcome(draw.uniform(0, 2 * took_s))
        expect_right_or_incomplete(folder, whole)
        assert server.run(folder).exit_code == 0
        assert entries(folder) == entries(whole)
        shutil.rmtree(folder)
        if first.killed:
            number -= 1
        else:  # the machine has become faster
            took_s = min(took_s, first.seconds)


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(4, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_killed_writer_holds_up_nobody_and_its_shards_can_be_taken_at_once(
    server: RunServer, tmp_path: Path, whole: Path, number: int | None
) -> None:
    first, second = range(3), range(3, 6)
    calls = changing(server.run(tmp_path / "counted", shards=first, faults=[]))
    assert len(calls) > 90
    # The neighbour is as slow, in turns, as to be at work, begin or end when the other is killed.
    delays_us = cycle([0, 2_000, 8_000])
    num_killed = num_runs = 0
    with RunServer("writing") as neighbour:
        for call in some(calls, number):
            num_runs += 1
            folder = tmp_path / f"{call.name}-{call.number}"
            slow = f"--inject=mkdir:delay_enter={next(delays_us)}"
            beside = neighbour.start(folder, shards=second, faults=[slow])
            killed = server.run(folder, shards=first, faults=[call.fault(KILL)])
            taken_over = server.run(folder, shards=first)
            ended = beside.outcome()
            # Where the neighbour has begun the store, a run has some calls less.
            assert killed.killed or killed.exit_code == 0, killed
            num_killed += killed.killed
            assert (taken_over.exit_code, ended.exit_code) == (0, 0), (taken_over, ended)
            # Whichever ended last has completed the store.
            assert entries(folder) == entries(whole), f"killed at {call.line}"
            shutil.rmtree(folder)
    assert num_killed > num_runs * 0.8


def killed_at(folder: Path, point: int) -> None:
    """Run a writer in a process of its own that SIGKILL ends before step number `point`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside native threads
        child = os.fork()
    if child == 0:
        left = point

        def act(name: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        try:
            with before_each_step(act):
                write_store(folder, SIX_SHARDS, cuts=CUTS)
        finally:
            os._exit(1)  # not reached where the kill came
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize(
    "number", [pytest.param(16, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_kill_at_any_step_or_in_a_write_changes_nothing(
    tmp_path: Path, whole: Path, number: int | None
) -> None:
    steps = steps_of_a_run(tmp_path / "counted")
    assert len(steps) > 250
    for point in some(range(len(steps)), number):
        folder = tmp_path / f"killed-{point}"
        killed_at(folder, point)
        expect_right_or_incomplete(folder, whole)
        write_store(folder, SIX_SHARDS)
        assert entries(folder) == entries(whole), f"killed before step {point}, {steps[point]}"
        shutil.rmtree(folder)


def test_kills_on_top_of_kills_change_nothing(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "s"
    for point in (3, 20, 1, 25, 30, 2):
        killed_at(folder, point)
        expect_right_or_incomplete(folder, whole)
    write_store(folder, SIX_SHARDS)
    assert entries(folder) == entries(whole)
