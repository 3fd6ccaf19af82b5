"""What the report says, for every page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from monox_kit.report.blocks import Block, Items, Paragraph, Plot, Section, Table
from monox_kit.report.provenance import (
    environment,
    is_debian,
    reproduction,
    stage_times,
    texts,
)
from monox_kit.report.rows import (
    accuracy_rows,
    fact_rows,
    ms_per_row,
    speedup,
    verdict,
)
from monox_kit.report.systems import (
    SYSTEMS,
    against_baseline,
    in_language,
    languages,
    race_names,
    source_language,
    target_average,
    title,
)

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
        _accuracy(report),
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
    pipeline = (
        f"An English teacher ({settings['teacher_model']}) was fine-tuned on labelled English "
        "text, exported to ONNX, and gave its logits for labelled and unlabelled English text. "
        f"Three multilingual students ({settings['student_model']}) were trained for "
        f"{settings['student_steps']:,} steps each, differing only in what they learn from. "
        "The teacher was tested in English, the students in every language; the student that was "
        "best on English dev text was exported to ONNX and tested again."
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
    source = source_language(report)
    first = {name: in_language(report, name, source) for name in ("teacher", "ce")}
    if first["teacher"] is not None and first["ce"] is not None:
        yield f"In {source}, the teacher scores {first['teacher']} %, ce {first['ce']} %."
    for name in ("pl", "kd"):
        compared = against_baseline(report, name)
        if compared is not None:
            yield f"{name} against ce: {verdict(compared)}."
    exported, best = (target_average(report, name) for name in ("exported", report.best))
    if exported is not None and best is not None:
        yield (
            f"Exported as {title(report, 'exported')}: {exported} % on the target average, in "
            f"PyTorch {best} %."
        )
    facts = dict(fact_rows(report))
    yield f"Labelling, side by side: {facts['labelling, side by side']}."
    yield f"Inference of the exported student: {facts['inference']}."
    yield f"Time of all stages: {facts['all stages']}."


def _accuracy(report: DemoReport) -> Section:
    rows = accuracy_rows(report)
    num_summaries = len(rows) - 1 - len(languages(report))
    return Section(
        "Accuracy by language",
        [
            Plot(
                "averages",
                f"Average over the target languages (filled) and {source_language(report)} "
                "(hollow), with 95 % intervals. The axis does not start at 0.",
            ),
            Plot(
                "languages",
                "Accuracy by language with 95 % intervals, systems from top to bottom as in the "
                "legend. The axis does not start at 0.",
            ),
            Table(
                rows,
                "Accuracy in percent, with 95 % intervals in brackets.",
                numeric=True,
                num_summary_rows=num_summaries,
            ),
            Paragraph("How to read it:"),
            Items(tuple(_reading(report))),
        ],
    )


def _reading(report: DemoReport) -> Iterator[str]:
    yield (
        "The intervals are 95 % percentile bootstrap intervals over the test rows of a language "
        "(column rows). They say how far the number would move with other test rows of the same "
        "kind."
    )
    yield (
        "The intervals of the average and of minus ce resample documents over all languages at "
        "once: where test sets translate the same text, their errors go together, and so do the "
        "resamples."
    )
    yield (
        "minus ce is the difference of two target averages in percentage points. Its interval is "
        "paired: both systems are resampled on the same documents. Where it holds 0, the "
        "difference may be noise of the test rows."
    )
    yield (
        "No interval says how far a number would move with another seed: every model was trained "
        "once."
    )
    yield '"-" stands where something does not apply: the teacher reads English only.'
    if "pl" in languages(report):
        yield (
            "In the column language, pl is Polish; at the head of the table it is the system "
            "trained on pseudo-labels."
        )
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
    for name in SYSTEMS:
        if name in report.evaluations:
            rows = _counts(training[name]) if name in training else ""
            yield f"{title(report, name)}: {about[name]}" + (f" Trained on {rows}." if rows else "")


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
    for tag in sorted(races, key=lambda tag: (tag != source_language(report), tag)):
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
