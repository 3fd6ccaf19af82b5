"""Whether one model is better than another on the same rows.

Both score the same documents, so every statement is paired: what counts is where the two differ.
The interval of a difference is a bootstrap over documents, the p-value McNemar's exact test over
rows that one of the two alone has right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, LabelMismatchError
from monox_kit.evaluation.run import (
    SHOWN_DIFFERENCE,
    LanguageScores,
    ScoringConfig,
    gold_labels,
    is_target,
    measure_resamples,
    note_languages,
    num_documents,
    read_test,
    report_on,
    require_pairs,
    right_rows,
    score_languages,
)
from monox_kit.evaluation.statistics import interval, mcnemar, rows_to_show, wilson
from monox_kit.models.folder import open_folder
from monox_kit.models.load import LoadedModel, load_model
from monox_kit.problem import Floats, f1, problem_of
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig(ScoringConfig):
    """Which models are compared on what.

    Attributes:
        first: the model that the other one is compared with: a folder, an ONNX bundle or a hub
            name.
        second: the model whose gain is asked for.
        test: gold-labelled files to test on. The language is the row's own, else the file's
            (test.de.jsonl), else `und`, which is no part of the target average.
    """

    first: str
    second: str
    test: CorpusConfig


@dataclass(frozen=True, slots=True)
class LanguageComparison:
    """Two models on the rows of one language; shares are in [0, 1].

    Attributes:
        num_rows: test rows.
        first: the measure of the first model.
        second: the measure of the second model.
        difference: second less first.
        difference_interval: its 95 % interval: a bootstrap paired by document; where both are right
            on the same rows, what so many rows without a difference allow (Wilson).
        only_first: rows that the first model alone decides right.
        only_second: rows that the second model alone decides right.
        p_value: of McNemar's exact test, two-sided: of that the two are right equally often.
        rows_for_3_points: rows on which a difference of 3 points would show, at this share of rows
            that one alone has right.
    """

    num_rows: int
    first: float
    second: float
    difference: float
    difference_interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    rows_for_3_points: int


@dataclass(frozen=True, slots=True)
class Comparison(Result):
    """Two models compared by language.

    Attributes:
        first: how the user referred to the first model.
        second: how the user referred to the second model.
        source_language: the language that the labels were in.
        measure: what is compared: `accuracy`, or `micro_f1` where a row has any number of labels.
        languages: by language tag, the source language first.
        target_difference: difference of the averages over the target languages; None without any.
        target_difference_interval: its 95 % interval: a bootstrap paired by document over all
            languages together.
        target_p_value: of a sign test over the documents of the target languages that differ, each
            with all its translations: that either model is better on as many of them.
    """

    first: str
    second: str
    source_language: str
    measure: str
    languages: Mapping[str, LanguageComparison]
    target_difference: float | None
    target_difference_interval: tuple[float, float] | None
    target_p_value: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the target languages show a difference at the level of 5 %.

        A bootstrap over few documents that differ gives intervals without 0 too easily, so the
        exact test has to agree.
        """
        if self.target_difference_interval is None or self.target_p_value is None:
            return False
        low, high = self.target_difference_interval
        return (low > 0 or high < 0) and self.target_p_value <= 0.05


def compare(config: CompareConfig, *, progress: Progress | None = None) -> Comparison:
    """Score the same rows with two models, and say by language whether they differ.

    Raises:
        LabelMismatchError: the models have other labels.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    _require_used(config, progress)
    first = _load(config, config.first, progress)
    documents = read_test(config.test, first.classifier.labels, progress)
    note_languages(documents, config.source_language, progress)
    sides = [_scored(first, documents, config, progress)]
    del first  # one model at a time in memory
    second = _load(config, config.second, progress)
    _require_same_labels(config, sides[0].labels, second.classifier.labels)
    sides.append(_scored(second, documents, config, progress))
    return compared(config.first, config.second, documents, sides, config)


def compared(
    first: str,
    second: str,
    documents: Mapping[str, Sequence[Document]],
    sides: Sequence[LanguageScores],
    config: ScoringConfig,
) -> Comparison:
    """The comparison of logits that are already there."""
    reports = [
        report_on(name, side.labels, documents, side.logits, config)
        for name, side in zip((first, second), sides)
    ]
    measure = reports[0].measure
    languages = {
        language: _of_language(
            documents,
            sides,
            language,
            [float(getattr(report.languages[language], measure)) for report in reports],
            config,
        )
        for language in reports[0].languages
    }
    targets = [name for name in documents if is_target(name, config.source_language)]
    before, after = (report.target_average for report in reports)
    return Comparison(
        first=first,
        second=second,
        source_language=config.source_language,
        measure=measure,
        languages=languages,
        target_difference=None if before is None or after is None else after - before,
        target_difference_interval=(
            _difference_interval(documents, sides, targets, config) if targets else None
        ),
        target_p_value=_sign_test(documents, sides, targets) if targets else None,
    )


def _of_language(
    documents: Mapping[str, Sequence[Document]],
    sides: Sequence[LanguageScores],
    language: str,
    measured: Sequence[float],
    config: ScoringConfig,
) -> LanguageComparison:
    rows = documents[language]
    first, second = (
        right_rows(problem_of(side.labels), rows, side.logits[language]) for side in sides
    )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return LanguageComparison(
        num_rows=len(rows),
        first=measured[0],
        second=measured[1],
        difference=measured[1] - measured[0],
        difference_interval=_difference_interval(documents, sides, [language], config),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        rows_for_3_points=rows_to_show(SHOWN_DIFFERENCE, (only_first + only_second) / len(rows)),
    )


def _sign_test(
    documents: Mapping[str, Sequence[Document]],
    sides: Sequence[LanguageScores],
    languages: Sequence[str],
) -> float:
    """The p-value of the sign test over documents, with all their translations, that differ."""
    gains: dict[str, float] = {}
    for language in languages:
        rows = documents[language]
        first, second = (_row_scores(side, rows, language) for side in sides)
        for document, gain in zip(rows, (second - first).tolist()):
            gains[document.id] = gains.get(document.id, 0.0) + gain
    # Sums of shares: less than this is rounding.
    return mcnemar(
        sum(gain < -1e-9 for gain in gains.values()), sum(gain > 1e-9 for gain in gains.values())
    )


def _row_scores(side: LanguageScores, rows: Sequence[Document], language: str) -> Floats:
    """[N] the measure of each row alone; of one label, whether it is right."""
    problem = problem_of(side.labels)
    return f1(*problem.overlap(gold_labels(problem, rows), problem.decide(side.logits[language])))


def _difference_interval(
    documents: Mapping[str, Sequence[Document]],
    sides: Sequence[LanguageScores],
    languages: Sequence[str],
    config: ScoringConfig,
) -> tuple[float, float]:
    first, second = (
        measure_resamples(side.labels, documents, side.logits, config, languages) for side in sides
    )
    differences = second - first
    if differences.any():
        return interval(differences)
    # No resample differs: of how many rows may the two differ all the same?
    most = wilson(0, num_documents(documents, languages))[1]
    return -most, most


def _load(config: CompareConfig, reference: str, progress: Progress) -> LoadedModel:
    is_torch = open_folder(reference, progress).backend == "torch"
    return load_model(
        reference,
        max_length=config.max_length,
        label_names=config.test.label_names,
        provider="cpu" if is_torch else config.provider,
        device=config.device if is_torch else "cpu",
        progress=progress,
    )


def _scored(
    model: LoadedModel,
    documents: Mapping[str, Sequence[Document]],
    config: ScoringConfig,
    progress: Progress,
) -> LanguageScores:
    require_pairs(model, documents, "test")
    scores = score_languages(model, documents, config.batch_tokens, progress)
    rows = f"test rows of {model.folder.name}"
    scores.truncation.tell(progress, model.tokenizer.max_length, rows)
    return scores


def _require_used(config: CompareConfig, progress: Progress) -> None:
    """Check that `provider` and `device` are of use to one of the models."""
    backends = {open_folder(name, progress).backend for name in (config.first, config.second)}
    for name, backend, kind in (("provider", "onnx", "bundle"), ("device", "torch", "PyTorch")):
        if config.is_given(name) and backend not in backends:
            raise ConfigError(
                f"`{name}` {getattr(config, name)}: neither model is a {kind} one, so it would "
                "change nothing. Leave it out."
            )


def _require_same_labels(config: CompareConfig, first: LabelSet, second: LabelSet) -> None:
    """Check that both models score the same classes; their order may differ."""
    if first.problem_type == second.problem_type and {*first.names} == {*second.names}:
        return
    only = [sorted({*first.names} - {*second.names}), sorted({*second.names} - {*first.names})]
    raise LabelMismatchError(
        f"{config.second}: its labels differ from those of {config.first}: {only[0][:5]} are there "
        f"alone, {only[1][:5]} here alone ({first.problem_type}, {second.problem_type}). Compare "
        "models of one task."
    )
