"""The texts that are scored, and the batches of them that are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.corpora.corpus import Corpus
from monox_kit.data import UNKNOWN_LANGUAGE, Document, Int64s
from monox_kit.models.batching import along_lengths
from monox_kit.progress import Progress


@dataclass(frozen=True, slots=True)
class Sample:
    """The texts of a benchmark.

    Attributes:
        documents: N, those of one language together.
        languages: [N] of each.
    """

    documents: tuple[Document, ...]
    languages: tuple[str, ...]

    def texts(self) -> list[list[str | None]]:
        """The texts as JSON values."""
        return [[one.text, one.text_pair] for one in self.documents]

    def rows(self) -> dict[str, Int64s]:
        """The positions of each language's documents."""
        languages = np.array(self.languages)
        return {
            tag: np.flatnonzero(languages == tag).astype(np.int64)
            for tag in dict.fromkeys(self.languages)
        }

    def num_characters(self) -> Int64s:
        """[N] characters of each document, of a pair both texts'."""
        sizes = [len(one.text) + len(one.text_pair or "") for one in self.documents]
        return np.array(sizes, np.int64)


def read_sample(config: BenchmarkConfig, progress: Progress) -> Sample:
    """Documents of every language of the files, at even distances.

    Raises:
        CorpusError: a row cannot be used.
    """
    by_language: dict[str, list[Document]] = {}
    for document, tag in Corpus(config.test, progress).with_languages():
        by_language.setdefault(tag or UNKNOWN_LANGUAGE, []).append(document)
    documents: list[Document] = []
    languages: list[str] = []
    for language, found in by_language.items():
        places = np.linspace(0, len(found) - 1, min(config.rows, len(found))).astype(int)
        documents += [found[place] for place in places]
        languages += [language] * len(places)
    return Sample(tuple(documents), tuple(languages))


def batches_of(
    rows: Sequence[Int64s], lengths: Int64s, size: int, generator: np.random.Generator
) -> list[Int64s]:
    """Batches of texts of one language and of similar length, in an order whose start is fair.

    Languages take turns, and of each language short and long batches come in a random order, so
    that any first part of the batches has something of everything. Each text is in one batch at
    most: of more than a whole number of batches some texts are left out, at even distances of
    length; a language with fewer texts than a batch has one batch of all.

    Args:
        rows: the positions of each language's texts.
        lengths: [N] tokens of each text.
        size: texts of a batch.
        generator: draws the order.
    """
    queues = []
    for own in rows:
        count = len(own) // size * size or len(own)
        chosen = own[along_lengths(lengths[own], count)]
        batches = [chosen[start : start + size] for start in range(0, count, size)]
        queues.append([batches[place] for place in generator.permutation(len(batches))])
    longest = max(len(queue) for queue in queues)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
