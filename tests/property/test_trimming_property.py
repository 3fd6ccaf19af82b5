"""Vocabularies cut down: tokenizers at random, with small alphabets, so that pieces overlap."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from monox_kit.trimming.vocabulary import Vocabulary
from tests.tiny_tokenizers import write_kind

WORDS = ["".join(word) for size in range(1, 6) for word in product("abc", repeat=size)]


@st.composite
def byte_pairs(draw: Any) -> Tokenizer:
    """BPE whose tokens come about in several ways, as those made from sentencepiece."""
    tokens = ["?", "a", "b", "c"]
    for _ in range(draw(st.integers(1, 12))):
        pair = draw(st.tuples(st.sampled_from(tokens[1:]), st.sampled_from(tokens[1:])))
        if "".join(pair) not in tokens and len("".join(pair)) < 6:
            tokens.append("".join(pair))
    ways = [
        (token[:at], token[at:])
        for token in tokens
        for at in range(1, len(token))
        if {token[:at], token[at:]} <= {*tokens}
    ]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    merges = draw(st.permutations(ways))
    model = models.BPE(vocabulary, merges, unk_token="?", ignore_merges=draw(st.booleans()))
    return finished(Tokenizer(model))


@st.composite
def word_pieces(draw: Any) -> Tokenizer:
    """WordPiece of which each character of a piece is a piece."""
    letters = draw(st.sampled_from(("ab", "abc")))
    pieces = draw(st.lists(st.text(letters, min_size=2, max_size=4), max_size=8))
    inner = draw(st.lists(st.text(letters, min_size=2, max_size=4), max_size=8))
    tokens = dict.fromkeys(["?", *letters, *pieces, *(f"##{x}" for x in (*letters, *inner))])
    model = models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="?")
    return finished(Tokenizer(model))


@st.composite
def unigrams(draw: Any) -> Tokenizer:
    """Unigram with equal scores, far lower ones, and characters that are no piece."""
    letters = draw(st.sampled_from(("ab", "abc")))
    pieces = draw(st.lists(st.text(letters, min_size=1, max_size=4), min_size=1, max_size=10))
    scores = st.sampled_from((-1.0, -2.0, -3.0, -3.3, -13.7, -40.0))
    vocabulary = [("?", 0.0), *((piece, draw(scores)) for piece in dict.fromkeys(pieces))]
    return finished(Tokenizer(models.Unigram(vocabulary, unk_id=0)))


def finished(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="? $A", special_tokens=[("?", tokenizer.token_to_id("?"))]
    )
    return tokenizer


@given(st.one_of(byte_pairs(), word_pieces(), unigrams()), st.data())
@settings(max_examples=200)
def test_any_tokenizer_reads_texts_as_before(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = st.integers(0, tokenizer.get_vocab_size() - 1)
    cut = Vocabulary(tokenizer.to_str(), Path("x")).cut(data.draw(st.sets(ids)))
    small = Tokenizer.from_str(cut.content)
    kept = set(cut.old_ids.tolist())
    for word, before, after in zip(
        WORDS, tokenizer.encode_batch(WORDS), small.encode_batch(WORDS), strict=True
    ):
        if kept.issuperset(before.ids):
            assert after.tokens == before.tokens, word
            assert [cut.old_ids[id] for id in after.ids] == before.ids, word


@given(byte_pairs(), st.data())
def test_every_merge_and_token_that_is_left_works(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = st.integers(0, tokenizer.get_vocab_size() - 1)
    cut = Vocabulary(tokenizer.to_str(), Path("x")).cut(data.draw(st.sets(ids)))
    model = json.loads(cut.content)["model"]
    old = json.loads(tokenizer.to_str())["model"]["merges"]
    assert model["merges"] == [one for one in old if {*one, "".join(one)} <= model["vocab"].keys()]
    small = Tokenizer.from_str(cut.content)
    for token in model["vocab"]:
        if tokenizer.encode(token).tokens == ["?", token]:
            assert small.encode(token).tokens == ["?", token]


def test_the_merges_that_lead_to_a_token_stay_and_not_the_first_that_make_it() -> None:
    tokens = ["?", "x", "a", "b", "c", "ab", "bc", "xa", "abc"]
    merges = [("a", "b"), ("b", "c"), ("x", "a"), ("a", "bc"), ("ab", "c")]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="?"))
    assert tokenizer.encode("xabc").tokens == ["x", "abc"]  # by ab, for it is made first
    cut = Vocabulary(tokenizer.to_str(), Path("x")).cut({tokens.index("abc"), tokens.index("xa")})
    small = Tokenizer.from_str(cut.content)
    assert small.encode("xabc").tokens == ["x", "abc"]
    assert "bc" not in small.get_vocab()


def test_the_cost_of_the_unknown_token_stays() -> None:
    vocabulary = [("?", 0.0), ("ab", -13.7), ("c", -13.7), ("bc", -1.0), ("low", -40.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    assert tokenizer.encode("abc").tokens == ["ab", "c"]  # not the unknown a, for 50, and bc
    cut = Vocabulary(tokenizer.to_str(), Path("x")).cut({1, 2, 3})
    assert Tokenizer.from_str(cut.content).encode("abc").tokens == ["ab", "c"]


def test_all_byte_symbols_stay(tmp_path: Path) -> None:
    tokenizer = write_kind(tmp_path, "byte-level BPE")
    cut = Vocabulary(tokenizer.to_str(), tmp_path).cut({0})
    small = Tokenizer.from_str(cut.content)
    assert {*pre_tokenizers.ByteLevel.alphabet()} <= small.get_vocab().keys()
    text = "ελληνικά \U0001f9ff"
    assert small.decode(small.encode(text).ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_tokens_of_bytes_stay(kind: str) -> None:
    tokens = ["<unk>", "a", *(f"<0x{byte:02X}>" for byte in range(256)), "é"]
    if kind == "BPE":
        vocabulary = {token: at for at, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    else:
        scored = [(token, -float(at)) for at, token in enumerate(tokens)]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    cut = Vocabulary(tokenizer.to_str(), Path("x")).cut({1})
    assert Tokenizer.from_str(cut.content).encode("aΩ").tokens == ["a", "<0xCE>", "<0xA9>"]


def test_special_tokens_keep_their_ids_in_a_vocabulary_of_any_length() -> None:
    tokens = ["[PAD]", *(f"[unused{at}]" for at in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(ord("a") + at) for at in range(20)]
    tokenizer = Tokenizer(
        models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 12), ("[CLS]", 11))
    for num_letters in range(1, 20):
        cut = Vocabulary(tokenizer.to_str(), Path("x")).cut({14 + at for at in range(num_letters)})
        small = Tokenizer.from_str(cut.content)
        ids = [small.token_to_id(token) for token in special]
        assert all(one < other for one, other in pairwise(ids))
        if num_letters >= 9:
            assert ids == [0, 10, 11, 12, 13]
        assert small.encode("a").tokens == ["[CLS]", "a", "[SEP]"]
