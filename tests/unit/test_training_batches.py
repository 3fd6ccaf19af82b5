"""The batches of a run: the same whoever makes them, found again from any place."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from monox_kit.data import Document, Int64s, LabelSet
from monox_kit.errors import CheckpointError, ConfigError
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.training.batches import Batch, Batches
from monox_kit.training.config import LoopConfig
from monox_kit.training.order import Position
from monox_kit.training.rows import LabelledRows, TrainingRows
from tests.tiny_models import LABELS, labelled_rows, write_tokenizer

CONFIG = LoopConfig(batch_size=3, seed=5)
BY_TOKENS = LoopConfig(batch_tokens=24, max_steps=9, seed=5)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, token_types=True)
    return Tokenizer(folder, 16)


def rows_of(count: int, *, pairs: bool = False) -> TrainingRows:
    documents = [
        Document(row, r["id"], r["text"], r.get("text_pair"), r["label"])
        for row, r in enumerate(labelled_rows(count, seed=1, pairs=pairs))
    ]
    return TrainingRows([LabelledRows(documents, LabelSet(LABELS), "rows")])


def labels(batch: Batch) -> Int64s:
    return batch.targets.labels.numpy()


def content(batch: Batch) -> tuple[bytes, ...]:
    """Everything that a step sees of a batch."""
    tokens = batch.tokens()
    return tuple(
        array.tobytes()
        for array in (batch.rows, tokens.input_ids, tokens.attention_mask, labels(batch))
    )


def first_batches(batches: Batches, count: int, position: Position | None = None) -> list[Batch]:
    with closing(batches.after(position or Position())) as stream:
        return list(itertools.islice(stream, count))


@pytest.mark.parametrize("config", [CONFIG, BY_TOKENS], ids=["rows", "tokens"])
def test_an_epoch_is_every_row_once_with_its_own_text_and_target(
    tokenizer: Tokenizer, config: LoopConfig
) -> None:
    rows = rows_of(50)
    seen: list[int] = []
    for batch in first_batches(Batches(rows, tokenizer, config), 51):
        texts, _, targets = rows.batch(batch.rows)
        np.testing.assert_array_equal(labels(batch), targets.labels.numpy())
        tokens = batch.tokens()
        for ids, mask, text in zip(tokens.input_ids, tokens.attention_mask, texts):
            assert ids[mask == 1].tolist() == tokenizer.encode([text]).input_ids.tolist()
        assert tokens.attention_mask.sum(axis=1).max() == tokens.input_ids.shape[1]
        seen += batch.rows.tolist()
        if batch.following.begins_epoch:
            break
    assert sorted(seen) == list(range(50))
    assert batch.following == Position(1, 0, 0)


@pytest.mark.parametrize("config", [CONFIG, BY_TOKENS], ids=["rows", "tokens"])
def test_a_run_finds_its_place_again_after_any_batch(
    tokenizer: Tokenizer, config: LoopConfig
) -> None:
    batches = Batches(rows_of(50), tokenizer, config)
    whole = first_batches(batches, 40)
    assert any(batch.following.epoch for batch in whole)
    assert len({batch.following.window for batch in whole}) > 2
    for done in range(1, 38):
        again = first_batches(batches, 2, whole[done - 1].following)
        assert [content(b) for b in again] == [content(b) for b in whole[done : done + 2]]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("workers", [1, 4])
def test_batches_are_the_same_bits_with_any_number_of_workers(
    tokenizer: Tokenizer, workers: int, pairs: bool
) -> None:
    rows = rows_of(60, pairs=pairs)
    in_line = first_batches(Batches(rows, tokenizer, CONFIG), 50)
    ahead = first_batches(Batches(rows, tokenizer, replace(CONFIG, workers=workers)), 50)
    assert [content(batch) for batch in ahead] == [content(batch) for batch in in_line]


def test_only_the_windows_that_are_used_are_read(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(200)
    read: list[int] = []
    batch_of = TrainingRows.batch

    def counted(self: TrainingRows, indices: np.ndarray, epoch: int) -> object:
        read.extend(indices.tolist())
        return batch_of(self, indices, epoch)

    monkeypatch.setattr(TrainingRows, "batch", counted)
    batches = Batches(rows, tokenizer, CONFIG)
    (last,) = first_batches(batches, 1, Position(7, 3, 2))
    assert len(read) == 48  # 16 batches: a quarter of the rows
    assert set(last.rows.tolist()) <= set(read)


def test_the_parts_of_two_processes_are_the_batch(tokenizer: Tokenizer) -> None:
    (batch,) = first_batches(Batches(rows_of(50), tokenizer, replace(CONFIG, batch_size=5)), 1)
    parts = [batch.part(rank, 2) for rank in range(2)]
    assert sorted(np.concatenate([part.rows for part in parts])) == sorted(batch.rows)
    whole = dict(zip(batch.rows.tolist(), zip(batch.tokens().input_ids, labels(batch))))
    for part in parts:
        for row, ids, target in zip(part.rows.tolist(), part.tokens().input_ids, labels(part)):
            expected, label = whole[row]
            assert target == label
            width = min(len(ids), len(expected))
            np.testing.assert_array_equal(ids[:width], expected[:width])


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (4, [2, 2, 1]), (9, [1] * 5)]
)
def test_micro_batches_are_the_batch_each_padded_alone(
    tokenizer: Tokenizer, count: int, sizes: list[int]
) -> None:
    (batch,) = first_batches(Batches(rows_of(50), tokenizer, replace(CONFIG, batch_size=5)), 1)
    parts = list(batch.split(count))
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), batch.rows)
    np.testing.assert_array_equal(np.concatenate([labels(part) for part in parts]), labels(batch))
    for part in parts:
        tokens = part.tokens()
        assert tokens.attention_mask.sum(axis=1).max() == tokens.input_ids.shape[1]
    empty = replace(batch, places=batch.places[:0])
    assert list(empty.split(count)) == []


def test_a_budget_that_a_text_would_not_fit_into_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"`batch_tokens`: 15 .*`max_length`, 16"):
        Batches(rows_of(9), tokenizer, replace(BY_TOKENS, batch_tokens=15))


@pytest.mark.parametrize("position", [Position(0, 5, 0), Position(1, 0, 4), Position(0, 10**9, 0)])
def test_a_position_that_no_run_reaches_is_refused(
    tokenizer: Tokenizer, position: Position
) -> None:
    batches = Batches(rows_of(50), tokenizer, CONFIG)  # 5 windows of 4 batches, the last smaller
    with pytest.raises(CheckpointError, match="expected a position in the order of rows"):
        first_batches(batches, 1, position)


@pytest.mark.parametrize("epoch", [2**31, 2**62])
def test_any_epoch_has_its_rows(tokenizer: Tokenizer, epoch: int) -> None:
    (batch,) = first_batches(Batches(rows_of(50), tokenizer, CONFIG), 1, Position(epoch))
    assert len(batch) > 0
