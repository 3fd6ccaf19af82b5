"""Accuracy and macro-F1 per language, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monox_kit.bundle import Backend
from monox_kit.corpora.corpus import Corpus, CorpusConfig, lang_from_name, read_labelled
from monox_kit.data import Document, Int64s, LabelSet, Logits
from monox_kit.errors import CorpusError
from monox_kit.inference import LoadedModel, load_model
from monox_kit.progress import Progress, Silent
from monox_kit.scoring import DEFAULT_BATCH_TOKENS, score
from monox_kit.validation import checked

UNKNOWN_LANGUAGE = "und"  # BCP 47's tag for an undetermined language
_INTERVAL = (2.5, 97.5)
# Documents x resamples that are drawn at once: 32 MB of counts.
_RESAMPLE_CELLS = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a model is evaluated.

    Attributes:
        test: gold-labelled text; the language is the row's `lang`, else what the file's name
            says (`test.de.jsonl`), else `und`.
        source_language: not part of the target-language average.
        backend: None takes what the model folder is made for.
        max_length: the cut in tokens; None for the bundle's own.
        batch_tokens: padded tokens per batch.
        provider: ONNX Runtime's execution provider.
        device: PyTorch's device.
        num_resamples: bootstrap resamples per language.
        seed: of the resampling.
    """

    test: CorpusConfig
    source_language: str = "en"
    backend: Backend | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] = DEFAULT_BATCH_TOKENS
    provider: str = "cpu"
    device: str = "cpu"
    num_resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1


@dataclass(frozen=True, slots=True)
class LanguageResult:
    """One language's result; every number but `num_rows` is in [0, 1].

    Attributes:
        num_rows: test rows.
        accuracy: fraction of rows whose largest logit is the gold label's.
        accuracy_interval: 95 % percentile bootstrap interval over rows.
        macro_f1: mean F1 over the classes that occur among gold labels or predictions.
        macro_f1_interval: 95 % percentile bootstrap interval over rows.
    """

    num_rows: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Results by language.

    Attributes:
        model: how the user referred to the model.
        source_language: the language that the labels were in.
        languages: results by language tag, the source language first.
        target_average: mean accuracy over the other languages; None where there are none.
        target_average_interval: its 95 % bootstrap interval, documents resampled by id over all
            languages together.
    """

    model: str
    source_language: str
    languages: Mapping[str, LanguageResult]
    target_average: float | None
    target_average_interval: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def evaluate(
    model: str,
    config: EvaluateConfig,
    *,
    labels: LabelSet | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Evaluate a model folder or bundle on every language of the test files.

    Args:
        model: a local folder, `packaged:NAME` or a hub name.
        config: the test files and how to run them.
        labels: names for the logits' columns instead of the model's own.
        progress: where progress is reported.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    progress = progress or Silent()
    loaded = load_model(
        model,
        backend=config.backend,
        max_length=config.max_length,
        labels=labels,
        provider=config.provider,
        device=config.device,
        progress=progress,
    )
    documents = read_test(config.test, loaded.classifier.labels)
    for language, rows in documents.items():
        has_pairs = rows[0].text_pair is not None
        loaded.folder.require_pairs(has_pairs, f"--test, language {language}")
    logits = score_languages(loaded, documents, config, progress)
    return report_on(model, loaded.classifier.labels, documents, logits, config)


def read_test(config: CorpusConfig, labels: LabelSet) -> dict[str, list[Document]]:
    """Gold-labelled documents by language, files in their order."""
    by_language: dict[str, list[Document]] = {}
    for path in Corpus(config).files:
        named = lang_from_name(path)
        rows = read_labelled(replace(config, paths=(path,)), labels)
        if all(document.id == str(document.row) for document in rows):
            # Row numbers, not keys: row 5 of one file is not the document of row 5 of another.
            rows = [replace(document, id=f"{path}:{document.row}") for document in rows]
        for document in rows:
            language = document.lang or named or UNKNOWN_LANGUAGE
            by_language.setdefault(language, []).append(document)
    return by_language


def score_languages(
    model: LoadedModel,
    documents: Mapping[str, Sequence[Document]],
    config: EvaluateConfig,
    progress: Progress,
) -> dict[str, Logits]:
    """[N, C] float32 logits of the documents of each language."""
    logits = {}
    total = sum(len(rows) for rows in documents.values())
    with progress.task(f"evaluating {model.folder.name}", total, "rows") as task:
        for language, rows in documents.items():
            task.detail(language)
            scored = score(
                model.classifier,
                model.tokenizer,
                rows,
                batch_tokens=config.batch_tokens,
                on_batch=lambda done: task.advance(done.num_rows),
            )
            logits[language] = scored.logits
    return logits


def report_on(
    name: str,
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
    config: EvaluateConfig,
) -> EvalReport:
    """The report on logits that are already there, by language."""
    source = config.source_language
    results: dict[str, LanguageResult] = {}
    generator = np.random.Generator(np.random.Philox(config.seed))
    for language in sorted(documents, key=lambda language: (language != source, language)):
        gold = gold_indices(documents[language], labels)
        predicted = logits[language].argmax(axis=1).astype(np.int64)
        results[language] = language_result(
            gold, predicted, len(labels), num_resamples=config.num_resamples, generator=generator
        )
    targets = [result.accuracy for language, result in results.items() if language != source]
    resampled = target_average_resamples(labels, documents, logits, config)
    return EvalReport(
        model=name,
        source_language=source,
        languages=results,
        target_average=float(np.mean(targets)) if targets else None,
        target_average_interval=interval(resampled) if targets else None,
    )


def target_average_resamples(
    labels: LabelSet,
    documents: Mapping[str, Sequence[Document]],
    logits: Mapping[str, Logits],
    config: EvaluateConfig,
) -> npt.NDArray[np.float64]:
    """[R] mean target-language accuracy of each bootstrap resample; empty without targets.

    Documents are resampled by id over all languages at once: test sets that translate the same
    documents vary together, as they should. The resamples depend only on the ids and the seed, so
    two systems on the same test sets can be subtracted resample by resample (a paired bootstrap).
    """
    targets = [language for language in documents if language != config.source_language]
    if not targets:
        return np.zeros(0)
    ids = [document.id for language in targets for document in documents[language]]
    distinct, flat = np.unique(np.array(ids), return_inverse=True)
    positions = np.split(flat, np.cumsum([len(documents[language]) for language in targets])[:-1])
    correct = [
        logits[language].argmax(axis=1) == gold_indices(documents[language], labels)
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
        accuracies = np.empty((size, len(targets)))
        for column, (rows, hits) in enumerate(zip(positions, correct)):
            total = weights[:, rows].sum(axis=1)
            # A resample without a single row of a language says nothing new about it.
            accuracies[:, column] = np.where(
                total > 0, weights[:, rows] @ hits / np.maximum(total, 1), hits.mean()
            )
        parts.append(accuracies.mean(axis=1))
    return np.concatenate(parts)


def gold_indices(documents: Sequence[Document], labels: LabelSet) -> Int64s:
    """[N] int64 class indices of labelled documents.

    Raises:
        CorpusError: a document has no label, or one that the model does not know.
    """
    indices = np.empty(len(documents), np.int64)
    for position, document in enumerate(documents):
        if document.label is None:
            raise CorpusError(
                f"row {document.row} ({document.id}): expected a gold label, found none. "
                "Evaluation needs labelled text."
            )
        indices[position] = labels.index(document.label, f"row {document.row}")
    return indices


def language_result(
    gold: Int64s,
    predicted: Int64s,
    num_classes: int,
    *,
    num_resamples: int,
    generator: np.random.Generator,
) -> LanguageResult:
    """The result of one language.

    A resample of N rows with replacement is a multinomial draw over the cells of the confusion
    matrix, which is all that accuracy and macro-F1 depend on.

    Args:
        gold: [N] int64 class indices.
        predicted: [N] int64 class indices.
        num_classes: C.
        num_resamples: R.
        generator: draws the resamples.
    """
    num_rows = len(gold)
    # Only the cells that occur: there are at most N of them, however many classes.
    cells, counts = np.unique(gold * num_classes + predicted, return_counts=True)
    cell_gold, cell_predicted = np.divmod(cells, num_classes)
    draws = generator.multinomial(num_rows, counts / num_rows, size=num_resamples)
    resampled = macro_f1(draws, cell_gold, cell_predicted, num_classes)
    accuracies = draws[:, cell_gold == cell_predicted].sum(axis=1) / num_rows
    return LanguageResult(
        num_rows=num_rows,
        accuracy=float((gold == predicted).mean()),
        accuracy_interval=interval(accuracies),
        macro_f1=float(macro_f1(counts[None, :], cell_gold, cell_predicted, num_classes)[0]),
        macro_f1_interval=interval(resampled),
    )


def macro_f1(
    counts: npt.NDArray[np.int64], cell_gold: Int64s, cell_predicted: Int64s, num_classes: int
) -> npt.NDArray[np.float64]:
    """[R] mean F1 of R confusion matrices, given by their cells that are not empty.

    Classes that occur neither among gold labels nor among predictions do not count.

    Args:
        counts: [R, K] rows in each of K cells.
        cell_gold: [K] int64, the cells' gold class.
        cell_predicted: [K] int64, their predicted class.
        num_classes: C.
    """
    is_gold = np.equal.outer(cell_gold, np.arange(num_classes)).astype(np.float64)
    is_predicted = np.equal.outer(cell_predicted, np.arange(num_classes)).astype(np.float64)
    hits = counts @ (is_gold * is_predicted)
    occurrences = counts @ (is_gold + is_predicted)
    f1 = np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurrences > 0)
    return np.asarray(f1.sum(axis=1) / (occurrences > 0).sum(axis=1))


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap resamples."""
    low, high = np.percentile(values, _INTERVAL)
    return float(low), float(high)
