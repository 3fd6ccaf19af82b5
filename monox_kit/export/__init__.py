"""PyTorch classifiers to ONNX bundles, checked against PyTorch before they are released."""

from monox_kit.export.candidates import ExportConfig
from monox_kit.export.run import ExportSummary, export_model

__all__ = ["ExportConfig", "ExportSummary", "export_model"]
