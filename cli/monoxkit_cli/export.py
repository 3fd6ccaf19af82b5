"""`monoxkit export`: a fine-tuned model to a checked ONNX bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import (
    ArgumentsFirst,
    AsJson,
    Delimiter,
    Encoding,
    Format,
    LabelColumn,
    LabelNames,
    MaxLength,
    PairColumn,
    Quoting,
    TextColumn,
)

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.export import ExportSummary


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export", cls=ArgumentsFirst)(export)


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Fine-tuned PyTorch model folder or hub name.")
    ],
    out: Annotated[str, typer.Option("--out", help="Bundle folder to write.")],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="fp32, bf16, fp16, int8, int8-tensor, int8-smooth, int8-static, "
            "int8-static-smooth, int8-nncf, int8-block, or auto: the fastest one that agrees with "
            "PyTorch.",
        ),
    ] = "fp32",
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph",
            help="Form of the graph: opset23, opset23-eager, opset17-eager or opset17-fused "
            "[default: the first that works; with auto: all are tried].",
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            "--candidates",
            help="Reduced precisions that auto tries, such as int8,int8-smooth [default: all].",
        ),
    ] = None,
    max_length: MaxLength = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check", help="Files of real text to check graphs on [default: built-in sentences]."
        ),
    ] = None,
    check_rows: Annotated[
        int, typer.Option("--check-rows", help="Most rows of --check that graphs are checked on.")
    ] = 200,
    calibration_rows: Annotated[
        int,
        typer.Option(
            "--calibration-rows", help="Most other rows of --check that quantizers learn from."
        ),
    ] = 256,
    min_agreement: Annotated[
        float,
        typer.Option(
            "--min-agreement",
            help="Least share of the checked texts that must get PyTorch's label.",
        ),
    ] = 0.95,
    provider: Annotated[
        str,
        typer.Option(
            "--provider",
            help="Execution provider: cpu, cuda, tensorrt or openvino; auto tries all there are.",
        ),
    ] = "cpu",
    exporter: Annotated[
        str,
        typer.Option(
            "--exporter",
            help="dynamo is the only one: optimum-onnx does not run beside transformers 5.",
        ),
    ] = "dynamo",
    keep_fp32: Annotated[
        bool,
        typer.Option(
            "--keep-fp32/--drop-fp32",
            help="Keep the fp32 graph beside a reduced one, for label --guard.",
        ),
    ] = True,
    format: Format = "auto",
    text_column: TextColumn = "text",
    pair_column: PairColumn = "text_pair",
    label_column: LabelColumn = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    quoting: Quoting = "auto",
    label_names: LabelNames = None,
    as_json: AsJson = False,
) -> None:
    """Write an ONNX bundle, once it agrees with PyTorch.

    The fp32 graph must give PyTorch's logits up to rounding, a reduced precision PyTorch's label
    on --min-agreement of the check texts; otherwise nothing is written. A form in which the graph
    cannot be built makes room for the next one. With --precision auto, every form and precision is
    built, checked and timed on the lengths of the check texts. The fastest that passes is kept; of
    those within a tenth of its speed, the one that agrees best.

    Example: monoxkit export runs/teacher --out runs/teacher-onnx --check data/dev.jsonl
    """
    given = locals()
    from pathlib import Path

    from monox_kit.export import ExportConfig, export_model
    from monoxkit_cli.options import corpus_config
    from monoxkit_cli.render import RichProgress, emit

    texts = None
    if check:
        texts = corpus_config(check, given)
    config = ExportConfig(
        model=model,
        precision=precision,
        graph=graph,
        candidates=None if candidates is None else tuple(candidates.split(",")),
        max_length=max_length,
        check=texts,
        check_rows=check_rows,
        calibration_rows=calibration_rows,
        min_agreement=min_agreement,
        provider=provider,
        exporter=exporter,  # type: ignore[arg-type]  # checked by the library
        keep_fp32=keep_fp32,
    )
    summary = export_model(config, Path(out), progress=RichProgress())
    emit(summary, as_json, lambda: _table(summary))


def _table(summary: ExportSummary) -> Table:
    from rich.table import Table

    title = f"{summary.path}: {summary.chosen}" + (" (already there)" if summary.reused else "")
    columns = (
        "graph",
        "MB",
        "same label",
        "max logit difference",
        "mean KL",
        "tokens/s",
        "verdict",
    )
    table = Table(*columns, title=title)
    for name, candidate in summary.candidates.items():
        found = candidate["agreement"]
        rate = candidate["tokens_per_s"]
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
            "-" if rate is None else f"{rate:,.0f}",
            candidate["rejected"] or "kept",
        )
    return table
