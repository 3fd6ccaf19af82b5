"""Tiny random classifiers of families that see padding in different ways, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    ConvBertConfig,
    FNetConfig,
    FunnelConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    SqueezeBertConfig,
    XLNetConfig,
)

from tests.tiny_models import LABELS
from tests.tiny_tokenizers import write_kind

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 80,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_FUNNEL = {"block_sizes": [1, 1], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64}
_ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
}
# By name: the configuration's class, its settings, and the kind of tokenizer.
FAMILIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "bert": (BertConfig, _SMALL, "WordPiece"),
    "roberta": (RobertaConfig, {**_SMALL, "pad_token_id": 1}, "byte-level BPE"),
    "squeezebert": (SqueezeBertConfig, {**_SMALL, "embedding_size": 32}, "WordPiece"),
    "funnel": (FunnelConfig, {**_FUNNEL, "num_decoder_layers": 1}, "WordPiece"),
    "modernbert": (
        ModernBertConfig,
        {**_SMALL, "pad_token_id": 1, "rope_parameters": _ROPE},
        "byte-level BPE",
    ),
    "bart": (BartConfig, _BART, "byte-level BPE"),
    "gpt2": (
        GPT2Config,
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 80, "pad_token_id": 1},
        "byte-level BPE",
    ),
    "xlnet": (
        XLNetConfig,
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "pad_token_id": 1},
        "XLNet's Unigram",
    ),
    # These see the padding of a batch.
    "fnet": (
        FNetConfig,
        {key: value for key, value in _SMALL.items() if key != "num_attention_heads"},
        "WordPiece",
    ),
    "convbert": (ConvBertConfig, {**_SMALL, "embedding_size": 32, "pad_token_id": 0}, "WordPiece"),
}
PADDING_SENSITIVE = ("fnet", "convbert")


def write_family(folder: Path, family: str, seed: int = 0) -> Any:
    """Save a classifier of `LABELS` with its tokenizer; returns the model."""
    make, settings, kind = FAMILIES[family]
    names = ["input_ids", "token_type_ids"] if family == "fnet" else None
    size = write_kind(folder, kind, **({"model_input_names": names} if names else {}))
    torch.manual_seed(seed)
    config = make(
        vocab_size=size.get_vocab_size(),
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
        **settings,
    )
    model: Any = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(str(folder))
    return model
