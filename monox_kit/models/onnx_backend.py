"""ONNX Runtime sequence classifiers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monox_kit.data import LabelSet
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.extras import runtime_distributions
from monox_kit.hardware import num_threads
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
from monox_kit.spinning import may_spin

if TYPE_CHECKING:
    from types import ModuleType

EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    OPENVINO_EP: "OpenVINOExecutionProvider",
}
# OpenVINO's names for what float32 weights are multiplied in.
_OPENVINO_PRECISIONS: dict[RunPrecision, str] = {FP32: "f32", BF16: "bf16"}
_FATAL = 4  # of onnxruntime's levels of severity, the highest
_EXTRAS = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu", OPENVINO_EP: OPENVINO_EP}


class OnnxClassifier(GraphClassifier):
    """A classifier that ONNX Runtime runs; see `GraphClassifier`.

    Args:
        folder: an ONNX bundle.
        labels: names for the columns instead of the folder's own.
        provider: one of `EXECUTION_PROVIDERS`; it is an error where it is not installed.
        plan: batches at once and threads of each; None for one batch on all cores.
        file: the graph's name in the folder.
        precision: what its float32 weights are multiplied in; None for what the folder was
            exported in.

    Raises:
        ProviderError: onnxruntime or the provider is not installed, or does not compute in bf16.
        ModelError: the graph cannot be loaded or does not score the folder's labels.
    """

    def __init__(
        self,
        folder: ModelFolder,
        labels: LabelSet | None = None,
        *,
        provider: str = "cpu",
        plan: SessionPlan | None = None,
        file: str = ONNX_FILE,
        precision: RunPrecision | None = None,
    ) -> None:
        plan = plan or SessionPlan.default()
        labels = folder.resolve_labels(labels)
        graph = folder.path / file
        files, inputs = require_graph(folder, file, len(labels))
        # One session is enough where it runs calls at once, and the weights are in memory once: on
        # the CPU provider one of one thread, which computes in the thread that calls it, and
        # OpenVINO's, which has streams.
        is_shared = provider == OPENVINO_EP or (provider == "cpu" and plan.threads == 1)
        num_sessions = 1 if is_shared else plan.sessions
        precision = precision or folder.run_precision
        sessions = [
            open_session(
                graph,
                provider,
                plan.threads,
                precision,
                streams=plan.sessions if provider == OPENVINO_EP else 1,
            )
            for _ in range(num_sessions)
        ]
        for each in files.values():
            each.require_unchanged()
        runs = [_run(session) for session in sessions]
        super().__init__(labels, inputs, runs * (plan.sessions // num_sessions))


def _run(session: Any) -> Run:
    """What computes a batch in a session."""
    return lambda feed: np.asarray(session.run(["logits"], dict(feed))[0], np.float32)


def installed_execution_providers() -> list[str]:
    """The names of `EXECUTION_PROVIDERS` that this onnxruntime was built with, `cpu` among them.

    Raises:
        ProviderError: onnxruntime is not installed.
    """
    available = require_runtime().get_available_providers()
    return [short for short, full in EXECUTION_PROVIDERS.items() if full in available]


def require_execution_provider(provider: str) -> str:
    """ONNX Runtime's name for an execution provider that is installed.

    Args:
        provider: one of `EXECUTION_PROVIDERS`.

    Raises:
        ProviderError: onnxruntime or the provider is not installed.
    """
    installed = installed_execution_providers()
    if provider not in installed:
        extra = _EXTRAS.get(provider)
        known = ", ".join((*_EXTRAS, OPENVINO))
        step = f'pip install "monoxkit[{extra}]"' if extra else f"one of {known}"
        raise ProviderError(
            f"`provider` {provider}: expected an installed execution provider, found "
            f"{', '.join(installed)}. Next: {step}"
        )
    return EXECUTION_PROVIDERS[provider]


def open_session(
    graph: Path,
    provider: str,
    threads: int | None = None,
    precision: RunPrecision = FP32,
    *,
    streams: int = 1,
) -> Any:
    """An `onnxruntime.InferenceSession` on exactly the provider that was asked for.

    Args:
        graph: a `.onnx` file.
        provider: one of `EXECUTION_PROVIDERS`.
        threads: of one operator; None for the cores that the process may use.
        precision: what the graph's float32 weights are multiplied in.
        streams: calls that the OpenVINO provider runs at once, each on `threads`.

    Raises:
        ProviderError: onnxruntime or the provider is not installed, cannot run here, or does not
            compute in bf16 here.
        ModelError: the graph cannot be loaded.
    """
    runtime = require_runtime()
    name = require_execution_provider(provider)
    if precision == BF16:
        require_bf16(provider)
    threads = threads or num_threads()
    settings: dict[str, str] = {}
    if provider == OPENVINO_EP:
        # Said for fp32 too: OpenVINO itself takes bf16 by default where the CPU has it.
        hint = {"CPU": {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision]}}
        settings = {
            "device_type": "CPU",
            "num_of_threads": str(threads * streams),
            "num_streams": str(streams),
            "load_config": json.dumps(hint),
        }
    # Its kernel for CPUs adds and normalizes number by number: ten times slower than the two steps.
    unfused = ["SkipLayerNormFusion", "BiasSkipLayerNormFusion"] if provider == "cpu" else []
    try:
        session = runtime.InferenceSession(
            str(graph),
            sess_options=_options(runtime, threads),
            providers=[(name, settings)],
            disabled_optimizers=unfused,
        )
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise ModelError(
            f"{graph}: expected a graph that onnxruntime {runtime.__version__} "
            f"loads, found: {first_line(error)}. Export the model again."
        ) from error
    if name not in session.get_providers():
        raise ProviderError(
            f"`provider` {provider}: expected it to run the graph, found that onnxruntime fell "
            f"back to {', '.join(session.get_providers())}. Check its drivers: monoxkit doctor."
        )
    return session


def _options(runtime: ModuleType, threads: int) -> Any:
    """The options of a session whose operators have so many threads."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # A pattern is kept for every shape that ever occurs, and texts come in hundreds: without any,
    # memory stays flat at the same speed (microsoft/onnxruntime issue 11627; benchmarks/LOG.md).
    options.enable_mem_pattern = False
    if not may_spin():
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def runtime_version() -> str:
    """Such as `onnxruntime 1.32.0`.

    Raises:
        ProviderError: it is not installed.
    """
    return f"onnxruntime {require_runtime().__version__}"


def require_runtime() -> ModuleType:
    """The `onnxruntime` module.

    Raises:
        ProviderError: it is not installed, or several distributions of it are over each other; the
            message gives the exact commands.
    """
    distributions = runtime_distributions()
    if len(distributions) > 1:
        raise ProviderError(
            f"onnxruntime: {' and '.join(distributions)} are installed and overwrite each other's "
            f"files. Run: pip uninstall --yes {' '.join(distributions)}, then install one again: "
            f'pip install "monoxkit[cpu]" (or [gpu], or [{OPENVINO_EP}]).'
        )
    try:
        import onnxruntime
    except ImportError as error:
        other = f" Or give `provider` {OPENVINO}, which is installed."
        raise ProviderError(
            'onnxruntime: expected it to be installed, found none. Run: pip install "monoxkit[cpu]"'
            f" (or [gpu], or [{OPENVINO_EP}]; only one of the three at a time)."
            f"{other if importlib.util.find_spec('openvino') else ''}"
        ) from error
    # What it logs as an error it raises too, and we say it: its own coloured lines go.
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime  # type: ignore[no-any-return]
