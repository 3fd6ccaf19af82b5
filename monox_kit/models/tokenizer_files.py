"""A model folder's tokenizer files: what they say, read without transformers, and writing them.

`tokenizer.json` is the tokenizer. What is not in it, such as the padding token, stands in
`tokenizer_config.json` and `special_tokens_map.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from monox_kit.durable import write_file, write_json
from monox_kit.errors import ModelError
from monox_kit.models.files import ModelFile, as_model_errors, find_file, read_json

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
# What the tokenizer before there was a tokenizer.json was saved as.
WORD_PIECES = "vocab.txt"
BYTE_PAIRS = ("vocab.json", "merges.txt")
SENTENCE_PIECES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
# What a tokenizer may consist of, across the families that transformers loads.
TOKENIZER_FILES = (
    *(TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, "added_tokens.json"),
    *(WORD_PIECES, *BYTE_PAIRS, *SENTENCE_PIECES),
)
# Used, and digested, only where there is no tokenizer.json: 0.1.0's digests know nothing of them.
OLDER_TOKENIZER_FILES = ("spm.model",)
_MAX_BYTES = 256 << 20  # a million pieces take 60 MB
# A class that every transformers since 4 knows and that takes tokenizer.json as it stands: 5.x's
# own name for it, TokenizersBackend, is unknown to 4.57 and so to optimum-onnx.
SAVED_CLASS = "PreTrainedTokenizerFast"

Side = Literal["left", "right"]
_SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# What padding tokens are called where no file names one, such as beside bert-base-uncased.
_USUAL_PADS = ("[PAD]", "<pad>")
# Tokenizers whose class in transformers pads on the left; their files do not say so.
_LEFT_CLASSES = ("XLNetTokenizer", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")
_LEFT_MODEL_TYPE = "xlnet"


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch is filled.

    Attributes:
        token_id: the id that fills.
        side: where it stands; models that read the last token, as XLNet does, want it on the left.
    """

    token_id: int
    side: Side = "right"


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """What a model needs to know of its tokenizer beside `tokenizer.json`.

    Attributes:
        padding: how a batch is filled.
        truncation_side: on which side long texts lose tokens.
        has_token_types: whether segment ids say anything to the model.
        special_tokens: by name, such as `cls_token`.
        split_special_tokens: whether special tokens in a text are read as plain text.
    """

    padding: Padding
    truncation_side: Side
    has_token_types: bool
    special_tokens: Mapping[str, str]
    split_special_tokens: bool = False


def find_tokenizer(folder: Path) -> dict[str, ModelFile]:
    """By name, the files of a folder's tokenizer, each of them checked.

    Raises:
        ModelError: one is not the folder's own or too large, or the tokenizer needs code.
    """
    files = {}
    for name in (*TOKENIZER_FILES, *OLDER_TOKENIZER_FILES):
        file = find_file(folder, name)
        if file is None:
            continue
        if file.num_bytes > _MAX_BYTES:
            raise ModelError(
                f"{file.shown}: expected at most {_MAX_BYTES} bytes, found {file.num_bytes}. "
                "Restore the file."
            )
        files[name] = file
    _require_no_code(files)
    return files


def digested_names(names: Collection[str]) -> list[str]:
    """Those of a folder's files that decide how texts are tokenized."""
    older = () if TOKENIZER_FILE in names else OLDER_TOKENIZER_FILES
    return [name for name in (*TOKENIZER_FILES, *older) if name in names]


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of a folder; empty where there is no file.

    Raises:
        ModelError: it holds something else.
    """
    file = find_file(folder, name)
    return {} if file is None else read_json(file)


def parse_whole(content: bytes, where: Path) -> RustTokenizer:
    """The tokenizer in a `tokenizer.json`, with the truncation and the padding that it has there.

    Args:
        content: the file's bytes: as text of Python they would take up to five times the memory.
        where: for messages.

    Raises:
        ModelError: the `tokenizers` package cannot build it.
    """
    step = "Restore the file, or save the tokenizer again."
    with as_model_errors(where, "a tokenizer that the tokenizers package reads", step):
        return RustTokenizer.from_buffer(content)


def parse_tokenizer(content: str, where: Path) -> RustTokenizer:
    """The tokenizer in the text of a `tokenizer.json`, without truncation or padding of its own.

    Raises:
        ModelError: the `tokenizers` package cannot build it.
    """
    tokenizer = parse_whole(content.encode(), where)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_settings(folder: Path, tokenizer: RustTokenizer) -> TokenizerSettings:
    """The settings of a folder, its whole tokenizer's among them.

    Special tokens that the tokenizer lacks are added to it; its truncation and padding go.

    Raises:
        ModelError: a file cannot be read, or no file names a padding token.
    """
    padding: Mapping[str, Any] = tokenizer.padding or {}
    truncation: Mapping[str, Any] = tokenizer.truncation or {}
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = read_object(folder, TOKENIZER_CONFIG_FILE)
    model = read_object(folder, "config.json")
    declared = {**read_object(folder, SPECIAL_TOKENS_FILE), **config}
    special = _special_tokens(declared)
    _add_tokens(tokenizer, config, special)
    splits = config.get("split_special_tokens") is True
    tokenizer.encode_special_tokens = splits
    names = {name: token.content for name, token in special.items()}
    pad_id = _pad_id(tokenizer, names, padding, model)
    if pad_id is None:
        raise ModelError(
            f"{folder}: no file names the padding token that a batch is filled with. Add pad_token "
            f"to {TOKENIZER_CONFIG_FILE}."
        )
    names.setdefault("pad_token", str(tokenizer.id_to_token(pad_id)))
    is_left = str(config.get("tokenizer_class", "")).removesuffix("Fast") in _LEFT_CLASSES
    is_left = is_left or model.get("model_type") == _LEFT_MODEL_TYPE
    side = _side(
        config.get("padding_side") or padding.get("direction"), "left" if is_left else "right"
    )
    return TokenizerSettings(
        padding=Padding(pad_id, side),
        truncation_side=_side(config.get("truncation_side") or truncation.get("direction")),
        has_token_types=_has_token_types(tokenizer, config, model),
        special_tokens=names,
        split_special_tokens=splits,
    )


def write_tokenizer(
    folder: Path,
    tokenizer: RustTokenizer,
    settings: TokenizerSettings,
    max_length: int,
    accepted: Collection[str] | None,
) -> None:
    """Write a tokenizer's files into a folder under construction, for every tool that reads them.

    Args:
        folder: where to.
        tokenizer: without truncation or padding.
        settings: what it does not hold.
        max_length: the cut in tokens, special tokens included.
        accepted: the inputs that the model's own code takes; None for those of any encoder.
    """
    write_file(folder / TOKENIZER_FILE, tokenizer.to_str().encode())
    types = ["token_type_ids"] if settings.has_token_types else []
    names = ["input_ids", *types, "attention_mask"]
    config: dict[str, Any] = {
        "tokenizer_class": SAVED_CLASS,
        "model_max_length": max_length,
        "padding_side": settings.padding.side,
        "truncation_side": settings.truncation_side,
        "model_input_names": [name for name in names if accepted is None or name in accepted],
        "clean_up_tokenization_spaces": False,
        **settings.special_tokens,
    }
    if settings.split_special_tokens:
        config["split_special_tokens"] = True
    write_json(folder / TOKENIZER_CONFIG_FILE, config)


def _require_no_code(files: Mapping[str, ModelFile]) -> None:
    file = files.get(TOKENIZER_CONFIG_FILE)
    if file is None:
        return
    auto_map = read_json(file).get("auto_map")
    if isinstance(auto_map, dict):
        auto_map = auto_map.get("AutoTokenizer")
    if auto_map:
        raise ModelError(
            f"{file.shown}: the tokenizer needs code of its own ({str(auto_map)[:80]}). Code of a "
            "model's folder is never run: save the tokenizer as tokenizer.json without auto_map."
        )


def _special_tokens(declared: Mapping[str, Any]) -> dict[str, AddedToken]:
    """The named special tokens, by name."""
    found = {}
    for name in (f"{each}_token" for each in _SPECIAL_NAMES):
        value = declared.get(name)
        if isinstance(value, str) and value:
            found[name] = AddedToken(value, special=True, normalized=False)
        elif isinstance(value, dict) and isinstance(value.get("content"), str):
            found[name] = _added_token(value, special=True)
    return found


def _added_token(value: Mapping[str, Any], *, special: bool) -> AddedToken:
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    chosen = {name: value[name] for name in flags if isinstance(value.get(name), bool)}
    return AddedToken(value["content"], special=special, **chosen)


def _add_tokens(
    tokenizer: RustTokenizer, config: Mapping[str, Any], special: Mapping[str, AddedToken]
) -> None:
    """Add what the folder declares and `tokenizer.json` does not have, as transformers does."""
    has = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder")
    tokens = [] if not isinstance(declared, dict) else [
        _added_token(value, special=value.get("special") is True)
        for _, value in sorted(declared.items(), key=lambda item: int(item[0]))
        if isinstance(value, dict) and isinstance(value.get("content"), str)
    ]  # fmt: skip
    for token in [*tokens, *special.values()]:
        if token.content not in has:
            has.add(token.content)
            tokenizer.add_tokens([token])


def _pad_id(
    tokenizer: RustTokenizer,
    names: Mapping[str, str],
    padding: Mapping[str, Any],
    model: Mapping[str, Any],
) -> int | None:
    """The padding token's id, by the first file that names one."""
    if "pad_token" in names:
        return tokenizer.token_to_id(names["pad_token"])
    if isinstance(padding.get("pad_token"), str):
        return tokenizer.token_to_id(padding["pad_token"])
    for token in _USUAL_PADS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return found
    found = model.get("pad_token_id")
    is_token = type(found) is int and found >= 0 and tokenizer.id_to_token(found) is not None
    return found if is_token else None


def _side(value: Any, default: Side = "right") -> Side:
    text = str(value).lower()
    if text == "left":
        return "left"
    return "right" if text == "right" else default


def _has_token_types(
    tokenizer: RustTokenizer, config: Mapping[str, Any], model: Mapping[str, Any]
) -> bool:
    """Whether segment ids say anything: the model tells segments apart, and the tokenizer does."""
    num_types = model.get("type_vocab_size")
    if isinstance(num_types, int) and num_types < 2:
        return False
    names = config.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return any(tokenizer.encode("a", "b").type_ids)
