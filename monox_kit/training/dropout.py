"""Dropout masks on the CPU, drawn several times faster than PyTorch draws them.

On a CPU PyTorch fills a mask with one draw of its generator per element, in one thread whatever
their number: a fifth of a bfloat16 step on 2 cores, more on more. Here an element takes 16 bits
of a word of SFC64. PyTorch's generator seeds every mask, so that its state is still all that a run
must keep to be resumed, and masks depend on nothing else. Measured in `benchmarks/LOG.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_DROPPING = {dropout, scaled_dot_product_attention}
_LEVELS = 2**16
_LOWEST = -(2**15)


def fast_dropout(device: str) -> AbstractContextManager[Any]:
    """Context in which a model's forward pass draws its dropout masks fast; for `cpu` alone.

    An element is kept with probability `keep`, rounded to 2^-16: with dropout 0.1 that is
    0.899994. PyTorch's own scaling by 1 / 0.9 stays, so activations shrink by less than 10^-5.
    """
    return _FastDropout() if device == "cpu" else nullcontext()


class _FastDropout(TorchFunctionMode):
    """Looks out for the functions that drop; to watch every operator costs a small model more."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _DROPPING:
            with _FastMasks():  # type: ignore[no-untyped-call]
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _FastMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces the one operator that those functions draw a mask with."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.bernoulli_.float and not kwargs:
            mask, keep = (*args, 0.5)[:2]  # an argument that has its default value is left out
            level = round(keep * _LEVELS)
            if level > 0 and mask.device.type == "cpu":
                return _fill(mask, level)
        return func(*args, **(kwargs or {}))


def _fill(mask: torch.Tensor, level: int) -> torch.Tensor:
    """Set each element to 1 with probability level / 2^16, else to 0."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    # Four elements a word; a whole word also for the last of them.
    words = np.random.SFC64(seed).random_raw(-(-mask.numel() // 4))
    draws = torch.from_numpy(words.view(np.int16))[: mask.numel()]
    return mask.copy_((draws <= level - 1 + _LOWEST).view_as(mask))
