"""Which tokenizer a model folder means, where its files and transformers say different things.

transformers rebuilds a tokenizer by the class that it takes a folder's for; where that class is
missing or of another family, what it builds reads every word as unknown, or letter by letter. So
`tokenizer.json` is read as it stands, and the ids of golden texts are compared with transformers'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from monox_kit.durable import linked_folder
from monox_kit.errors import ModelError
from monox_kit.models.files import as_model_errors
from monox_kit.models.golden import GOLDEN_PAIRS, GOLDEN_TEXTS
from monox_kit.models.tokenizer_files import (
    BYTE_PAIRS,
    OLDER_TOKENIZER_FILES,
    SENTENCE_PIECES,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WORD_PIECES,
    TokenizerSettings,
    parse_tokenizer,
    parse_whole,
    read_object,
    read_settings,
)

# All that transformers is shown of a folder: no code, no weights, no paths in a configuration.
_OLDER_FILES = (WORD_PIECES, *BYTE_PAIRS, *SENTENCE_PIECES, *OLDER_TOKENIZER_FILES)
_SHOWN_FILES = (TOKENIZER_FILE, SPECIAL_TOKENS_FILE, "added_tokens.json", *_OLDER_FILES)
_MOST_SHOWN_IDS = 16


class Read(NamedTuple):
    """A folder's tokenizer as the `tokenizers` package runs it, and what stands beside it."""

    tokenizer: RustTokenizer
    settings: TokenizerSettings


def read_tokenizer(folder: Path, *, is_ours: bool) -> Read:
    """The tokenizer of a model folder.

    Args:
        folder: with `tokenizer.json`, or with files that transformers makes one from.
        is_ours: whether we wrote the folder: then `tokenizer.json` is what the model was used with.

    Raises:
        ModelError: there is no tokenizer, or two that differ and no way to tell which is meant.
    """
    path, step = folder / TOKENIZER_FILE, "Restore the file."
    is_made = not path.is_file()
    if is_made:
        content = _converted(folder).encode()
    else:
        with as_model_errors(path, "a file that can be read", step):
            content = path.read_bytes()
    tokenizer = parse_whole(content, folder if is_made else path)
    del content  # 17 MB of a multilingual one
    with as_model_errors(folder / TOKENIZER_CONFIG_FILE, "a tokenizer's settings", step):
        settings = read_settings(folder, tokenizer)
    if is_made or is_ours or find_spec("transformers") is None:
        return Read(tokenizer, settings)
    with as_model_errors(path, "a tokenizer that reads golden texts", step):
        return Read(_compared(folder, tokenizer), settings)


def _converted(folder: Path) -> str:
    """The `tokenizer.json` that transformers makes of older files."""
    if find_spec("transformers") is None:
        raise ModelError(
            f"{folder}: there is no {TOKENIZER_FILE}, and without the transformers package none "
            "can be made from older files. Install transformers, or save the tokenizer again."
        )
    step = "Put the tokenizer's files into the model's folder."
    with as_model_errors(folder, "a tokenizer", step):
        made: Any = _by_transformers(folder)
    if not getattr(made, "is_fast", False):
        raise ModelError(
            f"{folder}: expected a fast tokenizer, found {type(made).__name__}, which transformers "
            f"cannot make a {TOKENIZER_FILE} from. Save the tokenizer with {TOKENIZER_FILE}."
        )
    return str(made.backend_tokenizer.to_str())


def _compared(folder: Path, tokenizer: RustTokenizer) -> RustTokenizer:
    """The tokenizer that is meant: what `tokenizer.json` says, unless its settings say more."""
    try:
        made: Any = _by_transformers(folder)
    except Exception:  # a class that does not fit: nothing to compare with
        return tokenizer
    theirs = getattr(made, "backend_tokenizer", None)
    if theirs is None:
        return tokenizer
    theirs = parse_tokenizer(theirs.to_str(), folder)
    text = _first_different(tokenizer, theirs)
    older = [name for name in _OLDER_FILES if (folder / name).is_file()]
    if text is None or _agrees_with_older_files(folder, older, tokenizer):
        return tokenizer
    plain = parse_tokenizer(_by_transformers(folder, plain=True).backend_tokenizer.to_str(), folder)
    if _first_different(plain, theirs) is None:
        return theirs  # settings beside tokenizer.json, which every class follows
    if not older and _kind(tokenizer) != _kind(theirs):
        return tokenizer  # made by a class of another family
    raise ModelError(
        f"{folder}: {TOKENIZER_FILE} and transformers' {type(made).__name__} give different ids "
        f"for {text[:40]!r}: {_shown(tokenizer, text)} and {_shown(theirs, text)}. Correct "
        f"tokenizer_class in {TOKENIZER_CONFIG_FILE}, or save the tokenizer again."
    )


def _by_transformers(folder: Path, *, plain: bool = False) -> Any:
    """What transformers makes of the folder's tokenizer files; `plain` as no family's class."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with _shown_folder(folder) as shown:
            maker: Any = PreTrainedTokenizerFast if plain else AutoTokenizer
            return maker.from_pretrained(str(shown), local_files_only=True, trust_remote_code=False)
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _shown_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder with the tokenizer's files alone, and nothing that names code or paths."""
    model = read_object(folder, "config.json")
    kept = {key: model[key] for key in ("model_type", "tokenizer_class") if key in model}
    config = {
        key: value
        for key, value in read_object(folder, TOKENIZER_CONFIG_FILE).items()
        if key not in ("auto_map", "chat_template", "name_or_path") and not key.endswith("_file")
    }
    written = {"config.json": kept, TOKENIZER_CONFIG_FILE: config}
    files = {name: json.dumps(value).encode() for name, value in written.items()}
    links = {name: (folder / name).resolve() for name in _SHOWN_FILES if (folder / name).is_file()}
    with linked_folder(files, links) as shown:
        yield shown


def _first_different(one: RustTokenizer, other: RustTokenizer) -> str | None:
    """The first golden text whose ids differ; None where none do."""
    golden = (*((text, None) for text in GOLDEN_TEXTS), *GOLDEN_PAIRS)
    for text, pair in golden:
        if one.encode(text, pair).ids != other.encode(text, pair).ids:
            return text
    return None


def _kind(tokenizer: RustTokenizer) -> tuple[str, ...]:
    """The algorithm and how text is split for it: what a family's tokenizers have in common."""
    parts = (tokenizer.model, tokenizer.normalizer, tokenizer.pre_tokenizer)
    return tuple(type(part).__name__ for part in parts)


def _agrees_with_older_files(folder: Path, names: Sequence[str], tokenizer: RustTokenizer) -> bool:
    """Whether `tokenizer.json` says what the files say that it was once made from."""
    config = read_object(folder, TOKENIZER_CONFIG_FILE)
    try:
        if WORD_PIECES in names:
            older = _word_pieces(folder / WORD_PIECES, config)
        elif set(BYTE_PAIRS) <= set(names):
            older = _byte_pairs(folder, config)
        else:
            pieces = [name for name in names if name not in BYTE_PAIRS]
            return bool(pieces) and _has_sentence_pieces(folder / pieces[0], tokenizer)
    except Exception:  # files that are not what their names say agree with nothing
        return False
    return all(
        older.encode(text).ids == tokenizer.encode(text, add_special_tokens=False).ids
        for text in GOLDEN_TEXTS
        if "<" not in text  # special tokens are no part of those files
    )


def _word_pieces(path: Path, config: dict[str, Any]) -> RustTokenizer:
    """BERT's tokenizer over a `vocab.txt`, without special tokens."""
    words = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): index for index, word in enumerate(words) if word}
    tokenizer = RustTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True) is not False,
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True) is not False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_pairs(folder: Path, config: dict[str, Any]) -> RustTokenizer:
    """GPT-2's and RoBERTa's tokenizer over two files, without special tokens."""
    vocabulary, merges = (str(folder / name) for name in BYTE_PAIRS)
    tokenizer = RustTokenizer(models.BPE.from_file(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=config.get("add_prefix_space") is True
    )
    return tokenizer


def _has_sentence_pieces(path: Path, tokenizer: RustTokenizer) -> bool:
    """Whether every piece of a sentencepiece model is in the vocabulary, in the model's order."""
    from transformers.utils import sentencepiece_model_pb2_new as untyped

    proto: Any = untyped.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(path.read_bytes())
    pieces: Sequence[str] = [piece.piece for piece in proto.pieces if piece.type == 1]
    ids = [tokenizer.token_to_id(piece) for piece in pieces]
    known = [one for one in ids if one is not None]
    return len(known) == len(pieces) > 0 and known == sorted(known)


def _shown(tokenizer: RustTokenizer, text: str) -> str:
    ids = tokenizer.encode(text).ids
    more = ", ..." if len(ids) > _MOST_SHOWN_IDS else ""
    return f"[{', '.join(map(str, ids[:_MOST_SHOWN_IDS]))}{more}]"
