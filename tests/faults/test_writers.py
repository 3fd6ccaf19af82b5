"""Several writers on one store: one owner per shard, nothing to clean up behind a killed one."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import StoreError, StoreLocked
from monox_kit.store import FolderWriter, LogitStore
from monox_kit.store.folder import StoreFolder
from tests.children import fork, sleep_in_a_fork, sleep_in_a_program
from tests.store_samples import manifest, shard_arguments, tree, write_shard, write_store

SEVEN_SHARDS = manifest(num_rows=14, shard_rows=2)
ALL = range(7)
LOCKED = 3  # a writer's exit status


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one writer makes alone."""
    return write_store(tmp_path_factory.mktemp("whole") / "s", SEVEN_SHARDS)


def status_of(child: int) -> int:
    """The exit status of a child that has ended; minus the signal where one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Gate:
    """What children wait at until it is opened for all at once."""

    def __init__(self) -> None:
        self._ours, self._theirs = os.pipe()

    def wait(self) -> None:
        os.close(self._theirs)
        os.read(self._ours, 1)

    def open(self) -> None:
        os.close(self._theirs)
        os.close(self._ours)


def kill_at(step: int) -> Callable[[int], None]:
    """A stand-in for `os.fsync`, which a writer calls before and after all it does."""
    left = step

    def act(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def write_missing(writer: FolderWriter) -> None:
    """Write a writer's shards, and complete the store where no other is missing."""
    for shard in writer.missing:
        write_shard(writer, shard, **shard_arguments(SEVEN_SHARDS, shard))
    writer.complete(command="label")


def count_completions() -> list[str]:
    """Where this process puts a `complete.json` from now on; for a child of its own."""
    completions, replace = [], os.replace

    def counting(source: Any, target: Any) -> None:
        if Path(target).name == "complete.json":
            completions.append(str(target))
        replace(source, target)

    os.replace = counting
    return completions


@dataclass(frozen=True, slots=True)
class Contest:
    """What became of processes that wanted shards of one store at the same instant.

    Attributes:
        owners: claims that were granted.
        losers: claims that were refused.
        statuses: how the owners ended.
    """

    owners: list[range]
    losers: list[range]
    statuses: list[int]


def contest(folder: Path, claims: Sequence[range], last_step: int | None = None) -> Contest:
    """Let a process for each claim write to a store; who is granted it waits for all answers.

    Args:
        folder: the store.
        claims: of shards.
        last_step: the steps after which every owner is killed; None lets them finish.
    """
    start, go = Gate(), Gate()
    reports, reporting = os.pipe()

    def write(claim: range) -> int:
        start.wait()
        try:
            with FolderWriter(folder, SEVEN_SHARDS, claim) as writer:
                os.write(reporting, b"o")
                go.wait()
                if last_step is not None:
                    os.fsync = kill_at(last_step)
                write_missing(writer)
        except StoreLocked:
            os.write(reporting, b"l")
            return LOCKED
        return 0

    children = {fork(partial(write, claim)): claim for claim in claims}
    os.close(reporting)
    start.open()
    answers = b""
    while len(answers) < len(claims):
        answer = os.read(reports, 1)
        assert answer, "a process ended without an answer"
        answers += answer
    go.open()
    os.close(reports)
    statuses = {child: status_of(child) for child in children}
    assert list(statuses.values()).count(LOCKED) == answers.count(b"l")
    return Contest(
        owners=[claim for child, claim in children.items() if statuses[child] != LOCKED],
        losers=[claim for child, claim in children.items() if statuses[child] == LOCKED],
        statuses=[status for status in statuses.values() if status != LOCKED],
    )


def draw_claims(draw: random.Random) -> list[range]:
    """Four claims: of the whole store by all, or of parts that may overlap."""
    if draw.random() < 0.5:
        return [ALL] * 4
    bounds = [sorted(draw.sample(range(8), 2)) for _ in range(4)]
    return [range(first, last) for first, last in bounds]


def overlap(one: range, other: range) -> bool:
    return bool(set(one) & set(other))


@pytest.mark.parametrize("num_trials", [8, pytest.param(100, marks=pytest.mark.complete)])
def test_every_shard_has_one_owner_and_a_killed_one_leaves_nothing_behind(
    tmp_path: Path, whole: Path, num_trials: int
) -> None:
    draw = random.Random(22)
    num_killed = 0
    for trial in range(num_trials):
        folder = tmp_path / str(trial)
        claims = draw_claims(draw)
        first = contest(folder, claims, last_step=draw.randrange(40))
        assert first.owners
        assert not any(overlap(*pair) for pair in combinations(first.owners, 2))
        assert all(any(overlap(one, own) for own in first.owners) for one in first.losers)
        assert set(first.statuses) <= {0, -signal.SIGKILL}
        num_killed += first.statuses.count(-signal.SIGKILL)
        # Whoever comes next goes on at once.
        second = contest(folder, [ALL] * 4)
        assert (second.owners, second.statuses) == ([ALL], [0])
        assert tree(folder) == tree(whole), f"trial {trial}"
    assert num_killed > num_trials // 5


@pytest.mark.parametrize("num_trials", [8, pytest.param(100, marks=pytest.mark.complete)])
def test_writers_of_different_shards_begin_one_store_at_once(
    tmp_path: Path, whole: Path, num_trials: int
) -> None:
    """On an absent folder; somebody completes the store, and nobody does so twice."""
    for trial in range(num_trials):
        folder, start = tmp_path / str(trial), Gate()

        def write(claim: range, folder: Path = folder, start: Gate = start) -> int:
            start.wait()
            completions = count_completions()
            with FolderWriter(folder, SEVEN_SHARDS, claim) as writer:
                write_missing(writer)
            return 10 + len(completions)

        claims = [range(2), range(2, 4), range(4, 6), range(6, 7)]
        children = [fork(partial(write, claim)) for claim in claims]
        start.open()
        assert sorted(map(status_of, children)) == [10, 10, 10, 11]
        assert tree(folder) == tree(whole), f"trial {trial}"


def test_writers_begin_beside_one_that_completes_the_store(tmp_path: Path) -> None:
    """A finished part is no false alarm, whatever the others commit while it is looked at."""
    folder = tmp_path / "s"
    with FolderWriter(folder, SEVEN_SHARDS, range(3)) as writer:
        write_missing(writer)
    listed = StoreFolder.finished_shards

    def list_then_finish(store: StoreFolder, *args: Any) -> Any:
        found = listed(store, *args)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StoreFolder, "finished_shards", listed)
            with FolderWriter(folder, SEVEN_SHARDS, range(3, 7)) as other:
                write_missing(other)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreFolder, "finished_shards", list_then_finish)
        with FolderWriter(folder, SEVEN_SHARDS, range(3)) as writer:
            assert writer.missing == []
    assert LogitStore.open(folder, verify="full").complete


def test_a_store_that_another_creates_meanwhile_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listdir = tmp_path / "s", os.listdir
    (folder / "shards").mkdir(parents=True)

    def list_then_create(path: Any) -> list[str]:
        found = listdir(path)
        monkeypatch.setattr(os, "listdir", listdir)
        with FolderWriter(folder, SEVEN_SHARDS, range(1, 7)) as other:
            write_missing(other)
        return found

    monkeypatch.setattr(os, "listdir", list_then_create)
    with FolderWriter(folder, SEVEN_SHARDS, range(1)) as writer:
        assert [shard.index for shard in writer.missing] == [0]


def test_writers_that_end_at_once_complete_the_store_one_after_the_other(tmp_path: Path) -> None:
    folder, listed = tmp_path / "s", StoreFolder.finished_shards
    with (
        FolderWriter(folder, SEVEN_SHARDS, range(3)) as one,
        FolderWriter(folder, SEVEN_SHARDS, range(3, 7)) as other,
        ThreadPoolExecutor() as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        for writer in (one, other):
            for shard in writer.missing:
                write_shard(writer, shard, **shard_arguments(SEVEN_SHARDS, shard))
        late: list[Future[Any]] = []

        def list_beside(store: StoreFolder, *args: Any) -> Any:
            patch.setattr(StoreFolder, "finished_shards", listed)
            late.append(pool.submit(other.complete, writer="other"))
            wait(late, timeout=0.3)  # it has to wait for its turn
            return listed(store, *args)

        patch.setattr(StoreFolder, "finished_shards", list_beside)
        record = one.complete(writer="one")
        assert record is not None and record.summary == {"writer": "one"}
        assert late[0].result() == record


# In one process, and in children of a writer


def test_writers_in_one_process_are_as_strange_to_each_other(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "s"
    with FolderWriter(folder, SEVEN_SHARDS, range(3)) as one:
        for claim in (ALL, range(2, 5), range(1)):
            with pytest.raises(StoreLocked, match=f"shards {claim[0]} to {claim[-1]}, found one"):
                FolderWriter(folder, SEVEN_SHARDS, claim).__enter__()
        with FolderWriter(folder, SEVEN_SHARDS, range(3, 7)) as other, ThreadPoolExecutor() as pool:
            list(pool.map(write_missing, [one, other]))
        # The other has left: that gave none of this one's shards away.
        with pytest.raises(StoreLocked):
            FolderWriter(folder, SEVEN_SHARDS, range(2, 3)).__enter__()
    with FolderWriter(folder, SEVEN_SHARDS) as last:
        assert last.missing == []
    assert tree(folder) == tree(whole)


@pytest.mark.parametrize("start_child", [sleep_in_a_fork, sleep_in_a_program])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_child_does_not_keep_its_parents_shards(
    tmp_path: Path, whole: Path, start_child: Callable[[], int], is_killed: bool
) -> None:
    folder = tmp_path / "s"
    reports, reporting = os.pipe()

    def own() -> int:
        with FolderWriter(folder, SEVEN_SHARDS) as writer:
            shard = writer.missing[0]
            write_shard(writer, shard, **shard_arguments(SEVEN_SHARDS, shard))
            os.write(reporting, f"{start_child()}\n".encode())
            if is_killed:
                signal.pause()
        return 0

    owner = fork(own)
    child = int(os.read(reports, 20))
    try:
        if is_killed:
            with pytest.raises(StoreLocked):
                FolderWriter(folder, SEVEN_SHARDS).__enter__()
            os.kill(owner, signal.SIGKILL)
        assert status_of(owner) == (-signal.SIGKILL if is_killed else 0)
        os.kill(child, 0)  # still there
        assert tree(write_store(folder, SEVEN_SHARDS)) == tree(whole)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_is_no_owner_and_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "s"

    def use(writer: FolderWriter) -> int:
        with pytest.raises(StoreError, match="expected to hold the store's shards, found none"):
            writer.complete()
        with pytest.raises(StoreError, match="found none"):
            write_missing(writer)
        writer.__exit__(None, None, None)
        return 0

    with FolderWriter(folder, SEVEN_SHARDS) as writer:
        assert status_of(fork(partial(use, writer))) == 0
        with pytest.raises(StoreLocked):
            FolderWriter(folder, SEVEN_SHARDS).__enter__()
        write_missing(writer)
    assert LogitStore.open(folder, verify="full").complete
