"""Stages of a demo run: each result records the digest of what it was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monox_kit.digest import digest_json
from monox_kit.durable import remove_folder, write_json
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress

SETTINGS_FILE = "settings.json"


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

    def run(
        self,
        name: str,
        inputs: Mapping[str, Any],
        compute: Callable[[], Mapping[str, Any]],
        output: Path | None = None,
    ) -> dict[str, Any]:
        """The result of a stage: the one on disk where its inputs are equal, else a new one.

        What an earlier run of the stage left is removed where it was made from other inputs, and
        continued where it was made from the same and was interrupted.

        Args:
            name: the stage.
            inputs: everything that the result depends on, with digests of files.
            compute: runs the stage; what it returns must be plain JSON values.
            output: the folder that the stage writes; None where it writes none.
        """
        self._started += 1
        path = self._folder / f"{name}.json"
        digest = digest_json(inputs)
        title = f"[{self._started}/{self._count}] {name}"
        found = _read(path) or {}
        is_same = found.get("inputs_digest") == digest
        if is_same and found.get("result") is not None and (output is None or output.is_dir()):
            self._progress.note(f"{title}: finished earlier, reused")
            self.seconds[name] = found["seconds"]
            return dict(found["result"])
        if found and not is_same and output is not None:
            self._progress.note(f"{title}: made from other inputs before, running again")
            remove_folder(output)
            remove_folder(output.parent / f"{output.name}.checkpoints")
        else:
            self._progress.note(title)
        record = {
            "stage": name,
            "inputs_digest": digest,
            "inputs": json.loads(json.dumps(inputs)),
            # Time that interrupted runs of the same stage took counts too.
            "seconds": float(found.get("seconds", 0.0)) if is_same else 0.0,
            "result": None,
        }
        write_json(path, record)
        before, started = float(record["seconds"]), time.perf_counter()
        try:
            record["result"] = json.loads(json.dumps(compute()))
        finally:
            record["seconds"] = round(before + time.perf_counter() - started, 2)
            write_json(path, record)
        self.seconds[name] = record["seconds"]
        return dict(record["result"])


def own_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Mark `out` as a demo run's folder and record the settings of this one.

    Raises:
        ConfigError: files of something else stand there.
    """
    path = out / SETTINGS_FILE
    if not path.is_file():
        others = [entry.name for entry in out.iterdir() if not entry.name.startswith(".tmp-")]
        if others:
            raise ConfigError(
                f"--out {out}: expected an empty folder or a demo run, found other files "
                f"({others[0]}). Give another --out."
            )
    write_json(path, json.loads(json.dumps(settings)))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{path}: expected a stage's record, found: {error}. Delete the file to run the "
            "stage again."
        ) from error
    return value if isinstance(value, dict) else None
