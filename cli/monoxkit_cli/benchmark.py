"""`monoxkit benchmark`: programs side by side on the user's own machine, model and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import AsJson, Format, MaxLength, TextColumn

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.benchmarking.label_result import LabelBenchmark, RowResult


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("label")(label)

    @group.callback()
    def benchmark() -> None:
        """Time programs beside each other.

        Example: monoxkit benchmark label --model runs/teacher --corpus text.jsonl --out runs/bench
        """

    app.add_typer(group, name="benchmark")


def label(
    model: Annotated[str, typer.Option("--model", help="Fine-tuned PyTorch folder.")],
    corpus: Annotated[list[str], typer.Option("--corpus", help="Text files, globs or URLs.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the JSON and the plot.")],
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", help="ONNX bundle of our rows [default: an fp32 export]."),
    ] = None,
    bundle_of: Annotated[
        list[str] | None, typer.Option("--bundle-of", help="Other bundles, as ROW=DIR.")
    ] = None,
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph", help="fp32 ONNX file of the OpenVINO rows [default: as PyTorch exports it]."
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--rows", help="Programs by name [default: all; monoxkit-guard with --guard]."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, in turn.")] = 3,
    rows_per_round: Annotated[
        int, typer.Option("--rows-per-round", help="Texts of a round; no text is in two.")
    ] = 2000,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Fewer texts a round for slow rows, as ROW=COUNT."),
    ] = None,
    max_length: MaxLength = None,
    guard: Annotated[
        float | None,
        typer.Option("--guard", help="Agreement that monoxkit-guard keeps, such as 0.999."),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option("--python", help="Interpreters of rows with other needs, as ROW=PATH."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Of each program [default: the cores].")
    ] = None,
    round_limit: Annotated[
        float, typer.Option("--round-limit", help="Seconds after which a pass ends as it is.")
    ] = 900.0,
    work: Annotated[
        str | None,
        typer.Option("--work", help="Folder of texts and kept graphs [default: OUT/work]."),
    ] = None,
    format: Format = "auto",
    text_column: TextColumn = "text",
    as_json: AsJson = False,
) -> None:
    """Labelling programs on the same model and texts.

    Every program is a process of its own, under its own interpreter where --python names one, and
    all take turns on the same slices of the corpus. Logits are compared with fp32 PyTorch's. What
    is not installed is listed with the reason. Writes label_throughput.json and .png.

    Example: monoxkit benchmark label --model runs/teacher --corpus text.jsonl --out runs/bench
    """
    from pathlib import Path

    from monox_kit.benchmarking.label import LabelBenchmarkConfig, benchmark_labelling
    from monox_kit.benchmarking.label_result import write_label_benchmark
    from monox_kit.corpora.corpus import CorpusConfig
    from monoxkit_cli.render import RichProgress, emit

    config = LabelBenchmarkConfig(
        model=model,
        corpus=CorpusConfig(
            paths=tuple(corpus),
            format=format,  # type: ignore[arg-type]  # checked by the configuration itself
            text_column=text_column,
            pair="none",
        ),
        bundle=bundle,
        bundles=by_row("--bundle-of", bundle_of),
        graph=graph,
        rows=None if rows is None else tuple(rows),
        rounds=rounds,
        rows_per_round=rows_per_round,
        slices=counts_by_row("--slice", slices),
        max_length=max_length,
        guard=guard,
        interpreters=by_row("--python", python),
        threads=threads,
        round_limit_s=round_limit,
    )
    folder = Path(out)
    found = benchmark_labelling(
        config, Path(work) if work else folder / "work", progress=RichProgress()
    )
    paths = write_label_benchmark(found, folder)
    emit(found, as_json, lambda: _tables(found), notes="\n".join(map(str, paths)))


def by_row(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """`ROW=VALUE` arguments by row.

    Raises:
        ConfigError: an argument has another form.
    """
    from monox_kit.errors import ConfigError

    found = {}
    for argument in given or ():
        row, separator, value = argument.partition("=")
        if not (row and separator and value):
            raise ConfigError(
                f"{option}: expected ROW=VALUE, found {argument!r}. Write it such as pipeline=..."
            )
        found[row] = value
    return found


def counts_by_row(option: str, given: Sequence[str] | None) -> dict[str, int]:
    """`ROW=COUNT` arguments by row.

    Raises:
        ConfigError: an argument has another form, or a count is no whole number.
    """
    from monox_kit.errors import ConfigError

    found = by_row(option, given)
    for row, value in found.items():
        if not value.isdigit():
            raise ConfigError(
                f"{option}: expected a whole number, found {row}={value}. Write {row}=200."
            )
    return {row: int(value) for row, value in found.items()}


def _tables(found: LabelBenchmark) -> list[Table]:
    from rich.table import Table

    limits = found.limits["tokens_per_s"]
    table = Table(
        "row",
        "tokens/s",
        *(f"of {name}" for name in limits),
        "texts",
        "peak MB",
        "same label",
        "mean KL",
        "note",
        title=f"{found.model['name']}: real tokens per second, median of rounds",
    )
    for name, row in found.rows.items():
        table.add_row(name, *_cells(row, list(limits)))
    machine = Table("matrix product", "10^9 operations/s", "tokens/s", title="The machine's limits")
    for name, rate in found.limits["rates"].items():
        machine.add_row(name, f"{rate:,.0f}", f"{limits[name]:,.0f}")
    return [table, machine]


def _cells(row: RowResult, limits: Sequence[str]) -> list[str]:
    rate, compared, memory = row.tokens_per_s, row.agreement, row.peak_rss_bytes
    num_over = sum(found.over_limit for found in row.rounds.values())
    notes = [row.reason or "", f"over the limit in {num_over} rounds" if num_over else ""]
    fractions = (row.limit_fractions.get(name) for name in limits)
    return [
        "-" if rate is None else f"{rate:,.0f}",
        *("-" if fraction is None else f"{fraction:.0%}" for fraction in fractions),
        f"{sum(found.num_texts for found in row.rounds.values()):,}",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
        "-" if compared is None else f"{compared.argmax:.2%}",
        "-" if compared is None else f"{compared.mean_kl:.1e}",
        "; ".join(filter(None, notes)),
    ]
