"""Texts that the benchmarks read, and the labelling that several of them measure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document
from monox_kit.labelling import LabelConfig, LabelSummary, label_corpus
from monox_kit.progress import Progress
from monox_kit.store import LogitStore


def first_documents(corpus: str | Sequence[str], count: int) -> list[Document]:
    """The first rows of a corpus: a file, a glob or a URL, or several of them."""
    paths = (corpus,) if isinstance(corpus, str) else tuple(corpus)
    return list(islice(Corpus(CorpusConfig(paths=paths)).documents(), count))


def corpus_of(texts: Iterable[str], path: Path) -> CorpusConfig:
    """The texts as a corpus of their own, written to `path`."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return CorpusConfig(paths=(str(path),))


def labelled(
    config: LabelConfig, store: Path, progress: Progress | None = None
) -> tuple[LabelSummary, LogitStore, npt.NDArray[np.float32]]:
    """Label into a store and read it back, verified in full: summary, store, [N, C] logits."""
    summary = label_corpus(config, store, progress=progress)
    found = LogitStore.open(store, verify="full")
    return summary, found, np.asarray(found.logits(slice(None)))
