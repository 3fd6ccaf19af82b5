"""Texts to logits: equal texts once, order kept, long texts cut without changing a token."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from monox_kit.data import Document, LabelSet, Logits, TokenBatch
from monox_kit.errors import ModelError
from monox_kit.models.scoring import BatchDone, score, score_texts, tokenize
from monox_kit.models.tokenizer import CHARS_PER_TOKEN, Tokenizer
from tests.tiny_models import WORDS, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path, token_types=True)
    return path


class Sums:
    """A classifier whose logits are a function of the real tokens: the oracle is trivial."""

    def __init__(self, concurrency: int = 1) -> None:
        self.labels = LabelSet(("a", "b"))
        self.concurrency = concurrency
        self.rows = 0
        self.running = self.most_running = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(concurrency)

    def logits(self, batch: TokenBatch) -> Logits:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.rows += len(batch.rows)
        if self.concurrency > 1:
            self._together.wait(timeout=10)
        real = batch.input_ids * batch.attention_mask
        with self._lock:
            self.running -= 1
        return np.stack([real.sum(axis=1), batch.attention_mask.sum(axis=1)], 1).astype(np.float32)


def documents(texts: list[str]) -> list[Document]:
    return [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]


TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=40
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=TEXTS, budget=st.integers(8, 200))
def test_every_document_gets_its_own_logits_and_equal_ones_are_computed_once(
    folder: Path, texts: list[str], budget: int
) -> None:
    tokenizer = Tokenizer(folder, 32)
    classifier = Sums()
    done: list[BatchDone] = []
    found = score(
        classifier, tokenizer, documents(texts), batch_tokens=budget, on_batch=done.append
    )
    alone = [Sums().logits for _ in texts]
    expected = [score(Sums(), tokenizer, documents([text])).logits[0] for text in texts]
    assert len(alone) == len(expected)
    np.testing.assert_array_equal(found.logits, np.stack(expected))
    assert classifier.rows == len(set(texts))
    assert found.num_repeated == len(texts) - len(set(texts))
    assert sum(one.num_rows for one in done) == len(texts)
    assert sum(one.num_tokens for one in done) == found.num_tokens
    assert sum(one.num_padded_tokens for one in done) == found.num_padded_tokens


def test_some_rows_alone_can_be_scored(folder: Path) -> None:
    tokenizer = Tokenizer(folder, 32)
    texts = tokenize(tokenizer, documents(["alpha", "beta gamma", "alpha", "game"]))
    everything = score_texts(Sums(), texts).logits
    rows = np.array([3, 2, 0])
    some = score_texts(Sums(), texts, rows=rows)
    np.testing.assert_array_equal(some.logits, everything[rows])
    assert some.num_repeated == 1


def test_as_many_batches_run_at_once_as_the_classifier_takes(folder: Path) -> None:
    tokenizer = Tokenizer(folder, 32)
    texts = [" ".join(WORDS[: 1 + number % 9]) + f" {WORDS[number]}" for number in range(24)]
    classifier = Sums(concurrency=2)
    # 24 texts in an even number of batches: the barrier needs both threads every time.
    found = score(classifier, tokenizer, documents(texts), batch_tokens=1)
    assert classifier.most_running == 2
    np.testing.assert_array_equal(found.logits, score(Sums(), tokenizer, documents(texts)).logits)


def test_an_error_in_one_batch_starts_no_further_one(folder: Path) -> None:
    class Failing(Sums):
        def logits(self, batch: TokenBatch) -> Logits:
            super().logits(batch)
            raise RuntimeError("session")

    classifier = Failing(concurrency=2)
    with pytest.raises(ModelError, match=r"^row \d+: .*RuntimeError: session"):
        score(classifier, Tokenizer(folder, 32), documents(list(WORDS[:24])), batch_tokens=1)
    assert classifier.rows < 24


def long_texts() -> list[str]:
    cut = 16 * CHARS_PER_TOKEN
    words = " ".join(WORDS * 40)
    return [
        words,
        " " * (cut - 20) + words,  # the words begin just before the cut
        " " * (cut + 20) + words,
        "alpha " * 3 + " " * (2 * cut) + "game",
        "x" * (3 * cut),
        ("alpha " * 3 + " " * cut) * 4,
        "é" * cut + " mail",
        words[: cut - 1],
    ]


@pytest.mark.parametrize("number", range(8))
def test_cutting_long_texts_in_characters_changes_no_token(folder: Path, number: int) -> None:
    text = long_texts()[number]
    whole = AutoTokenizer.from_pretrained(str(folder))(text, truncation=True, max_length=16)
    found = Tokenizer(folder, 16).encode([text, "mail"])
    assert found.input_ids[: found.lengths[0]].tolist() == whole["input_ids"]
    assert found.lengths[1] == 3


def test_the_end_of_a_long_text_is_not_tokenized(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(folder, 16)
    seen: list[int] = []
    call = tokenizer._call

    def watched(texts: list[str], pairs: object, **kwargs: bool) -> object:
        seen.extend(map(len, texts))
        return call(texts, pairs, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer, "_call", watched)
    tokenizer.encode(["alpha " * 100_000])
    assert max(seen) <= 16 * CHARS_PER_TOKEN
