"""The training loop: a plain loop around an objective, on Accelerate, resumable at checkpoints."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from monox_kit.batching import pad_batch
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, ModelError
from monox_kit.progress import Progress, ProgressTask
from monox_kit.scoring import score
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import TorchClassifier, fast_bf16, model_inputs, require_device
from monox_kit.training.checkpoint import Checkpoints, TrainingState
from monox_kit.training.config import LoopConfig
from monox_kit.training.optimizer import (
    freeze,
    learning_rate_at,
    new_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from monox_kit.training.order import epoch_batches
from monox_kit.training.rows import TrainingRows
from monox_kit.training.targets import Loss


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a training run ended.

    Attributes:
        precision: `fp32` or `bf16`.
        best: the dev evaluation whose weights were kept: step, accuracy, loss.
        history: every dev evaluation.
    """

    precision: str
    best: Mapping[str, float]
    history: Sequence[Mapping[str, float]]


def planned_steps(config: LoopConfig, num_rows: int) -> int:
    """The number of optimizer steps of a run over `num_rows` rows."""
    if config.max_steps is not None:
        return config.max_steps
    return config.epochs * math.ceil(num_rows / config.batch_size)


class Trainer:
    """One run. `fit` leaves the weights of the best dev evaluation in `model`.

    Args:
        model: a transformers sequence classifier in float32; trained in place.
        tokenizer: the one that belongs to it, with the run's cut.
        labels: what the logits mean.
        rows: what to learn from.
        loss: the objective.
        dev: gold-labelled documents that choose the weights to keep.
        config: the run's settings.
        checkpoints: where the run saves to and resumes from.
        progress: one bar for the run.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Tokenizer,
        labels: LabelSet,
        rows: TrainingRows,
        loss: Loss,
        dev: Sequence[Document],
        config: LoopConfig,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        require_device(config.device)
        self._precision = resolve_precision(config)
        # Accelerate remembers the first run's device and precision for the whole process.
        AcceleratorState._reset_state(reset_partial_state=True)
        if config.device != "cpu":
            torch.cuda.set_device(torch.device(config.device))
        self._accelerator = Accelerator(
            cpu=config.device == "cpu",
            mixed_precision="bf16" if self._precision == "bf16" else "no",
        )
        freeze(model, config)
        self._tokenizer, self._labels, self._rows, self._loss = tokenizer, labels, rows, loss
        self._dev, self._config = dev, config
        self._checkpoints, self._progress = checkpoints, progress
        self._dev_labels = np.array([labels.index(d.label or "", d.id) for d in dev], np.int64)
        self._num_bytes = rows.num_bytes()
        self._num_steps = planned_steps(config, len(rows))
        self._trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._model = self._accelerator.prepare_model(model)
        self._optimizer = new_optimizer(self._trainable, config, model.base_model_prefix)
        self._state = TrainingState(step=0, model={}, optimizer={}, random=torch.get_rng_state())

    def fit(self, description: str) -> FitResult:
        """Train to the end, from the newest checkpoint where there is one.

        Raises:
            ModelError: the loss or a gradient is not finite.
            StorageError: a checkpoint cannot be written or read.
        """
        resumed_at = self._resume()
        losses: deque[float] = deque(maxlen=20)
        total = self._num_steps
        self._model.train()
        with self._progress.task(description, total, "steps", done=resumed_at) as task:
            for step, rows in self._remaining_batches(resumed_at):
                losses.append(self._step(step, rows))
                done = step + 1
                self._state.step = done
                task.detail(f"loss {np.mean(losses):.3f}{self._best_text()}")
                task.advance()
                if done == total or done % self._eval_every() == 0:
                    self._evaluate(task)
                if done < total and done % self._config.checkpoint_every == 0:
                    self._save()
        self._keep_best()
        return FitResult(
            precision=self._precision,
            best=self._state.best_result,
            history=self._state.history,
        )

    def _remaining_batches(self, start: int) -> Any:
        """(step, [B] row positions) from `start` to the end."""
        steps_per_epoch = math.ceil(len(self._rows) / self._config.batch_size)
        step = start
        while step < self._num_steps:
            epoch, offset = divmod(step, steps_per_epoch)
            config = self._config
            batches = epoch_batches(self._num_bytes, config.batch_size, config.seed, epoch)
            for rows in batches[offset : offset + self._num_steps - step]:
                yield step, rows
                step += 1

    def _step(self, step: int, rows: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        """One optimizer step; returns the loss."""
        texts, pairs, targets = self._rows.batch(rows)
        encoded = self._tokenizer.encode(texts, pairs)
        everything = np.arange(len(rows), dtype=np.int64)
        batch = pad_batch(encoded, everything, self._tokenizer.pad_id)
        device = str(self._accelerator.device)
        with self._accelerator.autocast():
            logits = self._model(**model_inputs(batch, device)).logits
        loss = self._loss(logits, targets.to(device))
        value = loss.item()
        if not math.isfinite(value):
            raise ModelError(
                f"step {step + 1}: expected a finite loss, found {value}. Lower --learning-rate "
                f"(now {self._config.learning_rate:g}); finished checkpoints are kept."
            )
        self._accelerator.backward(loss)
        norm = self._accelerator.clip_grad_norm_(
            self._trainable.values(), self._config.max_grad_norm
        )
        if norm is not None and not torch.isfinite(norm):
            raise ModelError(
                f"step {step + 1}: expected finite gradients, found norm {float(norm)}. Lower "
                f"--learning-rate (now {self._config.learning_rate:g})."
            )
        set_learning_rate(self._optimizer, learning_rate_at(self._config, step, self._num_steps))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return value

    def _eval_every(self) -> int:
        steps_per_epoch = math.ceil(len(self._rows) / self._config.batch_size)
        return self._config.eval_every or steps_per_epoch

    def _evaluate(self, task: ProgressTask) -> None:
        """Score the dev set, and keep the weights where it is the best so far."""
        task.detail("evaluating on the dev set")
        model = self._accelerator.unwrap_model(self._model)
        device = str(self._accelerator.device)
        classifier = TorchClassifier(
            model,
            self._labels,
            device=device,
            precision=self._precision,  # type: ignore[arg-type]
        )
        logits = score(classifier, self._tokenizer, self._dev).logits.astype(np.float64)
        self._model.train()
        top = logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        gold = logits[np.arange(len(logits)), self._dev_labels]
        result = {
            "step": float(self._state.step),
            "accuracy": float((logits.argmax(axis=1) == self._dev_labels).mean()),
            "loss": float((log_total - gold).mean()),
        }
        self._state.history.append(result)
        best = self._state.best_result
        if not best or _rank(result) > _rank(best):
            self._state.best_result = result
            self._state.best = _copied(self._trainable)

    def _best_text(self) -> str:
        best = self._state.best_result
        return f", dev {100 * best['accuracy']:.1f} %" if best else ""

    def _save(self) -> None:
        self._state.model = _copied(self._trainable)
        self._state.optimizer = optimizer_tensors(self._optimizer, self._trainable)
        self._state.random = torch.get_rng_state()
        self._checkpoints.save(self._state)

    def _resume(self) -> int:
        """Restore the newest checkpoint; returns the step to start from."""
        state = self._checkpoints.load_newest()
        if state is None:
            torch.manual_seed(self._config.seed)
            return 0
        if set(state.model) != set(self._trainable):
            raise ConfigError("checkpoint: expected the parameters of this model, found others.")
        _assign(self._trainable, state.model)
        restore_optimizer(self._optimizer, self._trainable, state.optimizer)
        torch.set_rng_state(state.random)
        self._state = state
        self._progress.note(f"resuming at step {state.step} of {self._num_steps}")
        return state.step

    def _keep_best(self) -> None:
        _assign(self._trainable, self._state.best)
        self._accelerator.unwrap_model(self._model).eval()


def resolve_precision(config: LoopConfig) -> str:
    """`fp32` or `bf16`: what was asked for, and for `auto` what the device has in hardware."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if fast_bf16(config.device) else "fp32"


def _rank(result: Mapping[str, float]) -> tuple[float, float]:
    """Dev results in order: higher accuracy first, then lower loss."""
    return result["accuracy"], -result["loss"]


def _copied(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in parameters.items()}


def _assign(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, Any]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
