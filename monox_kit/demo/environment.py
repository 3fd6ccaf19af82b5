"""The machine and the versions that a demo's numbers hold for, and the sizes of its models."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.hardware import read_hardware

_VERSIONED = ("torch", "transformers", "onnx", "onnxscript", "numpy", "accelerate")


def environment() -> dict[str, Any]:
    """Hardware and versions that the numbers hold for."""
    runtime = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        try:
            runtime[name] = version(name)
        except ModuleNotFoundError:
            continue
    return {
        "hardware": read_hardware().to_json(),
        "python": platform.python_version(),
        "monoxkit": __version__,
        **{name: version(name) for name in _VERSIONED},
        **runtime,
    }


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights in a model folder."""
    names = ("*.safetensors", "*.onnx", "*.onnx.data")
    return sum(path.stat().st_size for name in names for path in folder.glob(name))
