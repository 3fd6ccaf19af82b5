"""Windows of a corpus: every row of the missing shards once, and only as the scan has found it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import CorpusError
from monox_kit.labelling.windows import ShardWindow, shard_windows
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding
from monox_kit.store import ShardRange

SHARDS = [ShardRange(0, 0, 4), ShardRange(1, 4, 8), ShardRange(2, 8, 10)]
LINES = [f'{{"id": "{row}", "text": "text {row % 3} of {row}"}}\n' for row in range(10)]


class OneToken:
    """A tokenizer that takes every text for one token."""

    padding, long = Padding(0), "head"

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        ones = np.ones(len(texts), np.int64)
        return Encoded(ones, None, ones, 0 * ones)


def read(
    path: Path, missing: Sequence[ShardRange], change: Callable[[list[str]], Any] | None = None
) -> list[ShardWindow]:
    """The windows after a scan, before which nothing and after which `change` happens."""
    lines = list(LINES)
    path.write_text("".join(lines))
    corpus = Corpus(CorpusConfig(paths=(str(path),)))
    marks = dict(enumerate(corpus.scan(mark_every=4).marks))
    if change is not None:
        change(lines)
        path.write_text("".join(lines))
    tokenizer: Any = OneToken()
    return list(shard_windows(corpus, missing, marks, len(LINES), tokenizer))


@pytest.mark.parametrize("indices", [[0, 1, 2], [1], [2], [1, 2], [0, 2], [2, 0]])
def test_the_rows_of_missing_shards_come_once_and_in_order(
    tmp_path: Path, indices: list[int]
) -> None:
    missing = [SHARDS[index] for index in indices]
    found = read(tmp_path / "c.jsonl", missing)
    rows = [document.row for window in found for document in window.rows.documents]
    assert rows == [row for shard in missing for row in range(shard.start, shard.stop)]
    ids = [document.id for window in found for document in window.rows.documents]
    assert ids == list(map(str, rows))
    assert [window.rows.shard for window in found if window.rows.ends_shard] == missing


CHANGES: dict[str, Callable[[list[str]], Any]] = {
    "edited": lambda lines: lines.__setitem__(6, lines[6].replace("text 0", "text 1")),
    "swapped": lambda lines: lines.__setitem__(slice(4, 6), [lines[5], lines[4]]),
    "doubled": lambda lines: lines.__setitem__(6, lines[5]),
    "removed": lambda lines: lines.pop(),
    "appended": lambda lines: lines.append(lines[0].replace("0", "x")),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_rows_that_changed_since_the_scan_are_an_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CorpusError, match="The corpus changed while it was labelled"):
        read(tmp_path / "c.jsonl", SHARDS, CHANGES[kind])
