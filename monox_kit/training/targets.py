"""What the rows of a batch are to learn, and the form of every objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from monox_kit.data import Int64s


@dataclass(frozen=True, slots=True)
class Targets:
    """What the B rows of a batch are to learn.

    Attributes:
        labels: int64 in the form of `problem`, -1 where a row has none: [B] class indices, or
            [B, C] where a row may have any number of classes. Gold labels, and in `pl` also
            pseudo-labels.
        teacher: [B, C] float32 logits of the teacher; None where labels are all there is to learn.
    """

    labels: Tensor
    teacher: Tensor | None = None

    def __getitem__(self, places: Int64s) -> Targets:
        """The targets of some of the rows: [b] int64 places."""
        teacher = None if self.teacher is None else self.teacher[places]
        return Targets(self.labels[places], teacher)

    def to(self, device: str) -> Targets:
        """The same on another device."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        return Targets(self.labels.to(device), teacher)


# Student logits [B, C] and the batch's targets to a scalar, the mean over the rows.
Loss: TypeAlias = Callable[[Tensor, Targets], Tensor]
