"""Crashes, refusing disks and damaged files: a store is right, or says by name what is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from monox_kit.errors import StorageError, StoreError, StoreIncomplete
from monox_kit.store import LogitStore, StoreWriter
from monox_kit.store import builder as builder_module
from tests.store_samples import manifest, part, shard_arguments, text_bytes, tree, write_store

SHARD = Path("shards/000001")
CUTS = [2]  # every shard in two parts


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: a killed process loses no page cache, and refusals are simulated."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store that nothing happened to."""
    return write_store(tmp_path_factory.mktemp("whole") / "s")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


# Exceptions and kills


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_an_exception_completes_nothing_and_costs_one_shard(
    tmp_path: Path, whole: Path, stop: int
) -> None:
    folder = tmp_path / "s"
    with pytest.raises(ZeroDivisionError), StoreWriter(folder, manifest()) as writer:
        for shard in writer.missing[:stop]:
            writer.write_shard(shard, **shard_arguments(manifest(), shard))
        raise ZeroDivisionError
    with pytest.raises(StoreIncomplete, match=f"found {[0, 4, 8, 11][stop]} of 11 rows"):
        LogitStore.open(folder)
    done = tree(folder)
    write_store(folder)
    assert tree(folder) == tree(whole)
    assert done.items() <= tree(folder).items()


@contextmanager
def before_each_step(act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with a name before every step by which a writer changes the disk.

    What is written to an array's file counts as a step with half of its bytes written before.
    """
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (os, "fsync"),
            (os, "rename"),
            (os, "replace"),
            (os, "mkdir"),
            (tempfile, "mkstemp"),
        ):
            real = getattr(owner, name)

            def step(*args: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
                act(_name)
                return _real(*args, **options)

            patch.setattr(owner, name, step)

        class Stepped:
            def __init__(self, stream: BinaryIO) -> None:
                self.stream = stream

            def write(self, part: bytes | memoryview) -> None:
                content = bytes(part)
                self.stream.write(content[: len(content) // 2])
                self.stream.flush()
                act(f"write {Path(self.stream.name).name}")
                self.stream.write(content[len(content) // 2 :])

        real_member = builder_module.new_member

        @contextmanager
        def new_member(path: Path) -> Iterator[Stepped]:
            act(f"open {path.name}")
            with real_member(path) as stream:
                yield Stepped(stream)

        patch.setattr(builder_module, "new_member", new_member)
        yield


def steps_of_a_run(folder: Path) -> list[str]:
    steps: list[str] = []
    with before_each_step(steps.append):
        write_store(folder, cuts=CUTS)
    return steps


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
                write_store(folder, cuts=CUTS)
        finally:
            os._exit(1)  # not reached where the kill came
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def expect_right_or_incomplete(folder: Path, whole: Path) -> None:
    """A reader takes a killed run for complete only if it is."""
    try:
        assert LogitStore.open(folder, verify="full").digest == LogitStore.open(whole).digest
    except StoreError as error:
        assert isinstance(error, StoreIncomplete) or not (folder / "store.json").exists()


def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, whole: Path) -> None:
    steps = steps_of_a_run(tmp_path / "counted")
    assert len(steps) > 150
    for point in range(0, len(steps), 4):
        folder = tmp_path / f"killed-{point}"
        killed_at(folder, point)
        if folder.exists():
            expect_right_or_incomplete(folder, whole)
        write_store(folder)
        assert tree(folder) == tree(whole), f"killed before step {point}, {steps[point]}"
        shutil.rmtree(folder)


def test_kills_on_top_of_kills(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "s"
    for point in (3, 20, 1, 25, 30, 2):
        killed_at(folder, point)
        expect_right_or_incomplete(folder, whole)
    write_store(folder)
    assert tree(folder) == tree(whole)


class Stop(BaseException):
    """What no handler expects, as KeyboardInterrupt."""


# Of the block's own making: those of the disk need not be of the store's.
BLOCK_ERRORS: list[BaseException] = [
    ZeroDivisionError(),
    Stop(),
    PermissionError(errno.EACCES, "refused", "corpus.jsonl"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("No space left on device"),
    StoreError("of another store"),
]


@pytest.mark.parametrize("num_parts", [0, 1, 2])
@pytest.mark.parametrize("error", BLOCK_ERRORS, ids=repr)
def test_an_exception_between_parts_leaves_as_it_is_and_commits_nothing(
    tmp_path: Path, whole: Path, num_parts: int, error: BaseException
) -> None:
    folder = tmp_path / "s"
    with StoreWriter(folder, manifest()) as writer:
        before, shard = tree(folder), writer.missing[1]
        arguments = shard_arguments(manifest(), shard)
        with (
            pytest.raises(type(error)) as caught,
            writer.shard(shard, text_bytes(arguments["documents"])) as builder,
        ):
            for start in range(0, 2 * num_parts, 2):
                builder.append(**part(arguments, start, start + 2))
            assert len(list((folder / "shards").iterdir())) == 1
            raise error
        assert caught.value is error
        assert tree(folder) == before
        assert list((folder / "shards").iterdir()) == []
        assert shard in writer.missing
        with pytest.raises(StoreError, match="found a shard whose block has ended"):
            builder.append(**part(arguments, 2 * num_parts, 4))
    write_store(folder, cuts=CUTS)
    assert tree(folder) == tree(whole)


# Disks that refuse


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
        write_store(folder, cuts=CUTS)
    assert list((folder / "shards").iterdir()) == []
    write_store(folder, cuts=CUTS)
    assert tree(folder) == tree(whole)


def test_a_refusal_that_the_block_passes_over_commits_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with refusing("text.npy"), StoreWriter(folder, manifest()) as writer:
        shard = writer.missing[0]
        arguments = shard_arguments(manifest(), shard)
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
def test_a_refusing_disk_is_named_and_earlier_shards_stay(
    tmp_path: Path, whole: Path, code: int
) -> None:
    steps = steps_of_a_run(tmp_path / "counted")
    for point in range(code % 5, len(steps), 5):
        folder = tmp_path / f"refused-{point}"
        left = point

        def act(name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(code, os.strerror(code))

        with before_each_step(act), pytest.raises(StorageError) as caught:
            write_store(folder, cuts=CUTS)
        assert os.strerror(code) in str(caught.value)
        assert str(folder) in str(caught.value)
        if folder.exists():
            finished = {
                name: content for name, content in tree(folder).items() if ".tmp-" not in name
            }
            assert finished.items() <= tree(whole).items()
            expect_right_or_incomplete(folder, whole)
        write_store(folder)
        assert tree(folder) == tree(whole), f"refused at step {point}, {steps[point]}"
        shutil.rmtree(folder)
