"""What is predicted with what, and what a run reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge

from monox_kit.config import Config
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.models.folder import Backend
from monox_kit.models.long_texts import Long
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS
from monox_kit.results import Result

OutputFormat = Literal["jsonl", "csv", "parquet"]

_SUFFIXES: Mapping[str, OutputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig(Config):
    """What is predicted with what.

    Attributes:
        model: the model: a PyTorch folder, an ONNX bundle, `packaged:NAME` or a hub name.
        input: files of texts; - reads lines from the standard input.
        out_format: format of the output: jsonl, csv or parquet [default: by the file's name].
        text: repeat each text in the output.
        probabilities: add the probability of every class.
        logits: add the logit of every class.
        backend: onnx or torch [default: what the model folder is made for].
        max_length: truncate texts at this many tokens [default: the model's].
        long: what is read of longer texts: head, head-tail, windows:mean or windows:max [default:
            the model's own].
        batch_tokens: padded tokens per batch: speed and memory only.
        provider: what runs the graph: cpu, cuda or tensorrt of ONNX Runtime, openvino (its own
            runtime) or openvino-ep (through onnxruntime-openvino).
        device: device of PyTorch: cpu, cuda or cuda:N.
    """

    model: str
    input: CorpusConfig
    out_format: OutputFormat | None = None
    text: bool = False
    probabilities: bool = False
    logits: bool = False
    backend: Backend | None = None
    max_length: Annotated[int, Ge(4)] | None = None
    long: Long | None = None
    batch_tokens: Annotated[int, Ge(1)] = DEFAULT_BATCH_TOKENS
    provider: str = "cpu"
    device: str = "cpu"

    @property
    def output_suffix(self) -> str:
        """What an output's name ends in where the caller gives no name."""
        return f".{self.out_format or 'jsonl'}"

    def output_format(self, out: Path) -> OutputFormat:
        """The format of the output: what was asked for, else what its name says.

        Raises:
            ConfigError: the name says none.
        """
        chosen = self.out_format or _SUFFIXES.get(out.suffix.lower())
        if chosen is None:
            raise ConfigError(
                f"{out}: expected a name that ends in {', '.join(_SUFFIXES)}, found "
                f"{out.suffix or 'no suffix'!r}. Give such a name, or `out_format` "
                f"{' or '.join(get_args(OutputFormat))}."
            )
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictSummary(Result):
    """What a run of predict did.

    Attributes:
        path: the output file.
        format: of it.
        num_rows: rows in it, one for each row of the input, in the input's order.
        num_resumed_rows: rows that an earlier, interrupted run had predicted.
        labels: rows by the label that was predicted; of several labels a row, rows of each.
        digest: SHA-256 of the output.
        reused: whether the output of the same run was there already.
        truncation: of the rows that this run predicted, how many were truncated, and by how many
            tokens.
    """

    path: str
    format: OutputFormat
    num_rows: int
    num_resumed_rows: int
    labels: Mapping[str, int]
    digest: str
    reused: bool = False
    truncation: Mapping[str, int] = field(default_factory=dict)
