"""The bytes of a model by its parts."""

from __future__ import annotations

from typing import Any

from monox_kit.models.folder import CONFIG_FILE, ModelFolder


def parameter_bytes(model: Any) -> dict[str, int]:
    """The bytes of a transformers model's parameters as loaded: `embedding` and `layers`."""
    embedding: int = model.get_input_embeddings().weight.nbytes
    total = sum(each.nbytes for each in model.parameters())
    return {"embedding": embedding, "layers": total - embedding}


def tokenizer_bytes(folder: ModelFolder) -> int:
    """The bytes of a folder's tokenizer files."""
    return sum(file.num_bytes for name, file in folder.files.items() if name != CONFIG_FILE)
