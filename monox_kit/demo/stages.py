"""Stages of a demo run: what each gave and how long it took, kept beside what it wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from monox_kit.durable import remove_folder, write_json
from monox_kit.errors import OtherRun, StoreMismatch
from monox_kit.progress import Progress
from monox_kit.stage import read_record

# What a summary tells of the run that gave it and of the place, and not of what the run left.
_OF_THE_RUN = frozenset(
    {
        "folder",
        "path",
        "store",
        "cluster",
        "guard",
        "labelled_s",
        "num_repeated_rows",
        "num_resumed_rows",
        "padding_fraction",
        "plan",
        "reused",
        "rows_per_s",
        "tokens_per_s",
    }
)


class Summary(Protocol):
    """What a stage that writes a folder returns."""

    @property
    def reused(self) -> bool:
        """Whether an earlier run had finished the folder."""

    def to_json(self) -> Mapping[str, Any]:
        """The summary as plain JSON values."""


class Stages:
    """The stages of one run in `out`, numbered as they start.

    Args:
        out: the run's folder.
        count: how many stages there are.
        progress: told of every stage.
    """

    def __init__(self, out: Path, count: int, progress: Progress) -> None:
        self._folder = out / "stages"
        self._count = count
        self._progress = progress
        self._started = 0
        self.seconds: dict[str, float] = {}

    def write(self, name: str, output: Path, stage: Callable[[], Summary]) -> dict[str, Any]:
        """The result of a stage that writes a folder, and knows by itself whether it is finished.

        What another run left there is removed, for the folder is the demo's own; what an
        interrupted run left is continued.

        Args:
            name: the stage.
            output: the folder that it writes.
            stage: runs it.
        """
        kept = self._start(name)
        started_s = time.perf_counter()
        try:
            summary = stage()
        except (OtherRun, StoreMismatch):
            self._progress.note(f"{name}: made from other inputs before, running again")
            remove_folder(output)
            remove_folder(output.parent / f"{output.name}.checkpoints")
            summary = stage()
        result = _plain(summary.to_json())
        if summary.reused and _tells_of(kept.get("result"), result):
            return self._reused(name, kept)
        return self._noted(name, started_s, result)

    def compute(
        self, name: str, inputs: Mapping[str, Any], stage: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The result of a stage that writes no folder: the kept one where its inputs are equal.

        Args:
            name: the stage.
            inputs: everything that the result depends on, with digests of files.
            stage: runs it; what it returns must be plain JSON values.
        """
        kept = self._start(name)
        inputs = _plain(inputs)
        if kept.get("inputs") == inputs and kept.get("result") is not None:
            return self._reused(name, kept)
        started_s = time.perf_counter()
        result = _plain(stage())
        return self._noted(name, started_s, result, inputs=inputs)

    def _start(self, name: str) -> dict[str, Any]:
        """Number the stage; its record of an earlier run, empty where there is none."""
        self._started += 1
        self._progress.note(f"[{self._started}/{self._count}] {name}")
        path = self._folder / f"{name}.json"
        return read_record(path) if path.is_file() else {}

    def _reused(self, name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
        self._progress.note(f"{name}: finished earlier, reused")
        self.seconds[name] = kept["seconds"]
        return dict(kept["result"])

    def _noted(
        self, name: str, started_s: float, result: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        seconds = self.seconds[name] = round(time.perf_counter() - started_s, 2)
        record = {"stage": name, **more, "seconds": seconds, "result": result}
        write_json(self._folder / f"{name}.json", record)
        return result


def _tells_of(kept: Any, result: Mapping[str, Any]) -> bool:
    """Whether a kept result is of the output that `result` describes now."""
    return isinstance(kept, dict) and all(
        kept.get(key) == value for key, value in result.items() if key not in _OF_THE_RUN
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they read from a file."""
    return dict(json.loads(json.dumps(values)))
