"""The steps by which a writer changes the disk, with something done before each; no tracer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from monox_kit import durable
from monox_kit.store import builder as builder_module
from tests.faults.states import SIX_SHARDS
from tests.store_samples import write_store

CUTS = [2]  # every shard in two parts


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
            (durable, "_open_new"),
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
    """The names of the steps of an undisturbed run, in order."""
    steps: list[str] = []
    with before_each_step(steps.append):
        write_store(folder, SIX_SHARDS, cuts=CUTS)
    return steps
