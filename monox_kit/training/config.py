"""What teachers and students are trained from, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from monox_kit.config import Config, Needs, OnlyWith, Rule
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.models.long_texts import Long

Method = Literal["ce", "pl", "kd", "self-training"]
# The name of the dev set that `dev` gives.
DEV = "dev"
EmbeddingMode = Literal["frozen", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig(Config):
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
        long: what is read of longer texts: head or head-tail [default: the model's own]. Stores
            that were labelled otherwise are learned from where it is given.
        embeddings: whether word embeddings are trained: frozen (they stay as they were pretrained)
            or full. Of an encoder that was trimmed before, `full` costs little.
        freeze_layers: keep this many of the lowest layers, and the embeddings, as they are. From 1
            on, no embedding is trained, whatever `embeddings` says.
        eval_every: steps between dev evaluations; None for the end of every epoch.
        checkpoint_every: steps between two checkpoints.
        seed: seed of the head's weights, the order of the rows and dropout.
        precision: precision of training: fp32, bf16, or auto: bf16 where the hardware has it.
        device: device of PyTorch: cpu, cuda or cuda:N.
        workers: threads that read and tokenize ahead; they do not change the result. 0 does it
            between the steps.
        tensorboard: folder to write TensorBoard events to; None for none.
    """

    # How many steps an epoch has then depends on its texts, and the schedule must know its end.
    RULES: ClassVar[tuple[Rule, ...]] = (Needs(("batch_tokens",), "max_steps", 1000),)

    learning_rate: Annotated[float, Gt(0), Lt(1)] = 1e-4
    head_factor: Annotated[float, Gt(0), Le(1000)] = 1.0
    batch_size: Annotated[int, Ge(1)] = 16
    batch_tokens: Annotated[int, Ge(1)] | None = None
    accumulate: Annotated[int, Ge(1)] = 1
    max_steps: Annotated[int, Ge(1)] | None = None
    epochs: Annotated[int, Ge(1)] = 3
    schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Ge(0), Lt(1)] = 0.1
    weight_decay: Annotated[float, Ge(0)] = 0.01
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    patience: Annotated[int, Ge(1)] | None = None
    max_length: Annotated[int, Ge(4)] | None = None
    long: Long | None = None
    embeddings: EmbeddingMode = "full"
    freeze_layers: Annotated[int, Ge(0)] = 0
    eval_every: Annotated[int, Ge(1)] | None = None
    checkpoint_every: Annotated[int, Ge(1)] = 200
    seed: Annotated[int, Ge(0), Lt(2**63)] = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "cpu"
    workers: Annotated[int, Ge(0), Le(64)] = 0
    tensorboard: str | None = None

    def __post_init__(self) -> None:
        if str(self.embeddings) == "sparse":
            raise ConfigError(
                "`embeddings` sparse: version 0.1.0 had this mode; it gave the model that full "
                "gives. Give full, and trim the encoder before it is trained (monoxkit trim), "
                "which leaves a small table to train; or give frozen."
            )
        Config.__post_init__(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig(Config):
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
           .
        threshold: leave out pseudo-labels of which the teacher is less confident, in pl and
            self-training. The paper keeps everything: 0.
    """

    # The squared error compares logits as they are.
    RULES: ClassVar[tuple[Rule, ...]] = (
        OnlyWith(("temperature", "temperature_on"), "kd_loss", ("ce", "kl")),
    )

    temperature: Annotated[float, Gt(0), Le(1000)] = 0.1
    temperature_on: Literal["teacher", "both"] = "teacher"
    kd_loss: Literal["ce", "kl", "mse"] = "ce"
    alpha: Annotated[float, Ge(0), Le(1)] = 0.0
    min_confidence: Annotated[float, Ge(0), Le(1)] = 0.0
    threshold: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig(Config):
    """What an English teacher is trained from.

    Attributes:
        model: encoder to fine-tune: a folder, packaged:NAME or a hub name.
        train: gold-labelled files to train on.
        dev: gold-labelled files that choose the weights to keep.
        report_dev: gold-labelled files, in any languages, whose results are reported only.
        select_on: sets that choose the weights: dev, and languages of `report_dev`.
        labels: file labels.json: class names in their order, and the problem type [default: the one
            beside the training file, else the labels that occur in it].
        new_head: start with a new classification head, where the model has one of another task.
        loop: how it is trained.
    """

    model: str
    train: CorpusConfig
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    labels: Path | None = None
    new_head: bool = False
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig(Config):
    """What a multilingual student is trained from.

    Attributes:
        model: multilingual encoder to fine-tune: a folder, packaged:NAME or a hub name.
        method: what the student learns from: ce, pl, kd or self-training.
        dev: gold-labelled files in the source language that choose the weights to keep.
        report_dev: gold-labelled files, in any languages, whose results are reported only.
        select_on: sets that choose the weights: dev, and languages of `report_dev`.
            Only dev alone is zero-shot.
        store: finished logit stores to learn from, in pl and kd.
        combine: how several stores are combined: concatenate them, or average those of one corpus.
        store_weight: weight of each store in the average, in any scale [default: equal].
        labelled: gold-labelled files for ce, pl and self-training.
        translations: files of texts in other languages, each with the id of the row that it is a
            translation of. The student learns that row's target.
        translation_share: share of the visits of a row with translations that read one of them
            [default: 0.5].
        unlabelled: files that self-training labels with the student of the round before.
        rounds: self-training rounds after the first [default: 2]. Each trains for the full number
            of steps; the first learns from gold labels alone.
        labels: file labels.json: class names in their order, and the problem type [default: the
            stores' labels, else as for a teacher].
        new_head: start with a new classification head, where the model has one of another task.
        objective: temperatures, weights and thresholds.
        loop: how it is trained; in self-training, each round.
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        OnlyWith(
            ("temperature", "temperature_on", "kd_loss", "alpha", "min_confidence"),
            "method",
            ("kd",),
            of="objective",
        ),
        OnlyWith(("threshold",), "method", ("pl", "self-training"), of="objective"),
        OnlyWith(("store", "combine"), "method", ("pl", "kd")),
        OnlyWith(("store_weight",), "combine", ("average",)),
        OnlyWith(("unlabelled", "rounds"), "method", ("self-training",)),
        OnlyWith(("translations",), "method", ("ce", "pl", "kd")),
        Needs(("translation_share",), "translations", "texts.de.jsonl"),
    )

    model: str
    method: Method
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    store: tuple[Path, ...] = ()
    combine: Literal["concatenate", "average"] = "concatenate"
    store_weight: tuple[Annotated[float, Gt(0)], ...] | None = None
    labelled: CorpusConfig | None = None
    translations: CorpusConfig | None = None
    translation_share: Annotated[float, Gt(0), Le(1)] | None = None
    unlabelled: CorpusConfig | None = None
    rounds: Annotated[int, Ge(1), Le(99)] | None = None
    labels: Path | None = None
    new_head: bool = False
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
