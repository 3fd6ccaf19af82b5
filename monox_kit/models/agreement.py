"""How far one graph's logits are from another's on the same texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monox_kit.data import Logits
from monox_kit.problem import Problem
from monox_kit.results import Result

# float32 graphs sum in another order than PyTorch: differences stay below this fraction of the
# largest logit, or this much where all logits are small.
FP32_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Agreement(Result):
    """How far a graph's logits are from the reference's on N texts.

    Attributes:
        num_texts: N.
        argmax: fraction of texts with the same label: the largest logit's, or, of any number of
            labels a text, all of them.
        max_delta: largest absolute difference of two logits.
        max_logit: largest absolute logit of the reference.
        mean_kl: mean Kullback-Leibler divergence of the graph's distribution from the
            reference's at T = 1, in nats; of any number of labels, the sum of the classes'.
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


def agreement(reference: Logits, logits: Logits, problem: Problem) -> Agreement:
    """How far `logits` [N, C] are from `reference` [N, C], whose decisions are the `problem`'s."""
    expected, found = reference.astype(np.float64), logits.astype(np.float64)
    same = problem.are_equal(problem.decide(reference), problem.decide(logits))
    return Agreement(
        num_texts=len(expected),
        argmax=float(same.mean()),
        max_delta=float(np.abs(expected - found).max()),
        max_logit=float(np.abs(expected).max()),
        mean_kl=float(problem.divergence(reference, logits).mean()),
    )
