"""The safetensors files of a PyTorch model: which they are, and the shapes in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monox_kit.errors import ModelError
from monox_kit.models.files import ModelFile, as_model_errors, find_file, read_json

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
# What `torch.compile` puts before the names of a model's parameters. transformers takes weights of
# such names for those of another model, and begins with random ones.
_COMPILED = "_orig_mod."


def find_weights(folder: Path) -> dict[str, ModelFile]:
    """By name, the files that a PyTorch model is loaded from; empty where there are none.

    One file where it is there, as transformers has it; else an index and the shards that it names.

    Raises:
        ModelError: the index names something that is no safetensors file of the folder.
    """
    if whole := find_file(folder, WEIGHTS_FILE):
        return {WEIGHTS_FILE: whole}
    index = find_file(folder, WEIGHTS_INDEX_FILE)
    if index is None:
        return {}
    return {WEIGHTS_INDEX_FILE: index} | {
        name: _shard(folder, name, index) for name in shard_names(index)
    }


def shard_names(index: ModelFile) -> list[str]:
    """The shards that an index names, in name order.

    Raises:
        ModelError: a name is no plain one of a safetensors file.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(
            f"{index.shown}: expected weight_map with a file for each tensor, found "
            f"{type(weight_map).__name__}. Save the model again."
        )
    for name in weight_map.values():
        is_plain = isinstance(name, str) and name.isprintable() and not set(name) & set("/\\")
        if not is_plain or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index.shown}: expected names of safetensors files of the folder, found "
                f"{str(name)[:80]!r}. Save the model again."
            )
    return sorted(set(weight_map.values()))


def tensor_shapes(files: Iterable[ModelFile]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in safetensors files; no weight is read.

    Raises:
        ModelError: a file is damaged, or was saved from a compiled model.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        if file.shown.suffix != ".safetensors":
            continue
        step = "The file is damaged or of another kind: restore it."
        with (
            as_model_errors(file.shown, "safetensors", step),
            safe_open(str(file.path), framework="numpy") as opened,
        ):
            tensors: Any = opened
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                if name.startswith(_COMPILED):
                    raise ModelError(
                        f"{file.shown}: the weights have the names of a compiled model "
                        f"({name[:80]!r}), which nothing loads. Save the model that was compiled: "
                        "compiled_model._orig_mod.save_pretrained(FOLDER)."
                    )
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def _shard(folder: Path, name: str, index: ModelFile) -> ModelFile:
    shard = find_file(folder, name)
    if shard is None:
        raise ModelError(
            f"{folder / name}: {index.shown.name} names this file, which is not there. Restore it."
        )
    return shard
