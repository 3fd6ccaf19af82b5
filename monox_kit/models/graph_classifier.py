"""What the runtimes of ONNX graphs share: plans, calls at once, what a graph takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from monox_kit.data import Int64s, LabelSet, Logits, TokenBatch
from monox_kit.errors import ModelError, ProviderError
from monox_kit.hardware import has_bf16, num_threads, read_hardware
from monox_kit.models.files import ModelFile
from monox_kit.models.folder import ModelFolder
from monox_kit.models.graph_file import GraphValue, graph_interface
from monox_kit.results import Result

# The provider that is OpenVINO's own runtime, and the one that is ONNX Runtime's way to it.
OPENVINO, OPENVINO_EP = "openvino", "openvino-ep"
OPENVINO_PROVIDERS = (OPENVINO, OPENVINO_EP)

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_LOGIT_TYPES = {"float", "float16", "double"}

# [B, L] arrays by the names of a graph's inputs -> [B, C] logits.
Run: TypeAlias = Callable[[Mapping[str, Int64s]], Logits]


@dataclass(frozen=True, slots=True)
class SessionPlan(Result):
    """How a machine's cores are shared between batches that run at once.

    Attributes:
        sessions: batches that run at once.
        threads: threads of each.
    """

    sessions: int
    threads: int

    @classmethod
    def default(cls) -> SessionPlan:
        """One batch at a time on all cores of this process."""
        return cls(1, num_threads())


class GraphClassifier:
    """A classifier whose graph a runtime runs.

    Attributes:
        labels: what the columns of the logits mean.
        concurrency: how many calls of `logits`, each from a thread of its own, fill the cores.

    Args:
        labels: as above.
        inputs: what the graph takes.
        runs: what computes a batch, one for each of the batches at once.
    """

    def __init__(self, labels: LabelSet, inputs: Sequence[str], runs: Sequence[Run]) -> None:
        self.labels = labels
        self.concurrency = len(runs)
        self._inputs = inputs
        self._idle: SimpleQueue[Run] = SimpleQueue()
        for run in runs:
            self._idle.put(run)

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch.

        May be called from any number of threads; more than `concurrency` of them wait.
        """
        # A graph may take segments where the tokenizer makes none: there is one.
        arrays = {"token_type_ids": np.zeros_like(batch.input_ids), **batch.arrays}
        feed = {name: arrays[name] for name in self._inputs}
        run = self._idle.get()
        try:
            return run(feed)
        finally:
            self._idle.put(run)


def require_graph(
    folder: ModelFolder, file: str, num_labels: int
) -> tuple[Mapping[str, ModelFile], list[str]]:
    """By name, the files of a bundle's graph, checked before any runtime reads them.

    Returns:
        The files, and the names of the graph's inputs.

    Raises:
        ModelError: the folder is no ONNX bundle, has no such graph, or one that does not take
            tokens or does not give logits for so many labels.
    """
    folder.require_backend("onnx")
    files = folder.graph_files(file)
    if not files:
        raise ModelError(f"{folder.path / file}: there is no such graph. Export the model again.")
    inputs, outputs = graph_interface(folder.path / file)
    _require_inputs(inputs, folder.path / file)
    _require_logits(outputs, folder.path / file, num_labels)
    return files, [value.name for value in inputs]


def _require_inputs(inputs: Sequence[GraphValue], graph: Path) -> None:
    """Check that a graph takes what a batch of tokens has."""
    for value in inputs:
        if value.name not in _INPUTS or value.type != "int64" or len(value.axes) != 2:
            raise ModelError(
                f"{graph}: expected inputs among {', '.join(_INPUTS)}, int64 of 2 axes, found "
                f"{value.name[:60]!r}, {value.type} of {len(value.axes)}. Export the model again."
            )
    if "input_ids" not in [value.name for value in inputs]:
        raise ModelError(f"{graph}: expected an input input_ids, found none. Export it again.")


def _require_logits(outputs: Sequence[GraphValue], graph: Path, num_labels: int) -> None:
    """Check that a graph's output is logits for so many labels."""
    logits = next((value for value in outputs if value.name == "logits"), None)
    if logits is None or len(logits.axes) != 2 or logits.type not in _LOGIT_TYPES:
        found = [f"{value.name[:60]!r} of {len(value.axes)} axes" for value in outputs]
        raise ModelError(
            f"{graph}: expected an output 'logits' of numbers with 2 axes, found "
            f"{', '.join(found)}. Export the model again."
        )
    columns = logits.axes[-1]
    # It may be free: the shape of what is computed is checked in every batch.
    if isinstance(columns, int) and columns != num_labels:
        raise ModelError(
            f"{graph}: expected logits for the {num_labels} labels "
            f"of the bundle, found {columns}. Export the model again."
        )


def computes_bf16(provider: str) -> bool:
    """Whether float32 weights can be multiplied in bfloat16 on a provider here."""
    return provider in OPENVINO_PROVIDERS and has_bf16()


def require_bf16(provider: str) -> None:
    """Check `computes_bf16`.

    Raises:
        ProviderError: the provider has no such arithmetic, or the CPU emulates it at best.
    """
    if computes_bf16(provider):
        return
    if provider not in OPENVINO_PROVIDERS:
        raise ProviderError(
            f"bf16: expected `provider` {OPENVINO}, which alone multiplies float32 weights in it, "
            f"found {provider}. Give that provider, or use a bundle in another precision."
        )
    raise ProviderError(
        f"bf16: expected a CPU with AVX512-BF16 or AMX, found {read_hardware().cpu_model} without. "
        "Use another precision here."
    )
