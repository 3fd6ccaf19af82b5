"""Checkpoints of a training run: safetensors and JSON, built aside and renamed into place.

OUT.checkpoints/
    log.jsonl                   the run's log, see `training.log`
    step-000200/
        model.safetensors       trainable parameters by name
        optimizer.safetensors   AdamW's moments, `<parameter>/<moment>`
        best.safetensors        trainable parameters at the best dev evaluation, where there was one
        random.safetensors      the states of PyTorch's generators, `<rank>/<device type>`
        state.json              step, position in the order of rows, run fingerprint, dev results,
                                sizes and digests of the above

Nothing in them is believed before it is checked, and nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from monox_kit.digest import digest_file
from monox_kit.durable import (
    new_folder,
    remove_all_leftovers,
    remove_file,
    remove_folder,
    write_file,
)
from monox_kit.errors import CheckpointError, ConfigError, StoreError
from monox_kit.problem import MEASURES
from monox_kit.progress import Progress, Silent
from monox_kit.stage import require_same_run
from monox_kit.store.record import DIGEST_KEY, PlainFolder, encode_record, parse_record, typed
from monox_kit.training.checkpoint_tensors import DAMAGED, damaged, read_tensors, require_fitting
from monox_kit.training.order import Position
from monox_kit.training.state import Parameters, Tensors, TrainingState

_STATE_FILE = "state.json"
_LOG_FILE = "log.jsonl"
_VERSION = 1
_GROUPS = ("model", "optimizer", "best", "random")
_KINDS: Mapping[str, type[Any]] = {
    "step": int,
    "position": dict,
    "fingerprint": dict,
    "best_result": dict,
    "best_sets": dict,
    "history": list,
    "files": dict,
}
_KEYS = frozenset({"format_version", *_KINDS, DIGEST_KEY})
_NAME = re.compile(r"step-[0-9]{6,}")
_LEFTOVER = re.compile(r"\.tmp-.*")


class Checkpoints:
    """The checkpoints of one run in `folder`; the newest and the one before it are kept.

    Args:
        folder: where they stand.
        fingerprint: what the run is made from; a checkpoint of another run is refused.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self._folder = folder
        self._fingerprint = dict(fingerprint)
        self._good: Path | None = None  # the newest that this process saved or read

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What the run is made from."""
        return self._fingerprint

    @property
    def log_path(self) -> Path:
        """Where the run's log is kept."""
        return self._folder / _LOG_FILE

    def save(self, state: TrainingState) -> None:
        """Commit a checkpoint, then remove all but it and the one before.

        Raises:
            NotFinite: it would hold NaN or an infinity.
            StorageError: the disk refused.
        """
        final = self._folder / f"step-{state.step:06d}"
        if final == self._good:
            return  # equal; to replace it would leave a moment without it
        state.require_finite()
        with new_folder(final, replace=True) as folder:
            files = {}
            for name in _GROUPS:
                path = folder / f"{name}.safetensors"
                tensors: Tensors = getattr(state, name)
                save_file({key: value.contiguous() for key, value in tensors.items()}, str(path))
                files[path.name] = {"bytes": path.stat().st_size, "digest": digest_file(path)}
            record = {
                "format_version": _VERSION,
                "step": state.step,
                "position": asdict(state.position),
                "fingerprint": self._fingerprint,
                "best_result": state.best_result,
                "best_sets": state.best_sets,
                "history": state.history,
                "files": files,
            }
            write_file(folder / _STATE_FILE, encode_record(record, final / _STATE_FILE))
        for old in self._steps():
            if old not in (final, self._good):
                remove_folder(old)
        self._good = final

    def load_newest(
        self, parameters: Parameters, progress: Progress | None = None
    ) -> TrainingState | None:
        """The newest checkpoint that is whole; None where the run has not saved one.

        Raises:
            ConfigError: it belongs to a run with other settings or data.
            CheckpointError: there are some, and all are damaged.
        """
        if not self._folder.is_dir():
            return None
        self._require_ours()
        remove_all_leftovers(self._folder)
        damages = []
        for folder in reversed(self._steps()):
            try:
                state = self._load(folder, parameters)
            except CheckpointError as error:
                damages.append(error)
                continue
            for damage in damages:
                (progress or Silent()).note(f"{damage} Resuming from {folder.name}, before it.")
            return state
        if damages:
            raise CheckpointError(
                f"{damages[0]} No earlier one can be used: delete {self._folder} to start again."
            )
        return None

    def load(self, step: int, parameters: Parameters) -> TrainingState:
        """The checkpoint of a step.

        Raises:
            CheckpointError: it is absent or damaged.
        """
        return self._load(self._folder / f"step-{step:06d}", parameters)

    def remove(self, progress: Progress) -> None:
        """Remove every checkpoint and the log: the run has ended. What else is there stays."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if not _is_ours(path):
                continue
            if path.is_dir():
                remove_folder(path)
            else:
                remove_file(path)
        others = sorted(path.name for path in self._folder.iterdir())
        if others:
            progress.note(f"{self._folder}: not removed, it holds {', '.join(others[:3])}")
        else:
            remove_folder(self._folder)

    def _require_ours(self) -> None:
        for path in self._folder.iterdir():
            if not _is_ours(path):
                raise ConfigError(
                    f"{self._folder}: it is for checkpoints, and holds {path.name}. Move that "
                    "away, or give another `out`."
                )

    def _steps(self) -> list[Path]:
        found = (path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _load(self, folder: Path, parameters: Parameters) -> TrainingState:
        try:
            with PlainFolder(folder, DAMAGED) as opened:
                state = self._read(folder, opened, parameters)
        except StoreError as error:  # of the reader of records, which stores have too
            raise CheckpointError(str(error)) from error
        self._good = folder
        return state

    def _read(self, folder: Path, opened: PlainFolder, parameters: Parameters) -> TrainingState:
        path = folder / _STATE_FILE
        content = opened.read_small(_STATE_FILE)
        record = parse_record(content, path, _KEYS, _VERSION, DAMAGED)
        values: dict[str, Any] = {
            key: typed(record, key, kind, path, DAMAGED) for key, kind in _KINDS.items()
        }
        require_same_run(values["fingerprint"], self._fingerprint, self._folder)
        if folder.name != f"step-{values['step']:06d}":
            raise damaged(path, f"the record of {folder.name}", f"step {values['step']}")
        chosen = [*values["history"], *filter(None, [values["best_result"]])]
        of_sets = values["best_sets"].values()
        if not (
            all(_is_result(result, "step") for result in chosen)
            and all(_is_result(result, "rows") for result in of_sets)
        ):
            raise damaged(path, "measure and loss of every dev evaluation", "something else")
        if set(values["files"]) != {f"{name}.safetensors" for name in _GROUPS}:
            raise damaged(path, "the files of a checkpoint", f"{sorted(values['files'])[:5]}")
        groups = {}
        for name in _GROUPS:
            file_name = f"{name}.safetensors"
            groups[name] = read_tensors(opened, folder / file_name, values["files"][file_name])
        require_fitting(folder, groups, parameters, bool(values["best_result"]))
        return TrainingState(
            step=values["step"],
            position=_position(values["position"], path),
            **groups,
            best_result=values["best_result"],
            best_sets=values["best_sets"],
            history=values["history"],
        )


def _is_ours(path: Path) -> bool:
    """Whether a run made this entry of its checkpoints' folder."""
    if path.is_symlink():
        return False
    if _NAME.fullmatch(path.name):
        return path.is_dir()
    return bool(_LEFTOVER.fullmatch(path.name)) or (path.name == _LOG_FILE and path.is_file())


def _position(value: Mapping[str, Any], path: Path) -> Position:
    """The position in the order of rows; how many windows and batches there are is not known."""
    names = {field.name for field in fields(Position)}
    if set(value) != names or any(type(v) is not int or v < 0 for v in value.values()):
        raise damaged(path, "epoch, window and batch from 0", repr(value)[:60])
    return Position(**value)


def _is_result(value: Any, third: str) -> bool:
    return (
        isinstance(value, dict)
        and {"loss", third} <= set(value)
        and any(name in value for name in MEASURES)
        and all(type(number) in (int, float) for number in value.values())
    )
