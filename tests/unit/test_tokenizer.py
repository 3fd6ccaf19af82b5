"""Ids are those of transformers, whatever the cut; tokenizer.json is read as it stands."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from monox_kit.errors import ModelError
from monox_kit.models.golden import GOLDEN_PAIRS, GOLDEN_TEXTS
from monox_kit.models.long_texts import kept_of_pair, window_starts
from monox_kit.models.tokenizer import CHARS_PER_TOKEN, Tokenizer
from monox_kit.models.tokenizer_files import Padding
from tests.tiny_tokenizers import KINDS, write_kind

PIECES = (
    "The parcel",
    " arrived",
    "été",
    "荷物は",
    "👍🏽",
    "  ",
    "[SEP]",
    "</s>",
    "x" * 9,
    ".",
    "نص",
    "",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for kind in KINDS:
        for side in ("right", "left"):
            write_kind(root / f"{kind} {side}", kind, truncation_side=side)
            found[f"{kind} {side}"] = root / f"{kind} {side}"
    return found


def config_of(folder: Path, **changes: Any) -> None:
    """Change a folder's tokenizer_config.json; None takes a key out."""
    path = folder / "tokenizer_config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: one for name, one in values.items() if one is not None}))


def flat(rows: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(rows))


def of_model(folder: Path, model_type: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.lists(st.sampled_from([*PIECES, *GOLDEN_TEXTS]), max_size=4).map("".join),
        min_size=2,
        max_size=6,
    ),
    max_length=st.integers(6, 40),
)
def test_ids_segments_and_cuts_are_those_of_transformers(
    folders: dict[str, Path], kind: str, side: str, texts: list[str], max_length: int
) -> None:
    folder = folders[f"{kind} {side}"]
    oracle, tokenizer = _opened(folder)
    tokenizer.max_length = max_length
    for pairs in (None, texts[::-1]):
        found = tokenizer.encode(texts, pairs)
        whole = oracle(texts, pairs)["input_ids"]
        kept = oracle(
            texts, pairs, truncation=True, max_length=max_length, return_token_type_ids=True
        )
        assert found.input_ids.tolist() == flat(kept["input_ids"])
        for text, ids, lost in zip(texts, whole, found.truncated.tolist()):
            is_whole = pairs is not None or len(text) <= max_length * CHARS_PER_TOKEN
            near = 0 if is_whole else len(ids) // 4  # behind a cut in characters, estimated
            assert abs(lost - max(0, len(ids) - max_length)) <= near
        if tokenizer.has_token_types:
            assert found.token_type_ids is not None
            assert found.token_type_ids.tolist() == flat(kept["token_type_ids"])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.lists(st.sampled_from([*PIECES, *GOLDEN_TEXTS]), max_size=8).map("".join),
        min_size=2,
        max_size=4,
    ),
    max_length=st.integers(7, 30),
)
def test_head_tail_and_windows_are_cut_between_special_tokens(
    folders: dict[str, Path], kind: str, side: str, texts: list[str], max_length: int
) -> None:
    folder = folders[f"{kind} {side}"]
    tokenizer = Tokenizer(folder, max_length, "head-tail")
    for pairs in (None, texts[::-1]):
        found = tokenizer.encode(texts, pairs)
        inputs = texts if pairs is None else list(zip(texts, pairs))
        for row, one in enumerate(tokenizer._tokenizer.encode_batch(inputs)):
            owners, excess = one.sequence_ids, len(one.ids) - max_length
            num_special = owners.count(None)
            lengths = [owners.count(0)] if pairs is None else [owners.count(0), owners.count(1)]
            budget = max_length - num_special
            kept = [budget] if pairs is None else kept_of_pair(lengths, budget)
            gone: set[int] = set()
            for number, (length, most) in enumerate(zip(lengths, kept)):
                if excess > 0 and length > most:
                    places = [at for at, owner in enumerate(owners) if owner == number]
                    gone.update(places[most - most // 2 : length - most // 2])
            ids = [id for at, id in enumerate(one.ids) if at not in gone]
            begin = found.starts[row]
            assert found.input_ids[begin : begin + found.lengths[row]].tolist() == ids
            assert found.truncated[row] == max(excess, 0)
    read = Tokenizer(folder, max_length, "windows:mean").encode(texts)
    assert read.windows is not None and not read.truncated.any()
    rows = [part.tolist() for part in np.split(read.input_ids, read.starts[1:])]
    for one, count in zip(tokenizer._tokenizer.encode_batch(texts), read.windows.tolist()):
        own, rows = rows[:count], rows[count:]
        owners = one.sequence_ids
        length, budget = owners.count(0), max_length - owners.count(None)
        if length <= budget:
            assert own == [one.ids]
            continue
        begin = owners.index(0)
        assert own == [
            [
                *one.ids[:begin],
                *one.ids[begin + start : begin + start + budget],
                *one.ids[begin + length :],
            ]
            for start in window_starts(length, budget)
        ]
    assert not rows


_OPENED: dict[Path, tuple[Any, Tokenizer]] = {}


def _opened(folder: Path) -> tuple[Any, Tokenizer]:
    if folder not in _OPENED:
        _OPENED[folder] = AutoTokenizer.from_pretrained(str(folder)), Tokenizer(folder, 16)
    return _OPENED[folder]


def test_which_tokenizers_say_something_with_segments(folders: dict[str, Path]) -> None:
    said = {kind: Tokenizer(folders[f"{kind} right"], 16).has_token_types for kind in KINDS}
    assert said == {
        "WordPiece": True,
        "byte-level BPE": False,
        "Unigram": False,
        "XLNet's Unigram": True,
    }


def test_the_side_that_batches_are_padded_on(folders: dict[str, Path], tmp_path: Path) -> None:
    sides = {kind: Tokenizer(folders[f"{kind} right"], 16).padding.side for kind in KINDS}
    assert sides == {**dict.fromkeys(KINDS, "right"), "XLNet's Unigram": "left"}
    write_kind(tmp_path, "XLNet's Unigram")
    config_of(tmp_path, padding_side=None, tokenizer_class="XLNetTokenizerFast")
    assert Tokenizer(of_model(tmp_path, "xlnet"), 16).padding.side == "left"


def test_a_text_cut_in_characters_counts_as_truncated(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer(folders["WordPiece right"], 16)
    found = tokenizer.encode(["parcel " * 10_000, "parcel"])
    whole = len(tokenizer._tokenizer.encode("parcel " * 10_000).ids)
    assert found.truncated[1] == 0
    assert found.truncated[0] == pytest.approx(whole - 16, rel=0.05)


def test_threads_with_other_cuts_do_not_meet(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer(folders["Unigram right"], 24)
    expected = tokenizer.encode(GOLDEN_TEXTS).input_ids
    found: list[np.ndarray] = []

    def work() -> None:
        found.extend(tokenizer.encode(GOLDEN_TEXTS).input_ids for _ in range(5))

    def others() -> None:
        for length in (6, 12, 99):
            Tokenizer(folders["Unigram right"], length).encode(GOLDEN_TEXTS)

    threads = [threading.Thread(target=target) for target in (work, others, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for ids in found:
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_reads_alike_everywhere(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    tokenizer = Tokenizer(folders[f"{kind} left"], 12)
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_max_length"] == 12
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["truncation"] is saved["padding"] is None
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs.padding_side == tokenizer.padding.side
    assert theirs.pad_token_id == tokenizer.padding.token_id
    ids = theirs(list(GOLDEN_TEXTS), truncation=True)["input_ids"]
    assert tokenizer.encode(GOLDEN_TEXTS).input_ids.tolist() == flat(ids)
    again = Tokenizer(tmp_path, 12)
    assert again.ids_digest == tokenizer.ids_digest
    assert again._settings == tokenizer._settings


def test_truncation_and_padding_inside_tokenizer_json_do_not_count(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "WordPiece")
    made.enable_truncation(5)
    made.enable_padding(length=40, pad_id=0, pad_token="[PAD]")
    made.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer(tmp_path, 16).encode(["The parcel arrived two days late", "."])
    made.no_truncation()
    made.no_padding()
    whole = made.encode("The parcel arrived two days late").ids
    assert found.input_ids.tolist() == [*whole[:15], whole[-1], *made.encode(".").ids]
    assert 5 < len(whole) < 40


@pytest.mark.parametrize(
    ("kind", "model_type", "tokenizer_class"),
    [
        ("WordPiece", "roberta", None),  # transformers 5 reads it letter by letter
        ("WordPiece", "xlm-roberta", None),  # and here it breaks off
        ("Unigram", "bert", None),
        ("Unigram", "bert", "BertTokenizerFast"),
        ("byte-level BPE", "bert", "BertTokenizer"),
        ("byte-level BPE", "xlm-roberta", "XLMRobertaTokenizer"),
    ],
)
def test_a_class_of_another_family_changes_no_id(
    tmp_path: Path, kind: str, model_type: str, tokenizer_class: str | None
) -> None:
    made = write_kind(tmp_path, kind)
    config_of(tmp_path, tokenizer_class=tokenizer_class)
    found = Tokenizer(of_model(tmp_path, model_type), 512).encode(GOLDEN_TEXTS)
    assert found.input_ids.tolist() == flat(made.encode(text).ids for text in GOLDEN_TEXTS)


def test_a_class_that_contradicts_tokenizer_json_is_refused_with_both_ids(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "WordPiece")  # which lowers case
    config_of(tmp_path, tokenizer_class="BertTokenizer", do_lower_case=False)
    ids = made.encode(GOLDEN_TEXTS[0]).ids
    with pytest.raises(ModelError) as raised:
        Tokenizer(of_model(tmp_path, "bert"), 16)
    message = str(raised.value)
    assert GOLDEN_TEXTS[0][:40] in message
    assert ", ".join(map(str, ids[:5])) in message
    assert str(tmp_path) in message and "BertTokenizer" in message


def test_the_older_files_decide_between_the_two(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "WordPiece")
    config_of(tmp_path, tokenizer_class="RobertaTokenizer")
    words = sorted(made.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")
    found = Tokenizer(of_model(tmp_path, "roberta"), 512).encode(GOLDEN_TEXTS)
    assert found.input_ids.tolist() == flat(made.encode(text).ids for text in GOLDEN_TEXTS)
    shifted = [word for word, _ in words[1:]]
    (tmp_path / "vocab.txt").write_text("\n".join(shifted), encoding="utf-8")
    with pytest.raises(ModelError, match=r"give different ids"):
        Tokenizer(tmp_path, 512)


def test_a_folder_with_older_files_alone_is_converted(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "WordPiece")
    words = sorted(made.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    tokenizer = Tokenizer(of_model(tmp_path, "bert"), 512)
    oracle = AutoTokenizer.from_pretrained(str(tmp_path))
    ids = oracle(list(GOLDEN_TEXTS))["input_ids"]
    assert tokenizer.encode(GOLDEN_TEXTS).input_ids.tolist() == flat(ids)
    assert tokenizer.padding.token_id == 0


def test_tokens_that_only_the_settings_name_are_added_as_transformers_adds_them(
    tmp_path: Path,
) -> None:
    write_kind(tmp_path, "WordPiece")
    added = {"content": "<brand>", "lstrip": False, "rstrip": False, "special": False}
    config_of(tmp_path, added_tokens_decoder={"5000": added}, eos_token="<end>")
    of_model(tmp_path, "bert")
    texts = ["my <brand> parcel <end>", *GOLDEN_TEXTS]
    ids = AutoTokenizer.from_pretrained(str(tmp_path))(texts)["input_ids"]
    assert Tokenizer(tmp_path, 512).encode(texts).input_ids.tolist() == flat(ids)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"model": {"type": "BPE"}'])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write_kind(tmp_path, "Unigram")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        Tokenizer(tmp_path, 16)


def test_without_a_padding_token_a_folder_is_refused(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "byte-level BPE")
    tokens = json.loads(made.to_str())
    tokens["model"]["vocab"]["<fill>"] = tokens["model"]["vocab"].pop("<pad>")
    for token in tokens["added_tokens"]:
        token["content"] = token["content"].replace("<pad>", "<fill>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    config_of(tmp_path, pad_token=None)
    with pytest.raises(ModelError, match="pad_token"):
        Tokenizer(tmp_path, 16)


def test_no_code_of_a_folder_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kind(tmp_path, "WordPiece")
    canary = tmp_path / "canary"
    (tmp_path / "custom.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Custom: pass\n")
    config_of(tmp_path, auto_map={"AutoTokenizer": [None, "custom.Custom"]})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert Tokenizer(of_model(tmp_path, "bert"), 16).encode(["."]).lengths.tolist() == [3]
    assert not canary.exists()


def test_a_folder_of_ours_needs_no_transformers(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Tokenizer(folders["WordPiece right"], 16)
    expected.save(tmp_path)
    (tmp_path / "monoxkit.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it is an error
    found = Tokenizer(tmp_path, 16)
    assert found.encode(GOLDEN_TEXTS).input_ids.tolist() == (
        expected.encode(GOLDEN_TEXTS).input_ids.tolist()
    )


def test_the_digest_of_ids_tells_tokenizations_apart_and_not_cuts(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    digests = {Tokenizer(folders[f"{kind} right"], 16).ids_digest for kind in KINDS}
    assert len(digests) == len(KINDS)
    cut = Tokenizer(folders["Unigram right"], 8).ids_digest
    assert cut == Tokenizer(folders["Unigram right"], 99).ids_digest
    made = write_kind(tmp_path, "Unigram")
    made.normalizer = None
    made.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path, 16).ids_digest != cut
    assert len(GOLDEN_PAIRS) == 2


def test_sides_and_the_padding_token_may_stand_in_the_tokenizers_file_alone(tmp_path: Path) -> None:
    made = write_kind(tmp_path, "WordPiece")
    mask = made.token_to_id("[MASK]")
    made.enable_padding(direction="left", pad_id=mask, pad_token="[MASK]")
    made.enable_truncation(7, direction="left")
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    tokenizer = Tokenizer(tmp_path, 6)
    assert tokenizer.padding == Padding(mask, "left")
    text = GOLDEN_TEXTS[0]
    made.no_truncation()
    made.no_padding()
    whole = made.encode(text).ids
    # From the left, and at the cut that was asked for, not at the file's.
    assert tokenizer.encode([text]).input_ids.tolist() == [whole[0], *whole[-5:]]


def test_ids_are_counted_to_the_largest_where_some_are_missing(tmp_path: Path) -> None:
    write_kind(tmp_path, "WordPiece")
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = saved["model"]["vocab"]
    whole = Tokenizer(of_model(tmp_path, "bert"), 16).num_ids
    assert whole == max(vocabulary.values()) + 1
    last = max(vocabulary, key=lambda token: vocabulary[token])
    vocabulary[last] = 5000
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    (tmp_path / "monoxkit.json").write_text("{}")  # ours: taken as it stands
    assert Tokenizer(tmp_path, 16).num_ids == 5001
