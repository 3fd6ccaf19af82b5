"""`monoxkit predict`: labels with probabilities for texts in files or in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.prediction import PredictSummary
    from monox_kit.stage_call import Stage

_STREAM = "-"


def _run(stage: Stage, given: dict[str, Any]) -> PredictSummary | None:
    """Predict files, or a stream where one of both ends is -."""
    import sys
    from contextlib import ExitStack
    from pathlib import Path

    from monox_kit.durable import new_file
    from monox_kit.prediction import PredictConfig, predict, predict_stream
    from monoxkit_cli.render import RichProgress

    out = given.pop("out")
    config = stage.configured(given)
    assert isinstance(config, PredictConfig)
    reads_stream = config.input.paths == (_STREAM,)
    if not reads_stream and out != _STREAM:
        return predict(config, Path(out), progress=RichProgress())
    with ExitStack() as opened:
        # Unbuffered: a line is answered when it is there, not when a buffer is full.
        source = opened.enter_context(open(sys.stdin.fileno(), "rb", 0, closefd=False))
        sink = sys.stdout.buffer if out == _STREAM else opened.enter_context(new_file(Path(out)))
        lines = source if reads_stream else None
        predict_stream(config, lines, sink, progress=RichProgress())
    return None


def _table(summary: PredictSummary) -> Table:
    from rich.table import Table

    again = " (predicted before)" if summary.reused else ""
    table = Table("label", "rows", "share", title=f"{summary.path}{again}")
    for label, count in summary.labels.items():
        table.add_row(label, f"{count:,}", f"{100 * count / summary.num_rows:.1f} %")
    table.add_row("all", f"{summary.num_rows:,}", "")
    return table


COMMAND = Command(
    name="predict",
    stage="predict",
    help="""Predict labels with probabilities for texts.

    The output has a row for each input row, in order: id, language, label and probability. An
    interrupted run continues where it stopped. With - as input and output, each line is answered
    as soon as it arrives.

    Example: monoxkit predict student-onnx --input tickets.csv --out predictions.jsonl
    """,
    run=_run,
    show=_table,
)
