"""How good a model is by language, and whether another one is better."""

from monox_kit.evaluation.comparison import Comparison
from monox_kit.evaluation.run import (
    EvalReport,
    EvaluateConfig,
    LanguageResult,
    evaluate,
    language_result,
    read_test,
    report_on,
    score_languages,
    target_average_resamples,
)
from monox_kit.evaluation.statistics import interval, macro_f1

__all__ = [
    "Comparison", "EvalReport", "EvaluateConfig", "LanguageResult", "evaluate", "interval",
    "language_result", "macro_f1", "read_test", "report_on", "score_languages",
    "target_average_resamples",
]  # fmt: skip
