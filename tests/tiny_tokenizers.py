"""Tiny tokenizers of each algorithm, trained on golden texts, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from monox_kit.models.golden import GOLDEN_TEXTS

KINDS = ("WordPiece", "byte-level BPE", "Unigram", "XLNet's Unigram")


def write_kind(folder: Path, kind: str, **settings: object) -> Tokenizer:
    """Save a tokenizer of one kind; returns what the `tokenizers` package made."""
    folder.mkdir(parents=True, exist_ok=True)
    make = {
        "WordPiece": _word_pieces,
        "byte-level BPE": _byte_pairs,
        "Unigram": _unigram,
        "XLNet's Unigram": _xlnet,
    }[kind]
    tokenizer, names = make()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **settings)
    fast.save_pretrained(str(folder))
    return tokenizer


def _word_pieces() -> tuple[Tokenizer, dict[str, object]]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(GOLDEN_TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[
            (name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")
        ]
    )  # fmt: skip
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return tokenizer, {**names}


def _byte_pairs() -> tuple[Tokenizer, dict[str, object]]:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(GOLDEN_TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return tokenizer, {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _trained_unigram() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<sep>", "<cls>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(GOLDEN_TEXTS, trainer)
    return tokenizer


def _unigram() -> tuple[Tokenizer, dict[str, object]]:
    tokenizer = _trained_unigram()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer, {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _xlnet() -> tuple[Tokenizer, dict[str, object]]:
    tokenizer = _trained_unigram()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 4), ("<cls>", 5)],
    )
    return tokenizer, {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "sep_token": "<sep>",
        "cls_token": "<cls>",
        "padding_side": "left",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
