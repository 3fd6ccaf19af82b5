"""Training objectives as pure functions of logits, and the rules that turn logits into labels.

Classes either exclude each other, and a row's probabilities are a softmax; or a row may have any
number of them (`binary_...`), and the probability of each is a sigmoid of its own. Which functions
belong together says `problem`.

The torch functions give [B] losses, one a row; a batch's loss is their mean. They compute in
float64: the factor T^2 makes 1e4 times as much of float32's rounding at T = 100, and [B, C] is
small beside the model.

Source of the formulas, unless another is named: Chi, Dong, Wei, Mao, Huang, "Can Monolingual
Pretrained Models Help Cross-Lingual Classification?" (MonoX), equations for MONOX-KD and MONOX-PL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s, Logits

if TYPE_CHECKING:
    from torch import Tensor


# What stands for a probability of 0 where a logit is wanted.
LEAST_PROBABILITY = 1e-6


def cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """[B] -log p(label|x); 0 where a row has no label.

    Args:
        student_logits: [B, C] float.
        labels: [B] int64 class indices, -1 where there is none.
    """
    from torch.nn import functional

    logits = student_logits.double()
    return functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    student_temperature: float = 1.0,
) -> Tensor:
    """[B] -S^2 sum_k q_T(k|x) log p_S(k|x), for T = `temperature` and S = `student_temperature`.

    S = 1 is MONOX-KD as the paper writes it: the temperature divides the teacher's logits alone,
    and T -> 0 turns the soft targets into the teacher's hard labels. S = T is Hinton's form, whose
    factor S^2 keeps the size of the gradient while T changes.

    Args:
        student_logits: [B, C] float.
        teacher_logits: [B, C] float.
        temperature: above 0.
        student_temperature: above 0.

    Source: MonoX, MONOX-KD; Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network"
    (2015), section 2, for S = T and its factor.
    """
    from torch.nn import functional

    targets = _soft_targets(teacher_logits, temperature)
    logits = student_logits.double() / student_temperature
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return student_temperature**2 * losses


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    student_temperature: float = 1.0,
) -> Tensor:
    """[B] S^2 sum_k q_T(k|x) (log q_T(k|x) - log p_S(k|x)), from 0 up: 0 where p equals q.

    `soft_cross_entropy` less the teacher's entropy, which does not depend on the student: the
    gradients are the same, the values tell how far the student is from its teacher.

    Args:
        student_logits: [B, C] float.
        teacher_logits: [B, C] float.
        temperature: T, above 0.
        student_temperature: S, above 0.

    Source: Kullback and Leibler, "On Information and Sufficiency" (1951); as an objective of
    distillation, Hinton, Vinyals, Dean (2015).
    """
    from torch.nn import functional

    targets = _soft_targets(teacher_logits, temperature)
    log_p = functional.log_softmax(student_logits.double() / student_temperature, dim=-1)
    divergences = functional.kl_div(log_p, targets, reduction="none").sum(dim=-1)
    return student_temperature**2 * divergences


def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """[B] the mean over the classes of (student logit - teacher logit)^2; no temperature.

    It also sees what a softmax does not, a shift of all logits of a row.

    Args:
        student_logits: [B, C] float.
        teacher_logits: [B, C] float.

    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?" (2014), equation 1, there with
    the factor 1/2 and summed over the classes.
    """
    return (student_logits.double() - teacher_logits.double()).square().mean(dim=-1)


def binary_cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """[B] mean_k -(y_k log p_k + (1 - y_k) log(1 - p_k)), p = sigmoid(s); 0 without a label.

    Args:
        student_logits: [B, C] float, s.
        labels: [B, C] whole numbers, y: 1 for the row's classes, 0 for the others; -1 throughout
            where there is no label.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equation 5.23; the mean over
    the classes as in `torch.nn.BCEWithLogitsLoss`, which transformers trains
    `multi_label_classification` with.
    """
    from torch.nn import functional

    losses = functional.binary_cross_entropy_with_logits(
        student_logits.double(), labels.clamp(min=0).double(), reduction="none"
    )
    return losses.mean(dim=-1) * (labels[:, 0] >= 0)


def binary_soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    student_temperature: float = 1.0,
) -> Tensor:
    """[B] -S^2 mean_k (q_k log p_k + (1 - q_k) log(1 - p_k)), q = sigmoid(z/T), p = sigmoid(s/S).

    `soft_cross_entropy` of each class against its absence: T -> 0 turns the targets into the
    teacher's hard labels, and S = T is Hinton's form.

    Args:
        student_logits: [B, C] float, s.
        teacher_logits: [B, C] float, z.
        temperature: T, above 0.
        student_temperature: S, above 0.

    Source: as for `soft_cross_entropy`, for the two outcomes of a class; Yang et al., "Multi-Label
    Knowledge Distillation" (2023).
    """
    from torch.nn import functional

    losses = functional.binary_cross_entropy_with_logits(
        student_logits.double() / student_temperature,
        (teacher_logits.double() / temperature).sigmoid(),
        reduction="none",
    )
    return student_temperature**2 * losses.mean(dim=-1)


def binary_kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    student_temperature: float = 1.0,
) -> Tensor:
    """[B] S^2 mean_k KL(q_k || p_k) of the Bernoulli distributions of the classes, from 0 up.

    KL(q || p) = q (log q - log p) + (1 - q) (log(1 - q) - log(1 - p)): what
    `binary_soft_cross_entropy` is less the teacher's entropy, so the gradients are the same. The
    mean, and not the sum that the divergence of all classes together is, keeps it so.

    Args:
        student_logits: [B, C] float.
        teacher_logits: [B, C] float.
        temperature: T, above 0.
        student_temperature: S, above 0.

    Source: as for `kl_divergence`, for the two outcomes of a class.
    """
    import torch
    from torch.nn import functional

    z, s = teacher_logits.double() / temperature, student_logits.double() / student_temperature
    divergences = torch.zeros_like(s)
    for q, log_p in (
        (z.sigmoid(), functional.logsigmoid(s)),
        ((-z).sigmoid(), functional.logsigmoid(-s)),
    ):
        divergences = divergences + torch.xlogy(q, q) - q * log_p
    return student_temperature**2 * divergences.mean(dim=-1)


def mixed(hard_losses: Tensor, soft_losses: Tensor, is_gold: Tensor, alpha: float) -> Tensor:
    """[B] alpha hard + (1 - alpha) soft where a row has a gold label, soft alone where not.

    Args:
        hard_losses: [B] against gold labels.
        soft_losses: [B] against the teacher.
        is_gold: [B] bool, whether a row has a gold label.
        alpha: weight of the gold labels, in [0, 1].

    Source: Hinton, Vinyals, Dean (2015), section 2: a weighted average of both objectives.
    """
    import torch

    both = alpha * hard_losses + (1 - alpha) * soft_losses
    return torch.where(is_gold, both, soft_losses)


def _soft_targets(teacher_logits: Tensor, temperature: float) -> Tensor:
    """[B, C] float64 q_T; less the largest first, so that no small T overflows."""
    from torch.nn import functional

    logits = teacher_logits.double()
    return functional.softmax((logits - logits.amax(dim=-1, keepdim=True)) / temperature, dim=-1)


def averaged_logits(
    logits: Sequence[Logits], weights: Sequence[float], temperature: float | None
) -> Logits:
    """[N, C] float32 logits of one teacher that stands for several.

    With a temperature it is their softened probabilities that are averaged: the result z has
    softmax(z / T) = sum_i w_i softmax(z_i / T). Without one it is the logits, for objectives that
    compare logits.

    Args:
        logits: of each teacher, [N, C] for the same rows.
        weights: w_i of each teacher, above 0, their sum 1.
        temperature: T, above 0; None for the mean of the logits.

    Source: You, Xu, Xu, Tao, "Learning from Multiple Teacher Networks" (2017): the mean of the
    softened outputs. Hinton, Vinyals, Dean (2015), section 5, name the arithmetic and the
    geometric mean of the distributions; the mean of logits is the latter.
    """
    stacked = np.stack([np.asarray(each, np.float64) for each in logits])
    shares = np.asarray(weights, np.float64)[:, None, None]
    if temperature is None:
        return np.asarray((shares * stacked).sum(axis=0), np.float32)
    softened = (stacked - stacked.max(axis=-1, keepdims=True)) / temperature
    log_q = softened - np.log(np.exp(softened).sum(axis=-1, keepdims=True)) + np.log(shares)
    top = log_q.max(axis=0)
    mean = top + np.log(np.exp(log_q - top).sum(axis=0))
    return np.asarray(temperature * mean, np.float32)


def binary_averaged_logits(
    logits: Sequence[Logits], weights: Sequence[float], temperature: float | None
) -> Logits:
    """[N, C] float32 logits of one teacher that stands for several, class by class.

    With a temperature the result z has sigmoid(z / T) = sum_i w_i sigmoid(z_i / T); without one it
    is the mean of the logits. Arguments and source are those of `averaged_logits`.
    """
    stacked = np.stack([np.asarray(each, np.float64) for each in logits])
    shares = np.asarray(weights, np.float64)[:, None, None]
    if temperature is None:
        return np.asarray((shares * stacked).sum(axis=0), np.float32)
    # log sigmoid(x) = -log(1 + exp(-x)), for x = z / T and for x = -z / T
    log_q, log_rest = (
        np.logaddexp.reduce(np.log(shares) - np.logaddexp(0, sign * stacked / temperature), axis=0)
        for sign in (-1, 1)
    )
    return np.asarray(temperature * (log_q - log_rest), np.float32)


def hard_labels(logits: Logits) -> Int64s:
    """[N] int64, the class with the largest logit of each row of [N, C]; the first one in a tie."""
    return np.asarray(np.argmax(logits, axis=-1), np.int64)


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """[N, C] float64 softmax of each row of [N, C] at T = 1; rows sum to 1."""
    values = logits.astype(np.float64)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def logits_of(probabilities: npt.NDArray[np.float64]) -> Logits:
    """[N, C] float32 logits whose softmax is [N, C] probabilities: their logs, the largest one 0.

    What `probabilities` makes of them gives the same logits again, to the bit. A logit is finite:
    the classes of a row whose probability is 0 get `LEAST_PROBABILITY`, or the row's least other
    one where that is less.

    Args:
        probabilities: from 0 up, in any scale; some of each row above 0.
    """
    p = probabilities
    least = np.where(p > 0, p, np.inf).min(axis=-1, keepdims=True)
    filled = np.where(p > 0, p, np.minimum(least, LEAST_PROBABILITY))
    return np.asarray(np.log(filled / filled.max(axis=-1, keepdims=True)), np.float32)


def confidence(logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 in (0, 1], the largest softmax probability of each row of [N, C] at T = 1."""
    values = logits.astype(np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    return np.asarray(1.0 / np.exp(shifted).sum(axis=-1))


def entropy(logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 from 0 to ln C, the entropy in nats of each row's softmax, [N, C], at T = 1."""
    values = logits.astype(np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    return np.asarray(np.log(total) - (weights * shifted).sum(axis=-1) / total)


def binary_hard_labels(logits: Logits) -> npt.NDArray[np.int8]:
    """[N, C] int8, 1 for the classes with a logit above 0, a probability above 1/2; else 0."""
    return np.asarray(logits > 0, np.int8)


def binary_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """[N, C] float64 sigmoid of each of [N, C] logits at T = 1, without overflow on either side."""
    values = logits.astype(np.float64)
    return np.asarray(np.exp(-np.logaddexp(0, -values)))


def binary_logits_of(probabilities: npt.NDArray[np.float64]) -> Logits:
    """[N, C] float32 logits whose sigmoids are [N, C] probabilities: log p - log(1 - p).

    Of 0 and 1 they are those of `LEAST_PROBABILITY` and 1 - `LEAST_PROBABILITY`.

    Args:
        probabilities: from 0 to 1.
    """
    least = LEAST_PROBABILITY
    p = np.where(probabilities == 0, least, np.where(probabilities == 1, 1 - least, probabilities))
    return np.asarray(np.log(p) - np.log1p(-p), np.float32)


def binary_confidence(logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 from 1/2 to 1: of the class that the row is least sure of, max(q_k, 1 - q_k).

    A row's hard labels are right only if every class's is: the row is as sure as its weakest one.
    """
    least = np.abs(logits.astype(np.float64)).min(axis=-1)
    return np.asarray(1.0 / (1.0 + np.exp(-least)))


def binary_entropy(logits: Logits) -> npt.NDArray[np.float64]:
    """[N] float64 from 0 to C ln 2, the entropies in nats of each row's [C] sigmoids, summed."""
    values = np.abs(logits.astype(np.float64))
    # -q log q - (1 - q) log(1 - q) = log(1 + e) + z e / (1 + e), e = exp(-z), z = |logit|
    small = np.exp(-values)
    return np.asarray((np.log1p(small) + values * small / (1 + small)).sum(axis=-1))
