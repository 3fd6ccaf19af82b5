"""monoxkit: turns a classifier that works in English into a fast multilingual one.

    import monox_kit as mk

    model = mk.load("student-onnx")
    model.predict(["Das Paket kam zwei Tage zu spät an."])

Each stage is one call with the names that its command has as options. Nothing heavy is imported
before it is asked for: `import monox_kit` costs milliseconds (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from monox_kit.runtime_environment import silence_dependencies

__version__ = "0.2.0"

silence_dependencies()

# Where each public name lives.
_HOMES = {
    "evaluate": "monox_kit.calls",
    "export": "monox_kit.calls",
    "import_store": "monox_kit.calls",
    "select_store": "monox_kit.calls",
    "label": "monox_kit.calls",
    "train_student": "monox_kit.calls",
    "train_teacher": "monox_kit.calls",
    "trim": "monox_kit.calls",
    "predict": "monox_kit.calls",
    "compare": "monox_kit.calls",
    "calibrate": "monox_kit.calls",
    "benchmark": "monox_kit.calls",
    "run": "monox_kit.calls",
    "serve": "monox_kit.calls",
    "reproduce": "monox_kit.calls",
    "advise": "monox_kit.calls",
    "load": "monox_kit.models.predict",
    "Model": "monox_kit.models.predict",
    "Prediction": "monox_kit.models.predict",
    "LabelSet": "monox_kit.data",
    "LogitStore": "monox_kit.store",
    "RunReport": "monox_kit.recipes.run",
    "MonoxError": "monox_kit.errors",
    "Advice": "monox_kit.advice.advise",
    "Reproduction": "monox_kit.paper.reproduce",
    "BenchmarkReport": "monox_kit.benchmarking.report",
    "CalibrateSummary": "monox_kit.evaluation.calibration",
    "Comparison": "monox_kit.evaluation",
    "EvalReport": "monox_kit.evaluation",
    "ExportSummary": "monox_kit.exporting.run",
    "ImportSummary": "monox_kit.importing.config",
    "LabelSummary": "monox_kit.labelling.config",
    "PredictSummary": "monox_kit.prediction",
    "ServeSummary": "monox_kit.serving.config",
    "TrainingSummary": "monox_kit.training.summary",
    "TrimSummary": "monox_kit.trimming",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604  # names of `_HOMES`, all of them text

if TYPE_CHECKING:
    from monox_kit.advice.advise import Advice as Advice
    from monox_kit.benchmarking.report import BenchmarkReport as BenchmarkReport
    from monox_kit.calls import advise as advise
    from monox_kit.calls import benchmark as benchmark
    from monox_kit.calls import calibrate as calibrate
    from monox_kit.calls import compare as compare
    from monox_kit.calls import evaluate as evaluate
    from monox_kit.calls import export as export
    from monox_kit.calls import import_store as import_store
    from monox_kit.calls import label as label
    from monox_kit.calls import predict as predict
    from monox_kit.calls import reproduce as reproduce
    from monox_kit.calls import run as run
    from monox_kit.calls import select_store as select_store
    from monox_kit.calls import serve as serve
    from monox_kit.calls import train_student as train_student
    from monox_kit.calls import train_teacher as train_teacher
    from monox_kit.calls import trim as trim
    from monox_kit.data import LabelSet as LabelSet
    from monox_kit.errors import MonoxError as MonoxError
    from monox_kit.evaluation import Comparison as Comparison
    from monox_kit.evaluation import EvalReport as EvalReport
    from monox_kit.evaluation.calibration import CalibrateSummary as CalibrateSummary
    from monox_kit.exporting.run import ExportSummary as ExportSummary
    from monox_kit.importing.config import ImportSummary as ImportSummary
    from monox_kit.labelling.config import LabelSummary as LabelSummary
    from monox_kit.models.predict import Model as Model
    from monox_kit.models.predict import Prediction as Prediction
    from monox_kit.models.predict import load as load
    from monox_kit.paper.reproduce import Reproduction as Reproduction
    from monox_kit.prediction import PredictSummary as PredictSummary
    from monox_kit.recipes.run import RunReport as RunReport
    from monox_kit.serving.config import ServeSummary as ServeSummary
    from monox_kit.store import LogitStore as LogitStore
    from monox_kit.training.summary import TrainingSummary as TrainingSummary
    from monox_kit.trimming import TrimSummary as TrimSummary


def __getattr__(name: str) -> Any:
    """The public name, imported from its home on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
