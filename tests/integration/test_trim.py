"""Trimming: the small model is the large one for every text whose tokens all survive."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

import monox_kit as mk
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, ModelError
from monox_kit.models.folder import open_folder
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.models.torch_backend import load_encoder, new_classifier
from monoxkit_cli.app import main
from tests.tiny_families import _BART, FAMILIES, write_family
from tests.tiny_models import LABELS, bert_classifier, bert_encoder, write_jsonl
from tests.tiny_tokenizers import write_kind

TEXTS = {
    "en": [*GOLDEN_TEXTS[:2], GOLDEN_TEXTS[22]],
    "de": GOLDEN_TEXTS[2:3],
    "ja": GOLDEN_TEXTS[14:15],
}
KINDS = ("WordPiece", "byte-level BPE", "Unigram")
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}


def xlm_roberta(folder: Path) -> None:
    """XLM-R in small: <s> <pad> </s> <unk> first, <mask> last, and rows that no token has."""
    write_kind(folder, "Unigram")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"].append(["<mask>", 0.0])
    size = len(content["model"]["vocab"])
    mask = {**content["added_tokens"][0], "id": size - 1, "content": "<mask>", "lstrip": True}
    content["added_tokens"].append(mask)
    path.write_text(json.dumps(content))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "mask_token": "<mask>"}))
    torch.manual_seed(2)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": dict(zip(LABELS, range(3)))}
    model_config = XLMRobertaConfig(
        vocab_size=size + 5, pad_token_id=1, type_vocab_size=1, **_SMALL, **names
    )
    model = XLMRobertaForSequenceClassification(model_config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(str(folder))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "WordPiece": lambda folder: write_family(folder, "bert"),
    "byte-level BPE": lambda folder: write_family(folder, "roberta"),
    "Unigram": xlm_roberta,
}


def write_corpus(folder: Path) -> list[str]:
    """A file of each language."""
    return [
        str(write_jsonl(folder / f"text.{language}.jsonl", [{"text": text} for text in texts]))
        for language, texts in TEXTS.items()
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module", params=KINDS)
def trimmed(
    request: pytest.FixtureRequest, corpus: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, mk.TrimSummary]:
    """A model's folder, its trimmed one, and the summary."""
    folder = tmp_path_factory.mktemp("trim")
    (folder / "whole").mkdir()
    WRITERS[request.param](folder / "whole")
    summary = mk.trim(str(folder / "whole"), corpus=corpus, out=folder / "small", max_length=64)
    return folder / "whole", folder / "small", summary


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Pieces of the corpus in another order, some with characters that it does not have."""
    source = " ".join(text for texts in TEXTS.values() for text in texts)
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(generator.randint(1, 8)):
            start = generator.randrange(len(source))
            parts.append(source[start : start + generator.randint(1, 9)])
            if generator.random() < 0.05:
                parts.append(generator.choice(("☃", "\U000118a0", "Ω", " ", "字")))
        texts.append(generator.choice(("", " ")).join(parts) or ".")
    return texts


def tokens_of(folder: Path, texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[str]]:
    """Token strings as transformers makes them."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return [
        tokenizer(text, None if pairs is None else pairs[row]).tokens()
        for row, text in enumerate(texts)
    ]


@pytest.mark.parametrize("with_pairs", [False, True])
def test_texts_whose_tokens_survive_have_the_same_tokens_and_logits(
    trimmed: tuple[Path, Path, mk.TrimSummary], with_pairs: bool
) -> None:
    whole, small, _ = trimmed
    texts = random_texts(400)
    pairs = random_texts(400, seed=1) if with_pairs else None
    before, after = tokens_of(whole, texts, pairs), tokens_of(small, texts, pairs)
    vocabulary = Tokenizer.from_file(str(small / "tokenizer.json")).get_vocab()
    pieces = Tokenizer.from_file(str(whole / "tokenizer.json")).get_vocab()
    # Unigram calls the unknown token what it reads there.
    survive = [
        row
        for row, tokens in enumerate(before)
        if all(token in vocabulary or token not in pieces for token in tokens)
    ]
    assert 100 < len(survive) < 400
    assert [before[row] for row in survive] == [after[row] for row in survive]
    reader = AutoTokenizer.from_pretrained(str(whole))
    has_unknown = [reader.unk_token_id in reader(texts[row])["input_ids"] for row in survive]
    assert any(has_unknown) == (type(reader.backend_tokenizer.model) is not models.BPE)
    documents = [
        Document(row=at, id=str(at), text=texts[row], text_pair=pairs[row] if pairs else None)
        for at, row in enumerate(survive)
    ]
    logits = [
        score(loaded.classifier, loaded.tokenizer, documents).logits
        for loaded in (load_model(str(folder), max_length=64) for folder in (whole, small))
    ]
    assert len(np.unique(logits[0], axis=0)) > 50
    np.testing.assert_array_equal(logits[0], logits[1])


def test_the_folder_has_what_is_left_and_nothing_else(
    trimmed: tuple[Path, Path, mk.TrimSummary],
) -> None:
    whole, small, summary = trimmed
    old, new = (json.loads((folder / "tokenizer.json").read_text()) for folder in (whole, small))
    before, after = (Tokenizer.from_str(json.dumps(each)).get_vocab() for each in (old, new))
    assert sorted(after.values()) == list(range(summary.num_tokens))
    assert after.keys() < before.keys()
    assert summary.num_tokens < 0.7 * summary.num_tokens_before
    # Special tokens keep their order, and their ids but for those that were behind the end.
    special = sorted((token["id"], token["content"]) for token in old["added_tokens"])
    kept = [after[token] for _, token in special]
    assert kept == sorted(kept)
    for (id, token), now in zip(special, kept):
        assert now == id if id < 6 else now == summary.num_tokens - 1, token
    config = json.loads((small / "config.json").read_text())
    assert config["vocab_size"] == summary.num_tokens
    assert config["pad_token_id"] == AutoTokenizer.from_pretrained(str(small)).pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(str(whole))
    other = AutoModelForSequenceClassification.from_pretrained(str(small))
    sizes = {name: value.shape for name, value in other.state_dict().items()}
    for name, value in model.state_dict().items():
        if "word_embeddings" in name:
            assert sizes[name] == (summary.num_tokens, 32)
        else:
            assert torch.equal(value, other.state_dict()[name]), name
    parts = summary.bytes
    assert parts["embedding"][1] == 4 * 32 * summary.num_tokens
    assert parts["layers"][0] == parts["layers"][1]
    assert parts["tokenizer"][1] < parts["tokenizer"][0]


def test_the_record_says_what_was_trimmed_for_what(
    trimmed: tuple[Path, Path, mk.TrimSummary], corpus: list[str]
) -> None:
    whole, small, summary = trimmed
    record = json.loads((small / "monoxkit.json").read_text())
    source = open_folder(str(whole))
    assert record["labels"]["names"] == list(LABELS)
    assert record["max_length"] == 64
    run = record["provenance"]["run"]
    assert (run["model_digest"], run["coverage"]) == (source.model_digest, 1.0)
    assert record["provenance"]["versions"]["monoxkit"] == mk.__version__
    # By language: an oracle that counts with transformers' tokenizers.
    vocabulary = Tokenizer.from_file(str(small / "tokenizer.json")).get_vocab()
    tokenizer = AutoTokenizer.from_pretrained(str(whole))
    assert list(record["checks"]["languages"]) == sorted(TEXTS)
    for language, texts in TEXTS.items():
        found = record["checks"]["languages"][language]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        flat = [id for each in ids for id in each]
        assert found["num_rows"] == found["num_same_rows"] == len(texts)
        assert found["num_tokens"] == found["num_kept_tokens"] == len(set(flat))
        assert found["coverage"] == 1
        assert found["tokens_per_text_before"] == found["tokens_per_text_after"]
        assert found["tokens_per_text_before"] == pytest.approx(len(flat) / len(texts))
        unknown = flat.count(tokenizer.unk_token_id) / len(flat)
        assert found["unknown_before"] == found["unknown_after"] == pytest.approx(unknown)
        assert set(tokenizer.convert_ids_to_tokens(flat)) <= vocabulary.keys()
    assert summary.num_rows_compared == sum(map(len, TEXTS.values()))


def test_a_finished_run_returns_at_once_and_another_is_refused(
    trimmed: tuple[Path, Path, mk.TrimSummary], corpus: list[str], tmp_path: Path
) -> None:
    whole, small, summary = trimmed
    stamp = (small / "model.safetensors").stat().st_mtime_ns
    again = mk.trim(str(whole), corpus=corpus, out=small, max_length=64)
    assert again == mk.TrimSummary(**{**vars_of(summary), "reused": True})
    assert (small / "model.safetensors").stat().st_mtime_ns == stamp
    damaged = Path(shutil.copytree(small, tmp_path / "damaged"))
    with (damaged / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    with pytest.raises(ModelError, match=r"damaged.*model_digest"):
        mk.trim(str(whole), corpus=corpus, out=damaged, max_length=64)
    with pytest.raises(ConfigError, match=r"`coverage`.*1\.0 then, 0\.9 now"):
        mk.trim(str(whole), corpus=corpus, out=small, max_length=64, coverage=0.9)
    with pytest.raises(ConfigError, match="corpus"):
        mk.trim(str(whole), corpus=corpus[:1], out=small, max_length=64)
    with pytest.raises(ConfigError, match=str(whole)):
        mk.trim(str(whole), corpus=corpus, out=whole)


def vars_of(summary: mk.TrimSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in type(summary).__dataclass_fields__}


def test_classes_without_names_are_named(corpus: list[str], tmp_path: Path) -> None:
    whole = bert_classifier(tmp_path / "whole", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    mk.trim(str(whole), corpus=corpus, out=tmp_path / "small", label_names=LABELS)
    assert mk.load(str(tmp_path / "small")).labels.names == LABELS
    with pytest.raises(ConfigError, match="label_names"):
        mk.trim(str(whole), corpus=corpus, out=tmp_path / "small")


def test_less_coverage_keeps_the_frequent_tokens_of_each_language(
    corpus: list[str], tmp_path: Path
) -> None:
    xlm_roberta(tmp_path / "whole")
    summary = mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small", coverage=0.8)
    for found in summary.languages.values():
        assert 0.8 <= found.coverage < 1
        assert found.num_kept_tokens < found.num_tokens
        assert found.num_same_rows < found.num_rows
    small = AutoTokenizer.from_pretrained(str(tmp_path / "small"))
    for language, found in summary.languages.items():
        ids = [id for text in TEXTS[language] for id in small(text)["input_ids"][1:-1]]
        assert found.tokens_per_text_after == len(ids) / found.num_rows
        assert found.unknown_after == ids.count(small.unk_token_id) / len(ids)
    assert any(found.unknown_after > found.unknown_before for found in summary.languages.values())
    # The frequent tokens are kept: no dropped one occurs more often than a kept one.
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "whole"))
    kept = Tokenizer.from_file(str(tmp_path / "small" / "tokenizer.json")).get_vocab().keys()
    tokens = [token for text in TEXTS["ja"] for token in tokenizer.tokenize(text)]
    dropped = max(tokens.count(token) for token in tokens if token not in kept)
    assert dropped == 1 < max(map(tokens.count, kept))


def test_an_encoder_is_trimmed_before_it_is_trained(corpus: list[str], tmp_path: Path) -> None:
    # Without a pooler, and with a head of another task, as pretrained encoders come.
    size = write_kind(tmp_path / "whole", "byte-level BPE").get_vocab_size()
    torch.manual_seed(4)
    config = RobertaConfig(vocab_size=size, pad_token_id=1, type_vocab_size=1, **_SMALL)
    RobertaForMaskedLM(config).save_pretrained(str(tmp_path / "whole"))
    mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    folder = open_folder(str(tmp_path / "small"))
    assert folder.record is not None and folder.record.labels is None
    assert not folder.has_head
    _, missing = load_encoder(folder)
    assert missing and all(".pooler." in f".{name}" for name in missing)
    labels = LabelSet(LABELS)
    first, second = (
        new_classifier(open_folder(str(tmp_path / name)), labels, seed=3).eval()
        for name in ("whole", "small")
    )
    for text in (text for texts in TEXTS.values() for text in texts):
        inputs = [
            AutoTokenizer.from_pretrained(str(tmp_path / name))(text, return_tensors="pt")
            for name in ("whole", "small")
        ]
        with torch.inference_mode():
            assert torch.equal(first(**inputs[0]).logits, second(**inputs[1]).logits)
    # With one, it is kept.
    bert_encoder(tmp_path / "bert")
    mk.trim(str(tmp_path / "bert"), corpus=corpus, out=tmp_path / "bert-small")
    assert load_encoder(open_folder(str(tmp_path / "bert-small")))[1] == frozenset()


def test_tied_embeddings_and_sizes_in_several_places(corpus: list[str], tmp_path: Path) -> None:
    size = write_kind(tmp_path / "whole", "byte-level BPE").get_vocab_size()
    names = {"id2label": dict(enumerate(LABELS)), "label2id": dict(zip(LABELS, range(3)))}
    torch.manual_seed(5)
    config = BartConfig(vocab_size=size, **_BART, **names)
    config.teacher = {"vocab_size": size, "mask_token_id": 4, "type_vocab_size": size}
    BartForSequenceClassification(config).save_pretrained(str(tmp_path / "whole"))
    summary = mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["vocab_size"] == config["teacher"]["vocab_size"] == summary.num_tokens < size
    assert config["teacher"]["type_vocab_size"] == size
    assert (config["teacher"]["mask_token_id"], config["eos_token_id"]) == (4, 2)
    model = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "small"))
    tied = [model.model.shared, model.model.encoder.embed_tokens, model.model.decoder.embed_tokens]
    assert {each.weight.data_ptr() for each in tied} == {tied[0].weight.data_ptr()}
    assert tied[0].weight.shape[0] == summary.num_tokens
    assert summary.num_rows_compared == sum(map(len, TEXTS.values()))  # the logits are the same


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trimmed(family: str, corpus: list[str], tmp_path: Path) -> None:
    write_family(tmp_path / "whole", family)
    summary = mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    assert summary.bytes["embedding"][1] < 0.7 * summary.bytes["embedding"][0]
    assert summary.bytes["layers"][0] == summary.bytes["layers"][1]
    documents = [
        Document(row=row, id=str(row), text=text)
        for row, text in enumerate(text for texts in TEXTS.values() for text in texts)
    ]
    logits = [
        score(loaded.classifier, loaded.tokenizer, documents).logits
        for loaded in (load_model(str(tmp_path / name)) for name in ("whole", "small"))
    ]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_added_tokens_stay(corpus: list[str], tmp_path: Path) -> None:
    write_family(tmp_path / "whole", "bert")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "whole"))
    tokenizer.add_tokens([AddedToken("<price>"), AddedToken("größer", single_word=True)])
    tokenizer.save_pretrained(str(tmp_path / "whole"))
    model = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "whole"))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(str(tmp_path / "whole"))
    summary = mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    small = AutoTokenizer.from_pretrained(str(tmp_path / "small"))
    assert small.convert_tokens_to_ids(["<price>", "größer"]) == [
        summary.num_tokens - 2,
        summary.num_tokens - 1,
    ]
    text = "late<price> größer seller größerer"
    assert small.tokenize(text) == tokenizer.tokenize(text)


def test_a_tokenizer_of_another_kind_is_refused(corpus: list[str], tmp_path: Path) -> None:
    write_family(tmp_path / "whole", "bert")
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "late": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(str(tmp_path / "whole"))
    with pytest.raises(ModelError, match="WordLevel"):
        mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_model_that_changes_is_refused(
    corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path / "whole", "bert")
    monkeypatch.setattr("monox_kit.trimming.weights._keep_rows", keep_the_first)
    with pytest.raises(ModelError, match=r"whole.*outputs are off by up to \d"):
        mk.trim(str(tmp_path / "whole"), corpus=corpus, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def keep_the_first(model: Any, old_ids: np.ndarray) -> None:
    model.resize_token_embeddings(len(old_ids))


def test_the_command_shows_languages_and_sizes(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_family(tmp_path / "whole", "bert")
    asked = ["trim", str(tmp_path / "whole"), "--corpus", *corpus, "--out", str(tmp_path / "small")]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["languages"]) == sorted(TEXTS)
    assert main(asked) == 0
    page = capsys.readouterr().out
    for shown in (*TEXTS, f"{found['num_tokens']:,} of", "embedding", "trimmed before"):
        assert shown in page
