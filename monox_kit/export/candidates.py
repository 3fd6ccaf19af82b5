"""The graphs that an export may keep: built, checked against PyTorch, all but one rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from monox_kit.agreement import Agreement, agreement
from monox_kit.bundle import ONNX_DATA_FILE, ONNX_FILE, ModelFolder
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, Logits
from monox_kit.errors import GateError, ModelError, first_line
from monox_kit.export.graph import (
    Exporter,
    write_fp16,
    write_fp32,
    write_fp32_with_optimum,
    write_int8,
)
from monox_kit.hardware import has_vnni
from monox_kit.onnx_model import OnnxClassifier
from monox_kit.progress import ProgressTask
from monox_kit.scoring import race, score
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import TorchClassifier

Precision = Literal["fp32", "int8", "fp16", "auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """How a model is exported.

    Attributes:
        model: a fine-tuned PyTorch folder.
        precision: `fp32`, `int8` (weights per channel, activations quantized while it runs),
            `fp16`, or `auto`: the fastest on this machine that agrees with PyTorch.
        max_length: the cut in tokens that the bundle declares; None for the model's own.
        check: real text to check on; None for built-in sentences in many languages.
        check_rows: at most so many rows of it.
        min_agreement: least fraction of check texts on which a reduced precision must give
            PyTorch's label.
        provider: the execution provider to check and time on.
        exporter: `dynamo` is ours on torch.onnx.export, `optimum` needs optimum-onnx.
    """

    model: str
    precision: Precision = "fp32"
    max_length: Annotated[int, Field(ge=4)] | None = None
    check: CorpusConfig | None = None
    check_rows: Annotated[int, Field(ge=1)] = 200
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    provider: str = "cpu"
    exporter: Exporter = "dynamo"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One precision that was built.

    Attributes:
        agreement: with PyTorch on the check texts; None where it could not run.
        model_bytes: size of graph and weights.
        race_s: median seconds for the check texts; None where nothing was timed.
        rejected: why it was not kept; None for the one that was.
    """

    agreement: Agreement | None
    model_bytes: int
    race_s: float | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported, and what its graphs are compared with."""

    folder: ModelFolder
    tokenizer: Tokenizer
    reference: TorchClassifier
    documents: Sequence[Document]
    expected: Logits


def candidate_names(config: ExportConfig) -> list[str]:
    """The precisions to build, fp32 first: it is the source of the others."""
    if config.precision == "auto":
        return ["fp32", "fp16" if config.provider in ("cuda", "tensorrt") else "int8"]
    return list(dict.fromkeys(("fp32", config.precision)))


def build(
    config: ExportConfig, subject: Subject, work: Path, names: Sequence[str], task: ProgressTask
) -> dict[str, ModelFolder | str]:
    """Every candidate as an openable folder below `work`, or why it could not be built."""
    source = subject.folder
    fp32 = work / "fp32"
    fp32.mkdir(parents=True)
    built: dict[str, ModelFolder | str] = {}
    for name in names:
        folder = work / name
        folder.mkdir(exist_ok=True)
        task.detail(f"building {name}")
        try:
            if name == "int8":
                write_int8(fp32, folder, reduce_range=not has_vnni())
            elif name == "fp16":
                write_fp16(fp32, folder)
            elif config.exporter == "optimum":
                write_fp32_with_optimum(source, fp32)
            else:
                write_fp32(subject.reference.model, fp32, subject.tokenizer.has_token_types)
        except Exception as error:  # quantizers raise whatever they meet; fp32 must not be lost
            if name == "fp32":
                raise
            built[name] = f"expected the {name} graph to be built, found: {first_line(error)}."
        else:
            built[name] = ModelFolder(
                path=folder,
                name=f"{source.name} ({name})",
                config=source.config,
                record=source.record,
            )
        task.advance()
    return built


def check(
    config: ExportConfig, subject: Subject, built: Mapping[str, ModelFolder | str]
) -> dict[str, Candidate]:
    """Every candidate checked, all but one rejected with the reason.

    Raises:
        ModelError: the fp32 graph, the source of the others, differs from PyTorch.
        GateError: the precision that was asked for must not be released.
    """
    candidates: dict[str, Candidate] = {}
    passed: dict[str, OnnxClassifier] = {}
    for name, folder in built.items():
        if isinstance(folder, str):
            candidates[name] = Candidate(None, 0, rejected=folder)
            continue
        size = _model_bytes(folder.path)
        try:
            graph = OnnxClassifier(folder, subject.reference.labels, provider=config.provider)
            logits = score(graph, subject.tokenizer, subject.documents).logits
        except ModelError as error:
            if name == "fp32":
                raise
            candidates[name] = Candidate(None, size, rejected=str(error))
            continue
        found = agreement(subject.expected, logits) if np.isfinite(logits).all() else None
        reason = _reason(name, found, config)
        if name == "fp32" and reason is not None:
            raise ModelError(f"{subject.folder.name}: {reason}")
        candidates[name] = Candidate(found, size, rejected=reason)
        if reason is None:
            passed[name] = graph
    if config.precision != "auto":
        return _only(config.precision, candidates, subject)
    if len(passed) == 1:
        return candidates
    times = race(passed, subject.tokenizer, subject.documents)
    fastest = min(times, key=lambda name: times[name])
    return candidates | {
        name: replace(
            candidates[name],
            race_s=times[name],
            rejected=None if name == fastest else f"slower than {fastest} here",
        )
        for name in passed
    }


def _only(
    asked: str, candidates: Mapping[str, Candidate], subject: Subject
) -> dict[str, Candidate]:
    """The precision that was asked for; fp32 was built for its sake alone.

    Raises:
        GateError: it must not be released.
    """
    reason = candidates[asked].rejected
    if reason is not None:
        raise GateError(f"{subject.folder.name}: {reason}")
    return {
        name: candidate
        if name == asked
        else replace(candidate, rejected=f"--precision {asked} was asked for")
        for name, candidate in candidates.items()
    }


def _reason(name: str, found: Agreement | None, config: ExportConfig) -> str | None:
    """Why a candidate must not be released; None where it may."""
    if found is None:
        return f"expected finite logits of the {name} graph, found others. Use another precision."
    if name == "fp32" and not found.within_fp32:
        return (
            f"expected the fp32 graph's logits within rounding of PyTorch's, found a difference "
            f"of {found.max_delta:.2e} on {found.num_texts} texts. Try another --exporter."
        )
    if name != "fp32" and found.argmax < config.min_agreement:
        return (
            f"expected {name} to give PyTorch's label on at least {config.min_agreement:.1%} of "
            f"{found.num_texts} texts (--min-agreement), found {found.argmax:.1%}. "
            "Use --precision fp32, or allow less."
        )
    return None


def _model_bytes(folder: Path) -> int:
    files = (folder / ONNX_FILE, folder / ONNX_DATA_FILE)
    return sum(path.stat().st_size for path in files if path.is_file())
