"""What an export is asked for, and what is known of every graph that was built for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Classifier, Int64s, Logits
from monox_kit.errors import ConfigError
from monox_kit.export.graph import DEFAULT_FORM, FORMS
from monox_kit.export.quantize import PRECISIONS
from monox_kit.models.agreement import Agreement
from monox_kit.models.folder import BF16, FP32, ModelFolder, RunPrecision
from monox_kit.models.onnx_backend import PROVIDERS
from monox_kit.models.padding import EqualLengths
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import TorchClassifier

AUTO: Literal["auto"] = "auto"
# The fp32 graph multiplied in bf16, and the graphs that are made from it.
_REDUCED = (BF16, *PRECISIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """How a model is exported.

    Attributes:
        model: a fine-tuned PyTorch folder.
        precision: `fp32`; `bf16`, the same graph multiplied in it; one of `PRECISIONS`; or `auto`:
            of everything that is built, the fastest on this machine that agrees with PyTorch.
        graph: the form of the graph, one of `FORMS`; None for the first of them that works, and
            with `auto` for all.
        candidates: with `auto`, the reduced precisions to try; None for all that are worth it on
            the provider.
        max_length: the cut in tokens that the bundle declares; None for the model's own.
        check: real text to calibrate and check on, also the lengths that are timed; None for
            built-in sentences in many languages.
        check_rows: at most so many rows of it are checked on.
        calibration_rows: at most so many others quantizers learn ranges from.
        min_agreement: least fraction of check texts on which a reduced precision must give
            PyTorch's label.
        provider: the execution provider to check and time on; `auto`, with `precision` `auto`,
            tries every one that is installed.
        exporter: the one there is. optimum-onnx 0.1 fails to import beside transformers 5.
        keep_fp32: whether a quantized graph brings its fp32 graph along, for the guard of
            `monoxkit label`.
    """

    model: str
    precision: str = FP32
    graph: str | None = None
    candidates: tuple[str, ...] | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None
    check: CorpusConfig | None = None
    check_rows: Annotated[int, Field(ge=1)] = 200
    calibration_rows: Annotated[int, Field(ge=1)] = 256
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    provider: str = "cpu"
    exporter: Literal["dynamo"] = "dynamo"
    keep_fp32: bool = True

    def require_known(self) -> None:
        """Check the names that come from tables.

        Raises:
            ConfigError: one is unknown, or `auto` stands where nothing is chosen.
        """
        for option, value, allowed in (
            ("--precision", self.precision, (FP32, *_REDUCED, AUTO)),
            ("--graph", self.graph or DEFAULT_FORM, tuple(FORMS)),
            ("--provider", self.provider, (*PROVIDERS, AUTO)),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"{option} {value!r}: this name is not known. Give one of {', '.join(allowed)}."
                )
        for name in self.candidates or ():
            if name not in _REDUCED or self.precision != AUTO:
                raise ConfigError(
                    f"--candidates {name}: this option goes with --precision auto (found "
                    f"{self.precision}) and takes some of {', '.join(_REDUCED)}. Correct the list "
                    "or leave it out."
                )
        if self.provider == AUTO and self.precision != AUTO:
            raise ConfigError(
                "--provider auto: only --precision auto measures providers (found --precision "
                f"{self.precision}). Name one provider."
            )


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
