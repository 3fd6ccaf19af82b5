"""`monoxkit evaluate`: accuracy, micro-F1 and macro-F1 per language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import (
    ArgumentsFirst,
    AsJson,
    BatchTokens,
    Delimiter,
    Device,
    Encoding,
    Format,
    IdColumn,
    LabelColumn,
    LabelNames,
    LabelsFile,
    LangColumn,
    Language,
    MaxLength,
    PairColumn,
    Provider,
    Quoting,
    TextColumn,
)

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.evaluation import EvalReport


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("evaluate", cls=ArgumentsFirst)(evaluate)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Model folder, ONNX bundle, packaged:NAME or hub name."
        ),
    ],
    test: Annotated[list[str], typer.Option("--test", help="Gold-labelled files to test on.")],
    source_language: Annotated[
        str,
        typer.Option("--source-language", help="Language that is left out of the target average."),
    ] = "en",
    labels: LabelsFile = None,
    max_length: MaxLength = None,
    batch_tokens: BatchTokens = 1024,
    provider: Provider = "cpu",
    device: Device = "cpu",
    num_resamples: Annotated[
        int, typer.Option("--num-resamples", help="Bootstrap resamples per language.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the resampling.")] = 1,
    details: Annotated[
        str | None,
        typer.Option(
            "--details", help="Folder for results by class, confusions and the wrong rows."
        ),
    ] = None,
    format: Format = "auto",
    text_column: TextColumn = "text",
    pair_column: PairColumn = "text_pair",
    label_column: LabelColumn = "label",
    id_column: IdColumn = "id",
    lang_column: LangColumn = "lang",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    quoting: Quoting = "auto",
    label_names: LabelNames = None,
    language: Language = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy and macro-F1 per language, with intervals.

    Where a row has any number of labels: micro-F1, macro-F1 and subset accuracy.

    A row's language is its lang column, else what its file's name says (test.de.jsonl). Rows of an
    unknown language are reported as und and count into no average.

    Example: monoxkit evaluate runs/student --test data/test.*.jsonl
    """
    given = locals()
    from pathlib import Path

    from monox_kit.data import LabelSet
    from monox_kit.evaluation import EvaluateConfig
    from monox_kit.evaluation import evaluate as evaluate_model
    from monoxkit_cli.options import corpus_config
    from monoxkit_cli.render import RichProgress, emit

    config = EvaluateConfig(
        test=corpus_config(test, given),
        source_language=source_language,
        max_length=max_length,
        batch_tokens=batch_tokens,
        provider=provider,
        device=device,
        num_resamples=num_resamples,
        seed=seed,
    )
    names = LabelSet.read(Path(labels)) if labels else None
    report = evaluate_model(
        model,
        config,
        labels=names,
        details=Path(details) if details else None,
        progress=RichProgress(),
    )
    emit(report, as_json, lambda: _table(report), notes=_notes(report, details))


def _notes(report: EvalReport, details: str | None) -> str:
    """How many rows a difference takes, and where the details are."""
    rows = max(one.rows_for_3_points or 0 for one in report.languages.values())
    fewest = min(report.languages, key=lambda name: report.languages[name].num_rows)
    lines = [
        f"A difference of 3 points to another model shows on about {rows:,} rows of a language "
        f"(5 % level, 80 % power); {fewest} has {report.languages[fewest].num_rows:,}. "
        "See `monoxkit compare`."
    ]
    if details is not None:
        lines.append(f"by class, confusions, wrong rows: {details}")
    return "\n".join(lines)


def _table(report: EvalReport) -> Table:
    from rich.table import Table

    # The one that the target average is of comes first.
    columns = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
    if report.measure == "micro_f1":
        columns = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "accuracy": "subset accuracy"}
    headings = [heading for name in columns.values() for heading in (name, "95 %")]
    table = Table("language", "rows", *headings, title=report.model)
    for language, result in report.languages.items():
        cells = [
            shown
            for name in columns
            for shown in (
                f"{100 * getattr(result, name):.1f}",
                shown_range(getattr(result, f"{name}_interval")),
            )
        ]
        table.add_row(language, f"{result.num_rows:,}", *cells)
    if report.target_average is not None and report.target_average_interval is not None:
        table.add_row(
            "target average",
            "",
            f"{100 * report.target_average:.1f}",
            shown_range(report.target_average_interval),
        )
    return table


def shown_range(interval: tuple[float, float]) -> str:
    """An interval in percent."""
    return f"{100 * interval[0]:.1f} - {100 * interval[1]:.1f}"
