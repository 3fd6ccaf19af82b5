"""How a model is exported: the forms of a graph, the precisions, and what a user asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Le

from monox_kit.config import Config, Needs, OnlyWith, Opposite, Rule, Separated
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.models.folder import BF16, FP32
from monox_kit.models.long_texts import Long
from monox_kit.models.providers import PROVIDERS

AUTO: Literal["auto"] = "auto"

# What the folder that is written is read by; see `layouts`.
LayoutName: TypeAlias = Literal["monoxkit", "tei", "triton"]
MONOXKIT: LayoutName = "monoxkit"
# The newest operators that a server's runtime is sure to know: text-embeddings-inference has
# onnxruntime 1.22, which is older than opset 23's Attention.
MAX_OPSETS: dict[LayoutName, int] = {"tei": 20}


@dataclass(frozen=True, slots=True)
class GraphForm:
    """One way to write the same model as a graph.

    Attributes:
        opset: of the ONNX operators. 23 is the first with an Attention operator: where the model
            uses PyTorch's own attention, it stays one node instead of a dozen.
        attention: transformers' implementation; None for the model's default.
        fused: whether onnxruntime.transformers fuses attention, GELU and layer norm beforehand.
    """

    opset: int
    attention: str | None = None
    fused: bool = False


FORMS = {
    "opset23": GraphForm(23),
    "opset23-eager": GraphForm(23, "eager"),
    "opset17-eager": GraphForm(17, "eager"),
    "opset17-fused": GraphForm(17, "eager", fused=True),
}
DEFAULT_FORM = "opset23"


# What graphs are made of the fp32 graph; see `quantize`.
PRECISIONS = (
    "fp16",
    "int8",
    "int8-tensor",
    "int8-smooth",
    "int8-mixed",
    "int8-static",
    "int8-static-smooth",
    "int8-nncf",
    "int8-block",
    "int8-embedding",
    "int4-block",
)
# Those of them whose layers are in integers; their word embeddings are then too.
INTEGER_PRECISIONS = tuple(name for name in PRECISIONS if name not in ("fp16", "int8-embedding"))
# The fp32 graph multiplied in bf16, and the graphs that are made from it.
REDUCED = (BF16, *PRECISIONS)


# Rows that a graph is checked on; with a gate, of each language. 200 tell 99 % to 1.4 points, 1,000
# to 0.6: a gate asks for more.
_CHECK_ROWS = 200
_GATE_ROWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a graph must keep of PyTorch's answers to be released; None where nothing is asked.

    Attributes:
        agreement: least share of all check rows that must get PyTorch's label.
        worst: the same share in every language.
        kl: largest mean KL divergence from PyTorch's distributions in every language, in nats.
        drop: largest loss of accuracy in every language, in points.
    """

    agreement: float | None = None
    worst: float | None = None
    kl: float | None = None
    drop: float | None = None

    @classmethod
    def of(cls, given: Sequence[str]) -> Gate:
        """The gate of thresholds such as `worst=0.98`.

        Raises:
            ConfigError: one is of no such name, given twice, or not in its range.
        """
        found: dict[str, float] = {}
        for each in given:
            name, _, text = (part.strip() for part in each.partition("="))
            most = _LARGEST.get(name)
            if most is None or name in found:
                known = ", ".join(one.name for one in fields(cls))
                what = "is given twice" if name in found else "is no threshold"
                raise ConfigError(
                    f"`gate` {each!r}: {name!r} {what}. Thresholds are {known}, each once, such as "
                    "worst=0.98,kl=0.01."
                )
            try:
                found[name] = float(text)
            except ValueError:
                found[name] = -1.0
            if not 0 < found[name] < most:
                # At its end no number of rows shows that a threshold is kept.
                raise ConfigError(
                    f"`gate` {each!r}: {name} must be a number above 0 and below {most:g}, and is "
                    f"{text!r}. Correct it."
                )
        if not found:
            raise ConfigError("`gate`: it asks for nothing. Give such as worst=0.98,kl=0.01.")
        return cls(**found)

    def asked(self) -> dict[str, float]:
        """The thresholds that are given, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


_LARGEST = {"agreement": 1.0, "worst": 1.0, "kl": float("inf"), "drop": 100.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig(Config):
    """How a model is exported.

    Attributes:
        model: fine-tuned PyTorch model folder or hub name.
        precision: what the graph computes in: fp32, bf16, fp16, int8, int8-tensor, int8-smooth,
            int8-mixed, int8-static, int8-static-smooth, int8-nncf, int8-block, int8-embedding,
            int4-block, or auto: the fastest one that agrees with PyTorch. bf16 is the fp32 graph
            multiplied in it; int8-embedding has its word embeddings in int8, as all int8 ones have,
            and its layers in fp32; int8-mixed is int8-smooth but for the quarter of the layers that
            cost the worst language most.
        graph: form of the graph: opset23, opset23-eager, opset17-eager or opset17-fused [default:
            the first that works; with auto, all are tried].
        candidates: reduced precisions that auto tries, such as int8,int8-smooth [default: all that
            are worth it on the provider].
        max_length: truncate texts at this many tokens, in every program that reads the bundle
            [default: the model's own].
        long: what every command that reads the bundle reads of longer texts: head, head-tail,
            windows:mean or windows:max [default: the model's own].
        trim: files of text in every language that the bundle is to read: tokens that none of them
            uses are removed first, as monoxkit trim does; needs `check` [default: none is].
        check: files of real text to check, calibrate and time graphs on [default: built-in
            sentences in many languages].
        check_rows: most rows of `check` that graphs are checked on; with `gate`, of each language
            [default: 200; with `gate` 1,000].
        calibration_rows: most other rows of `check` that quantizers learn from.
        min_agreement: least share of the checked texts that must get PyTorch's label, without
            `gate`; with `trim`, the whole model's.
        gate: what must hold in every language, as agreement=0.99,worst=0.98,kl=0.01,drop=0.5. These
            are the least share of all rows that get PyTorch's label, the least in each language,
            and there the largest mean KL and the largest loss of accuracy in points.
        provider: what graphs are checked and timed on: cpu, cuda or tensorrt of ONNX Runtime,
            openvino (its own runtime), openvino-ep (through onnxruntime-openvino), or auto for all
            that are installed.
        exporter: what writes the graph; dynamo is the only one: optimum-onnx does not run beside
            transformers 5.
        layout: monoxkit, or what a server reads: tei for text-embeddings-inference, triton for a
            model repository of Triton.
        keep_fp32: keep the fp32 graph beside a reduced one, for the guard of label [default: kept,
            but for what train-student made].
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        OnlyWith(("candidates",), "precision", (AUTO,)),
        Needs(("gate",), "check", "test.*.jsonl"),
        # Built-in sentences are of languages that it may have been trimmed away from.
        Needs(("trim",), "check", "test.*.jsonl"),
    )

    model: str
    precision: str = FP32
    graph: str | None = None
    candidates: Annotated[tuple[str, ...] | None, Separated()] = None
    max_length: Annotated[int, Ge(4)] | None = None
    long: Long | None = None
    trim: CorpusConfig | None = None
    check: CorpusConfig | None = None
    check_rows: Annotated[int, Ge(1)] | None = None
    calibration_rows: Annotated[int, Ge(1)] = 256
    min_agreement: Annotated[float, Ge(0), Le(1)] = 0.95
    gate: Annotated[tuple[str, ...] | None, Separated()] = None
    provider: str = "cpu"
    exporter: Literal["dynamo"] = "dynamo"
    layout: LayoutName = MONOXKIT
    keep_fp32: Annotated[bool | None, Opposite("drop_fp32")] = None

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        _require_known("precision", self.precision, (FP32, *REDUCED, AUTO))
        _require_known("graph", self.graph or DEFAULT_FORM, tuple(FORMS))
        _require_known("provider", self.provider, (*PROVIDERS, AUTO))
        if self.graph is not None and self.graph not in self.forms:
            raise ConfigError(
                f"`graph` {self.graph}: `layout` {self.layout} needs operators of opset "
                f"{MAX_OPSETS[self.layout]} or older, because that server's runtime may know no "
                f"newer ones; the form's are of opset {FORMS[self.graph].opset}. Give "
                f"{' or '.join(self.forms)}, or leave `graph` out."
            )
        for name in self.candidates or ():
            _require_known("candidates", name, REDUCED)
        if self.provider == AUTO and self.precision != AUTO:
            raise ConfigError(
                f"`provider` auto: providers are measured with `precision` auto alone (found "
                f"{self.precision}). Name one provider."
            )
        if self.thresholds is not None and self.is_given("min_agreement"):
            raise ConfigError(
                f"`min_agreement` {self.min_agreement}: with `gate`, that alone decides. Give "
                f"agreement={self.min_agreement} in `gate`."
            )

    @property
    def thresholds(self) -> Gate | None:
        """The gate; None where none is asked for."""
        return None if self.gate is None else Gate.of(self.gate)

    @property
    def most_check_rows(self) -> int:
        """`check_rows`, or their default."""
        return self.check_rows or (_CHECK_ROWS if self.gate is None else _GATE_ROWS)

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms of a graph that the layout's server runs, the first to try first."""
        newest = MAX_OPSETS.get(self.layout)
        return tuple(name for name, form in FORMS.items() if newest is None or form.opset <= newest)


def _require_known(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"`{setting}` {value!r}: this name is not known. Give one of {', '.join(allowed)}."
        )
