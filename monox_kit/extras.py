"""Which extra installs what, for a command or a call that lacks it."""

from __future__ import annotations

from collections.abc import Mapping

from monox_kit.errors import MissingExtra

# The extras that a module is imported from, by the module's name.
EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("torch", "transformers", "accelerate", "optimum", "onnx", "onnxscript", "safetensors"),
        "train,cpu",
    ),
    "matplotlib": "train,cpu",
    "onnxruntime": "cpu",
    "datasets": "hub",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "nncf": "nncf",
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
