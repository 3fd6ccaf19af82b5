"""An exception in the input never leaves a store that a reader takes for complete."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import CorpusError, StoreError, StoreIncomplete
from monox_kit.labelling import label_corpus
from monox_kit.progress import ProgressTask, Silent
from monox_kit.store import FolderWriter, LogitStore, filling
from monox_kit.store.format import SCAN_FILE
from tests.faults.states import (
    COMPLETE,
    SIX_SHARDS,
    entries,
    expect_right_or_incomplete,
    finished,
    label_config,
)
from tests.faults.stepping import CUTS
from tests.store_samples import part, shard_arguments, text_bytes, write_shard, write_store
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

NUM_ROWS = 60  # in six shards of ten, each read in windows of four rows
SAMPLED = [0, 9, 10, 12, 31, 58]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have shards of several windows."""
    monkeypatch.setattr(filling, "WINDOW_ROWS", 4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a corpus of 60 rows, and the store of an undisturbed run."""
    folder = tmp_path_factory.mktemp("files")
    bert_classifier(folder / "model")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(NUM_ROWS, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "WINDOW_ROWS", 4)
        label_corpus(label_config(folder), folder / "whole")
    return folder


class Stop(BaseException):
    """What no handler expects, as KeyboardInterrupt."""


class AtLabelling(Silent):
    """Does something when the corpus has been checked and labelling begins."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def task(self, title: str, total: int | None, unit: str, **options: Any) -> ProgressTask:
        if title.startswith("labelling"):
            self._act()
        return super().task(title, total, unit, **options)


def expect_unfinished(store: Path, whole: Path, row: int) -> None:
    """The shards before the row's may be there, that of the row and later ones are not."""
    with pytest.raises(StoreIncomplete):
        LogitStore.open(store)
    found = LogitStore.open(store, allow_incomplete=True)
    assert [shard.index for shard in found.shards()] == list(range(row // 10))
    expect_right_or_incomplete(store, whole)
    left = entries(store)
    del left[SCAN_FILE]  # for the run that goes on
    assert left == finished(store)


ROWS = [
    *(pytest.param(row, id=f"{row}") for row in SAMPLED),
    *(
        pytest.param(row, id=f"{row}", marks=COMPLETE)
        for row in range(NUM_ROWS)
        if row not in SAMPLED
    ),
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_goes_bad_after_the_check_completes_nothing(
    files: Path, tmp_path: Path, row: int
) -> None:
    corpus, store = files / "corpus.jsonl", tmp_path / "store"
    good = corpus.read_bytes()
    lines = good.splitlines(keepends=True)
    # As long as before, so that every other row stays where it was.
    bad = b"".join([*lines[:row], b"{" + b"x" * (len(lines[row]) - 2) + b"\n", *lines[row + 1 :]])
    spoil = AtLabelling(lambda: void(corpus.write_bytes(bad)))
    try:
        with pytest.raises(CorpusError, match=rf"corpus.jsonl\b.*{row + 1}\b"):
            label_corpus(label_config(files), store, progress=spoil)
    finally:
        corpus.write_bytes(good)
    expect_unfinished(store, files / "whole", row)
    summary = label_corpus(label_config(files), store)
    assert summary.num_resumed_rows == row // 10 * 10
    assert entries(store) == entries(files / "whole")


@pytest.mark.parametrize("row", [1, 12, 58])
def test_a_corpus_cut_short_after_the_check_completes_nothing(
    files: Path, tmp_path: Path, row: int
) -> None:
    corpus, store = files / "corpus.jsonl", tmp_path / "store"
    good = corpus.read_bytes()
    cut = b"".join(good.splitlines(keepends=True)[:row])
    try:
        with pytest.raises(CorpusError, match=r"expected the 60 rows .* found other content"):
            shorten = AtLabelling(lambda: void(corpus.write_bytes(cut)))
            label_corpus(label_config(files), store, progress=shorten)
    finally:
        corpus.write_bytes(good)
    expect_unfinished(store, files / "whole", row)
    label_corpus(label_config(files), store)
    assert entries(store) == entries(files / "whole")


def void(value: object) -> None:
    """For a callback that may give nothing back."""


ERRORS: list[BaseException] = [
    ZeroDivisionError(),
    OSError(errno.EIO, "Input/output error"),
    MemoryError(),
    Stop(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
]


@pytest.mark.parametrize("row", ROWS)
def test_any_exception_of_the_input_leaves_as_it_is_and_completes_nothing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    error, store = ERRORS[row % len(ERRORS)], tmp_path / "store"
    real = filling._parts

    def failing(documents: Iterator[Any], shard: Any) -> Iterator[list[Any]]:
        return real(FailingAt(documents, row, error), shard)

    with monkeypatch.context() as patch:
        patch.setattr(filling, "_parts", failing)
        with pytest.raises(type(error)) as caught:
            label_corpus(label_config(files), store)
    assert caught.value is error
    expect_unfinished(store, files / "whole", row)
    label_corpus(label_config(files), store)
    assert entries(store) == entries(files / "whole")


class FailingAt:
    """Documents, each with its language, with an error instead of one of them."""

    def __init__(self, documents: Iterator[Any], row: int, error: BaseException) -> None:
        self._documents = documents
        self._row = row
        self._error = error

    def __iter__(self) -> FailingAt:
        return self

    def __next__(self) -> Any:
        document, language = next(self._documents)
        if document.row == self._row:
            raise self._error
        return document, language


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 6])
def test_an_exception_between_shards_completes_nothing_and_costs_none(
    tmp_path: Path, stop: int
) -> None:
    folder, whole = tmp_path / "s", write_store(tmp_path / "whole", SIX_SHARDS)
    with pytest.raises(ZeroDivisionError), FolderWriter(folder, SIX_SHARDS) as writer:
        for shard in writer.missing[:stop]:
            write_shard(writer, shard, **shard_arguments(SIX_SHARDS, shard))
        raise ZeroDivisionError
    with pytest.raises(StoreIncomplete, match=f"found {min(4 * stop, 23)} of 23 rows"):
        LogitStore.open(folder)
    done = entries(folder)
    write_store(folder, SIX_SHARDS)
    assert entries(folder) == entries(whole)
    assert done.items() <= entries(folder).items()


# Of the block's own making: those of the disk need not be of the store's.
BLOCK_ERRORS: list[BaseException] = [
    ZeroDivisionError(),
    Stop(),
    PermissionError(errno.EACCES, "refused", "corpus.jsonl"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("No space left on device"),
    StoreError("of another store"),
]


@pytest.mark.parametrize("num_parts", [0, 1, 2])
@pytest.mark.parametrize("error", BLOCK_ERRORS, ids=repr)
def test_an_exception_between_parts_leaves_as_it_is_and_commits_nothing(
    tmp_path: Path, num_parts: int, error: BaseException
) -> None:
    folder, whole = tmp_path / "s", write_store(tmp_path / "whole", SIX_SHARDS)
    with FolderWriter(folder, SIX_SHARDS) as writer:
        before, shard = entries(folder), writer.missing[1]
        arguments = shard_arguments(SIX_SHARDS, shard)
        with (
            pytest.raises(type(error)) as caught,
            writer.shard(shard, text_bytes(arguments["documents"])) as builder,
        ):
            for start in range(0, 2 * num_parts, 2):
                builder.append(**part(arguments, start, start + 2))
            assert len(list((folder / "shards").iterdir())) == 1
            raise error
        assert caught.value is error
        assert entries(folder) == before
        assert list((folder / "shards").iterdir()) == []
        assert shard in writer.missing
        with pytest.raises(StoreError, match="found a shard whose block has ended"):
            builder.append(**part(arguments, 2 * num_parts, 4))
    write_store(folder, SIX_SHARDS, cuts=CUTS)
    assert entries(folder) == entries(whole)
