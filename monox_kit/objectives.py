"""Training objectives as pure functions of logits, and the rules that turn logits into labels.

Source of the formulas: Chi, Dong, Wei, Mao, Huang, "Can Monolingual Pretrained Models Help
Cross-Lingual Classification?" (MonoX), equations for MONOX-KD and MONOX-PL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s, Logits

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log p(label) over the batch, a scalar.

    Args:
        student_logits: [B, C] float.
        labels: [B] int64 class indices.
    """
    from torch.nn import functional

    return functional.cross_entropy(student_logits.float(), labels)


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The mean over the batch of -sum_k q_T(k|x) log p(k|x), a scalar: MONOX-KD.

    The temperature divides the teacher's logits only, as the paper writes it; T -> 0 turns the
    soft targets into the teacher's hard labels.

    Args:
        student_logits: [B, C] float, gives p at temperature 1.
        teacher_logits: [B, C] float, gives q at `temperature`.
        temperature: above 0.
    """
    from torch.nn import functional

    targets = functional.softmax(teacher_logits.float() / temperature, dim=-1)
    return functional.cross_entropy(student_logits.float(), targets)


def hard_labels(teacher_logits: Logits) -> Int64s:
    """[N] int64, the class with the largest logit of each row of [N, C]; the first one in a tie."""
    return np.asarray(np.argmax(teacher_logits, axis=-1), np.int64)


def confidence(teacher_logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 in (0, 1], the largest softmax probability of each row of [N, C] at T = 1."""
    logits = teacher_logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(1.0 / np.exp(shifted).sum(axis=-1))


def entropy(teacher_logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 from 0 to ln C, the entropy in nats of each row's softmax, [N, C], at T = 1."""
    logits = teacher_logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    return np.asarray(np.log(total) - (weights * shifted).sum(axis=-1) / total)
