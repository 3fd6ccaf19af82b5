"""After a power loss a store is right or says what is wrong, and what was promised is there."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import MonoxError
from monox_kit.store import FolderWriter, LogitStore, ShardRange
from tests.faults.disk_trace import Make, Promise, Recorder, Rename, Trace, Tree, real_tree
from tests.faults.power_loss import State, states, tree_digest
from tests.store_samples import gold, logits, manifest, part, recomputed, shard_arguments
from tests.store_samples import text_bytes as bytes_of

SEED = 4
STORE = Path("runs/today/store")  # none of these folders exists before
MANIFEST = manifest(num_rows=23, shard_rows=4)
ROWS = np.arange(23, dtype=np.int64)
FIRST, SECOND = range(3), range(3, 6)
BEGINS = "the other writer begins"


def arguments(shard: ShardRange) -> dict[str, Any]:
    """What `append` takes for a shard: texts of some disk blocks each, with their row in them."""
    values = shard_arguments(MANIFEST, shard)
    values["documents"] = [
        replace(document, text=f"{document.text} {document.row:04d} " * 250)
        for document in values["documents"]
    ]
    return values


def write(writer: FolderWriter, shard: ShardRange) -> None:
    """Write a shard in two parts."""
    values = arguments(shard)
    with writer.shard(shard, bytes_of(values["documents"])) as builder:
        for start in (0, 2):
            builder.append(**part(values, start, start + 2))


def run(root: Path, shards: range | None = None, recorder: Recorder | None = None) -> None:
    """A whole run of a writer; the recorder is told what must survive from when on."""

    def promise(what: str) -> None:
        if recorder is not None:
            recorder.promise(what)

    with FolderWriter(root / STORE, MANIFEST, shards) as writer:
        for index in shards or range(MANIFEST.num_shards):
            if MANIFEST.shard(index) not in writer.missing:
                promise(MANIFEST.shard(index).name)
        for shard in writer.missing:
            write(writer, shard)
            promise(shard.name)
        if writer.complete(command="label") is not None:
            promise("complete")


def recorded(root: Path, trace: Trace, *kills: int | None, shards: range | None = None) -> None:
    """Runs one after another, each killed after so many operations or not at all."""
    with Recorder(root, trace) as recorder:
        for kill in kills:
            with recorder.killed_after(kill):
                run(root, shards, recorder)
    expect_all_recorded(root, trace)


def expect_all_recorded(root: Path, trace: Trace) -> None:
    """Nothing that the runs did has passed the recorder by."""
    assert tree_digest(trace.tree()) == tree_digest(real_tree(root))


@cache
def whole(root: Path) -> Tree:
    """The folder after a run that nothing happened to."""
    run(root)
    return real_tree(root)


def expect_right_rows(store: LogitStore) -> None:
    """Every row of the finished shards is the one of the corpus."""
    for shard in store.shards():
        rows = ROWS[shard.start : shard.stop]
        values = arguments(shard)
        np.testing.assert_array_equal(store.logits(rows), logits(rows))
        np.testing.assert_array_equal(store.gold(rows), gold(rows))
        np.testing.assert_array_equal(store.recomputed(rows), recomputed(rows))
        for document in values["documents"]:
            assert (store.id(document.row), store.text(document.row)) == (
                document.id,
                document.text,
            )


def obey(message: str, folder: Path) -> None:
    """Do what an error of the writer says, which must be to delete something of the store's."""
    if found := re.search(r"[Dd]elete (shards/\d{6}) \(and complete\.json", message):
        shutil.rmtree(folder / found[1])
        (folder / "complete.json").unlink(missing_ok=True)
    elif "Delete complete.json" in message:
        (folder / "complete.json").unlink()
    elif re.search("delete the (store|folder)", message):
        shutil.rmtree(folder)
    else:
        pytest.fail(f"expected an error that says what to delete, found: {message}")


def outcome_of(state: State, root: Path, expected: Tree) -> str:
    """What a reader and a resumed writer make of a state; anything silent fails the test."""
    root.mkdir()
    state.materialise(root)
    folder, outcome = root / STORE, "incomplete, resumed"
    shards: set[str] = set()
    is_complete = False
    try:
        store = LogitStore.open(folder, verify="full", allow_incomplete=True)
        expect_right_rows(store)
        shards, is_complete = {shard.name for shard in store.shards()}, store.complete
        assert not is_complete or len(shards) == MANIFEST.num_shards
    except MonoxError as error:
        outcome = f"{type(error).__name__}, resumed"
    wanted = state.promised - {BEGINS}
    assert wanted <= shards | ({"complete"} if is_complete else set()), "lost a promise"
    if is_complete:
        outcome = "complete"
    else:
        with pytest.raises(MonoxError):
            LogitStore.open(folder)
    for _ in range(MANIFEST.num_shards + 2):
        try:
            run(root)
            break
        except MonoxError as error:
            outcome = "named error at resuming, obeyed"
            obey(str(error), folder)
    assert tree_digest(real_tree(root)) == tree_digest(expected)
    shutil.rmtree(root)
    return outcome


def expect_no_silent_state(found: Iterable[State], tmp_path: Path) -> dict[str, int]:
    """How many states had which outcome; every one of them is looked at."""
    outcomes: dict[str, int] = {}
    for state in found:
        try:
            outcome = outcome_of(state, tmp_path / "state", whole(tmp_path / "whole"))
        except BaseException as error:
            error.add_note(f"power lost after {state.point} operations, {state.how}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def twice(state: State, tmp_path: Path, count: int) -> dict[str, int]:
    """The outcomes of a second power loss, while a run goes on after the first."""
    root, trace = tmp_path / "again", Trace.leaving(state.tree, state.promised)
    before = len(trace.operations)
    root.mkdir()
    state.materialise(root)
    recorded(root, trace, None)
    shutil.rmtree(root)
    found = states(trace, seed=SEED, points=range(before, len(trace.operations) + 1))
    return expect_no_silent_state(sampled(found, count), tmp_path)


def sampled(found: Iterator[State], count: int) -> list[State]:
    """Two states in which a promise is tried, and so many others."""
    everything = list(found)
    sharp = [state for state in everything if state.is_sharp]
    others = [state for state in everything if not state.is_sharp]
    chosen = random.Random(SEED).sample(others, min(count, len(others)))
    return [*sharp[:1], *sharp[-1:], *chosen]


def added(total: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """Both counts together."""
    return {key: total.get(key, 0) + more.get(key, 0) for key in {**total, **more}}


def operations_until(trace: Trace, name: str, after: int = 0) -> int:
    """How many operations a run is at when the entry `name` is there and not yet synced."""
    operations = [each for each in trace.operations[after:] if not isinstance(each, Promise)]
    names = [each.name if isinstance(each, Make | Rename) else "" for each in operations]
    return names.index(name) + 1


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The trace of a run that nothing happened to."""
    trace = Trace()
    recorded(tmp_path_factory.mktemp("disk"), trace, None)
    return trace


def test_the_model_loses_what_nobody_synced_and_nothing_else(tmp_path: Path) -> None:
    trace = Trace()
    with Recorder(tmp_path, trace):
        os.mkdir(tmp_path / "a")
        for name in ("synced", "unsynced"):
            with (tmp_path / "a" / name).open("xb") as stream:
                stream.write(b"x" * 1200)
                stream.flush()
                if name == "synced":
                    os.fsync(stream.fileno())
        folder = os.open(tmp_path / "a", os.O_RDONLY)
        os.fsync(folder)
        os.rename(tmp_path / "a" / "synced", tmp_path / "a" / "renamed")
        os.close(folder)
    expect_all_recorded(tmp_path, trace)
    last = len(trace.operations)
    found = [
        state.tree for state in states(trace, seed=SEED, draws=400, points=range(last, last + 1))
    ]
    assert {} in found  # nobody has synced the folder that `a` is in
    names = {tuple(sorted(tree)) for tree in found}
    assert names == {(), ("a", "a/renamed", "a/unsynced"), ("a", "a/synced", "a/unsynced")}
    content = b"x" * 1200
    kept = {tree.get("a/renamed", tree.get("a/synced", content)) for tree in found}
    assert kept == {content}
    torn = {tree["a/unsynced"] for tree in found if tree}
    assert {b"", content, bytes(1200), content[:512]} <= torn
    assert content[:512] + bytes(512) + content[1024:] in torn


def test_a_run_cut_by_a_power_loss_goes_on(one_run: Trace, tmp_path: Path) -> None:
    outcomes = expect_no_silent_state(sampled(states(one_run, seed=SEED, draws=8), 30), tmp_path)
    assert outcomes["complete"] >= 1
    assert sum(outcomes.values()) == 32


@pytest.mark.complete
@pytest.mark.timeout(1200)
def test_every_state_of_a_run_cut_by_a_power_loss(
    one_run: Trace, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    found = list(states(one_run, seed=SEED, draws=12))
    distinct = len({tree_digest(state.tree) for state in found})
    record_testsuite_property("states of one run", distinct)
    assert distinct > 1500
    outcomes = expect_no_silent_state(found, tmp_path)
    record_testsuite_property("outcomes of one run", outcomes)
    assert sum(outcomes.values()) == len(found)


def after_a_kill(root: Path, kill: int, draws: int) -> Iterator[State]:
    """What a power loss may leave after a kill, and of the run that goes on from there."""
    trace = Trace()
    recorded(root, trace, kill, None)
    points = range(kill, len(trace.operations) + 1)
    yield from states(trace, seed=SEED, draws=draws, points=points)


@pytest.mark.parametrize("name", ["runs", "store.json", "000002", "complete.json"])
def test_a_power_loss_after_a_kill_between_a_name_and_its_fsync(
    one_run: Trace, tmp_path: Path, name: str
) -> None:
    (tmp_path / "disk").mkdir()
    found = after_a_kill(tmp_path / "disk", operations_until(one_run, name), 0)
    expect_no_silent_state(sampled(found, 3), tmp_path)


@pytest.mark.complete
@pytest.mark.timeout(1200)
def test_a_power_loss_after_a_kill_at_any_operation(
    one_run: Trace, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    total: dict[str, int] = {}
    steps = [each for each in one_run.operations if not isinstance(each, Promise)]
    for kill in range(len(steps)):
        (tmp_path / "disk").mkdir()
        found = sampled(after_a_kill(tmp_path / "disk", kill, 1), 3)
        total = added(total, expect_no_silent_state(found, tmp_path))
        shutil.rmtree(tmp_path / "disk")
    record_testsuite_property("outcomes after kills", total)


def side_by_side(root: Path, kill: int | None) -> Trace:
    """One writer completes the store after another one, at work beside it, was killed."""
    trace = Trace()
    with Recorder(root, trace) as recorder, FolderWriter(root / STORE, MANIFEST, FIRST) as writer:
        for shard in writer.missing:
            write(writer, shard)
            recorder.promise(shard.name)
        recorder.promise(BEGINS)
        with recorder.killed_after(kill):
            run(root, SECOND, recorder)
        if writer.complete(command="label") is not None:
            recorder.promise("complete")
    expect_all_recorded(root, trace)
    return trace


@pytest.mark.parametrize("name", ["000005", "complete.json"])
def test_a_power_loss_after_completing_what_a_killed_writer_left(tmp_path: Path, name: str) -> None:
    """Its last rename has no fsync; the writer beside it goes on from what it sees."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "killed").mkdir()
    undisturbed = side_by_side(tmp_path / "disk", None)
    begins = undisturbed.operations.index(Promise(BEGINS))
    kill = operations_until(undisturbed, name, begins)
    trace = side_by_side(tmp_path / "killed", kill)
    assert trace.operations[-1] == Promise("complete")
    points = range(begins + kill, len(trace.operations) + 1)
    expect_no_silent_state(sampled(states(trace, seed=SEED, points=points), 3), tmp_path)


def test_a_second_power_loss_during_the_run_that_goes_on(one_run: Trace, tmp_path: Path) -> None:
    for state in sampled(states(one_run, seed=SEED), 1)[-2:]:
        twice(state, tmp_path, 2)


@pytest.mark.complete
@pytest.mark.timeout(1200)
def test_second_power_losses(
    one_run: Trace, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    total: dict[str, int] = {}
    for state in sampled(states(one_run, seed=SEED), 60):
        total = added(total, twice(state, tmp_path, 4))
    record_testsuite_property("outcomes of second power losses", total)
