"""Which extra installs what, for a command or a call that lacks it or has it twice."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from monox_kit.errors import MissingExtra

# The extras that a module is imported from, by the module's name.
EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("torch", "transformers", "accelerate", "optimum", "onnx", "onnxscript", "safetensors"),
        "train,cpu",
    ),
    "matplotlib": "train,cpu",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "datasets": "hub",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "nncf": "nncf",
    **dict.fromkeys(("starlette", "msgspec", "uvicorn", "httptools", "uvloop"), "serve,cpu"),
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """The error that says how to install the module that is missing; None for one of no extra."""
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(module)
    if extra is None:
        return None
    return MissingExtra(
        f'{module}: it is not installed, and this needs it. Run: pip install "monoxkit[{extra}]"'
    )


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is looked for, and not imported."""
    return PathFinder.find_spec(module) is not None


def runtime_distributions() -> tuple[str, ...]:
    """The distributions that put their files into the folder of the module `onnxruntime`, sorted.

    Several of them overwrite each other's files: what is imported is then of one here and of
    another there.
    """
    found = PathFinder.find_spec("onnxruntime")
    if found is None or not found.submodule_search_locations:
        return ()
    site = Path(found.submodule_search_locations[0]).parent
    names = set()
    for records in site.glob("o*.dist-info"):  # onnxruntime, -gpu, -openvino; ort-nightly
        distribution = importlib.metadata.Distribution.at(records)
        if any(file.parts[:1] == ("onnxruntime",) for file in distribution.files or ()):
            names.add(distribution.metadata["Name"])
    return tuple(sorted(names))
