"""A PyTorch model as its configuration describes it: every parameter's shape, and no memory.

transformers is shown nothing of `config.json` that names files, code or kernels. It builds the
model's modules on the `meta` device, which say, for every architecture and without a list of names,
how many positions there are, which parameters are the head's, and whether the weights of a folder
can fill the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from monox_kit.errors import ModelError
from monox_kit.models.files import as_model_errors

# While transformers makes a model it replaces methods of its classes, such as `tie_weights`, and
# puts back what it found: two threads at once leave weights untied for the rest of the process.
TRANSFORMERS_LOCK = Lock()

_POSITION_TABLE = re.compile(r"pos(ition)?s?_?embed|embed\w*_pos|\bwpe$")
# New heads, poolers and tables that a folder may lack; beyond, weights and configuration differ.
_MAX_EXCESS = 1 << 24
_MAX_NEW = 100
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


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a configuration describes.

    Attributes:
        shapes: of each parameter, by its name.
        prefix: what the names of the encoder's parameters begin with.
        max_positions: the longest input in tokens; None where no table limits it.
        num_labels: C, the classes that transformers gives it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    prefix: str
    max_positions: int | None
    num_labels: int

    @property
    def head(self) -> frozenset[str]:
        """The names of the parameters that are not the encoder's."""
        return frozenset(name for name in self.shapes if not name.startswith(self.prefix))


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


def read_blueprint(
    config: Mapping[str, Any], path: Path, tensors: Mapping[str, tuple[int, ...]]
) -> Blueprint:
    """The classifier that a configuration describes.

    Raises:
        ModelError: transformers knows no such model, or the weights cannot fill it.
    """
    import torch  # here, so that a missing package is told as such
    from transformers import AutoConfig, AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification
    settings = dict(config)
    step = "Check model_type and the sizes in config.json."
    with as_model_errors(path, "a configuration that transformers knows", step):
        described = AutoConfig.for_model(settings.pop("model_type"), **settings)
        with TRANSFORMERS_LOCK, torch.device("meta"):
            # It reads no file; the argument holds for every call.
            model = auto.from_config(described, trust_remote_code=False)
    shapes = {name: tuple(part.shape) for name, part in model.named_parameters()}
    _require_weights(shapes, tensors, path)
    return Blueprint(
        shapes, f"{model.base_model_prefix}.", _max_positions(model), int(model.config.num_labels)
    )


def require_own_classes(config: Mapping[str, Any], path: Path) -> None:
    """Check that transformers itself has the classes that a configuration names.

    Raises:
        ModelError: the model needs code of its own, which is never run.
    """
    from transformers.models.auto import configuration_auto, modeling_auto

    tables: Any = vars(configuration_auto) | vars(modeling_auto)
    configs = tables["CONFIG_MAPPING_NAMES"]
    encoders = tables["MODEL_MAPPING_NAMES"]
    classifiers = tables["MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"]

    model_type = config.get("model_type")
    auto_map = config.get("auto_map") or {}
    if not isinstance(model_type, str) or model_type not in configs:
        code = f" and code of its own ({_listed(auto_map)})" if auto_map else ""
        raise ModelError(
            f"{path}: the model is of the type {model_type!r}{code}, which transformers does not "
            "have. Code of a model's folder is never run: use a model that transformers has, or "
            "export it to ONNX where it comes from."
        )
    own = {
        "AutoConfig": [configs[model_type]],
        "AutoModel": _classes(encoders, model_type),
        "AutoModelForSequenceClassification": _classes(classifiers, model_type),
    }
    entries = auto_map if isinstance(auto_map, dict) else {"AutoConfig": auto_map}
    named = {kind: str(entry).rpartition(".")[2] for kind, entry in entries.items() if kind in own}
    named = {kind: name for kind, name in named.items() if name not in own[kind]}
    if named:
        raise ModelError(
            f"{path}: the model needs code of its own ({_listed(named)}). Code of a model's folder "
            "is never run: use a model that transformers has, or export it to ONNX where it comes "
            "from."
        )
    architectures = config.get("architectures") or []
    known = {name for kind in classifiers for name in _classes(classifiers, kind)}
    for name in architectures:
        if name.endswith("ForSequenceClassification") and name not in known:
            raise ModelError(
                f"{path}: the model is a {name!r}, a class that transformers does not have. Code "
                "of a model's folder is never run: use a model that transformers has."
            )


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


def _max_positions(model: Any) -> int | None:
    """The fewest positions of all tables of positions in a model.

    A table with a padding row numbers positions from the row behind it, as RoBERTa and its
    relatives do; BART's have an `offset`.
    """
    limits = []
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if _POSITION_TABLE.search(name) is None or getattr(weight, "ndim", 0) != 2:
            continue
        padding = getattr(module, "padding_idx", None)
        offset = getattr(module, "offset", None)
        used = offset if isinstance(offset, int) else 0 if padding is None else padding + 1
        limits.append(int(weight.shape[0]) - used)
    # Where there is no table, such as of rotary positions; and some tables have rows to spare.
    declared = getattr(model.config, "max_position_embeddings", None)
    if isinstance(declared, int) and declared > 0:
        limits.append(declared)
    return min(limits, default=None)


def _require_weights(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Check that a model is what its weights are of: neither much larger nor of another shape."""
    step = "They belong to different models: restore config.json or the weights."
    for name, shape in shapes.items():
        if tensors.get(name, shape) != shape:
            raise ModelError(
                f"{path}: the configuration describes {name} of shape {shape}, the weights hold "
                f"{tensors[name]}. {step}"
            )
    described, held = (sum(map(math.prod, each.values())) for each in (shapes, tensors))
    if described > 2 * held + _MAX_EXCESS or len(shapes) > 2 * len(tensors) + _MAX_NEW:
        raise ModelError(
            f"{path}: the configuration describes {described} parameters in {len(shapes)} tensors, "
            f"the weights hold {held} in {len(tensors)}. {step}"
        )


def _classes(mapping: Mapping[str, Any], model_type: str) -> list[str]:
    found = mapping.get(model_type, ())
    return [found] if isinstance(found, str) else list(found)


def _listed(entries: Any) -> str:
    values: Iterable[Any] = entries.values() if isinstance(entries, dict) else [entries]
    return ", ".join(sorted(str(value)[:60] for value in values))
