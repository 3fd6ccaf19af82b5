"""The rows that graphs are checked on, and other ones that quantizers learn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.languages import require_used, told_languages
from monox_kit.corpora.sample import Sample
from monox_kit.data import UNKNOWN_LANGUAGE, Document
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.sample_texts import check_documents
from monox_kit.problem import Labels, Problem
from monox_kit.progress import Progress

# More are no languages: a sample of each is kept in memory.
_MOST_LANGUAGES = 500

_Row = TypeVar("_Row")


class CheckRows(NamedTuple):
    """Rows of real text, no row in both.

    Attributes:
        check: to check graphs on; with a gate each names its language, and they stand in turn, one
            of each language.
        calibration: for quantizers to learn from.
        calibration_languages: [N] their language tags. Without a gate rows do not name those that
            their files say: rows are part of what tells one export from another, and 0.1.0 left
            them as they were.
    """

    check: list[Document]
    calibration: list[Document]
    calibration_languages: npt.NDArray[np.str_]


def read_check_rows(config: ExportConfig, max_length: int, progress: Progress) -> CheckRows:
    """The rows of an export's `check`, or built-in sentences without it.

    Raises:
        ConfigError: there are too few.
        CorpusError: a row cannot be used.
    """
    if config.check is None:
        progress.note(
            "no `check` text is given: quantizers learn from, and graphs are checked and timed on, "
            "built-in sentences in many languages"
        )
        found = check_documents(max_length)
        # Every fourth: both parts have all languages and lengths.
        learned = [d for d in found if d.row % 4 == 3]
        return CheckRows([d for d in found if d.row % 4 != 3], learned, languages_of(learned))
    if config.gate is None:
        return _in_turn(config, config.check, progress)
    return _of_each_language(config, config.check, progress)


def languages_of(documents: Sequence[Document]) -> npt.NDArray[np.str_]:
    """[N] the language tags of N documents."""
    return np.array([document.lang or UNKNOWN_LANGUAGE for document in documents])


def gold_labels(
    documents: list[Document], problem: Problem, progress: Progress, *, is_needed: bool
) -> Labels | None:
    """The gold labels of check rows, -1 where a row has none; None where no row has one.

    Args:
        documents: N rows.
        problem: of the model's labels.
        progress: told where labels are no labels of the model.
        is_needed: whether a threshold asks for accuracy, so that such labels are an error.

    Raises:
        CorpusError: labels are needed, and a row's is unknown, or no row has one.
    """
    if not any(document.label is not None for document in documents):
        if is_needed:
            raise CorpusError(
                "`gate` drop: it needs rows with gold labels, and no row of `check` has one. Give "
                "labelled text, or leave drop out."
            )
        return None
    try:
        return problem.encode(documents, "`check`")
    except CorpusError as error:
        if is_needed:
            raise
        progress.note(f"accuracy is left out of the gate's report: {error}")
        return None


def _in_turn(config: ExportConfig, check: CorpusConfig, progress: Progress) -> CheckRows:
    """From every file in turn: one file per language is checked in every language."""
    wanted = config.most_check_rows + config.calibration_rows
    files = Corpus(check).files
    require_used(told_languages(check.language), files)
    readers = [Corpus(replace(check, paths=(path,)), progress).with_languages() for path in files]
    found = list(islice(_alternating(readers), wanted))
    if len(found) < 2:
        raise ConfigError(
            f"`check`: {' '.join(check.paths)}: at least 2 rows are needed, one for quantizers to "
            f"learn from and one to check on, and there is {len(found)}. Give more text."
        )
    count = config.calibration_rows
    if len(found) < wanted:
        count = min(count, max(1, len(found) // 4))
        progress.note(
            f"`check` has {len(found)} rows: quantizers learn from {count}, graphs are checked on "
            f"{min(len(found) - count, config.most_check_rows)} others"
        )
    learned = found[-count:]
    return CheckRows(
        [document for document, _ in found[:-count]][: config.most_check_rows],
        [document for document, _ in learned],
        np.array([language or UNKNOWN_LANGUAGE for _, language in learned]),
    )


def _of_each_language(config: ExportConfig, check: CorpusConfig, progress: Progress) -> CheckRows:
    """A random sample of each language, so that a sorted file is no matter."""
    samples = _samples(check, config.most_check_rows + config.calibration_rows, progress)
    share = math.ceil(config.calibration_rows / len(samples))
    checked, calibration = {}, []
    for tag, sample in samples.items():
        rows = list(sample.documents())
        # Where there are few rows, most of them are for the gate.
        count = min(share, max(len(rows) - config.most_check_rows, len(rows) // 4))
        checked[tag] = rows[: min(len(rows) - count, config.most_check_rows)]
        calibration.append(rows[len(rows) - count :])
    learned = list(islice(_alternating(calibration), config.calibration_rows))
    if not learned:
        raise ConfigError(
            f"`check`: {' '.join(check.paths)}: 4 rows of a language are needed at least, one for "
            "quantizers to learn from, and none has so many. Give more text."
        )
    fewest = min(checked, key=lambda tag: len(checked[tag]))
    total = sum(map(len, checked.values()))
    progress.note(
        f"graphs are checked on {total:,} rows of {len(checked)} languages, at most "
        f"{config.most_check_rows:,} of each (`check_rows`); the fewest are "
        f"{len(checked[fewest]):,} of {fewest}. Quantizers learn from {len(learned):,} others"
    )
    return CheckRows(list(_alternating(checked.values())), learned, languages_of(learned))


def _samples(check: CorpusConfig, most: int, progress: Progress) -> dict[str, Sample]:
    corpus = Corpus(check, progress)
    require_used(told_languages(check.language), corpus.files)
    samples: dict[str, Sample] = {}
    for document, language in corpus.with_languages():
        tag = language or UNKNOWN_LANGUAGE
        if tag not in samples and len(samples) == _MOST_LANGUAGES:
            raise CorpusError(
                f"`check`: row {document.row}: {tag!r} is language {_MOST_LANGUAGES + 1}, and no "
                "more are taken. Give the column of languages as `lang_column`."
            )
        samples.setdefault(tag, Sample(most)).add(replace(document, lang=tag))
    if UNKNOWN_LANGUAGE in samples:
        progress.note(
            f"some rows of `check` do not say their language: the gate takes them for one, "
            f"{UNKNOWN_LANGUAGE}. Name it in a lang column, with `language` FILE=de, or in the "
            "file's name (test.de.jsonl)"
        )
    return samples


def _alternating(rows: Iterable[Iterable[_Row]]) -> Iterable[_Row]:
    """One row of each in turn, until all are at their end."""
    return (row for group in zip_longest(*rows) for row in group if row is not None)
