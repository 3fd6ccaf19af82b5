"""How far a teacher leads, before anything is labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from monox_kit.advice.observed import Observation, observations, observed
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import CorpusError
from monox_kit.evaluation.comparison import CompareConfig, compare
from monox_kit.evaluation.run import EvaluateConfig, ScoringConfig, evaluate
from monox_kit.progress import Progress
from monox_kit.report.scores import Estimate
from monox_kit.results import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class AdviseConfig(ScoringConfig):
    """Which teacher is asked about, and on which rows.

    Attributes:
        teacher: the fine-tuned teacher: a folder, an ONNX bundle or a hub name.
        baseline: a student that learned from the gold labels alone (`train-student --method ce`);
            without it the lead is not known.
        test: gold-labelled files to test on. The language is the row's own, else the file's
            (test.de.jsonl), else `und`, which is no part of the target average.
    """

    teacher: str
    test: CorpusConfig
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice(Result):
    """What is known of a teacher before it labels; shares are in [0, 1].

    Attributes:
        teacher: how the user referred to it.
        baseline: how the user referred to the baseline; None without one.
        language: whose rows were scored.
        num_rows: how many they are.
        measure: what was measured: `accuracy`, or `micro_f1` where a row has any number of labels.
        teacher_value: the teacher's.
        teacher_interval: its 95 % interval over rows; None beside a baseline, where the lead has
            one.
        baseline_value: the baseline's; None without one.
        lead: the teacher's less the baseline's; None without one.
        lead_interval: its 95 % interval, paired by row.
        said: what that means, in plain sentences.
        observed: what was gained on other tasks, at any lead.
    """

    teacher: str
    baseline: str | None
    language: str
    num_rows: int
    measure: str
    teacher_value: float
    teacher_interval: tuple[float, float] | None
    baseline_value: float | None
    lead: float | None
    lead_interval: tuple[float, float] | None
    said: str
    observed: Sequence[Observation]


def advise(config: AdviseConfig, *, progress: Progress | None = None) -> Advice:
    """Measure a teacher's lead over the baseline in the source language.

    Rows that chose the weights of either model flatter it a little, and both alike where both were
    chosen on them; rows that neither has seen are better.

    Raises:
        CorpusError: no row is in the source language.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    names = ("test", *(one.name for one in fields(ScoringConfig)))
    settings = {name: getattr(config, name) for name in names}
    if config.baseline is None:
        report = evaluate(EvaluateConfig(model=config.teacher, **settings), progress=progress)
        language = _language(report.languages, config)
        alone = report.languages[language]
        return Advice(
            teacher=config.teacher,
            baseline=None,
            language=language,
            num_rows=alone.num_rows,
            measure=report.measure,
            teacher_value=float(getattr(alone, report.measure)),
            teacher_interval=getattr(alone, f"{report.measure}_interval"),
            baseline_value=None,
            lead=None,
            lead_interval=None,
            said=(
                "How far the teacher leads is not known without a baseline. Train one on the same "
                "labels (monoxkit train-student --method ce), which takes no labelling, and give "
                "it too."
            ),
            observed=observations(),
        )
    pair = CompareConfig(first=config.baseline, second=config.teacher, **settings)
    comparison = compare(pair, progress=progress)
    language = _language(comparison.languages, config)
    found = comparison.languages[language]
    lead = Estimate.of_shares(found.difference, found.difference_interval)
    return Advice(
        teacher=config.teacher,
        baseline=config.baseline,
        language=language,
        num_rows=found.num_rows,
        measure=comparison.measure,
        teacher_value=found.second,
        teacher_interval=None,
        baseline_value=found.first,
        lead=found.difference,
        lead_interval=found.difference_interval,
        said=observed(lead),
        observed=observations(),
    )


def _language(languages: Mapping[str, Any], config: AdviseConfig) -> str:
    """The source language, or the only one where the rows do not say theirs."""
    if config.source_language in languages:
        return config.source_language
    if len(languages) == 1:
        return next(iter(languages))
    raise CorpusError(
        f"`test`: no row is in the source language {config.source_language}; there are "
        f"{', '.join(languages)}. Give rows that the teacher can read, or `source_language`."
    )
