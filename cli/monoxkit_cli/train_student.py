"""`monoxkit train-student`: a multilingual student from logit stores, or from its own labels."""

from __future__ import annotations

from typing import Annotated

import typer

from monoxkit_cli.options import (
    Accumulate,
    AsJson,
    BatchSize,
    BudgetTokens,
    CheckpointEvery,
    Delimiter,
    Device,
    Embeddings,
    Encoding,
    Epochs,
    EvalEvery,
    Format,
    FreezeLayers,
    HeadFactor,
    IdColumn,
    LabelColumn,
    LabelNames,
    LabelsFile,
    LangColumn,
    Language,
    LearningRate,
    MaxGradNorm,
    MaxLength,
    MaxSteps,
    NewHead,
    Pair,
    PairColumn,
    Patience,
    Quoting,
    ReportDev,
    Schedule,
    Seed,
    SelectOn,
    TensorBoard,
    TextColumn,
    TrainPrecision,
    WarmupFraction,
    WeightDecay,
    Workers,
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train-student")(train_student)


def train_student(
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Multilingual encoder: a folder, packaged:NAME or a hub name."
        ),
    ],
    dev: Annotated[
        list[str],
        typer.Option(
            "--dev",
            help="Gold-labelled files in the source language that choose the weights to keep.",
        ),
    ],
    method: Annotated[
        str, typer.Option("--method", help="Training objective: ce, pl, kd or self-training.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder to write the model to.")],
    store: Annotated[
        list[str] | None, typer.Option("--store", help="Logit stores that pl and kd learn from.")
    ] = None,
    combine: Annotated[
        str,
        typer.Option(
            "--combine",
            help="Several stores: concatenate their rows, or average stores of one corpus.",
        ),
    ] = "concatenate",
    store_weight: Annotated[
        list[float] | None,
        typer.Option(
            "--store-weight", help="Weight of each store in the average [default: equal weights]."
        ),
    ] = None,
    labelled: Annotated[
        list[str] | None,
        typer.Option(
            "--labelled", help="Gold-labelled files that ce, pl and self-training learn from."
        ),
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option("--unlabelled", help="Files that self-training labels in each round."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            help="Self-training rounds after the first; each trains for the full number of steps "
            "[default: 2].",
        ),
    ] = None,
    labels: LabelsFile = None,
    new_head: NewHead = False,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Temperature of the soft targets in kd.")
    ] = 0.1,
    temperature_on: Annotated[
        str,
        typer.Option(
            "--temperature-on",
            help="Whose logits the temperature divides: teacher (MonoX), or both, with the factor "
            "T^2 (Hinton).",
        ),
    ] = "teacher",
    kd_loss: Annotated[
        str,
        typer.Option(
            "--kd-loss", help="Loss of kd: ce with the soft targets, kl, or mse between the logits."
        ),
    ] = "ce",
    alpha: Annotated[
        float, typer.Option("--alpha", help="Weight of the stores' gold labels in kd.")
    ] = 0.0,
    min_confidence: Annotated[
        float,
        typer.Option(
            "--min-confidence", help="Leave out rows of kd of which the teacher is less confident."
        ),
    ] = 0.0,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", help="Leave out pseudo-labels of which the teacher is less confident."
        ),
    ] = 0.0,
    learning_rate: LearningRate = 1e-4,
    head_factor: HeadFactor = 1.0,
    batch_size: BatchSize = 16,
    batch_tokens: BudgetTokens = None,
    accumulate: Accumulate = 1,
    max_steps: MaxSteps = None,
    epochs: Epochs = 3,
    schedule: Schedule = "linear",
    warmup_fraction: WarmupFraction = 0.1,
    weight_decay: WeightDecay = 0.01,
    max_grad_norm: MaxGradNorm = 1.0,
    patience: Patience = None,
    max_length: MaxLength = None,
    embeddings: Embeddings = "frozen",
    freeze_layers: FreezeLayers = 0,
    eval_every: EvalEvery = None,
    report_dev: ReportDev = None,
    select_on: SelectOn = None,
    checkpoint_every: CheckpointEvery = 200,
    seed: Seed = 1,
    precision: TrainPrecision = "auto",
    device: Device = "cpu",
    workers: Workers = 0,
    tensorboard: TensorBoard = None,
    format: Format = "auto",
    text_column: TextColumn = "text",
    pair_column: PairColumn = "text_pair",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    lang_column: LangColumn = "lang",
    pair: Pair = "auto",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    quoting: Quoting = "auto",
    label_names: LabelNames = None,
    language: Language = None,
    as_json: AsJson = False,
) -> None:
    """Train a student from stores; the teacher is not needed.

    ce: cross-entropy on --labelled alone, the baseline. pl: --labelled and the teacher's confident
    hard labels. kd: the teacher's soft targets for every row of the stores, so label the labelled
    texts too. self-training: --labelled, and --unlabelled with the student's own labels of the
    round before. Run again, it resumes at the newest checkpoint. torchrun and accelerate launch
    start it in several processes, self-training excepted.

    Example: monoxkit train-student --method kd --model M --store S --dev dev.jsonl --out DIR
    """
    given = locals()
    from pathlib import Path

    from monox_kit.training.config import ObjectiveConfig
    from monox_kit.training.processes import is_first
    from monox_kit.training.run import StudentConfig
    from monox_kit.training.run import train_student as train_model
    from monoxkit_cli.options import corpus_config, dev_sets, loop_config
    from monoxkit_cli.render import RichProgress, emit
    from monoxkit_cli.train_teacher import summary_table

    config = StudentConfig(
        model=model,
        method=method,  # type: ignore[arg-type]  # checked by the library
        dev=corpus_config(dev, given),
        **dev_sets(report_dev, select_on, given),
        stores=tuple(Path(folder) for folder in store or ()),
        combine=combine,  # type: ignore[arg-type]
        store_weight=tuple(store_weight) if store_weight else None,
        labelled=corpus_config(labelled, given) if labelled else None,
        unlabelled=corpus_config(unlabelled, given) if unlabelled else None,
        rounds=rounds,
        labels=Path(labels) if labels else None,
        new_head=new_head,
        objective=ObjectiveConfig(
            temperature=temperature,
            temperature_on=temperature_on,  # type: ignore[arg-type]
            kd_loss=kd_loss,  # type: ignore[arg-type]
            alpha=alpha,
            min_confidence=min_confidence,
            threshold=threshold,
        ),
        loop=loop_config(given),
    )
    summary = train_model(config, Path(out), progress=RichProgress())
    if is_first():
        emit(summary, as_json, lambda: summary_table(summary))
