"""Small checkpoints whose every value is a function of their step."""

from __future__ import annotations

from pathlib import Path

import torch

from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.order import Position
from monox_kit.training.state import TrainingState

FINGERPRINT = {"command": "train-student", "seed": 1, "learning_rate": 0.001, "method": "kd"}


def parameters() -> dict[str, torch.nn.Parameter]:
    """The trainable parameters of a model of two tensors."""
    return {
        "encoder.weight": torch.nn.Parameter(torch.zeros(4, 3)),
        "classifier.bias": torch.nn.Parameter(torch.zeros(3)),
    }


def state(step: int) -> TrainingState:
    """The state after `step` steps."""
    model = {name: torch.full(p.shape, step + 0.5) for name, p in parameters().items()}
    moments = {f"{name}/exp_avg": value / 8 for name, value in model.items()}
    moments |= {f"{name}/exp_avg_sq": value / 64 for name, value in model.items()}
    counts = {f"{name}/step": torch.tensor(float(step)) for name in model}
    result = {"step": float(step), "accuracy": 0.5, "loss": 1.25}
    return TrainingState(
        step=step,
        position=Position(epoch=step // 6, window=step % 3, batch=step % 2),
        model=model,
        optimizer={**moments, **counts},
        random={"0/cpu": torch.Generator().manual_seed(step).get_state()},
        best=model,
        best_result=result,
        best_sets={"dev": {"accuracy": 0.5, "loss": 1.25, "rows": 8.0}},
        history=[result],
    )


def write(folder: Path, *steps: int) -> Checkpoints:
    """The checkpoints of these steps, saved one after the other."""
    checkpoints = Checkpoints(folder, FINGERPRINT)
    for step in steps:
        checkpoints.save(state(step))
    return checkpoints


def newest(folder: Path) -> TrainingState | None:
    """What a new process would resume from."""
    return Checkpoints(folder, FINGERPRINT).load_newest(parameters())


def expect_equal(found: TrainingState | None, step: int) -> None:
    """`found` is the state of a step in every value."""
    assert found is not None
    wanted = state(step)
    for group in ("model", "optimizer", "random", "best"):
        tensors, expected = getattr(found, group), getattr(wanted, group)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    for name in ("step", "position", "best_result", "best_sets", "history"):
        assert getattr(found, name) == getattr(wanted, name)
