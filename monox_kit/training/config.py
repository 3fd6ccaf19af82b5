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
        learning_rate: peak learning rate of AdamW.
        head_factor: learning rate of the head and the pooler, as a multiple of the encoder's. They
            start from random values, the encoder does not.
        batch_size: rows of one step, over all processes and micro-batches.
        batch_tokens: padded tokens of one step instead of `batch_size`; needs `max_steps`. How many
            steps an epoch has is then not known before. None for rows.
        accumulate: micro-batches that a step is split into: less memory, the same gradient. Each
            process splits its own rows.
        max_steps: number of steps, instead of `epochs`; None for passes over the rows.
        epochs: passes over the training rows, where `max_steps` is None.
        schedule: learning rate after the warm-up: linear (falls to 0) or constant.
        warmup_fraction: fraction of the steps in which the learning rate rises.
        weight_decay: weight decay of AdamW; biases, norms and embeddings have none.
        max_grad_norm: scale gradients down to this L2 norm.
        patience: stop early after this many dev evaluations without a better one; None for never.
        max_length: truncate texts at this many tokens; None for the model's own, at most 256.
        embeddings: how word embeddings are trained: frozen, sparse (only tokens in the data) or
            full; sparse and full give the same model. `frozen`: they stay as they were
            pretrained. `sparse`: the rows of the tokens that occur are trained. `full`: the
            optimizer goes over the whole table; the same result as `sparse`.
        freeze_layers: keep this many of the lowest layers, and the embeddings, as they are. From 1
            on, no embedding is trained, whatever `embeddings` says.
        eval_every: steps between dev evaluations; None for the end of every epoch.
        checkpoint_every: steps between two checkpoints.
        seed: seed of the head's weights, the order of the rows and dropout.
        precision: fp32, bf16, or auto: bf16 where the hardware has it.
        device: device of PyTorch: cpu, cuda or cuda:N.
        workers: threads that read and tokenize ahead; they do not change the result. 0 does it
            between the steps.
        tensorboard: folder to write TensorBoard events to; None for none.
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
                "--batch-tokens: it needs --max-steps. How many steps an epoch has depends on its "
                "texts, and the schedule must know its end: give --max-steps."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """What a student's objective asks of its targets; the formulas are in `objectives`.

    Attributes:
        temperature: temperature of the soft targets in kd. The paper's best on its dev set is 0.1.
        temperature_on: whose logits the temperature divides in kd: teacher (MonoX), or both, with
            the factor T^2 (Hinton).
        kd_loss: loss of kd: ce with the soft targets, kl, or mse between the logits. The last has
            no temperature.
        alpha: weight of the stores' gold labels in kd. The teacher has the rest, and rows without
            a gold label for itself.
        min_confidence: leave out rows of kd of which the teacher is less confident, at T = 1
            (`Problem.confidence`).
        threshold: leave out pseudo-labels of which the teacher is less confident, in pl and
            self-training. The paper keeps everything: 0.
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
                    f"{option} {value}: --method {method} does not use it; --method "
                    f"{' or '.join(users)} does. Leave it out or change the method."
                )
            if value != field.default and self.kd_loss == "mse" and "temperature" in field.name:
                raise ConfigError(
                    f"{option} {value}: --kd-loss mse compares logits and has no temperature. "
                    "Leave it out, or give --kd-loss ce or kl."
                )
