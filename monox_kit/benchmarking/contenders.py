"""What runs against what: each model folder on every runtime that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.data import LabelSet
from monox_kit.errors import ModelError
from monox_kit.models.folder import (
    CONFIG_FILE,
    FP32,
    ONNX_FILE,
    ModelFolder,
    RunPrecision,
    open_folder,
)
from monox_kit.models.graph_classifier import computes_bf16
from monox_kit.models.providers import installed_providers
from monox_kit.models.record import CARD_FILE, RECORD_FILE
from monox_kit.progress import Progress

_NOT_BY_DEFAULT = "tensorrt"  # it builds an engine for every shape


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run one model.

    Attributes:
        name: of the folder, with the runtime and the precision.
        folder: the model's.
        provider: what runs a bundle's graph; `cpu` for PyTorch, which has a device.
        device: of PyTorch.
        precision: what float32 weights are multiplied in; None for what the bundle says.
        file: the graph of a bundle.
        command: the program that runs it; None for monoxkit's own worker.
    """

    name: str
    folder: ModelFolder
    provider: str = "cpu"
    device: str = "cpu"
    precision: RunPrecision | None = None
    file: str = ONNX_FILE
    command: tuple[str, ...] | None = None

    def given(self, config: BenchmarkConfig, text: Sequence[str | None]) -> dict[str, Any]:
        """What its process is to open, and the text that it answers first."""
        return {
            "model": self.folder.name,
            "backend": self.folder.backend,
            "provider": self.provider,
            "device": self.device,
            "precision": self.precision,
            "file": self.file,
            "max_length": config.max_length,
            "batch_tokens": config.batch_tokens,
            "label_names": list(config.test.label_names),
            "text": text,
        }


def contenders_of(config: BenchmarkConfig, progress: Progress) -> list[Contender]:
    """Everything that is timed, in the order of the models.

    Raises:
        ModelError: a folder is no classifier.
        LabelMismatchError: the models do not score the same classes in the same order.
        ProviderError: onnxruntime is not installed, and a bundle is to run on it.
    """
    folders = [open_folder(name, progress).named(config.test.label_names) for name in config.models]
    require_same_labels(folders)
    found: list[Contender] = []
    for folder, short in zip(folders, short_names(config.models)):
        if folder.backend == "torch":
            found += _torch(config, folder, short)
        else:
            found += _onnx(config, folder, short, progress)
    if not found:
        raise ModelError(
            f"{', '.join(config.models)}: no provider here runs these bundles. Name others with "
            "`providers`."
        )
    return found


def reference_of(contenders: Sequence[Contender]) -> Contender | None:
    """What all are compared with: the first PyTorch model in float32, else a bundle's fp32 graph.

    None where there is neither.
    """
    for one in contenders:
        if one.folder.backend == "torch" and one.precision == FP32:
            return one
    for one in contenders:
        if one.folder.backend == "onnx" and is_fp32(one.folder):
            return one
    for one in contenders:
        file = one.folder.reference_file
        if one.folder.backend == "onnx" and one.folder.graph_files(file):
            name = f"{one.folder.name} fp32 graph"
            return replace(one, name=name, precision=FP32, file=file)
    return None


def is_fp32(folder: ModelFolder) -> bool:
    """Whether an ONNX bundle says that it was exported in fp32."""
    return folder.record is not None and folder.record.precision == FP32


def require_same_labels(folders: Sequence[ModelFolder]) -> LabelSet:
    """The classes that all folders score, in the same order.

    Raises:
        LabelMismatchError: two differ.
    """
    first = folders[0]
    for folder in folders[1:]:
        first.labels.require_equal(folder.labels, first.name, folder.name)
    return first.labels


def short_names(models: Sequence[str]) -> list[str]:
    """The last part of each model's path; the whole where two have the same."""
    names = [model.rstrip("/").rpartition("/")[2] or model for model in models]
    return [
        name if names.count(name) == 1 else model for name, model in zip(names, models, strict=True)
    ]


def parts_bytes(contender: Contender) -> Mapping[str, int]:
    """Bytes of the model's folder by part; what other tools have left beside the model counts too.

    `model` is what this contender loads: weights, or a graph with its files of weights.
    """
    folder = contender.folder
    model = folder.weights if folder.backend == "torch" else folder.graph_files(contender.file)
    parts: dict[str, set[str]] = {"model": set(model)}
    if folder.backend == "onnx" and folder.reference_file != contender.file:
        parts["fp32 graph"] = set(folder.graph_files(folder.reference_file))
    parts["tokenizer"] = set(folder.files) - {CONFIG_FILE}
    parts["configuration and card"] = {CONFIG_FILE, RECORD_FILE, CARD_FILE}
    sizes = {
        path.relative_to(folder.path).as_posix(): path.stat().st_size
        for path in folder.path.rglob("*")
        if path.is_file()
    }
    found = {
        part: sum(sizes.pop(name, 0) for name in sorted(names)) for part, names in parts.items()
    }
    return {**found, "other files": sum(sizes.values())}


def _torch(config: BenchmarkConfig, folder: ModelFolder, short: str) -> list[Contender]:
    from monox_kit.models.torch_backend import fast_bf16

    usual: tuple[RunPrecision, ...] = ("fp32", "bf16") if fast_bf16(config.device) else ("fp32",)
    on = "" if config.device == "cpu" else f" {config.device}"
    return [
        Contender(
            name=f"{short} torch{on} {precision}",
            folder=folder,
            device=config.device,
            precision=precision,
        )
        for precision in config.precisions or usual
    ]


def _onnx(
    config: BenchmarkConfig, folder: ModelFolder, short: str, progress: Progress
) -> list[Contender]:
    precision = "" if folder.record is None else f" {folder.record.precision}"
    asked = config.providers
    found = []
    for provider in asked or [one for one in installed_providers() if one != _NOT_BY_DEFAULT]:
        if asked is None and folder.run_precision != FP32 and not computes_bf16(provider):
            progress.note(f"{folder.name} is not run on {provider}, which has no bf16")
            continue
        found.append(
            Contender(name=f"{short} {provider}{precision}", folder=folder, provider=provider)
        )
    return found
