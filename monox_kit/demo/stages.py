"""Finished stages of a demo run: each result records the digest of what it was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monox_kit.digest import digest_json
from monox_kit.durable import write_json
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
        self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The result of a stage: the one on disk where its inputs are equal, else a new one.

        Args:
            name: the stage.
            inputs: everything that the result depends on, with digests of files.
            compute: runs the stage; what it returns must be plain JSON values.
        """
        self._started += 1
        path = self._folder / f"{name}.json"
        digest = digest_json(inputs)
        title = f"[{self._started}/{self._count}] {name}"
        found = _read(path)
        if found is not None and found.get("inputs_digest") == digest:
            self._progress.note(f"{title}: finished earlier, reused")
            self.seconds[name] = found["seconds"]
            return dict(found["result"])
        self._progress.note(title)
        started = time.perf_counter()
        result = json.loads(json.dumps(compute()))
        self.seconds[name] = round(time.perf_counter() - started, 2)
        record = {
            "stage": name,
            "inputs_digest": digest,
            "inputs": json.loads(json.dumps(inputs)),
            "seconds": self.seconds[name],
            "result": result,
        }
        write_json(path, record)
        return dict(result)


def require_same_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Record a run's settings, or check that a run in `out` was started with the same.

    Raises:
        ConfigError: a setting differs; the message names it and both values.
    """
    path = out / SETTINGS_FILE
    asked = json.loads(json.dumps(settings))
    found = _read(path)
    if found is None:
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(
                f"{out}: expected an empty folder or a demo run, found other files. "
                "Give another --out."
            )
        write_json(path, asked)
        return
    for key in sorted({*asked, *found}):
        if asked.get(key) != found.get(key):
            raise ConfigError(
                f"{out}: expected --{key.replace('_', '-')} {asked.get(key)!r} as asked now, found "
                f"{found.get(key)!r} of the run that stands there. Give another --out, or delete "
                "the folder."
            )


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
