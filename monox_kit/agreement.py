"""How far one graph's logits are from another's on the same texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.data import Logits

# float32 graphs sum in another order than PyTorch: differences stay below this fraction of the
# largest logit, or this much where all logits are small.
FP32_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a graph's logits are from the reference's on N texts.

    Attributes:
        num_texts: N.
        argmax: fraction of texts with the same label.
        max_delta: largest absolute difference of two logits.
        max_logit: largest absolute logit of the reference.
        mean_kl: mean Kullback-Leibler divergence of the graph's distribution from the
            reference's at T = 1, in nats.
    """

    num_texts: int
    argmax: float
    max_delta: float
    max_logit: float
    mean_kl: float

    @property
    def within_fp32(self) -> bool:
        """Whether the difference is what float32 arithmetic in another order explains."""
        return self.max_delta <= FP32_TOLERANCE * max(1.0, self.max_logit)

    def to_json(self) -> dict[str, Any]:
        """The agreement as plain JSON values."""
        return asdict(self)


def agreement(reference: Logits, logits: Logits) -> Agreement:
    """How far `logits` [N, C] are from `reference` [N, C]."""
    expected, found = reference.astype(np.float64), logits.astype(np.float64)
    p, q = _log_softmax(expected), _log_softmax(found)
    return Agreement(
        num_texts=len(expected),
        argmax=float((expected.argmax(axis=1) == found.argmax(axis=1)).mean()),
        max_delta=float(np.abs(expected - found).max()),
        max_logit=float(np.abs(expected).max()),
        mean_kl=float((np.exp(p) * (p - q)).sum(axis=1).mean()),
    )


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
