"""Dev sets: the one that chooses the weights to keep, and those that are reported alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from monox_kit.corpora.classes import dev_notes
from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.data import Classifier, Document, LabelSet
from monox_kit.errors import ConfigError, CorpusError, NotFinite
from monox_kit.models.scoring import BatchDone, Truncation, score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.problem import f1, measure_of, problem_of
from monox_kit.progress import Progress
from monox_kit.training.config import DEV
from monox_kit.training.processes import Processes
from monox_kit.training.state import Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class DevSets:
    """Gold-labelled documents by the name of their set.

    Attributes:
        documents: `dev` for the source language, else the language's tag.
        select_on: names of the sets whose mean measure chooses, sorted; `dev` alone is zero-shot.
        language: of `dev`; None where its rows do not name it.
        labelled_languages: of the gold-labelled text that `dev` was compared with; none where that
            was not given or does not name any.
    """

    documents: Mapping[str, Sequence[Document]]
    select_on: Sequence[str] = (DEV,)
    language: str | None = None
    labelled_languages: Sequence[str] = ()

    @classmethod
    def build(
        cls,
        dev: Sequence[Document],
        reported: Sequence[Document],
        select_on: Sequence[str],
        labelled: Sequence[Document] = (),
    ) -> DevSets:
        """The sets of a run.

        Args:
            dev: of `--dev`, in one language.
            reported: of `--report-dev`, in any.
            select_on: of `--select-on`.
            labelled: the gold-labelled text that `dev` should be in the language of; may be none.

        Raises:
            ConfigError: `dev` is in several languages, or in another than `labelled`, or a set to
                select on is not there.
            CorpusError: a reported document's language is not known.
        """
        languages, trained_in = _languages(dev), _languages(labelled)
        if len(languages) > 1:
            raise ConfigError(
                f"`dev`: its rows are in several languages: {', '.join(languages)}. Put the others "
                "into `report_dev`; `select_on` names those that are to choose the weights."
            )
        if trained_in and not set(languages) <= set(trained_in):
            raise ConfigError(
                f"`dev`: it is in {languages[0]}, and the gold-labelled text is in "
                f"{', '.join(trained_in)}. Put it into `report_dev`; with `select_on` "
                f"{languages[0]} it chooses the weights all the same."
            )
        documents: dict[str, list[Document]] = {DEV: list(dev)}
        for document in reported:
            if document.lang in (None, DEV):
                raise CorpusError(
                    f"`report_dev`: row {document.row} does not name its language"
                    f"{f', but {document.lang}' if document.lang else ''}. Give a lang column, "
                    "`language` FILE=de, or files named like dev.de.jsonl."
                )
            documents.setdefault(document.lang or "", []).append(document)
        absent = [name for name in select_on if name not in documents]
        if absent or not select_on:
            raise ConfigError(
                f"`select_on`: there is no dev set {', '.join(absent) or 'given'}, only "
                f"{', '.join(documents)}. Give the set in `report_dev`, or leave it out."
            )
        return cls(
            documents=documents,
            select_on=tuple(sorted(set(select_on))),
            language=languages[0] if languages else None,
            labelled_languages=tuple(trained_in),
        )

    def chosen_by(self, results: Mapping[str, Figures]) -> Figures:
        """The measure and the loss that choose: their means over the sets to select on."""
        return mean_result(results, self.select_on)


def _languages(documents: Sequence[Document]) -> list[str]:
    """The languages that documents name, sorted."""
    return sorted({document.lang for document in documents if document.lang})


def mean_result(results: Mapping[str, Figures], names: Sequence[str]) -> Figures:
    """The mean measure and the mean loss of the named dev sets."""
    chosen = [results[name] for name in names]
    keys = (measure_of(chosen[0]), "loss")
    return {key: sum(result[key] for result in chosen) / len(chosen) for key in keys}


class DevConfig(NamedTuple):
    """The dev sets that a user gives: `dev`, `report_dev` and `select_on`."""

    dev: CorpusConfig
    reported: CorpusConfig | None
    select_on: tuple[str, ...]

    def read(
        self,
        labels: LabelSet,
        labelled: Sequence[Document],
        progress: Progress | None = None,
        *,
        store_languages: Sequence[str] = (),
    ) -> DevSets:
        """The sets in memory.

        Args:
            labels: every gold label must be one of these.
            labelled: the gold-labelled text that is trained on; may be none.
            progress: told what is guessed about a file, and how the sets fit the labelled text.
            store_languages: of the stores; none where they do not tell.

        Raises:
            ConfigError: see `DevSets.build`.
            CorpusError: a file cannot be read, or see there.
        """
        dev = read_labelled(self.dev, labels, progress)
        reported: list[Document] = []
        if self.reported:
            # A run's digests are of rows as they stand in files. A reported row without a language
            # was always refused, so that no digest of such rows is known.
            reported = read_labelled(self.reported, labels, progress, fill_languages=True)
        sets = DevSets.build(dev, reported, self.select_on, labelled)
        if progress is not None:
            # No error: a file's name may tell a store a language that is none.
            if sets.language and store_languages and sets.language not in store_languages:
                progress.note(
                    f"`dev` is in {sets.language}, and the stores hold text in "
                    f"{', '.join(store_languages)}: results in {sets.language} are not zero-shot"
                )
            for note in dev_notes(dev, labelled, labels):
                progress.note(note)
        return sets


class Evaluator:
    """Scores a run's dev sets, each process its share of the rows.

    Attributes:
        truncation: what the cut took from the rows of all sets, by the last evaluation.

    Args:
        sets: what to score.
        tokenizer: the run's.
        labels: what the logits mean.
        processes: among which the rows are shared.
    """

    def __init__(
        self, sets: DevSets, tokenizer: Tokenizer, labels: LabelSet, processes: Processes
    ) -> None:
        self._tokenizer, self._processes = tokenizer, processes
        self._mine = {
            name: documents[processes.rank :: processes.count]
            for name, documents in sets.documents.items()
        }
        self.truncation = Truncation()
        self._problem = problem_of(labels)
        self._labels = {
            name: self._problem.encode(documents, f"dev set {name}")
            for name, documents in self._mine.items()
        }

    def evaluate(
        self, classifier: Classifier, on_batch: Callable[[BatchDone], None] | None = None
    ) -> dict[str, Figures]:
        """Measure in [0, 1], mean cross-entropy in nats and rows, by set; equal in all processes.

        The measure is the problem's: the accuracy or the micro-averaged F1, 0 where no class of any
        row is gold or decided for.

        Raises:
            NotFinite: a loss is NaN or infinite.
        """
        sums: list[float] = []
        for name, documents in self._mine.items():
            both = either = total_loss = 0.0
            cut = Truncation()
            if documents:
                try:
                    scored = score(classifier, self._tokenizer, documents, on_batch=on_batch)
                except NotFinite:  # told below, by all processes together
                    sums += [0.0, 0.0, math.nan, float(len(documents)), 0.0, 0.0, 0.0]
                    continue
                cut = scored.truncation
                problem, labels = self._problem, self._labels[name]
                overlap = problem.overlap(labels, problem.decide(scored.logits))
                both, either = (float(each.sum()) for each in overlap)
                hard = problem.losses.hard
                losses = hard(torch.from_numpy(scored.logits), torch.from_numpy(labels).long())
                total_loss = losses.sum().item()
            sums += [both, either, total_loss, float(len(documents))]
            sums += [cut.num_truncated_rows, cut.num_truncated_tokens, cut.num_tokens]
        totals = np.reshape(self._processes.sum(sums), (-1, 7)).tolist()
        measure = self._problem.measure
        results: dict[str, Figures] = {
            name: {measure: float(f1(both, either)), "loss": loss / n, "rows": n}
            for name, (both, either, loss, n, *_) in zip(self._mine, totals)
        }
        self.truncation = Truncation(*(int(sum(each)) for each in list(zip(*totals))[3:]))
        for name, result in results.items():
            if not math.isfinite(result["loss"]):
                raise NotFinite(
                    f"dev set {name}: expected a finite loss, found {result['loss']}. Lower "
                    "`learning_rate`; finished checkpoints are kept."
                )
        return results


def rank(result: Figures) -> tuple[float, float]:
    """The order of dev results, the best last: by their measure, then by loss."""
    return result[measure_of(result)], -result["loss"]


def is_better(result: Figures, best: Figures) -> bool:
    """Whether a dev result beats the best so far, which is empty before the first."""
    return not best or rank(result) > rank(best)


def num_since_best(history: Sequence[Figures], best: Figures) -> int:
    """How many dev evaluations came after the best one."""
    return sum(result["step"] > best["step"] for result in history)
