"""A disk that refuses is named with the path; finished shards stay, and a later run goes on."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from monox_kit.errors import StorageError, StoreError
from monox_kit.store import FolderWriter
from tests.faults.runs import Call, Outcome, RunServer, needs_strace
from tests.faults.states import (
    COMPLETE,
    SIX_SHARDS,
    entries,
    expect_right_or_incomplete,
    finished,
    some,
)
from tests.faults.stepping import CUTS, before_each_step, steps_of_a_run
from tests.store_samples import (
    build_shard,
    manifest,
    part,
    shard_arguments,
    text_bytes,
    write_store,
)

CODES = ["ENOSPC", "EIO", "EDQUOT"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which half is written, with what a killed writer left behind."""
    folder = tmp_path_factory.mktemp("half") / "s"
    with FolderWriter(folder, SIX_SHARDS) as writer:
        for shard in writer.missing[:3]:
            build_shard(writer, shard, CUTS)
    shutil.copytree(folder / "shards/000001", folder / "shards/.tmp-000004-abcdefgh")
    (folder / ".tmp-abcdefgh").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def undisturbed(server: RunServer, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Call]:
    """The calls of a run to which nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed") / "s"
    return server.run(folder, synced=True, faults=[]).calls


def is_excused(call: Call) -> bool:
    """Whether a refusal is no disk's (locks), or does no harm: a mkdir of what is there."""
    return call.name == "fcntl" or "EEXIST" in call.line


def expect_named(outcome: Outcome, code: str, folder: Path, call: Call) -> None:
    assert outcome.exit_code == StorageError.exit_code, (outcome, call)
    assert f"{folder}" in outcome.message.partition(": ")[0], (outcome, call)
    assert os.strerror(getattr(errno, code)) in outcome.message, (outcome, call)


def expect_resumed(folder: Path, whole: Path, call: Call) -> None:
    """What the refused run left is no lie, and the next run makes the store of it."""
    expect_right_or_incomplete(folder, whole)
    write_store(folder, SIX_SHARDS)
    assert entries(folder) == entries(whole), call
    shutil.rmtree(folder)


@needs_strace
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "number", [pytest.param(5, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_refused_system_call_is_named_and_earlier_shards_stay(
    server: RunServer,
    undisturbed: Sequence[Call],
    tmp_path: Path,
    whole: Path,
    code: str,
    number: int | None,
) -> None:
    calls = [c for c in undisturbed if c.changes and not is_excused(c)]
    # Some file systems tell only when a file is closed: the first time is the writer's.
    closed = {
        path[0]: c
        for c in reversed(undisturbed)
        if c.name == "close" and (path := re.search(r"\.tmp-[^>]*", c.line))
    }
    calls += [c for path, c in closed.items() if path.endswith((".npy", ".json"))]
    assert len(calls) >= 250
    for turn, call in enumerate(some(calls, number)):
        folder = tmp_path / f"{call.name}-{call.number}"
        # A disk that is full stays full; one that fails may do so once.
        fault = call.fault(f"error={code}", onwards=call.name == "write" and turn % 2 == 0)
        outcome = server.run(folder, synced=call.name == "fsync", faults=[fault])
        expect_named(outcome, code, folder, call)
        expect_resumed(folder, whole, call)


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(8, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_disk_that_cannot_be_read_is_named_or_does_no_harm(
    server: RunServer, tmp_path: Path, whole: Path, half: Path, number: int | None
) -> None:
    shutil.copytree(half, tmp_path / "counted")
    calls = server.run(tmp_path / "counted", synced=True, faults=[]).calls
    looking = [c for c in calls if not c.changes and c.name != "close" and str(tmp_path) in c.line]
    removing = [c for c in calls if c.name in ("unlink", "unlinkat", "rmdir")]
    assert len(looking) > 300 and len(removing) > 10
    # A folder under construction that cannot be listed: nothing in it would be synced.
    listing = [c for c in looking if c.name == "getdents64" and "/.tmp-" in c.line]
    num_named = 0
    for call in dict.fromkeys([*listing[-2:], *some(looking + removing, number)]):
        folder = Path(shutil.copytree(half, tmp_path / f"{call.name}-{call.number}"))
        outcome = server.run(folder, synced=True, faults=[call.fault("error=EIO")])
        if outcome.exit_code == 0:  # as a leftover that stayed, or the block size of a stream
            assert finished(folder) == entries(whole), call
            assert num_syncs(outcome.calls) == num_syncs(calls), call
        else:
            # The folder that the store lies in is opened too, to sync the store's name.
            refused = tmp_path if f'"{tmp_path}"' in call.line else folder
            expect_named(outcome, "EIO", refused, call)
            num_named += 1
        assert finished(half).items() <= finished(folder).items()
        expect_resumed(folder, whole, call)
    assert num_named > 0


def test_a_manifest_that_cannot_be_looked_at_is_not_taken_for_absent(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "s"))
    real, before = os.lstat, finished(folder)

    def refuse(path: os.PathLike[str], **options: int) -> os.stat_result:
        if str(path).endswith("store.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", refuse)
    other = manifest(num_rows=23, fingerprint={"teacher": "another"})
    with pytest.raises(StorageError, match=r"store\.json: .*Input/output error"):
        FolderWriter(folder, other).__enter__()
    monkeypatch.undo()
    assert finished(folder) == before


COMMITTED = ["complete.json", *(f"shards/{index:06}" for index in range(6)), "store.json"]


def num_syncs(calls: Sequence[Call]) -> int:
    """How often something was made durable."""
    return sum(call.name == "fsync" for call in calls)


def committed(folder: Path) -> set[str]:
    """What a reader would find of a store: records and shards, by name."""
    return {name for name in COMMITTED if (folder / name).exists()}


def is_durable(name: str, calls: Sequence[Call]) -> bool:
    """Whether the file or folder was renamed into place and the folder that holds it synced."""
    renamed = [at for at, c in enumerate(calls) if "rename" in c.name and f'/{name}")' in c.line]
    return bool(renamed) and any(c.name == "fsync" for c in calls[renamed[0] :])


@needs_strace
@pytest.mark.parametrize(
    "number", [pytest.param(6, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_what_a_failed_fsync_left_is_never_put_in_place(
    server: RunServer,
    undisturbed: Sequence[Call],
    tmp_path: Path,
    whole: Path,
    number: int | None,
) -> None:
    calls = [call for call in undisturbed if call.name == "fsync"]
    assert len(calls) >= 70
    for call in some(calls, number):
        folder = tmp_path / f"fsync-{call.number}"
        outcome = server.run(folder, synced=True, faults=[call.fault("error=EIO")])
        expect_named(outcome, "EIO", folder, call)
        # It was not tried again, and what it was to make durable has gone, also after its rename.
        assert num_syncs(outcome.calls) == call.number
        before = undisturbed[: undisturbed.index(call)]
        assert sorted(committed(folder)) == [name for name in COMMITTED if is_durable(name, before)]
        assert not list(folder.rglob(".tmp-*"))
        expect_resumed(folder, whole, call)


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """A disk that is full when an array's file gets its second part: after header and first."""
    left = 3 if name.endswith("_offsets.npy") else 2  # offsets begin with a zero

    def act(step: str) -> None:
        nonlocal left
        if step == f"write {name}":
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with before_each_step(act):
        yield


@pytest.mark.parametrize("name", ["logits.npy", "recomputed.npy", "text.npy", "ids_offsets.npy"])
def test_a_disk_that_fills_up_within_a_shard_is_named_with_the_file(
    tmp_path: Path, whole: Path, name: str
) -> None:
    folder = tmp_path / "s"
    with (
        refusing(name),
        pytest.raises(StorageError, match=rf"000000.*{name}: .*No space left.* Free some space"),
    ):
        write_store(folder, SIX_SHARDS, cuts=CUTS)
    assert list((folder / "shards").iterdir()) == []
    write_store(folder, SIX_SHARDS, cuts=CUTS)
    assert entries(folder) == entries(whole)


def test_a_refusal_that_the_block_passes_over_commits_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with refusing("text.npy"), FolderWriter(folder, SIX_SHARDS) as writer:
        shard = writer.missing[0]
        arguments = shard_arguments(SIX_SHARDS, shard)
        with (
            pytest.raises(StoreError, match="row 2 on, that was not written to its end"),
            writer.shard(shard, text_bytes(arguments["documents"])) as builder,
        ):
            builder.append(**part(arguments, 0, 2))
            with pytest.raises(StorageError):
                builder.append(**part(arguments, 2, 4))
            with pytest.raises(StoreError, match="Begin it again"):
                builder.append(**part(arguments, 2, 4))
        assert list((folder / "shards").iterdir()) == []
        assert shard in writer.missing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize(
    "number", [pytest.param(16, id="sampled"), pytest.param(None, id="all", marks=COMPLETE)]
)
def test_a_refused_step_is_named_and_earlier_shards_stay(
    tmp_path: Path, whole: Path, code: int, number: int | None
) -> None:
    steps = steps_of_a_run(tmp_path / "counted")
    for point in some(range(len(steps)), number):
        folder = tmp_path / f"refused-{point}"
        left = point

        def act(name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(code, os.strerror(code))

        with before_each_step(act), pytest.raises(StorageError) as caught:
            write_store(folder, SIX_SHARDS, cuts=CUTS)
        assert os.strerror(code) in str(caught.value)
        assert str(folder) in str(caught.value)
        expect_right_or_incomplete(folder, whole)
        write_store(folder, SIX_SHARDS)
        assert entries(folder) == entries(whole), f"refused at step {point}, {steps[point]}"
        shutil.rmtree(folder)
