"""PyTorch classifiers to ONNX bundles, checked against PyTorch before they are released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monox_kit.exporting.config import ExportConfig

if TYPE_CHECKING:
    from monox_kit.exporting.run import ExportSummary, export_model

__all__ = ["ExportConfig", "ExportSummary", "export_model"]


def __getattr__(name: str) -> Any:
    """What needs PyTorch, imported when it is asked for: configurations are read without it."""
    if name not in ("ExportSummary", "export_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from monox_kit.exporting import run

    return getattr(run, name)
