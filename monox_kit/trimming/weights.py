"""A model with fewer rows of word embeddings: written, opened again and compared with the whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from monox_kit.data import Document, Int64s
from monox_kit.durable import write_json
from monox_kit.errors import ModelError
from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.files import as_model_errors
from monox_kit.models.folder import CONFIG_FILE, ModelFolder, open_folder
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS, tokenize
from monox_kit.models.sizes import parameter_bytes
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import (
    load_classifier,
    load_encoder,
    model_inputs,
    save_classifier,
)

_Change: TypeAlias = Callable[[int], int]

_SIZE = re.compile(r"(?!type_)(\w+_)?vocab_size")
_TOKEN = re.compile(r"\w+_token_ids?|(bos|eos|pad|unk|mask|sep|cls)_(index|id)")


def config_ids(config: Mapping[str, Any], num_ids: int) -> set[int]:
    """The ids of tokens that a configuration names, wherever they stand in it.

    Args:
        config: the parsed `config.json`.
        num_ids: V; others are of no token.
    """
    found: set[int] = set()

    def note(id: int) -> int:
        if 0 <= id < num_ids:
            found.add(id)
        return id

    _changed(config, lambda size: size, note)
    return found


def write_trimmed(
    source: ModelFolder,
    tokenizers: tuple[Tokenizer, Tokenizer],
    old_ids: Int64s,
    documents: Sequence[Document],
    folder: Path,
) -> dict[str, tuple[int, int]]:
    """Write the trimmed model into a folder under construction, all but its record.

    Args:
        source: the whole model's folder.
        tokenizers: the whole model's and the trimmed one's.
        old_ids: [V] int64, the rows of the word embeddings that are kept, in their new order.
        documents: whose tokens all survive; both models' outputs for them are compared.
        folder: where to.

    Returns:
        The bytes before and after of `embedding` and `layers`, in float32.

    Raises:
        ModelError: the word embeddings cannot be told or cut, or the outputs differ.
    """
    model, new = _opened(source)
    expected = _outputs(model, tokenizers[0], documents)
    before = parameter_bytes(model)
    num_rows = model.get_input_embeddings().num_embeddings
    step = "Models of this kind cannot be trimmed."
    with as_model_errors(source.path, "a model whose word embeddings can be cut", step):
        _keep_rows(model, old_ids)
    save_classifier(model, tokenizers[1], folder, without=new)
    _write_config(folder, num_rows, old_ids)
    after = parameter_bytes(model)
    del model
    model, _ = _opened(open_folder(str(folder.absolute())))
    for one, other in zip(expected, _outputs(model, tokenizers[1], documents), strict=True):
        if not torch.equal(one, other):
            raise ModelError(
                f"{source.path}: the trimmed model's outputs are off by up to "
                f"{(one - other).abs().max().item():.2e} for texts whose tokens all survive, and "
                f"they must be the same. {step}"
            )
    return {part: (before[part], after[part]) for part in before}


def _opened(folder: ModelFolder) -> tuple[Any, frozenset[str]]:
    """The model in evaluation mode, and the parameters that its folder has no weights for."""
    if folder.has_head:
        return load_classifier(folder).model, frozenset()
    return load_encoder(folder)


def _keep_rows(model: Any, old_ids: Int64s) -> None:
    """Keep these rows of the word embeddings, in this order, also where they are tied."""
    rows = model.get_input_embeddings().weight.detach()[torch.from_numpy(old_ids)].clone()
    # It knows which modules share the embeddings, and keeps the first rows.
    model.resize_token_embeddings(len(old_ids))
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(rows)


def _outputs(model: Any, tokenizer: Tokenizer, documents: Sequence[Document]) -> list[torch.Tensor]:
    """Logits, or a bare encoder's last states, of each batch of the documents."""
    if not documents:
        return []
    encoded = tokenize(tokenizer, documents).encoded
    found = []
    for rows in plan_batches(encoded.lengths, DEFAULT_BATCH_TOKENS):
        inputs = model_inputs(model, pad_batch(encoded, rows, tokenizer.padding), "cpu")
        with torch.inference_mode():
            found.append(model(**inputs)[0])
    return found


def _write_config(folder: Path, num_rows: int, old_ids: Int64s) -> None:
    """Put the new size and ids into `config.json`, wherever they stand in it."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    new = {int(old): at for at, old in enumerate(old_ids)}
    changed = _changed(
        config,
        lambda size: len(new) if size == num_rows else size,
        lambda id: new.get(id, id),
    )
    write_json(folder / CONFIG_FILE, changed)


def _changed(value: Any, size: _Change, token: _Change, key: str = "") -> Any:
    """A configuration, or the value of a key in it, with other sizes of vocabularies and ids."""
    if isinstance(value, dict):
        return {name: _changed(part, size, token, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_changed(part, size, token, key) for part in value]
    if type(value) is int and _SIZE.fullmatch(key):
        return size(value)
    return token(value) if type(value) is int and _TOKEN.fullmatch(key) else value
