"""`monoxkit export`: a fine-tuned model to a checked ONNX bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.exporting import ExportSummary


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


COMMAND = Command(
    name="export",
    stage="export",
    help="""Write an ONNX bundle, once it agrees with PyTorch.

    The fp32 graph must give PyTorch's logits up to rounding, a reduced precision PyTorch's label
    on --min-agreement of the check texts; otherwise nothing is written. A form in which the graph
    cannot be built makes room for the next one. With --precision auto, every form and precision is
    built, checked and timed on the lengths of the check texts. The fastest that passes is kept; of
    those within a tenth of its speed, the one that agrees best.

    Example: monoxkit export runs/teacher --out runs/teacher-onnx --check data/dev.jsonl
    """,
    show=_table,
)
