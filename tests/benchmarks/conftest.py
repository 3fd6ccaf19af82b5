"""What the tests of the labelling benchmark start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of single texts, one of pairs, and a model."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(40, seed=1))
    write_jsonl(folder / "pairs.jsonl", labelled_rows(40, seed=1, pairs=True))
    bert_classifier(folder / "model")
    return folder
