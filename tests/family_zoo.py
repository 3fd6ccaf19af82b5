"""Tiny random classifiers of transformers' families, each with the tokenizer of `tiny_models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.tiny_models import LABELS, write_tokenizer

# What most families call these sizes.
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
_ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 80,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1}
_T5 |= {"num_heads": 2, "decoder_start_token_id": 0}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "head_dim": 16}

# By model_type, what its configuration takes beside the token ids. A key that a family's own class
# does not know is an ordinary attribute of it, and harmless.
FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {**_SIZES, "embedding_size": 16},
    "bert": _SIZES,
    "big_bird": {**_SIZES, "attention_type": "original_full"},
    "camembert": _SIZES,
    "convbert": {**_SIZES, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1},
    "data2vec-text": _SIZES,
    "deberta": {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        **_SIZES,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "position_biased_input": False,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {**_SIZES, "embedding_size": 16},
    "ernie": _SIZES,
    "esm": {**_SIZES, "position_embedding_type": "rotary", "token_dropout": False},
    "eurobert": _DECODER,
    "fnet": _SIZES,
    "funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "block_sizes": [1, 1]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 80},
    "ibert": _SIZES,
    "longformer": {**_SIZES, "attention_window": [8, 8]},
    "luke": {**_SIZES, "entity_vocab_size": 8, "entity_emb_size": 16},
    "megatron-bert": _SIZES,
    "mobilebert": {
        **_SIZES,
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "num_feedforward_networks": 1,
    },
    "modernbert": {**_SIZES, "global_attn_every_n_layers": 2, "local_attention": 8},
    "mpnet": _SIZES,
    "nomic_bert": _DECODER,
    "nystromformer": {**_SIZES, "num_landmarks": 64, "segment_means_seq_len": 64},
    "rembert": {**_SIZES, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _SIZES,
    "roberta-prelayernorm": _SIZES,
    "roc_bert": {
        **_SIZES,
        "enable_pronunciation": False,
        "enable_shape": False,
        "concat_input": False,
    },
    "roformer": {**_SIZES, "embedding_size": 32},
    "squeezebert": {
        **_SIZES,
        "embedding_size": 32,
        "q_groups": 2,
        "k_groups": 2,
        "v_groups": 2,
        "post_attention_groups": 1,
        "intermediate_groups": 2,
        "output_groups": 2,
    },
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 80},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 80},
    "xlm-roberta": _SIZES,
    "xlm-roberta-xl": _SIZES,
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "xmod": {**_SIZES, "languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {**_SIZES, "use_expectation": True},
    "bart": _ENCODER_DECODER,
    "mbart": _ENCODER_DECODER,
    "bigbird_pegasus": {**_ENCODER_DECODER, "attention_type": "original_full"},
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "gpt_neo": {
        **_SIZES,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": {**_SIZES, "rotary_pct": 0.5},
    "llama": _DECODER,
    "mistral": _DECODER,
    "opt": {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "gemma2": {**_DECODER, "query_pre_attn_scalar": 16, "sliding_window": 8},
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "modernbert-decoder": {**_SIZES, "global_attn_every_n_layers": 2, "local_attention": 8},
}
# Their tokenizers make segment ids, as those of the pretrained ones do.
_WITH_TOKEN_TYPES = (
    "albert",
    "bert",
    "big_bird",
    "convbert",
    "deberta",
    "deberta-v2",
    "electra",
    "ernie",
    "fnet",
    "funnel",
    "megatron-bert",
    "mobilebert",
    "nystromformer",
    "rembert",
    "roc_bert",
    "roformer",
    "squeezebert",
    "xlnet",
)
_LEFT_PADDED = ("xlnet",)
# Of random weights. Families start from 0.02, which gives every text of so small a model one label.
_SPREAD = 0.2


def family_classifier(
    folder: Path,
    family: str,
    seed: int = 0,
    *,
    token_types: bool | None = None,
    padding_side: str | None = None,
    changed: dict[str, Any] | None = None,
) -> Path:
    """A tiny classifier of `LABELS` with random weights.

    Args:
        folder: to write.
        family: a key of `FAMILIES`.
        seed: of the weights.
        token_types: whether its tokenizer makes segment ids; None for what its family's does.
        padding_side: of its tokenizer; None for its family's.
        changed: settings of its configuration in place of those of `FAMILIES` and of the tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(
        folder,
        token_types=family in _WITH_TOKEN_TYPES if token_types is None else token_types,
        padding_side=padding_side or ("left" if family in _LEFT_PADDED else "right"),
    )
    # Ids as `write_tokenizer` gives them: [PAD] 0, [CLS] 2, [SEP] 3.
    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: index for index, name in enumerate(LABELS)},
        "initializer_range": _SPREAD,
        "init_std": _SPREAD,
    }
    config = AutoConfig.for_model(family, **{**settings, **FAMILIES[family], **(changed or {})})
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(str(folder))
    return folder
