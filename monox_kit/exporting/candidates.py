"""What an export is asked for, and what is known of every graph that was built for it."""

from __future__ import annotations

from dataclasses import dataclass

from monox_kit.data import Classifier, Int64s, Logits
from monox_kit.exporting.config import DEFAULT_FORM
from monox_kit.models.agreement import Agreement
from monox_kit.models.folder import BF16, FP32, ModelFolder, RunPrecision
from monox_kit.models.padding import EqualLengths
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import TorchClassifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One graph that was built, or could not be.

    Attributes:
        precision: `fp32`, `bf16` or one of `PRECISIONS`.
        graph: its form, one of `FORMS`.
        provider: the execution provider that it was run on.
        agreement: with PyTorch on the check texts; None where it was not compared.
        model_bytes: size of graph and weights.
        tokens_per_s: real tokens per second on the timing texts; None where it was not timed.
        rejected: why it was not kept, as a sentence; None for the one that was.
        cause: where it could not be built or run in this form, what a package raised; another form
            may do.
    """

    precision: str
    graph: str
    provider: str
    agreement: Agreement | None = None
    model_bytes: int = 0
    tokens_per_s: float | None = None
    rejected: str | None = None
    cause: str | None = None

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


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported, and what its graphs are compared with.

    Attributes:
        folder: the fine-tuned model.
        tokenizer: its tokenizer, with the cut that the bundle declares.
        reference: the model in PyTorch.
        check: the check texts.
        timed_rows: [n] int64, those of them that graphs are timed on.
        calibration: other texts, for quantizers.
        expected: PyTorch's logits of the check texts.
        equal_lengths: whether padding would change its logits; see `models.padding`.
    """

    folder: ModelFolder
    tokenizer: Tokenizer
    reference: TorchClassifier
    check: Texts
    timed_rows: Int64s
    calibration: Texts
    expected: Logits
    equal_lengths: bool

    def runner(self, classifier: Classifier) -> Classifier:
        """A graph of the model, run as the model must be."""
        return EqualLengths(classifier) if self.equal_lengths else classifier
