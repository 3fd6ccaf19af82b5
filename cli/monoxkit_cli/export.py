"""`monoxkit export`: a fine-tuned model to a checked ONNX bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from monox_kit.errors import GateError
from monoxkit_cli.derive import Command
from monoxkit_cli.trim import bytes_table

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.exporting import ExportSummary
    from monox_kit.exporting.candidates import RefusedExport
    from monox_kit.exporting.gate import GateReport
    from monox_kit.stage_call import Stage


def _run(stage: Stage, given: dict[str, Any]) -> Any:
    """The stage's result; of an export that was refused, what was measured."""
    from monoxkit_cli.render import RichProgress

    try:
        return stage.run(given, RichProgress())
    except GateError as error:
        if error.result is None:
            raise
        return error.result


def _require_released(result: ExportSummary | RefusedExport) -> None:
    from monox_kit.exporting.candidates import RefusedExport

    if isinstance(result, RefusedExport):
        raise result.error()


def _tables(result: ExportSummary | RefusedExport) -> list[Table]:
    from monox_kit.exporting.candidates import RefusedExport

    if isinstance(result, RefusedExport):
        title = "refused: nothing was put in place"
    else:
        title = f"{result.path}: {result.chosen}" + (" (already there)" if result.reused else "")
    tables = [_table(title, result.candidates)]
    if result.gate is not None:
        tables.append(_gate_table(result.gate))
    if not isinstance(result, RefusedExport) and result.bytes:
        tables.append(bytes_table(result.bytes, "MB in PyTorch", "MB here"))
    return tables


def _gate_table(gate: GateReport) -> Table:
    from rich.table import Table

    from monox_kit.exporting.gate import GATE_COLUMNS

    table = Table(*GATE_COLUMNS, title=f"gate: {gate.verdict}")
    for cells in gate.cells():
        table.add_row(*cells)
    return table


def _table(title: str, candidates: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

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
    for name, candidate in candidates.items():
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

    With --gate, thresholds must hold in every language, on --check-rows rows of each. A graph that
    fails one is refused (exit code 7). Where there are too few rows to tell, the bundle is put in
    place, and its verdict is "not shown".

    Example: monoxkit export runs/teacher --out runs/teacher-onnx --check data/dev.jsonl
    """,
    run=_run,
    show=_tables,
    check=_require_released,
)
