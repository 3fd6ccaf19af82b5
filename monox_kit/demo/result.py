"""What the demo measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monox_kit.report.scores import Estimate, Scores, System, average_estimate, estimates
from monox_kit.results import Result

# In the order of every table and plot.
SYSTEMS = ("teacher", "ce", "pl", "kd", "exported")
BASELINE = "ce"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoReport(Result):
    """Everything that the demo's table and report show, as plain JSON values throughout.

    Attributes:
        out: the run's folder.
        settings: the configuration that it ran with.
        corpus: rows per file, and where the text is from.
        evaluations: `EvalReport.to_json()` by system: `teacher` (source language only, where there
            is a test set in it), `ce`, `pl`, `kd`, and `exported` (the best student as a bundle).
        differences: by `pl`, `kd` and `exported`, how far the target-language average is above
            that of `ce`: `value` and the 95 % `interval` of a bootstrap paired by document, both
            in [-1, 1].
        training: `TrainingSummary.to_json()` by system.
        labelling: `LabelSummary.to_json()` of the teacher's pass.
        best: the student that was exported: the most accurate on the English dev set.
        exports: `ExportSummary.to_json()` of `teacher` and `student`.
        agreement: `Agreement.to_json()` of the exported student with PyTorch, up to 30 test
            rows of each language.
        labelling_race: `RaceResult.to_json()`, the teacher in PyTorch and ONNX Runtime.
        inference_races: by language, the best student in PyTorch and ONNX Runtime.
        sizes_bytes: weights on disk by what they are.
        stage_s: seconds that each stage took when it ran.
        environment: hardware and versions.
    """

    out: str
    settings: Mapping[str, Any]
    corpus: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]]
    differences: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Mapping[str, Any]]
    labelling: Mapping[str, Any]
    best: str
    exports: Mapping[str, Mapping[str, Any]]
    agreement: Mapping[str, Any]
    labelling_race: Mapping[str, Any]
    inference_races: Mapping[str, Mapping[str, Any]]
    sizes_bytes: Mapping[str, int]
    stage_s: Mapping[str, float]
    environment: Mapping[str, Any]

    @property
    def scores(self) -> Scores:
        """The systems that were evaluated, in the form that all reports share."""
        rows: dict[str, int] = {}
        for evaluation in self.evaluations.values():
            for tag, found in evaluation["languages"].items():
                rows.setdefault(tag, found["num_rows"])
        return Scores(
            source_language=str(self.evaluations[BASELINE]["source_language"]),
            rows=rows,
            systems={name: self._system(name) for name in SYSTEMS if name in self.evaluations},
            baseline=BASELINE,
        )

    def _system(self, name: str) -> System:
        evaluation, found = self.evaluations[name], self.differences.get(name)
        return System(
            # The exported student's says its precision, as in `kd int8`.
            title=f"{self.best} {self.exports['student']['precision']}"
            if name == "exported"
            else name,
            languages=estimates(evaluation),
            average=average_estimate(evaluation),
            difference=None
            if found is None
            else Estimate.of_shares(found["value"], found["interval"]),
        )
