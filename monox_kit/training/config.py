"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from pydantic import Field

from monox_kit.errors import ConfigError

Method = Literal["ce", "pl", "kd", "self-training"]
EmbeddingMode = Literal["frozen", "sparse", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How a model is trained, whatever it is trained on.

    Attributes:
        learning_rate: peak rate of AdamW.
        head_factor: the head's and the pooler's rate is so many times that of the encoder: they
            start from random values, the encoder does not.
        batch_size: rows of one step, over all processes and micro-batches.
        batch_tokens: padded tokens of one step, instead of `batch_size`; None for rows. How many
            steps an epoch has is then not known before: needs `max_steps`.
        accumulate: micro-batches that each process divides its rows of a step into: less memory,
            the same gradient.
        max_steps: steps in all; None for `epochs` passes over the rows.
        epochs: passes over the rows where `max_steps` is None.
        schedule: `linear` warms up and decays to 0; `constant` warms up and stays.
        warmup_fraction: part of the steps that the rate rises in.
        weight_decay: AdamW's; not applied to biases, norms and embeddings.
        max_grad_norm: gradients are scaled down to this L2 norm.
        patience: the run ends after so many dev evaluations that are no better than the best one;
            None never.
        max_length: the cut in tokens; None for the model's own, at most 256.
        embeddings: what becomes of the word embeddings. `frozen`: they stay as they were
            pretrained. `sparse`: the rows of the tokens that occur are trained. `full`: the
            optimizer goes over the whole table; the same result as `sparse`.
        freeze_layers: how many of the lowest layers stay as they were pretrained; from 1 on, all
            embeddings do too, whatever `embeddings` says.
        eval_every: steps between evaluations on the dev set; None for the end of every epoch.
        checkpoint_every: steps between checkpoints.
        seed: of the head's initial weights, the order of the rows and dropout.
        precision: `auto` takes bf16 where the device has it in hardware, else fp32.
        device: `cpu`, `cuda` or `cuda:N`.
        workers: threads that read and tokenize ahead; 0 does it between the steps. Changes nothing
            in the result.
        tensorboard: folder to write TensorBoard's events to; None for none.
    """

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 16
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 3
    schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    patience: Annotated[int, Field(ge=1)] | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None
    embeddings: EmbeddingMode = "full"
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    eval_every: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "cpu"
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    tensorboard: str | None = None

    def __post_init__(self) -> None:
        if self.batch_tokens is not None and self.max_steps is None:
            raise ConfigError(
                "--batch-tokens: expected --max-steps with it, found none. How many batches an "
                "epoch has depends on its texts, and the schedule must know its end: give "
                "--max-steps."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """What a student's objective asks of its targets; the formulas are in `objectives`.

    Attributes:
        temperature: `kd`: of the teacher's soft targets; the paper's best on its dev set is 0.1.
        temperature_on: `kd`: `teacher` divides the teacher's logits alone, as the paper writes it;
            `both` also the student's, with the factor T^2 (Hinton).
        kd_loss: `kd`: cross-entropy with the soft targets, their `kl` divergence, or the squared
            error of the logits, which has no temperature.
        alpha: `kd`: weight of the gold labels that the stores hold; the teacher has the rest, and
            rows without a gold label for itself.
        min_confidence: `kd`: rows that the teacher is less sure of (`Problem.confidence`, T = 1)
            are left out.
        threshold: `pl` and `self-training`: least confidence of a pseudo-label; the paper keeps
            everything: 0.
    """

    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.1
    temperature_on: Literal["teacher", "both"] = "teacher"
    kd_loss: Literal["ce", "kl", "mse"] = "ce"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0

    def require_used(self, method: Method) -> None:
        """Check that nothing was asked for that `method` would ignore.

        Raises:
            ConfigError: something was.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            users = ("pl", "self-training") if field.name == "threshold" else ("kd",)
            option = f"--{field.name.replace('_', '-')}"
            if value != field.default and method not in users:
                raise ConfigError(
                    f"{option} {value}: expected with --method {' or '.join(users)}, found "
                    f"--method {method}. Leave it out or change the method."
                )
            if value != field.default and self.kd_loss == "mse" and "temperature" in field.name:
                raise ConfigError(
                    f"{option} {value}: expected with --kd-loss ce or kl, found mse, which "
                    "compares logits. Leave it out or change the loss."
                )
