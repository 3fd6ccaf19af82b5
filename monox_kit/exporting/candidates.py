"""What an export is asked for, and what is known of every graph that was built for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.data import Classifier, Int64s, Logits
from monox_kit.errors import GateError
from monox_kit.exporting.config import DEFAULT_FORM
from monox_kit.exporting.gate import GateReport
from monox_kit.exporting.judge import Judge
from monox_kit.models.agreement import Agreement
from monox_kit.models.batching import along_lengths
from monox_kit.models.folder import BF16, FP32, ModelFolder, RunPrecision
from monox_kit.models.padding import EqualLengths
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import TorchClassifier
from monox_kit.results import Result

_FIRST_ROWS = 200
# Texts that every candidate is timed on, along the lengths of those that it was compared on.
_TIMED_ROWS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One graph that was built, or could not be.

    Attributes:
        precision: `fp32`, `bf16` or one of `PRECISIONS`.
        graph: its form, one of `FORMS`.
        provider: what it was run on, one of `PROVIDERS`.
        agreement: with PyTorch on the check texts, of a gate's on the first ones alone until the
            gate is asked; None where it was not compared.
        gate: what the gate found; None where it was not asked.
        model_bytes: size of graph and weights.
        tokens_per_s: real tokens per second on the timing texts; None where it was not timed.
        rejected: why it was not kept, as a sentence; None for the one that was.
        cause: where it could not be built or run in this form, what a package raised; another form
            may do.
        is_refused: whether it runs as it should, and was rejected for what it answers.
    """

    precision: str
    graph: str
    provider: str
    agreement: Agreement | None = None
    gate: GateReport | None = None
    model_bytes: int = 0
    tokens_per_s: float | None = None
    rejected: str | None = None
    cause: str | None = None
    is_refused: bool = False

    @property
    def run_precision(self) -> RunPrecision:
        """What its float32 weights are multiplied in."""
        return BF16 if self.precision == BF16 else FP32

    @property
    def name(self) -> str:
        """Such as `int8-smooth:opset17-eager@openvino`; defaults are left out."""
        form = f":{self.graph}" if self.graph != DEFAULT_FORM else ""
        provider = f"@{self.provider}" if self.provider != "cpu" else ""
        return f"{self.precision}{form}{provider}"

    def to_json(self) -> dict[str, Any]:
        """The candidate as plain JSON values; of the gate its verdict."""
        verdict = None if self.gate is None else self.gate.verdict
        value = {**asdict(replace(self, gate=None)), "gate": verdict}
        del value["is_refused"]  # `rejected` says it
        return value


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported, and what its graphs are compared with.

    Attributes:
        folder: the fine-tuned model.
        tokenizer: its tokenizer, with the cut that the bundle declares.
        reference: the model in PyTorch.
        check: the check texts.
        calibration: other texts, for quantizers.
        calibration_languages: [N] their language tags.
        expected: PyTorch's logits of the check texts; those of the whole model where tokens were
            removed.
        own: PyTorch's logits of the model that the graphs are of. Of a trimmed one they are equal
            to the whole one's where all tokens of a text were kept.
        num_bytes: of each part of the model in PyTorch; of the whole one's.
        equal_lengths: whether padding would change its logits; see `models.padding`.
        judge: the gate; None where none is asked for.
    """

    folder: ModelFolder
    tokenizer: Tokenizer
    reference: TorchClassifier
    check: Texts
    calibration: Texts
    calibration_languages: npt.NDArray[np.str_]
    expected: Logits
    own: Logits
    num_bytes: Mapping[str, int]
    equal_lengths: bool
    judge: Judge | None = None

    @property
    def first_rows(self) -> Int64s:
        """[n] int64, the check texts that every graph is compared on: all, of a gate's the first.

        A gate's are many, and asked of the graph alone that would be kept. They stand in turn, one
        of each language.
        """
        count = len(self.check) if self.judge is None else min(len(self.check), _FIRST_ROWS)
        return np.arange(count)

    @property
    def timed_rows(self) -> Int64s:
        """[n] int64, the check texts that graphs are timed on: some that each has been run on."""
        first = self.first_rows
        return first[along_lengths(self.check.document_lengths[first], _TIMED_ROWS)]

    @property
    def is_trimmed(self) -> bool:
        """Whether tokens were removed, so that an exact graph may answer otherwise too."""
        return self.own is not self.expected

    def runner(self, classifier: Classifier) -> Classifier:
        """A graph of the model, run as the model must be."""
        return EqualLengths(classifier) if self.equal_lengths else classifier


@dataclass(frozen=True, slots=True)
class RefusedExport(Result):
    """What an export measured that put nothing in place.

    Attributes:
        reason: why it did not.
        candidates: everything that was built or could not be, by name.
        gate: what the gate found of the last one that it was asked of; None without a gate.
    """

    reason: str
    candidates: Mapping[str, Mapping[str, Any]]
    gate: GateReport | None

    def error(self) -> GateError:
        """The reason as an error that holds this result."""
        error = GateError(self.reason)
        error.result = self
        return error
