"""The training loop: a plain loop around an objective's steps, resumable at checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from monox_kit.data import Classifier, LabelSet
from monox_kit.errors import ConfigError, MonoxError
from monox_kit.models.padding import EqualLengths
from monox_kit.models.scoring import BatchDone, Truncation
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import TorchClassifier, fast_bf16
from monox_kit.problem import shown_measure
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.training.batches import Batch, Batches
from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.config import LoopConfig
from monox_kit.training.evaluate import DevSets, Evaluator, is_better, num_since_best
from monox_kit.training.log import RecentSteps, TrainingLog
from monox_kit.training.optimizer import (
    freeze,
    new_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from monox_kit.training.processes import join_processes
from monox_kit.training.rows import TrainingRows
from monox_kit.training.state import (
    Figures,
    TrainingState,
    assign,
    copied,
    generator_states,
    num_saving_processes,
    restore_generators,
    seed_generators,
)
from monox_kit.training.step import Step, Stepper
from monox_kit.training.stopping import StopSignals
from monox_kit.training.targets import Loss


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a training run ended.

    Attributes:
        precision: `fp32` or `bf16`.
        num_steps: optimizer steps.
        stopped_early: whether `patience` ended the run.
        best: what the weights to keep were chosen by: step, measure, loss.
        best_sets: their measure, loss and rows by dev set.
        history: every dev evaluation: step, and the measure and loss that choose.
        truncation: of rows trained on and of dev rows, as plain JSON values; see `Truncation`.
    """

    precision: str
    num_steps: int
    stopped_early: bool
    best: Figures
    best_sets: Mapping[str, Figures]
    history: Sequence[Figures]
    truncation: Mapping[str, Mapping[str, int]]


class _Stopping(Exception):
    """A signal came while the dev sets were scored."""


def planned_steps(config: LoopConfig, num_rows: int) -> int:
    """The number of optimizer steps of a run over `num_rows` rows that patience does not end."""
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
        dev: the sets that choose the weights to keep, and those that are reported.
        config: the run's settings.
        checkpoints: where the run saves to and resumes from.
        progress: one bar for the run.
        equal_lengths: whether padding would change the model's logits: then a step's rows run
            through it a length at a time, which has the gradient of all of them together.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Tokenizer,
        labels: LabelSet,
        rows: TrainingRows,
        loss: Loss,
        dev: DevSets,
        config: LoopConfig,
        checkpoints: Checkpoints,
        progress: Progress,
        equal_lengths: bool = False,
    ) -> None:
        self._precision = resolve_precision(config)
        self._processes = join_processes(config.device)
        freeze(model, config)
        self._labels, self._config, self._checkpoints = labels, config, checkpoints
        self._progress = progress if self._processes.is_first else Silent()
        self._dev = dev
        self._equal_lengths, self._max_length = equal_lengths, tokenizer.max_length
        self._truncation = Truncation()
        self._evaluator = Evaluator(dev, tokenizer, labels, self._processes)
        self._num_steps = planned_steps(config, len(rows))
        self._batches = Batches(rows, tokenizer, config)
        self._model = model.to(self._processes.device)
        self._trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = new_optimizer(self._trainable, config, model)
        self._stepper = Stepper(
            model=self._model,
            trainable=self._trainable,
            optimizer=self._optimizer,
            loss=loss,
            config=config,
            num_steps=self._num_steps,
            precision=self._precision,
            processes=self._processes,
            equal_lengths=equal_lengths,
        )
        self._state = TrainingState()
        self._saved_at = 0  # the step of the newest checkpoint
        self._log: TrainingLog | None = None  # the first process's alone
        self._stop = StopSignals(second_acts=self._processes.count == 1)

    def fit(self, description: str) -> FitResult:
        """Train to the end, from the newest checkpoint where there is one.

        SIGINT, SIGTERM and SIGHUP end the run at the end of a step, with a checkpoint. Its own end
        has one too: what happens after it, such as a full disk under the model folder, costs no
        step.

        Raises:
            NotFinite: a loss, a gradient, a weight or AdamW's state is NaN or infinite.
            StoreError: a teacher's logit is.
            CheckpointError: no checkpoint can be used, and some are there.
            StorageError: the disk refused.
            MonoxError: of several processes, what stopped any of them stops all.
        """
        with ExitStack() as stack:
            resumed_at = self._begin(stack)
            self._model.train()
            task = stack.enter_context(
                self._progress.task(description, self._num_steps, "steps", done=resumed_at)
            )
            batches = stack.enter_context(closing(self._batches.after(self._state.position)))
            stack.enter_context(self._stop)
            try:
                self._take_steps(batches, task)
                best_step = int(self._state.best_result["step"])
                self._log_event("end", best_step=best_step, stopped_early=self._stopped_early)
            except MonoxError as error:
                with suppress(MonoxError):  # the disk may be what refused
                    self._write_event("error", message=str(error))
                raise
        assign(self._trainable, self._state.best)
        self._model.eval()
        self._truncation.tell(self._progress, self._max_length, "training rows")
        return FitResult(
            precision=self._precision,
            num_steps=self._state.step,
            stopped_early=self._stopped_early,
            best=self._state.best_result,
            best_sets=self._state.best_sets,
            history=self._state.history,
            truncation={
                "train": self._truncation.to_json(),
                "dev": self._evaluator.truncation.to_json(),
            },
        )

    @property
    def _stopped_early(self) -> bool:
        return self._state.step < self._num_steps

    def _take_steps(self, batches: Iterator[Batch], task: ProgressTask) -> None:
        """All steps that are left, with their evaluations and checkpoints."""
        recent = RecentSteps()
        self._evaluate_if_due(task)  # the run may have been stopped before it could
        started_s = time.perf_counter()
        for step in self._steps_left():
            batch = self._processes.together(lambda: next(batches))
            done = self._stepper.take(step, batch)
            self._truncation += batch.truncation
            self._state.step, self._state.position = step + 1, batch.following
            recent.add(time.perf_counter() - started_s, done.loss, done.rows, done.tokens)
            task.detail(self._detail(recent))
            task.advance()
            self._log_step(done, recent)
            self._evaluate_if_due(task)
            self._leave_if_asked()
            if self._state.step % self._config.checkpoint_every == 0:
                self._save()
            started_s = time.perf_counter()  # the next batch's reading counts
        self._save()
        self._leave_if_asked()

    def _steps_left(self) -> Iterator[int]:
        """The steps from the state's on; patience may end them before a batch is drawn."""
        while self._state.step < self._num_steps and not self._is_over():
            yield self._state.step

    def _evaluate_if_due(self, task: ProgressTask) -> None:
        """Score the dev sets where this step asks for it, and keep the weights if best so far."""
        state = self._state
        every = self._config.eval_every
        is_due = state.position.begins_epoch if every is None else state.step % every == 0
        is_due = state.step > 0 and (is_due or state.step == self._num_steps)
        if not is_due or (state.history and state.history[-1]["step"] == state.step):
            return None
        task.detail("evaluating on the dev set")
        try:
            results = self._evaluator.evaluate(self._classifier(), self._on_dev_batch)
        except _Stopping:
            self._save_and_leave()
            return self._evaluate_if_due(task)  # whoever handles the signal lets the run go on
        finally:
            self._model.train()
        chosen = {"step": float(state.step), **self._dev.chosen_by(results)}
        is_best = is_better(chosen, state.best_result)
        state.history.append(chosen)
        if is_best:
            state.best_result, state.best_sets = chosen, results
            state.best = copied(self._trainable)
        self._log_event("evaluation", sets=results, is_best=is_best)
        return None

    def _classifier(self) -> Classifier:
        classifier = TorchClassifier(
            self._model,
            self._labels,
            device=self._processes.device,
            precision=self._precision,  # type: ignore[arg-type]
        )
        return EqualLengths(classifier) if self._equal_lengths else classifier

    def _on_dev_batch(self, _done: BatchDone) -> None:
        # Of several processes all must reach the sum at the end; they stop after the next step.
        if self._stop.number is not None and self._processes.count == 1:
            raise _Stopping

    def _is_over(self) -> bool:
        """Whether patience has ended the run."""
        patience, state = self._config.patience, self._state
        if patience is None or not state.history:
            return False
        return num_since_best(state.history, state.best_result) >= patience

    def _detail(self, recent: RecentSteps) -> str:
        """What stands beside the bar."""
        rows_per_s, tokens_per_s = recent.rates()
        best = self._state.best_result
        dev = f", dev {shown_measure(best)}" if best else ""
        return (
            f"loss {recent.mean_loss():.3f}{dev}, {rows_per_s:,.0f} rows/s, "
            f"{tokens_per_s:,.0f} tokens/s"
        )

    def _log_step(self, done: Step, recent: RecentSteps) -> None:
        rows_per_s, tokens_per_s = recent.rates()
        self._log_event(
            "step",
            loss=done.loss,
            learning_rate=done.learning_rate,
            grad_norm=done.grad_norm,
            rows=done.rows,
            tokens=done.tokens,
            rows_per_s=round(rows_per_s, 2),
            tokens_per_s=round(tokens_per_s, 1),
        )

    def _log_event(self, event: str, **values: Any) -> None:
        self._processes.together(lambda: self._write_event(event, **values))

    def _write_event(self, event: str, **values: Any) -> None:
        if self._log is not None:
            self._log.add(event, self._state.step, **values)

    def _save(self) -> None:
        """Save a checkpoint of this step, where there is none yet."""
        state = self._state
        if state.step == self._saved_at:
            return
        state.random = generator_states(self._processes)
        self._processes.together(self._write_checkpoint)
        self._saved_at = state.step

    def _write_checkpoint(self) -> None:
        """The first process's part.

        The steps' lines are durable before the checkpoint is, and its own line at once: not before,
        for of a first one that a kill prevents it would tell what is not there.
        """
        if self._log is None:
            return
        state = self._state
        state.model = {n: p.detach().cpu() for n, p in self._trainable.items()}
        state.optimizer = optimizer_tensors(self._optimizer, self._trainable)
        self._log.sync()
        self._checkpoints.save(state)
        self._write_event("checkpoint")
        self._log.sync()

    def _leave_if_asked(self) -> None:
        """End the run, with a checkpoint, if a signal came to any of its processes."""
        if self._stop.agree(self._processes):
            self._save_and_leave()

    def _save_and_leave(self) -> None:
        """Save, and end as the signal asked for."""
        self._save()
        self._progress.note(f"saved at step {self._state.step} of {self._num_steps}")
        self._processes.wait()  # a launcher ends all when one has ended: not before it is saved
        self._stop.leave()

    def _begin(self, stack: ExitStack) -> int:
        """Restore the newest checkpoint, open the log; returns the step to start from."""
        processes, checkpoints = self._processes, self._checkpoints
        state = processes.together(self._load_newest)
        step = processes.from_first(state.step if state is not None else -1)
        if step >= 0:
            state = processes.together(lambda: state or checkpoints.load(step, self._trainable))
        if state is not None and state.step > self._num_steps:
            raise ConfigError(
                f"{checkpoints.log_path.parent}: expected checkpoints of at most step "
                f"{self._num_steps}, found step {state.step}. Delete the folder to start again."
            )
        processes.together(lambda: self._begin_log(stack, state))
        if state is None:
            seed_generators(self._config.seed, processes.rank)
            return 0
        assign(self._trainable, state.model)
        restore_optimizer(self._optimizer, self._trainable, state.optimizer)
        restore_generators(state.random, processes, self._config.seed)
        self._state, self._saved_at = state, state.step
        self._progress.note(f"resuming at step {state.step} of {self._num_steps}")
        if num_saving_processes(state.random) != processes.count:
            self._progress.note(
                f"the checkpoint is of {num_saving_processes(state.random)} processes, now there "
                f"are {processes.count}: dropout draws other numbers than it would have"
            )
        return state.step

    def _load_newest(self) -> TrainingState | None:
        """The newest checkpoint, in the first process, which says which one that is."""
        if not self._processes.is_first:
            return None
        return self._checkpoints.load_newest(self._trainable, self._progress)

    def _begin_log(self, stack: ExitStack, state: TrainingState | None) -> None:
        if self._processes.is_first:
            path = self._checkpoints.log_path
            log = TrainingLog(path, self._config.tensorboard, self._progress)
            self._log = stack.enter_context(log)
            log.begin(state, self._checkpoints.fingerprint)


def resolve_precision(config: LoopConfig) -> str:
    """`fp32` or `bf16`: what was asked for, and for `auto` what the device has in hardware."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if fast_bf16(config.device) else "fp32"
