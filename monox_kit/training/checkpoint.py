"""Checkpoints of a training run: safetensors and JSON, built aside and renamed into place.

OUT.checkpoints/step-000200/
    model.safetensors       trainable parameters by name
    optimizer.safetensors   AdamW's moments, `<parameter>/<moment>`
    best.safetensors        trainable parameters at the best dev evaluation, where there was one
    random.safetensors      the state of PyTorch's generator
    state.json              step, position in the order of rows, run fingerprint, best dev result,
                            history, digests of the above
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from monox_kit.bundle import require_same_run
from monox_kit.digest import digest_file
from monox_kit.durable import new_folder, remove_all_leftovers, remove_folder, write_json
from monox_kit.errors import ConfigError, StorageError
from monox_kit.training.order import Position

_KEPT = 2
_STATE_FILE = "state.json"
_OURS = re.compile(r"step-\d+|\.tmp-.*")

Tensors = dict[str, torch.Tensor]


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything that a run needs to go on as if it had not been interrupted.

    Attributes:
        step: finished steps.
        position: of the next batch.
        model: trainable parameters by name.
        optimizer: AdamW's moments by `<parameter>/<moment>`.
        random: the state of PyTorch's CPU generator, uint8.
        best: trainable parameters at the best dev evaluation; empty before the first.
        best_result: that evaluation; empty before the first.
        history: one record per dev evaluation.
    """

    step: int
    position: Position
    model: Tensors
    optimizer: Tensors
    random: torch.Tensor
    best: Tensors = field(default_factory=dict)
    best_result: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run in `folder`; the newest two are kept.

    Args:
        folder: where they stand.
        fingerprint: what the run is made from; a checkpoint of another run is refused.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self._folder = folder
        self._fingerprint = dict(fingerprint)

    def save(self, state: TrainingState) -> None:
        """Commit a checkpoint, then remove all but the newest two."""
        final = self._folder / f"step-{state.step:06d}"
        groups = {"model": state.model, "optimizer": state.optimizer, "best": state.best}
        groups["random"] = {"cpu": state.random}
        with new_folder(final, replace=True) as folder:
            digests = {}
            for name, tensors in groups.items():
                path = folder / f"{name}.safetensors"
                save_file({key: value.contiguous() for key, value in tensors.items()}, str(path))
                digests[path.name] = digest_file(path)
            record = {
                "step": state.step,
                "position": asdict(state.position),
                "fingerprint": self._fingerprint,
                "best_result": state.best_result,
                "history": state.history,
                "digests": digests,
            }
            write_json(folder / _STATE_FILE, record)
        for old in self._steps()[:-_KEPT]:
            remove_folder(old)

    def load_newest(self) -> TrainingState | None:
        """The newest checkpoint; None where the run has not saved one.

        Raises:
            ConfigError: it belongs to a run with other settings or data.
            StorageError: a file differs from its record.
        """
        if not self._folder.is_dir():
            return None
        self._require_ours()
        remove_all_leftovers(self._folder)
        steps = self._steps()
        return self._load(steps[-1]) if steps else None

    def remove(self) -> None:
        """Remove every checkpoint: the run has ended."""
        if self._folder.is_dir():
            self._require_ours()
        remove_folder(self._folder)

    def _require_ours(self) -> None:
        foreign = [p.name for p in self._folder.iterdir() if not _OURS.fullmatch(p.name)]
        if foreign:
            raise ConfigError(
                f"{self._folder}: expected checkpoints alone, found {foreign[0]}. Give another "
                "--out: this folder is removed when the training ends."
            )

    def _steps(self) -> list[Path]:
        found = (path for path in self._folder.glob("step-*") if path.is_dir())
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _load(self, folder: Path) -> TrainingState:
        try:
            record = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
            step, digests = int(record["step"]), dict(record["digests"])
            position = Position(**record["position"])
            best_result, history = dict(record["best_result"]), list(record["history"])
            fingerprint = dict(record["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{folder / _STATE_FILE}: expected a checkpoint's record, found: {error!r}. "
                f"Delete {folder} to resume from the checkpoint before it."
            ) from error
        require_same_run(fingerprint, self._fingerprint, self._folder)
        groups: dict[str, Tensors] = {}
        for name in ("model", "optimizer", "best", "random"):
            path = folder / f"{name}.safetensors"
            found = digest_file(path) if path.is_file() else "no file"
            if found != digests.get(path.name):
                raise StorageError(
                    f"{path}: expected digest {str(digests.get(path.name))[:12]}, found "
                    f"{found[:12]}. Delete {folder} to resume from the checkpoint before it."
                )
            groups[name] = load_file(str(path))
        return TrainingState(
            step=step,
            position=position,
            model=groups["model"],
            optimizer=groups["optimizer"],
            random=groups["random"]["cpu"],
            best=groups["best"],
            best_result=best_result,
            history=history,
        )
