"""What the report says, for every page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from monox_kit.report.accuracy import accuracy_blocks
from monox_kit.report.blocks import Block, Items, Paragraph, Plot, Section, Table
from monox_kit.report.provenance import (
    environment,
    is_debian,
    reproduction,
    stage_times,
    texts,
)
from monox_kit.report.rows import fact_rows, ms_per_row, race_names, speedup, verdict

if TYPE_CHECKING:
    from monox_kit.demo.result import DemoReport

# Of a training record's counts, those of rows that were trained on.
_LEARNED = {
    "gold_rows": "gold-labelled rows",
    "pseudo_labelled_rows": "pseudo-labelled rows",
    "soft_rows": "rows with soft targets",
}


def sections(report: DemoReport) -> list[Section]:
    """The report, top to bottom."""
    return [
        Section("What was done", [Paragraph(text) for text in _what_was_done(report)]),
        Section("In short", [Items(tuple(_in_short(report)))]),
        Section("Accuracy by language", accuracy_blocks(report.scores, tuple(_reading(report)))),
        Section("The systems", [Items(tuple(_systems(report)))]),
        _cost(report),
        _training(report),
        texts(report),
        reproduction(report),
        stage_times(report),
        environment(report),
    ]


def _what_was_done(report: DemoReport) -> list[str]:
    settings = report.settings
    tested = "The teacher was tested in English, the students in every language"
    if "teacher" not in report.scores.systems:
        tested = "The students were tested in every language, the teacher in none"
    pipeline = (
        f"An English teacher ({settings['teacher_model']}) was fine-tuned on labelled English "
        "text, exported to ONNX, and gave its logits for labelled and unlabelled English text. "
        f"Three multilingual students ({settings['student_model']}) were trained for "
        f"{settings['student_steps']:,} steps each, differing only in what they learn from. "
        f"{tested}; the student that was best on English dev text was exported to ONNX and tested "
        "again."
    )
    if not is_debian(report):
        return [f"The texts and labels are those of {report.corpus['folder']}.", pipeline]
    names = {name for found in report.corpus.get("labels", {}).values() for name in found}
    task = f", one of {len(names)}" if names else ""
    return [
        f"The task: from the description of a Debian package, name the section of the archive "
        f"that it is in{task}. The texts are Debian's package descriptions "
        f"({report.corpus['release']}) and their translations in Debian's own lists, fetched with "
        "apt. Only English text was trained on.",
        pipeline,
    ]


def _in_short(report: DemoReport) -> Iterator[str]:
    scores = report.scores
    source = scores.source_language
    teacher, baseline = (scores.in_language(name, source) for name in ("teacher", "ce"))
    if teacher is not None and baseline is not None:
        yield f"In {source}, the teacher scores {teacher} %, ce {baseline} %."
    for name in ("pl", "kd"):
        compared = scores.against_baseline(name)
        if compared is not None:
            yield f"{name} against ce: {verdict(compared)}."
    exported, best = (scores.average(name) for name in ("exported", report.best))
    if exported is not None and best is not None:
        yield (
            f"Exported as {scores.systems['exported'].title}: {exported} % on the target average, "
            f"in PyTorch {best} %."
        )
    facts = dict(fact_rows(report))
    yield f"Labelling, side by side: {facts['labelling, side by side']}."
    yield f"Inference of the exported student: {facts['inference']}."
    yield f"Time of all stages: {facts['all stages']}."


def _reading(report: DemoReport) -> Iterator[str]:
    yield (
        "No interval says how far a number would move with another seed: every model was trained "
        "once."
    )
    if "teacher" in report.scores.systems:
        yield '"-" stands where something does not apply: the teacher reads English only.'
    shares = sorted({f"{share:.1f}" for share in _largest_shares(report)}, key=float)
    if shares:
        score = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
        yield (
            "For scale: always giving the label that is most frequent in a test set would score "
            f"{score} %."
        )


def _largest_shares(report: DemoReport) -> list[float]:
    """By test set, the percentage of its most frequent label; empty where it is not recorded."""
    labels = report.corpus.get("labels", {})
    tests = [found for name, found in labels.items() if name.startswith("test.") and found]
    return [100 * max(found.values()) / sum(found.values()) for found in tests]


def _systems(report: DemoReport) -> Iterator[str]:
    settings, training = report.settings, report.training
    student = settings["student_model"]
    about = {
        "teacher": f"{settings['teacher_model']}, fine-tuned with cross-entropy on the labelled "
        "English rows. English only.",
        "ce": f"{student}, trained with cross-entropy on the same labelled English rows. The "
        "baseline: it learns nothing from the teacher.",
        "pl": f"{student}, trained with cross-entropy on the labelled rows and on the teacher's "
        "labels of the unlabelled English rows, where its confidence is at least "
        f"{settings['threshold']:g}{'' if settings['threshold'] else ', which is all of them'}.",
        "kd": f"{student}, trained on the teacher's soft targets at temperature "
        f"{settings['temperature']:g} for labelled and unlabelled English rows; gold labels are "
        "not used.",
        "exported": f"{report.best}, as an ONNX graph in {report.exports['student']['precision']}.",
    }
    for name, system in report.scores.systems.items():
        rows = _counts(training[name]) if name in training else ""
        yield f"{system.title}: {about[name]}" + (f" Trained on {rows}." if rows else "")


def _counts(summary: Mapping[str, Any]) -> str:
    """The rows that a system learned from; counts of rows left out are not among them."""
    counts = summary["counts"]
    found = (f"{counts[name]:,} {text}" for name, text in _LEARNED.items() if counts.get(name))
    return " and ".join(found)


def _cost(report: DemoReport) -> Section:
    rows = _inference_rows(report)
    races = list(report.inference_races.values())
    names = race_names(races[0]) if races else ("torch", "onnx")
    blocks: list[Block] = [
        Table([["what", "measured"], *fact_rows(report)], "What the run did and cost."),
        Plot(
            "inference",
            f"Milliseconds per row of {report.best} in {names[0]} and in {names[1]}, by language; "
            "at the right, how many times as fast the second is.",
        ),
        Table(rows, "Inference by language, both systems in turn in one process.", numeric=True),
        Paragraph(
            "Timed on a few texts of each test set, in batches, tokenizing included; of each "
            "system the median of several rounds counts. A row of a language with more tokens per "
            "row takes longer."
        ),
    ]
    return Section("Speed, size and time", blocks)


def _inference_rows(report: DemoReport) -> list[list[str]]:
    races = report.inference_races
    if not races:
        return [["language"]]
    names = race_names(next(iter(races.values())))
    header = ["language", "rows timed", "tokens per row", *(f"{name}, ms" for name in names)]
    rows = [[*header, "times as fast"]]
    for tag in (tag for tag in report.scores.languages if tag in races):
        race = races[tag]
        times = [f"{ms_per_row(race, name):.2f}" for name in names]
        tokens = f"{race['num_tokens'] / race['num_rows']:.1f}"
        rows.append([tag, f"{race['num_rows']:,}", tokens, *times, f"{speedup(race):.2f}"])
    return rows


def _training(report: DemoReport) -> Section:
    rows = [["system", "steps", "kept from step", "dev accuracy, %", "dev loss", "precision", "s"]]
    for name, summary in report.training.items():
        measured = "-" if summary["reused"] else f"{summary['trained_s']:.1f}"
        rows.append(
            [
                name,
                f"{summary['num_steps']:,}",
                f"{summary['best_step']:,}",
                f"{100 * summary['dev_accuracy']:.1f}",
                f"{summary['dev_loss']:.3f}",
                str(summary["precision"]),
                measured,
            ]
        )
    caption = (
        "Accuracy on the English dev text during training. A ring marks the weights that were kept."
    )
    return Section(
        "Training",
        [Plot("training", caption), Table(rows, "Training by system.", numeric=True)],
    )
