"""How good a model is by language, and whether another one is better."""

from monox_kit.evaluation.comparison import CompareConfig, Comparison, LanguageComparison, compare
from monox_kit.evaluation.run import (
    UNKNOWN_LANGUAGE,
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
    "UNKNOWN_LANGUAGE",
    "CompareConfig",
    "Comparison",
    "EvalReport",
    "EvaluateConfig",
    "LanguageComparison",
    "LanguageResult",
    "compare",
    "evaluate",
    "interval",
    "language_result",
    "macro_f1",
    "read_test",
    "report_on",
    "score_languages",
    "target_average_resamples",
]
