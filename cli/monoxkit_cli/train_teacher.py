"""`monoxkit train-teacher`: an English classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.training.summary import TrainingSummary


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train-teacher")(train_teacher)


def train_teacher(
    model: Annotated[
        str, typer.Option("--model", help="Encoder: a folder, packaged:NAME or a hub name.")
    ],
    train: Annotated[list[str], typer.Option("--train", help="Gold-labelled files to train on.")],
    dev: Annotated[
        list[str],
        typer.Option("--dev", help="Gold-labelled files that choose the weights to keep."),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder to write the model to.")],
    labels: LabelsFile = None,
    new_head: NewHead = False,
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
    embeddings: Embeddings = "full",
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
    """Fine-tune an encoder on gold labels.

    Keeps the weights of the best dev evaluation. Run again, it resumes at the newest checkpoint.
    torchrun and accelerate launch start it in several processes.
    The label set is --labels, else labels.json beside the training file, else its distinct labels.

    Example: monoxkit train-teacher --model roberta-large --train t.jsonl --dev d.jsonl --out DIR
    """
    given = locals()
    from pathlib import Path

    from monox_kit.training.processes import is_first
    from monox_kit.training.run import TeacherConfig
    from monox_kit.training.run import train_teacher as train_model
    from monoxkit_cli.options import corpus_config, dev_sets, loop_config
    from monoxkit_cli.render import RichProgress, emit

    config = TeacherConfig(
        model=model,
        train=corpus_config(train, given),
        dev=corpus_config(dev, given),
        **dev_sets(report_dev, select_on, given),
        labels=Path(labels) if labels else None,
        new_head=new_head,
        loop=loop_config(given),
    )
    summary = train_model(config, Path(out), progress=RichProgress())
    if is_first():
        emit(summary, as_json, lambda: summary_table(summary))


def summary_table(summary: TrainingSummary) -> Table:
    """What a training run did, for both training commands."""
    from rich.table import Table

    from monox_kit.problem import shown_measure

    title = str(summary.path) + (" (already trained)" if summary.reused else "")
    table = Table("what", "value", title=title)
    table.add_row("objective", summary.method)
    for name, count in summary.counts.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    for name, counts in summary.classes.items():
        found = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        table.add_row(f"teacher's label {name}", found)
    for each in summary.rounds:
        kept = ", kept" if each["kept"] else ""
        table.add_row(
            f"round {each['round']}{kept}",
            f"{each['num_rows']:,} rows, {each['num_steps']:,} steps, dev "
            f"{shown_measure(each, 'dev_')}",
        )
    table.add_row("steps", f"{summary.num_steps:,}, weights kept from step {summary.best_step:,}")
    if summary.stopped_early:
        table.add_row("ended", "early: no better dev result")
    for name, result in summary.dev_sets.items():
        chose = "" if name in summary.selected_on else " (reported)"
        table.add_row(f"{name}{chose}", shown_measure(result))
    table.add_row("dev loss", f"{summary.dev_loss:.4f}")
    table.add_row("precision", summary.precision)
    table.add_row("seconds", f"{summary.trained_s:,.1f}")
    return table
