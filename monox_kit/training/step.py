"""One optimizer step over all processes and micro-batches.

A step's rows are shared among the processes, and each process's share among its micro-batches.
Every part's loss counts with its share of the rows, so the gradient is that of the mean over all of
them, however they are divided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from monox_kit.data import TokenBatch
from monox_kit.errors import NotFinite
from monox_kit.models.padding import by_length
from monox_kit.models.torch_backend import autocast, model_inputs
from monox_kit.training.batches import Batch
from monox_kit.training.config import LoopConfig
from monox_kit.training.dropout import fast_dropout
from monox_kit.training.finite import all_finite, first_not_finite
from monox_kit.training.optimizer import learning_rate_at, optimizer_tensors, set_learning_rate
from monox_kit.training.processes import Processes
from monox_kit.training.state import Parameters
from monox_kit.training.targets import Loss


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step was, over all processes.

    Attributes:
        loss: mean over its rows.
        grad_norm: L2, before clipping.
        learning_rate: of the encoder.
        rows: how many it learned from.
        tokens: real tokens in them.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    rows: int
    tokens: int


class Stepper:
    """Takes the steps of one run.

    Args:
        model: a transformers sequence classifier.
        trainable: its parameters that are trained, by name.
        optimizer: theirs.
        loss: the objective.
        config: the run's settings.
        num_steps: of the whole run, for the learning rate.
        precision: `fp32` or `bf16`.
        processes: among which a step's rows are shared.
        equal_lengths: whether rows run through the model a length at a time, without padding.
    """

    def __init__(
        self,
        *,
        model: Any,
        trainable: Parameters,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        config: LoopConfig,
        num_steps: int,
        precision: str,
        processes: Processes,
        equal_lengths: bool = False,
    ) -> None:
        self._model, self._trainable, self._optimizer = model, trainable, optimizer
        self._loss, self._config, self._num_steps = loss, config, num_steps
        self._precision, self._processes = precision, processes
        self._equal_lengths = equal_lengths

    def take(self, step: int, batch: Batch) -> Step:
        """Take step `step`, from 0, with the rows of `batch`.

        Raises:
            NotFinite: before the weights change, or where they changed to what is not finite.
        """
        loss = tokens = 0.0
        mine = batch.part(self._processes.rank, self._processes.count)
        for part in mine.split(self._config.accumulate):
            found, num_tokens = self._backward(part, len(part) / len(batch))
            loss += found
            tokens += num_tokens
        loss, tokens = self._processes.sum([loss, tokens])
        if not math.isfinite(loss):
            raise self._not_finite_loss(step, loss)
        self._processes.sum_gradients(self._trainable.values())
        norm = get_total_norm([p.grad for p in self._trainable.values() if p.grad is not None])
        if not torch.isfinite(norm):  # clipping would spread it over all gradients
            raise self._not_finite_gradient(step, float(norm))
        clip_grads_with_norm_(self._trainable.values(), self._config.max_grad_norm, norm)
        rate = learning_rate_at(self._config, step, self._num_steps)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._processes.together(lambda: self._require_finite_weights(step))
        return Step(loss, float(norm), rate, len(batch), int(tokens))

    def _backward(self, part: Batch, share: float) -> tuple[float, int]:
        """Add the gradient of a micro-batch.

        Returns:
            Its part of the step's loss, and its real tokens.
        """
        device, tokens = self._processes.device, part.tokens()
        with autocast(device, self._precision), fast_dropout(device):
            logits = self._logits(tokens, device)
        loss = self._loss(logits, part.targets.to(device)) * share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), tokens.num_tokens

    def _logits(self, tokens: TokenBatch, device: str) -> torch.Tensor:
        """[B, C] logits of a micro-batch."""
        if not self._equal_lengths:
            return self._of(tokens, device)
        parts = list(by_length(tokens))
        logits = [self._of(part, device) for _, part in parts]
        order = np.argsort(np.concatenate([places for places, _ in parts]))
        return torch.cat(logits)[torch.from_numpy(order).to(device)]

    def _of(self, tokens: TokenBatch, device: str) -> torch.Tensor:
        inputs = model_inputs(self._model, tokens, device)
        return self._model(**inputs).logits  # type: ignore[no-any-return]

    def _not_finite_loss(self, step: int, loss: float) -> NotFinite:
        name = first_not_finite(dict(self._model.named_parameters()))
        if name is not None:
            return NotFinite(
                f"step {step + 1}: expected finite weights, found NaN or Inf in {name}. Run again "
                "from the newest checkpoint; finished checkpoints are kept."
            )
        return NotFinite(
            f"step {step + 1}: expected a finite loss, found {loss}. Lower `learning_rate` "
            f"(now {self._config.learning_rate:g}); finished checkpoints are kept."
        )

    def _not_finite_gradient(self, step: int, norm: float) -> NotFinite:
        gradients = {n: p.grad for n, p in self._trainable.items() if p.grad is not None}
        name = first_not_finite(gradients) or "their norm alone"
        return NotFinite(
            f"step {step + 1}: expected finite gradients, found norm {norm}: {name}. Lower "
            f"`learning_rate` (now {self._config.learning_rate:g})."
        )

    def _require_finite_weights(self, step: int) -> None:
        # An infinite exp_avg_sq leaves the weights finite: AdamW's step is 0 there for ever after.
        squares = [
            state["exp_avg_sq"] for state in self._optimizer.state.values() if "exp_avg_sq" in state
        ]
        if all_finite([*self._trainable.values(), *squares]):
            return
        moments = optimizer_tensors(self._optimizer, self._trainable)
        moment = first_not_finite(moments)
        where, found = ("optimizer state", moment) if moment else ("weights", None)
        name = found or first_not_finite(self._trainable)
        raise NotFinite(
            f"step {step + 1}: expected finite {where}, found NaN or Inf in {name} after the "
            f"step. Lower `learning_rate` (now {self._config.learning_rate:g}); finished "
            "checkpoints are kept."
        )
