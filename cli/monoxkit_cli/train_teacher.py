"""`monoxkit train-teacher`: fine-tunes an English encoder on gold labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.stage_call import Stage
    from monox_kit.training.summary import TrainingSummary


def train(stage: Stage, given: dict[str, Any]) -> TrainingSummary | None:
    """Train; of several processes the first one shows what came out."""
    from monox_kit.training.processes import is_first
    from monoxkit_cli.render import RichProgress

    summary: TrainingSummary = stage.run(given, RichProgress())
    return summary if is_first() else None


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


COMMAND = Command(
    name="train-teacher",
    stage="train_teacher",
    help="""Fine-tune an encoder on gold labels.

    Keeps the weights of the best dev evaluation. Run again, it resumes at the newest checkpoint.
    torchrun and accelerate launch start it in several processes. The label set is --labels, else
    labels.json beside the training file, else its distinct labels.

    Example: monoxkit train-teacher --model roberta-large --train t.jsonl --dev d.jsonl --out DIR
    """,
    run=train,
    show=summary_table,
)
