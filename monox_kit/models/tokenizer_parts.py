"""The files of a model folder that are its tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from monox_kit.errors import ModelError
from monox_kit.models.files import ModelFile, find_file, read_json

_WHOLE_FILE = "tokenizer.json"
_SETTINGS_FILE = "tokenizer_config.json"
# What a tokenizer may consist of, across the families that transformers loads.
TOKENIZER_FILES = (
    _WHOLE_FILE,
    _SETTINGS_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
# Used, and digested, only where there is no tokenizer.json: 0.1.0's digests know nothing of them.
OLDER_TOKENIZER_FILES = ("spm.model",)
_MAX_BYTES = 256 << 20  # a million pieces take 60 MB


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
    older = () if _WHOLE_FILE in names else OLDER_TOKENIZER_FILES
    return [name for name in (*TOKENIZER_FILES, *older) if name in names]


def _require_no_code(files: Mapping[str, ModelFile]) -> None:
    file = files.get(_SETTINGS_FILE)
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
