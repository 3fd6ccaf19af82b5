"""`monoxkit export`: a fine-tuned model to a checked ONNX bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import (
    AsJson,
    Format,
    LabelColumn,
    MaxLength,
    PairColumn,
    Provider,
    TextColumn,
)

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.export import ExportSummary


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


def export(
    model: Annotated[str, typer.Argument(help="Fine-tuned PyTorch model folder or hub name.")],
    out: Annotated[str, typer.Option("--out", help="Bundle folder to write.")],
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, int8, fp16, or auto: fastest that agrees.")
    ] = "fp32",
    max_length: MaxLength = None,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Real text to check on [default: built-in sentences]."),
    ] = None,
    check_rows: Annotated[
        int, typer.Option("--check-rows", help="At most so many rows of --check.")
    ] = 200,
    min_agreement: Annotated[
        float,
        typer.Option("--min-agreement", help="Least part of texts with PyTorch's label."),
    ] = 0.95,
    provider: Provider = "cpu",
    exporter: Annotated[
        str, typer.Option("--exporter", help="dynamo, or optimum where optimum-onnx is installed.")
    ] = "dynamo",
    format: Format = "auto",
    text_column: TextColumn = "text",
    pair_column: PairColumn = "text_pair",
    label_column: LabelColumn = "label",
    as_json: AsJson = False,
) -> None:
    """Write an ONNX bundle, once it agrees with PyTorch.

    The fp32 graph must give PyTorch's logits up to rounding, a reduced precision PyTorch's label
    on --min-agreement of the check texts; otherwise nothing is written.

    Example: monoxkit export runs/teacher --out runs/teacher-onnx --check data/dev.jsonl
    """
    from pathlib import Path

    from monox_kit.export import ExportConfig, export_model
    from monoxkit_cli.options import corpus_config
    from monoxkit_cli.render import RichProgress, emit

    texts = None
    if check:
        texts = corpus_config(
            check,
            format=format,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
        )
    config = ExportConfig(
        model=model,
        precision=precision,  # type: ignore[arg-type]  # checked by the library
        max_length=max_length,
        check=texts,
        check_rows=check_rows,
        min_agreement=min_agreement,
        provider=provider,
        exporter=exporter,  # type: ignore[arg-type]
    )
    summary = export_model(config, Path(out), progress=RichProgress())
    emit(summary, as_json, lambda: _table(summary))


def _table(summary: ExportSummary) -> Table:
    from rich.table import Table

    title = f"{summary.path}: {summary.precision}" + (" (already there)" if summary.reused else "")
    columns = ("precision", "MB", "same label", "max logit difference", "mean KL", "s", "verdict")
    table = Table(*columns, title=title)
    for name, candidate in summary.candidates.items():
        found = candidate["agreement"]
        seconds = candidate["race_s"]
        agreement = ("-", "-", "-")
        if found is not None:
            agreement = (
                f"{found['argmax']:.1%} of {found['num_texts']}",
                f"{found['max_delta']:.1e}",
                f"{found['mean_kl']:.1e}",
            )
        table.add_row(
            name,
            f"{candidate['model_bytes'] / 1e6:.1f}",
            *agreement,
            "-" if seconds is None else f"{seconds:.2f}",
            candidate["rejected"] or "kept",
        )
    return table
