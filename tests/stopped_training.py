"""Ends training runs in the middle of a step's place, as a kill of their process would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from monox_kit.training.batches import Batch
from monox_kit.training.step import Step, Stepper


class Killed(BaseException):
    """Stands for the end of a process in the middle of a run."""


def before_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[Stepper], Any]) -> None:
    """Do something before step `number`, from 0."""
    take = Stepper.take

    def acted(self: Stepper, step: int, batch: Batch) -> Step:
        if step == number:
            act(self)
        return take(self, step, batch)

    patch.setattr(Stepper, "take", acted)


def kill(_stepper: Stepper) -> None:
    raise Killed
