"""What of `config.json` transformers is shown: nothing that names files, code or kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monox_kit.errors import ModelError

# Where to find the model, code of its own, how it is run and what it returns: all ours to say.
_DROPPED = {
    "auto_map", "chat_template", "configuration_files", "custom_pipelines", "device_map",
    "distributed_config", "fusion_config", "init_inputs", "kernel_config", "name_or_path",
    "_name_or_path", "return_dict", "torchscript", "use_kernels", "use_return_dict",
}  # fmt: skip
_DROPPED_FORM = re.compile(r".*(_implementation|_implementation_internal)")
# Dropped where the value is a text: `drop_path` is a number.
_PLACE_FORM = re.compile(r"(.*_)?(file|files|path|paths|dir|folder|url|repo|repo_id)")
_REFUSED = {
    "transformers_weights": "names the file of the weights. Rename that file to model.safetensors "
    "and remove the key.",
    "quantization_config": "asks for weights of another package's form. Save the model with "
    "plain weights.",
}
# What is built for each of these takes time and memory before any weight is read.
_LIMITS = (
    (re.compile(r".*(position|n_ctx).*"), 1 << 24),
    (re.compile(r"num_(labels|classes)"), 1 << 20),
    (re.compile(r"(num|n)_.*(layer|block|group|expert).*|.*_layers|depths?|block_\w*s"), 1024),
)


def shown_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The configuration without the keys that name files, code or implementations.

    Raises:
        ModelError: it asks for something that cannot be left out, or that no memory holds.
    """
    for key, reason in _REFUSED.items():
        if config.get(key) is not None:
            raise ModelError(f"{path}: the key {key} {reason}")
    for key, number in _numbers(config):
        limit = next((limit for form, limit in _LIMITS if form.fullmatch(key)), None)
        if limit is not None and number > limit:
            raise ModelError(
                f"{path}: expected {key} of at most {limit}, found {number}. Restore the file."
            )
    shown: dict[str, Any] = _without_places(config)
    return shown


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_places(part) for key, part in value.items() if not _is_dropped(key, part)
        }
    return [_without_places(part) for part in value] if isinstance(value, list) else value


def _is_dropped(key: str, value: Any) -> bool:
    if key in _DROPPED or _DROPPED_FORM.fullmatch(key):
        return True
    return bool(_PLACE_FORM.fullmatch(key)) and isinstance(value, str | list | dict)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """(key, number) of every number, in lists and objects too."""
    if isinstance(value, dict):
        for inner, part in value.items():
            yield from _numbers(part, inner)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
