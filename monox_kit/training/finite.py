"""NaN and infinities, found by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch.nn.utils import get_total_norm


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no tensor holds NaN or an infinity; one pass over each, one value from the device."""
    found = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    # A finite L2 norm is of finite numbers. It takes PyTorch a fifteenth of the time of the largest
    # number, which decides where squares overflow.
    return (
        not found
        or math.isfinite(float(get_total_norm(found)))
        or math.isfinite(float(get_total_norm(found, norm_type=math.inf)))
    )


def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; None where all are finite."""
    if all_finite(tensors.values()):
        return None
    return next((name for name, tensor in tensors.items() if not all_finite([tensor])), None)
