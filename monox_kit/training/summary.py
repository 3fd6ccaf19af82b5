"""What a training stage did: its summary, which the finished model folder keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monox_kit.models.folder import RECORD_FILE, BundleRecord, require_content
from monox_kit.results import Result
from monox_kit.stage import is_finished
from monox_kit.training.state import Figures


@dataclass(frozen=True, slots=True)
class TrainingSummary(Result):
    """What a training stage did.

    Attributes:
        path: the trained model's folder.
        method: the objective.
        counts: rows by what they are; in `self-training`, of the round that was kept.
        num_steps: optimizer steps; in `self-training`, of all rounds.
        dev_accuracy: of the weights that were kept, in [0, 1]; on `dev`; None where a row has any
            number of labels.
        dev_loss: their mean cross-entropy there.
        best_step: the step that they are from.
        history: every dev evaluation; in `self-training` with its round.
        precision: `fp32` or `bf16`.
        trained_s: seconds that the training took, in the process that finished it.
        reused: whether the folder held the finished model of the same run.
        stopped_early: whether `patience` ended it.
        selected_on: the dev sets that chose the weights.
        dev_sets: accuracy (or `micro_f1`), loss and rows of those weights by dev set.
        classes: rows kept and left out, of each class as the teacher labels them; empty where
            none were chosen by confidence.
        rounds: of `self-training`: what each learned from, its steps, its dev result and whether it
            was kept; empty for other methods.
        dev_micro_f1: of the weights that were kept, in [0, 1], on `dev`, where a row has any
            number of labels; else None.
        truncation: of the rows that this process trained on, and of those of the dev sets: how many
            were truncated, and by how many tokens; empty for runs of 0.1.0.
    """

    path: Path
    method: str
    counts: Mapping[str, int]
    num_steps: int
    dev_accuracy: float | None
    dev_loss: float
    best_step: int
    history: Sequence[Mapping[str, float]]
    precision: str
    trained_s: float
    reused: bool
    stopped_early: bool
    selected_on: Sequence[str]
    dev_sets: Mapping[str, Figures]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rounds: Sequence[Mapping[str, Any]] = ()
    dev_micro_f1: float | None = None
    truncation: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """What the model's own record keeps of it: all but the folder, which may move."""
        return {key: value for key, value in self.to_json().items() if key != "path"}


def finished_run(out: Path, fingerprint: Mapping[str, Any]) -> TrainingSummary | None:
    """The summary of the equal run that already stands at `out`; None where `out` is free.

    Raises:
        ConfigError: something else stands there, or another run.
        ModelError: the weights or the tokenizer are not those that the run left.
    """
    path = out / RECORD_FILE
    provenance = BundleRecord.read(path).provenance if path.is_file() else {}
    run = provenance.get("run") if "content" in provenance else None
    if not is_finished(out, run, fingerprint):
        return None
    require_content(out, provenance["content"])
    values = {**provenance["summary"], "reused": True}
    return TrainingSummary(path=out, **values)
