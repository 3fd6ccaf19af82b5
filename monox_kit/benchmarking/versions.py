"""The versions of what the figures depend on."""

from __future__ import annotations

import importlib.metadata
import platform

from monox_kit import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
)


def installed_versions() -> dict[str, str]:
    """Those of Python, of monoxkit and of the `PACKAGES` that this environment has."""
    found = {"python": platform.python_version(), "monoxkit": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
