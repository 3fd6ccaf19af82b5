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

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from monox_kit.bundle import require_same_run
from monox_kit.digest import digest_file
from monox_kit.durable import new_folder, remove_all_leftovers, remove_folder, write_file
from monox_kit.errors import CheckpointError, ConfigError, StoreError, first_line
from monox_kit.problem import MEASURES
from monox_kit.progress import Progress, Silent
from monox_kit.store.record import (
    DIGEST_KEY,
    PlainFolder,
    encode_record,
    parse_record,
    typed,
)
from monox_kit.training.finite import first_not_finite
from monox_kit.training.order import Position
from monox_kit.training.state import Parameters, Tensors, TrainingState
from monox_kit.training.tensor_file import read_header

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
_DAMAGED = "The checkpoint is damaged."


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

        Args:
            parameters: the model's trainable ones.
            progress: where the damaged ones that are passed over are told of.

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
                f"{damages[0]} None before it can be used: delete {self._folder} to start again."
            )
        return None

    def load(self, step: int, parameters: Parameters) -> TrainingState:
        """The checkpoint of a step.

        Raises:
            CheckpointError: it is absent or damaged.
        """
        return self._load(self._folder / f"step-{step:06d}", parameters)

    def remove(self) -> None:
        """Remove every checkpoint: the run has ended."""
        if self._folder.is_dir():
            self._require_ours()
        remove_folder(self._folder)

    def _require_ours(self) -> None:
        for path in self._folder.iterdir():
            is_folder = path.is_dir() and not path.is_symlink()
            is_file = path.is_file() and not path.is_symlink()
            if not (
                (_NAME.fullmatch(path.name) and is_folder)
                or (path.name == _LOG_FILE and is_file)
                or (_LEFTOVER.fullmatch(path.name) and not path.is_symlink())
            ):
                raise ConfigError(
                    f"{self._folder}: expected checkpoints alone, found {path.name}. Give another "
                    "--out: this folder is removed when the training ends."
                )

    def _steps(self) -> list[Path]:
        found = (path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _load(self, folder: Path, parameters: Parameters) -> TrainingState:
        try:
            with PlainFolder(folder, _DAMAGED) as opened:
                state = self._read(folder, opened, parameters)
        except StoreError as error:  # of the reader of records, which stores have too
            raise CheckpointError(str(error)) from error
        self._good = folder
        return state

    def _read(self, folder: Path, opened: PlainFolder, parameters: Parameters) -> TrainingState:
        path = folder / _STATE_FILE
        content = opened.read_small(_STATE_FILE)
        record = parse_record(content, path, _KEYS, _VERSION, _DAMAGED)
        values: dict[str, Any] = {
            key: typed(record, key, kind, path, _DAMAGED) for key, kind in _KINDS.items()
        }
        require_same_run(values["fingerprint"], self._fingerprint, self._folder)
        if folder.name != f"step-{values['step']:06d}":
            raise _damaged(path, f"the record of {folder.name}", f"step {values['step']}")
        results = [*values["history"], *values["best_sets"].values()]
        results += [values["best_result"]] if values["best_result"] else []
        if not all(_is_result(result) for result in results):
            raise _damaged(path, "measure and loss of every dev evaluation", "something else")
        if set(values["files"]) != {f"{name}.safetensors" for name in _GROUPS}:
            raise _damaged(path, "the files of a checkpoint", f"{sorted(values['files'])[:5]}")
        groups = {}
        for name in _GROUPS:
            file_name = f"{name}.safetensors"
            groups[name] = _read_tensors(opened, folder / file_name, values["files"][file_name])
        _require_fitting(folder, groups, parameters, bool(values["best_result"]))
        return TrainingState(
            step=values["step"],
            position=_position(values["position"], path),
            **groups,
            best_result=values["best_result"],
            best_sets=values["best_sets"],
            history=values["history"],
        )


def _read_tensors(opened: PlainFolder, path: Path, entry: Any) -> Tensors:
    """The tensors of a file whose size and digest are those of its `entry` in the record."""
    if not isinstance(entry, dict) or set(entry) != {"bytes", "digest"}:
        raise _damaged(path, "its size and digest in the record", repr(entry)[:60])
    num_bytes = typed(entry, "bytes", int, path, _DAMAGED)
    with opened.open_file(path.name, num_bytes) as stream:
        # First, and in little memory: a file may be of any size.
        read_header(stream, num_bytes, path)
        stream.seek(0)
        content = stream.readall()
    found = hashlib.sha256(content).hexdigest()
    if found != entry["digest"]:
        raise _damaged(path, f"digest {str(entry['digest'])[:12]}", found[:12])
    try:
        # Of the bytes that were checked: mapped from the file they could change or go under a run.
        return load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise _damaged(path, "safetensors", first_line(error)) from error


def _require_fitting(
    folder: Path, groups: Mapping[str, Tensors], parameters: Parameters, has_best: bool
) -> None:
    """Check that the tensors are those of a run of this model, and finite.

    Raises:
        CheckpointError: they are not.
    """
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    for group, tensors in groups.items():
        path = folder / f"{group}.safetensors"
        dtype = torch.uint8 if group == "random" else torch.float32
        for name, tensor in tensors.items():
            if tensor.dtype != dtype:
                raise _damaged(path, f"{dtype} values of {name}", str(tensor.dtype))
        if group in ("model", "best"):
            wanted = {} if group == "best" and not has_best else shapes
            found = {name: tuple(value.shape) for name, value in tensors.items()}
            if found != wanted:
                differing = sorted(found.items() ^ wanted.items())[0][0]
                raise _damaged(
                    path,
                    f"{differing} of shape {wanted.get(differing)}",
                    f"shape {found.get(differing)}",
                )
        elif group == "optimizer":
            for name, tensor in tensors.items():
                shape = shapes.get(name.rpartition("/")[0])
                if shape is None or tuple(tensor.shape) not in ((), shape):
                    raise _damaged(path, f"a moment of shape {shape}", f"{name} of another")
        elif "0/cpu" not in tensors or any(tensor.ndim != 1 for tensor in tensors.values()):
            raise _damaged(path, "the states of generators", f"{sorted(tensors)[:3]}")
        not_finite = first_not_finite(tensors)
        if not_finite is not None:
            raise _damaged(path, "finite values", f"NaN or Inf in {not_finite}")


def _position(value: Mapping[str, Any], path: Path) -> Position:
    """The position in the order of rows; how many windows and batches there are is not known."""
    names = {field.name for field in fields(Position)}
    if set(value) != names or any(type(v) is not int or v < 0 for v in value.values()):
        raise _damaged(path, "epoch, window and batch from 0", repr(value)[:60])
    return Position(**value)


def _is_result(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "loss" in value
        and any(name in value for name in MEASURES)
        and all(type(number) in (int, float) for number in value.values())
    )


def _damaged(path: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(f"{path}: expected {expected}, found {found}. {_DAMAGED}")
