"""`monoxkit demo`: the whole pipeline on real text, in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from monoxkit_cli.options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.demo import DemoReport


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)


def demo(
    out: Annotated[str, typer.Option("--out", help="Folder to write the run to.")] = "runs/demo",
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Folder of your own corpus [default: Debian's texts, fetched with apt]."
        ),
    ] = None,
    teacher_model: Annotated[
        str,
        typer.Option(
            "--teacher-model", help="English encoder: a folder, packaged:NAME or a hub name."
        ),
    ] = "packaged:minilm-l6",
    student_model: Annotated[
        str,
        typer.Option(
            "--student-model", help="Multilingual encoder: a folder, packaged:NAME or a hub name."
        ),
    ] = "packaged:e5-small",
    labelled: Annotated[
        int, typer.Option("--labelled", help="Number of labelled English rows.")
    ] = 1000,
    unlabelled: Annotated[
        int, typer.Option("--unlabelled", help="Number of English rows without labels.")
    ] = 4000,
    dev: Annotated[
        int, typer.Option("--dev", help="Number of English rows that choose the weights.")
    ] = 300,
    test_rows: Annotated[
        int, typer.Option("--test-rows", help="Largest number of rows of each test set.")
    ] = 200,
    languages: Annotated[
        str | None,
        typer.Option("--languages", help="Target languages: de,fr,... [default: 10 of them]."),
    ] = None,
    teacher_max_length: Annotated[
        int,
        typer.Option(
            "--teacher-max-length", help="Truncate the teacher's texts at this many tokens."
        ),
    ] = 32,
    max_length: Annotated[
        int, typer.Option("--max-length", help="Truncate the students' texts at this many tokens.")
    ] = 32,
    teacher_steps: Annotated[
        int, typer.Option("--teacher-steps", help="Steps of 16 rows that the teacher trains for.")
    ] = 360,
    student_steps: Annotated[
        int, typer.Option("--student-steps", help="Steps of 16 rows that each student trains for.")
    ] = 280,
    teacher_learning_rate: Annotated[
        float, typer.Option("--teacher-learning-rate", help="Peak learning rate of the teacher.")
    ] = 1e-4,
    student_learning_rate: Annotated[
        float, typer.Option("--student-learning-rate", help="Peak learning rate of the students.")
    ] = 2e-4,
    head_factor: Annotated[
        float,
        typer.Option(
            "--head-factor", help="Learning rate of the new heads, as a multiple of the encoder's."
        ),
    ] = 10.0,
    freeze_layers: Annotated[
        int,
        typer.Option(
            "--freeze-layers", help="Keep this many of the students' lowest layers as they are."
        ),
    ] = 8,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Temperature of the soft targets in kd.")
    ] = 0.1,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", help="Leave out pseudo-labels of which the teacher is less confident."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is random.")] = 1,
    as_json: AsJson = False,
) -> None:
    """The whole pipeline on real text, in one command.

    Fine-tunes an English teacher, exports it, labels English text with it, trains three students
    on the same number of steps, evaluates each in every language, exports the best. Writes
    report.md and report.html. Run again, finished stages are reused.

    Example: monoxkit demo --languages de,fr,ja
    """
    from pathlib import Path

    from monox_kit.cache import keep_fonts
    from monox_kit.demo import DemoConfig, run_demo
    from monox_kit.demo.config import TARGET_LANGUAGES
    from monox_kit.report import write_report
    from monoxkit_cli.render import RichProgress, emit

    keep_fonts()
    config = DemoConfig(
        data=Path(data) if data else None,
        teacher_model=teacher_model,
        student_model=student_model,
        labelled=labelled,
        unlabelled=unlabelled,
        dev=dev,
        test_rows=test_rows,
        languages=tuple(languages.split(",")) if languages else TARGET_LANGUAGES,
        teacher_max_length=teacher_max_length,
        max_length=max_length,
        teacher_steps=teacher_steps,
        student_steps=student_steps,
        teacher_learning_rate=teacher_learning_rate,
        student_learning_rate=student_learning_rate,
        head_factor=head_factor,
        freeze_layers=freeze_layers,
        temperature=temperature,
        threshold=threshold,
        seed=seed,
    )
    report = run_demo(config, Path(out), progress=RichProgress())
    written = write_report(report, Path(out))
    emit(
        report,
        as_json,
        lambda: _tables(report),
        notes="\n".join(f"report: {path}" for path in written),
    )


def _tables(report: DemoReport) -> list[Table]:
    """Accuracy by language and system, and what the run cost."""
    from rich.table import Table

    from monox_kit.report import accuracy_rows, fact_rows

    header, *rows = accuracy_rows(report)
    accuracy = Table(*header, title="accuracy in %, with 95 % bootstrap intervals")
    for row in rows:
        accuracy.add_row(*row)
    facts = Table("what", "measured", title=report.out)
    for row in fact_rows(report):
        facts.add_row(*row)
    return [accuracy, facts]
