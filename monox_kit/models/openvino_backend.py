"""Sequence classifiers that OpenVINO runs by its own runtime, on any CPU that it has a plug-in for.

It reads the graphs that ONNX Runtime reads, and its package stands beside onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from monox_kit.data import Int64s, LabelSet, Logits
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.extras import is_installed, runtime_distributions
from monox_kit.models.files import ModelFile
from monox_kit.models.folder import BF16, FP32, ONNX_FILE, ModelFolder, RunPrecision
from monox_kit.models.graph_classifier import (
    OPENVINO,
    OPENVINO_EP,
    GraphClassifier,
    Run,
    SessionPlan,
    require_bf16,
    require_graph,
)
from monox_kit.models.openvino_cache import CompiledGraph
from monox_kit.runtime_environment import import_openvino

_DEVICE = "CPU"
_PRECISIONS: dict[RunPrecision, str] = {FP32: "f32", BF16: "bf16"}


class OpenVinoClassifier(GraphClassifier):
    """A classifier that OpenVINO runs; see `GraphClassifier`.

    Its streams and the memory of its weights are freed with it.

    Args:
        folder: an ONNX bundle.
        labels: names for the columns instead of the folder's own.
        plan: batches at once, each a stream with an infer request, and threads of each; None for
            one batch on all cores. The weights are in memory once.
        file: the graph's name in the folder.
        precision: what its float32 weights are multiplied in; None for what the folder was
            exported in.
        keep: whether the compiled graph is kept in the cache, and taken from there.

    Raises:
        ProviderError: openvino is not installed, or does not compute in bf16 here.
        ModelError: the graph cannot be loaded or does not score the folder's labels.
    """

    def __init__(
        self,
        folder: ModelFolder,
        labels: LabelSet | None = None,
        *,
        plan: SessionPlan | None = None,
        file: str = ONNX_FILE,
        precision: RunPrecision | None = None,
        keep: bool = True,
    ) -> None:
        plan = plan or SessionPlan.default()
        labels = folder.resolve_labels(labels)
        graph = folder.path / file
        files, inputs = require_graph(folder, file, len(labels))
        opened = _Opened(graph, files, plan, precision or folder.run_precision, keep=keep)
        for each in files.values():
            each.require_unchanged()
        # A value may have several names.
        place = next(i for i, each in enumerate(opened.compiled.outputs) if "logits" in each.names)
        super().__init__(labels, inputs, [opened.run(place) for _ in range(plan.sessions)])


class _Opened:
    """A graph compiled for a plan, from the cache where it is kept there.

    Attributes:
        compiled: OpenVINO's compiled model.
    """

    def __init__(
        self,
        graph: Path,
        files: Mapping[str, ModelFile],
        plan: SessionPlan,
        precision: RunPrecision,
        *,
        keep: bool,
    ) -> None:
        self._openvino = require_openvino()
        if precision == BF16:
            require_bf16(OPENVINO)
        settings = _settings(plan, precision)
        version = self._openvino.get_version()
        kept = CompiledGraph.of(files, precision, version) if keep else None
        # What an imported model's weights may lie in: it must live as long.
        self._mapped = None if kept is None else kept.read()
        self.compiled = self._imported(settings)
        if self.compiled is None:
            self.compiled = self._compiled(graph, settings)
            if kept is not None:
                kept.write(self.compiled.export_model().getbuffer())
        used = self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _PRECISIONS[precision]:
            raise ProviderError(
                f"`provider` {OPENVINO}: expected products in {_PRECISIONS[precision]}, found that "
                f"OpenVINO computes in {used} here. Use another `provider`."
            )

    def run(self, place: int) -> Run:
        """What computes a batch in an infer request of its own.

        Args:
            place: of the logits among the outputs.
        """
        return partial(self._logits, self.compiled.create_infer_request(), place)

    def _logits(self, request: Any, place: int, feed: Mapping[str, Int64s]) -> Logits:
        # The arrays are read in place. What is given back is OpenVINO's own memory: a copy.
        request.infer(dict(feed), share_inputs=True, share_outputs=True)
        return np.array(request.get_output_tensor(place).data, np.float32)

    def _imported(self, settings: Mapping[str, Any]) -> Any:
        """The compiled model from the cache; None where there is none, or a damaged one."""
        if self._mapped is None:
            return None
        tensor = self._openvino.Tensor(self._mapped, shared_memory=True)
        try:
            return self._openvino.Core().import_model(tensor, _DEVICE, dict(settings))
        except RuntimeError:
            return None

    def _compiled(self, graph: Path, settings: Mapping[str, Any]) -> Any:
        openvino = self._openvino
        try:
            # By name: `read_model` would hand a file that is no ONNX graph to other front ends.
            front_end = openvino.frontend.FrontEndManager().load_by_framework("onnx")
            model = front_end.convert(front_end.load(str(graph)))
            return openvino.Core().compile_model(model, _DEVICE, dict(settings))
        except Exception as error:  # what its front end and its plug-ins raise shares no base class
            raise ModelError(
                f"{graph}: expected a graph that {runtime_version()} loads, found: "
                f"{_cause(error)}. Export the model again, or use another `provider`."
            ) from error


def _settings(plan: SessionPlan, precision: RunPrecision) -> dict[str, Any]:
    """OpenVINO's settings under a plan."""
    return {
        # Said for fp32 too: by itself it takes bf16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        # Activations are rounded where the graph says so, not wherever weights are small.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "NUM_STREAMS": plan.sessions,
        "INFERENCE_NUM_THREADS": plan.sessions * plan.threads,
        # Two processes on one machine would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _cause(error: Exception) -> str:
    """What OpenVINO says is wrong: the last line; before it are places in its source."""
    lines = [line.strip(" -.") for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), first_line(error))


def require_openvino() -> ModuleType:
    """The module `openvino`.

    Raises:
        ProviderError: it is not installed, or does not load.
    """
    if not is_installed("openvino"):
        other = ""
        if "onnxruntime-openvino" in runtime_distributions():
            other = f" Or give `provider` {OPENVINO_EP}, which is installed."
        raise ProviderError(
            f"`provider` {OPENVINO}: the package openvino is not installed. Run: pip install "
            f'"monoxkit[{OPENVINO}]"{other}'
        )
    try:
        return import_openvino()
    except (ImportError, OSError) as error:
        raise ProviderError(
            f"`provider` {OPENVINO}: the package openvino does not load: {first_line(error)}. Run: "
            f'pip install --force-reinstall "monoxkit[{OPENVINO}]"'
        ) from error


def runtime_version() -> str:
    """Such as `openvino 2026.4.1`.

    Raises:
        ProviderError: it is not installed.
    """
    # Behind the number stands the build.
    return f"openvino {require_openvino().get_version().partition('-')[0]}"
