"""Which models are measured, on which texts and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from monox_kit.config import Config, Separated
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.models.folder import RunPrecision
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS

PLOT_SUFFIXES = (".png", ".svg")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig(Config):
    """Which models are measured, on which texts and for how long.

    Attributes:
        models: models to measure side by side: PyTorch folders, ONNX bundles, packaged:NAME or hub
            names.
        test: files of texts, with or without gold labels. The language is the row's own, else the
            file's, else `und`.
        rows: most rows of each language, at even distances in its files.
        seconds: most seconds that each model is timed for; one batch of each size and language is
            always timed.
        batches: numbers of texts that are given at once, such as 1,8,32.
        rounds: rounds in which the models take turns.
        starts: fresh processes of each model whose time to the first answer is measured.
        providers: what ONNX bundles run on, such as cpu,openvino [default: all providers that are
            installed, but for tensorrt].
        precisions: precisions that PyTorch models run in, fp32 or fp32,bf16 [default: fp32, and
            bf16 where the hardware has it].
        device: device of PyTorch models: cpu, cuda or cuda:N.
        max_length: truncate texts at this many tokens [default: each model's own].
        batch_tokens: padded tokens of what a model computes at once; larger batches are run in
            parts of similar length.
        seed: seed of the order of the batches.
        out: JSON file to write the report to.
        plot: PNG or SVG file to draw the report into; it takes matplotlib.
    """

    models: Annotated[tuple[str, ...], MinLen(1)]
    test: CorpusConfig
    rows: Annotated[int, Ge(1)] = 200
    seconds: Annotated[float, Gt(0)] = 60.0
    batches: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), Separated()] = (1, 8, 32)
    rounds: Annotated[int, Ge(1)] = 5
    starts: Annotated[int, Ge(1)] = 3
    providers: Annotated[tuple[str, ...] | None, Separated()] = None
    precisions: Annotated[tuple[RunPrecision, ...] | None, Separated()] = None
    device: str = "cpu"
    max_length: Annotated[int, Ge(4)] | None = None
    batch_tokens: Annotated[int, Ge(1)] = DEFAULT_BATCH_TOKENS
    seed: Annotated[int, Ge(0)] = 1
    out: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        for name in ("models", "batches", "providers", "precisions"):
            values = getattr(self, name) or ()
            for value in values:
                if values.count(value) > 1:
                    raise ConfigError(f"`{name}`: {value!r} is given twice. Give each once.")
        if self.plot is not None and self.plot.suffix.lower() not in PLOT_SUFFIXES:
            raise ConfigError(
                f"`plot` {self.plot}: expected a name that ends in {' or '.join(PLOT_SUFFIXES)}, "
                f"found {self.plot.suffix or 'no suffix'!r}. Give such a name."
            )
