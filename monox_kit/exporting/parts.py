"""How many bytes each part of a bundle has, and had in the model that was exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from monox_kit.exporting.embeddings import embedding_bytes
from monox_kit.models.folder import FP32_FILE, ONNX_DATA_FILE, ONNX_FILE, ModelFolder, open_folder
from monox_kit.models.sizes import parameter_bytes, tokenizer_bytes

# By part, before and after.
Parts: TypeAlias = Mapping[str, tuple[int, int]]


def model_parts(folder: ModelFolder, model: Any) -> dict[str, int]:
    """The bytes of a PyTorch model by part, its parameters as they are loaded."""
    return {**parameter_bytes(model), "tokenizer": tokenizer_bytes(folder)}


def bundle_parts(before: Mapping[str, int], folder: Path) -> Parts:
    """The bytes of a bundle by part, beside those of the model that it is of.

    Args:
        before: see `model_parts`.
        folder: the bundle under construction; the record and the card, which name the sizes, are
            not yet there and do not count.
    """
    graph = _size(folder, ONNX_FILE) + _size(folder, ONNX_DATA_FILE)
    after = {
        "embedding": embedding_bytes(folder),
        "layers": graph - embedding_bytes(folder),
        "tokenizer": tokenizer_bytes(open_folder(str(folder.absolute()))),
        "fp32 graph": _size(folder, FP32_FILE) + _size(folder, f"{FP32_FILE}.data"),
    }
    whole = sum(path.stat().st_size for path in folder.iterdir())
    after["rest"] = whole - sum(after.values())
    found = {part: (before.get(part, 0), num_bytes) for part, num_bytes in after.items()}
    return {part: sizes for part, sizes in found.items() if any(sizes)}


def parts_table(parts: Parts) -> str:
    """The parts as a table of a model card, in MB."""
    lines = ["", "| part | MB in PyTorch | MB here |", "|---|---|---|"]
    rows = {**parts, "all": tuple(map(sum, zip(*parts.values())))}
    lines += [
        f"| {part} | {old / 1e6:.1f} | {new / 1e6:.1f} |" for part, (old, new) in rows.items()
    ]
    return "\n".join(lines) + "\n"


def _size(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size if (folder / name).is_file() else 0
