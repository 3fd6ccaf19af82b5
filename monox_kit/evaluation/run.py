"""Accuracy, micro-F1 and macro-F1 per language, with bootstrap intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le, Lt

from monox_kit.config import Config
from monox_kit.corpora.classes import class_counts, listed_counts
from monox_kit.corpora.corpus import CorpusConfig, read_by_file
from monox_kit.data import UNKNOWN_LANGUAGE, Document, LabelSet, Logits
from monox_kit.errors import CorpusError
from monox_kit.evaluation.details import write_details
from monox_kit.evaluation.reliability import measured_reliability
from monox_kit.evaluation.statistics import macro_f1, measure_interval, rows_to_show
from monox_kit.models.folder import Backend
from monox_kit.models.load import LoadedModel, load_model
from monox_kit.models.long_texts import Long
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS, Truncation, score
from monox_kit.problem import Bools, Labels, Problem, f1, problem_of
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result

# Points of accuracy whose proof the report counts rows for.
SHOWN_DIFFERENCE = 0.03
# Documents x resamples that are drawn at once: 32 MB of counts.
_RESAMPLE_CELLS = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringConfig(Config):
    """How labelled files are scored, and what is said of the scores.

    Attributes:
        source_language: language that is left out of the target average.
        max_length: truncate texts at this many tokens [default: the model's own].
        batch_tokens: padded tokens per batch, which change speed and memory only.
        provider: what runs the graph: cpu, cuda or tensorrt of ONNX Runtime, openvino (its own
            runtime) or openvino-ep (through onnxruntime-openvino).
        device: PyTorch's device: cpu, cuda or cuda:N.
        num_resamples: bootstrap resamples per language.
        seed: seed of the resampling.
    """

    source_language: str = "en"
    max_length: Annotated[int, Ge(4)] | None = None
    batch_tokens: Annotated[int, Ge(1)] = DEFAULT_BATCH_TOKENS
    provider: str = "cpu"
    device: str = "cpu"
    num_resamples: Annotated[int, Ge(100), Le(100_000)] = 1000
    seed: Annotated[int, Ge(0), Lt(2**63)] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScoringConfig(ScoringConfig):
    """Which model scores them.

    Attributes:
        model: model folder, ONNX bundle, packaged:NAME or hub name.
        long: what is read of texts beyond `max_length`: head, head-tail, windows:mean or
            windows:max [default: the model's own].
        backend: runtime of the model [default: what its folder is made for].
        labels: file labels.json with the names of the classes, for a model that has none of its
            own.
    """

    model: str
    long: Long | None = None
    backend: Backend | None = None
    labels: Path | None = None

    def load(self, files: CorpusConfig, progress: Progress) -> LoadedModel:
        """The model; classes without names have those that the files' settings give."""
        return load_model(
            self.model,
            backend=self.backend,
            max_length=self.max_length,
            long=self.long,
            labels=None if self.labels is None else LabelSet.read(self.labels),
            label_names=files.label_names,
            provider=self.provider,
            device=self.device,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(ModelScoringConfig):
    """How a model is evaluated.

    Attributes:
        test: gold-labelled files to test on. The language is the row's own, else the file's
            (test.de.jsonl), else `und`, which is no part of the target average.
        details: folder for results by class, confusions and the wrong rows.
    """

    test: CorpusConfig
    details: Path | None = None


@dataclass(frozen=True, slots=True)
class LanguageResult:
    """One language's result; every number but `num_rows` is in [0, 1].

    Attributes:
        num_rows: test rows.
        accuracy: fraction of rows that are decided as their gold labels say: whose largest logit is
            the gold label's, or, of any number of labels a row, which have all of them and no
            other (subset accuracy).
        accuracy_interval: 95 % interval over rows: the percentile bootstrap's, or Wilson's where
            the measure is 0 or 1.
        macro_f1: mean F1 over the classes that occur among gold labels or predictions.
        macro_f1_interval: 95 % interval over rows.
        micro_f1: F1 over the classes of all rows together; None where a row has one label: there it
            is the accuracy.
        micro_f1_interval: 95 % interval over rows.
        rows_for_3_points: rows on which another model, whose errors are independent of this one's,
            shows that it is 3 points of accuracy better or worse; see `rows_to_show`.
        calibration_error: expected calibration error of the probabilities that `predict` gives; see
            `reliability.calibration_error`. None where only decisions were compared.
        calibration_error_interval: 95 % interval over rows.
        coverage: share of rows that a calibrated model answers; None of one without thresholds.
        answered_accuracy: accuracy on these; None where there are none.
        answered_accuracy_interval: its 95 % interval (Wilson's).
    """

    num_rows: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    micro_f1: float | None = None
    micro_f1_interval: tuple[float, float] | None = None
    rows_for_3_points: int | None = None
    calibration_error: float | None = None
    calibration_error_interval: tuple[float, float] | None = None
    coverage: float | None = None
    answered_accuracy: float | None = None
    answered_accuracy_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class EvalReport(Result):
    """Results by language.

    Attributes:
        model: how the user referred to the model.
        source_language: the language that the labels were in.
        languages: results by language tag, the source language first.
        target_average: mean of `measure` over the other languages, whose rows say which they are;
            None where there are none.
        target_average_interval: its 95 % bootstrap interval, documents resampled by id over all
            languages together.
        measure: what is averaged: `accuracy`, or `micro_f1` where a row has any number of labels.
        truncation: how many test rows were truncated, and by how many tokens.
        long: what was read of texts beyond `max_length`.
        wanted_precision: the share of right answers that the model's thresholds were chosen for;
            None without thresholds.
        seen_languages: of the languages, those whose results are not zero-shot, as the model's card
            says: it learned from text in them, or was chosen by it.
    """

    model: str
    source_language: str
    languages: Mapping[str, LanguageResult]
    target_average: float | None
    target_average_interval: tuple[float, float] | None
    measure: str = "accuracy"
    truncation: Mapping[str, int] = field(default_factory=dict)
    long: Long = "head"
    wanted_precision: float | None = None
    seen_languages: tuple[str, ...] = ()


class LanguageScores(NamedTuple):
    """What a model says of test rows.

    Attributes:
        labels: the model's, of the logits' columns.
        logits: [N, C] float32 by language.
        truncation: what the cut took from all rows.
    """

    labels: LabelSet
    logits: Mapping[str, Logits]
    truncation: Truncation = Truncation()


def evaluate(config: EvaluateConfig, *, progress: Progress | None = None) -> EvalReport:
    """Evaluate a model folder or bundle on every language of the test files.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    loaded = config.load(config.test, progress)
    names = loaded.classifier.labels
    documents = read_test(config.test, names, progress)
    require_pairs(loaded, documents, "test")
    note_languages(documents, config.source_language, progress)
    rows = [document for found in documents.values() for document in found]
    progress.note(f"test rows: {listed_counts(class_counts(rows, names))}")
    scores = score_languages(loaded, documents, config.batch_tokens, progress)
    scores.truncation.tell(progress, loaded.tokenizer.max_length, "test rows")
    if config.details is not None:
        write_details(config.details, names, documents, scores.logits)
    report = report_on(config.model, names, documents, scores.logits, config)
    calibration = loaded.folder.record.calibration if loaded.folder.record else None
    problem, generator = problem_of(names), np.random.Generator(np.random.Philox(config.seed))
    languages = {
        language: replace(
            result,
            **measured_reliability(
                problem,
                scores.logits[language],
                gold_labels(problem, documents[language]),
                language=None if language == UNKNOWN_LANGUAGE else language,
                calibration=calibration,
                num_resamples=config.num_resamples,
                generator=generator,
            ),
        )
        for language, result in report.languages.items()
    }
    return replace(
        report,
        languages=languages,
        truncation=scores.truncation.to_json(),
        long=loaded.tokenizer.long,
        wanted_precision=None if calibration is None else calibration.precision,
        seen_languages=_seen(loaded, languages),
    )


def _seen(loaded: LoadedModel, languages: Iterable[str]) -> tuple[str, ...]:
    """Those of the languages that the model has seen, as far as its record tells."""
    record = loaded.folder.record
    seen = () if record is None else record.seen_languages
    return tuple(
        language
        for language in languages
        if language != UNKNOWN_LANGUAGE and not all(is_target(language, tag) for tag in seen)
    )


def is_target(language: str, source: str) -> bool:
    """Whether a language counts into the target average: it is known and not the source language.

    `en-US` and `EN_gb` are English where the source language is `en`; a source language with a
    region is that region's alone.
    """
    if language == UNKNOWN_LANGUAGE:
        return False
    tag, wanted = (re.split("[-_]", each.lower()) for each in (language, source))
    return tag[: len(wanted)] != wanted


def note_languages(
    documents: Mapping[str, Sequence[Document]], source: str, progress: Progress
) -> None:
    """Say what may be missed in a report: rows of no language, and no row of the source's."""
    step = (
        "Name it in a lang column, with `language` FILE=de, or in the file's name (test.de.jsonl)"
    )
    if UNKNOWN_LANGUAGE in documents:
        progress.note(
            f"{len(documents[UNKNOWN_LANGUAGE]):,} test rows do not say their language: they are "
            f"reported as {UNKNOWN_LANGUAGE} and are no part of the target average. {step}"
        )
    targets = [language for language in documents if is_target(language, source)]
    if targets and len(targets) == len(documents):
        progress.note(
            f"no test row is in the source language {source}: the target average is over "
            f"{', '.join(sorted(targets))}"
        )


def read_test(
    config: CorpusConfig, labels: LabelSet, progress: Progress | None = None
) -> dict[str, list[Document]]:
    """Gold-labelled documents by language, files in their order.

    Raises:
        CorpusError: a row cannot be used, or has no label.
    """
    by_language: dict[str, list[Document]] = {}
    for name, language, found in read_by_file(config, labels, progress):
        rows = found
        if all(document.id == str(document.row) for document in rows):
            # Row numbers, not keys: row 5 of one file is not the document of row 5 of another.
            rows = [replace(document, id=f"{name}:{document.row}") for document in rows]
        for document in rows:
            tag = document.lang or language or UNKNOWN_LANGUAGE
            by_language.setdefault(tag, []).append(document)
    return by_language


def require_pairs(
    model: LoadedModel, documents: Mapping[str, Sequence[Document]], setting: str
) -> None:
    """Check that every language has pairs if the model was trained on them, and else none.

    Args:
        model: what is to score them.
        documents: by language.
        setting: that names their files.

    Raises:
        CorpusError: a language does not fit.
    """
    for language, rows in documents.items():
        has_pairs = rows[0].text_pair is not None
        model.folder.require_pairs(has_pairs, f"`{setting}`, language {language}")


def score_languages(
    model: LoadedModel,
    documents: Mapping[str, Sequence[Document]],
    batch_tokens: int,
    progress: Progress,
) -> LanguageScores:
    """The logits of the documents of each language."""
    logits, truncation = {}, Truncation()
    total = sum(len(rows) for rows in documents.values())
    with progress.task(f"evaluating {model.folder.name}", total, "rows") as task:
        for language, rows in documents.items():
            task.detail(language)
            scored = score(
                model.classifier,
                model.tokenizer,
                rows,
                batch_tokens=batch_tokens,
                on_batch=lambda done: task.advance(done.num_rows),
            )
            logits[language] = scored.logits
            truncation += scored.truncation
    return LanguageScores(model.classifier.labels, logits, truncation)


def report_on(
    name: str,
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
    config: ScoringConfig,
) -> EvalReport:
    """The report on logits that are already there, by language."""
    source = config.source_language
    results: dict[str, LanguageResult] = {}
    problem = problem_of(labels)
    generator = np.random.Generator(np.random.Philox(config.seed))
    for language in sorted(documents, key=lambda language: (language != source, language)):
        results[language] = language_result(
            problem,
            gold_labels(problem, documents[language]),
            problem.decide(logits[language]),
            num_resamples=config.num_resamples,
            generator=generator,
        )
    measure = problem.measure
    targets = [name for name in results if is_target(name, source)]
    average, average_interval = None, None
    if targets:
        average = float(np.mean([getattr(results[name], measure) for name in targets]))
        resampled = target_average_resamples(labels, documents, logits, config)
        average_interval = measure_interval(resampled, average, num_documents(documents, targets))
    return EvalReport(
        model=name,
        source_language=source,
        languages=results,
        target_average=average,
        target_average_interval=average_interval,
        measure=measure,
    )


def num_documents(documents: Mapping[str, Sequence[Document]], languages: Sequence[str]) -> int:
    """Documents of some languages; translations of one are not documents of their own."""
    return len({document.id for name in languages for document in documents[name]})


def right_rows(problem: Problem, documents: Sequence[Document], logits: Logits) -> Bools:
    """[N] whether each document is decided as its gold labels say."""
    return problem.are_equal(gold_labels(problem, documents), problem.decide(logits))


def target_average_resamples(
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
    config: ScoringConfig,
) -> npt.NDArray[np.float64]:
    """[R] mean target-language measure of each bootstrap resample; empty without targets.

    Documents are resampled by id over all languages at once: test sets that translate the same
    documents vary together, as they should. The resamples depend only on the ids and the seed, so
    two systems on the same test sets can be subtracted resample by resample (a paired bootstrap).
    """
    targets = [name for name in documents if is_target(name, config.source_language)]
    return measure_resamples(labels, documents, logits, config, targets)


def measure_resamples(
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
    config: ScoringConfig,
    targets: Sequence[str],
) -> npt.NDArray[np.float64]:
    """[R] mean measure over some languages; see `target_average_resamples`."""
    if not targets:
        return np.zeros(0)
    ids = [document.id for language in targets for document in documents[language]]
    distinct, flat = np.unique(np.array(ids), return_inverse=True)
    positions = np.split(flat, np.cumsum([len(documents[language]) for language in targets])[:-1])
    problem = problem_of(labels)
    overlaps = [
        problem.overlap(gold_labels(problem, documents[language]), problem.decide(logits[language]))
        for language in targets
    ]
    generator = np.random.Generator(np.random.Philox(config.seed))
    block = max(1, _RESAMPLE_CELLS // len(distinct))
    parts = []
    for start in range(0, config.num_resamples, block):
        size = min(block, config.num_resamples - start)
        weights = generator.multinomial(
            len(distinct), np.full(len(distinct), 1 / len(distinct)), size=size
        )
        values = np.empty((size, len(targets)))
        for column, (rows, (both, either)) in enumerate(zip(positions, overlaps)):
            total = weights[:, rows] @ either
            whole = f1(both.sum(), either.sum())
            # A resample without a single row of a language says nothing new about it.
            found = f1(weights[:, rows] @ both, total)
            values[:, column] = np.where(total > 0, found, whole)
        parts.append(values.mean(axis=1))
    return np.concatenate(parts)


def gold_labels(problem: Problem, documents: Sequence[Document]) -> Labels:
    """The gold labels of N documents.

    Raises:
        CorpusError: a document has no label, or one that the model does not know.
    """
    for document in documents:
        if document.label is None:
            raise CorpusError(
                f"row {document.row} ({document.id}): expected a gold label, found none. "
                "Evaluation needs labelled text."
            )
    return problem.encode(documents, "test")


def language_result(
    problem: Problem,
    gold: Labels,
    predicted: Labels,
    *,
    num_resamples: int,
    generator: np.random.Generator,
) -> LanguageResult:
    """The result of one language, from the gold labels and the decisions of its N rows.

    A resample of N rows with replacement is a multinomial draw over the cells of the confusion
    matrix (the distinct pairs of gold label and decision), which the measures depend on alone.
    """
    num_rows = len(gold)
    # Only the cells that occur: there are at most N of them, however many classes.
    pairs = np.stack([gold, predicted.astype(gold.dtype)], axis=1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    cell_gold, cell_predicted = cells[:, 0], cells[:, 1]
    measured = counts[None, :]
    is_gold, is_predicted = problem.indicators(cell_gold), problem.indicators(cell_predicted)
    right = problem.are_equal(cell_gold, cell_predicted)
    both, either = problem.overlap(cell_gold, cell_predicted)
    block = max(1, _RESAMPLE_CELLS // len(cells))  # any number of labels a row gives N cells
    parts = []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        draws = generator.multinomial(num_rows, counts / num_rows, size=size)
        accuracy = draws[:, right].sum(axis=1) / num_rows
        micro = f1(draws @ both, draws @ either)
        parts.append(np.stack([accuracy, macro_f1(draws, is_gold, is_predicted), micro]))
    accuracies, macros, micros = np.concatenate(parts, axis=1)
    has_micro = problem.measure == "micro_f1"
    accuracy = float(counts[right].sum() / num_rows)
    macro = float(macro_f1(measured, is_gold, is_predicted)[0])
    micro_f1 = float(f1(counts @ both, counts @ either)) if has_micro else None
    return LanguageResult(
        num_rows=num_rows,
        accuracy=accuracy,
        accuracy_interval=measure_interval(accuracies, accuracy, num_rows),
        macro_f1=macro,
        macro_f1_interval=measure_interval(macros, macro, num_rows),
        micro_f1=micro_f1,
        micro_f1_interval=(
            None if micro_f1 is None else measure_interval(micros, micro_f1, num_rows)
        ),
        rows_for_3_points=rows_to_show(SHOWN_DIFFERENCE, 2 * accuracy * (1 - accuracy)),
    )
