"""ONNX Runtime sequence classifiers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from monox_kit.data import LabelSet, Logits, TokenBatch
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.extras import runtime_distributions
from monox_kit.hardware import has_bf16, num_threads, read_hardware
from monox_kit.models.folder import BF16, FP32, ONNX_FILE, ModelFolder, RunPrecision
from monox_kit.spinning import may_spin

if TYPE_CHECKING:
    from types import ModuleType

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# OpenVINO's names for what float32 weights are multiplied in.
_OPENVINO_PRECISIONS: dict[RunPrecision, str] = {FP32: "f32", BF16: "bf16"}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_LOGIT_TYPES = {"tensor(float)", "tensor(float16)", "tensor(double)"}
_FATAL = 4  # of onnxruntime's levels of severity, the highest
_EXTRAS = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class SessionPlan:
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

    def to_json(self) -> dict[str, int]:
        """The plan as plain JSON values."""
        return asdict(self)


class OnnxClassifier:
    """A classifier that ONNX Runtime runs.

    Attributes:
        labels: what the columns of the logits mean.
        concurrency: how many calls of `logits`, each from a thread of its own, fill the cores.

    Args:
        folder: an ONNX bundle.
        labels: names for the columns instead of the folder's own.
        provider: one of `PROVIDERS`; it is an error where it is not installed.
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
        folder.require_backend("onnx")
        plan = plan or SessionPlan.default()
        graph = folder.path / file
        files = folder.graph_files(file)
        if not files:
            raise ModelError(f"{graph}: there is no such graph. Export the model again.")
        self.labels = folder.resolve_labels(labels)
        # One session is enough where it runs calls at once, and the weights are in memory once: on
        # the CPU provider one of one thread, which computes in the thread that calls it, and
        # OpenVINO's, which has streams.
        is_shared = provider == "openvino" or (provider == "cpu" and plan.threads == 1)
        num_sessions = 1 if is_shared else plan.sessions
        precision = precision or folder.run_precision
        self._sessions = [
            open_session(
                graph,
                provider,
                plan.threads,
                precision,
                streams=plan.sessions if provider == "openvino" else 1,
            )
            for _ in range(num_sessions)
        ]
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(plan.sessions // num_sessions):
            for session in self._sessions:
                self._idle.put(session)
        self.concurrency = plan.sessions
        for each in files.values():
            each.require_unchanged()
        self._inputs = _checked_inputs(self._sessions[0], graph)
        _require_logits(self._sessions[0], graph, len(self.labels))

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch.

        May be called from any number of threads; more than `concurrency` of them wait.
        """
        # A graph may take segments where the tokenizer makes none: there is one.
        arrays = {"token_type_ids": np.zeros_like(batch.input_ids), **batch.arrays}
        feed = {name: arrays[name] for name in self._inputs}
        session = self._idle.get()
        try:
            (logits,) = session.run(["logits"], feed)
        finally:
            self._idle.put(session)
        return np.asarray(logits, np.float32)


def installed_providers() -> list[str]:
    """The names of `PROVIDERS` that this onnxruntime was built with, `cpu` always among them.

    Raises:
        ProviderError: onnxruntime is not installed.
    """
    available = require_runtime().get_available_providers()
    return [short for short, full in PROVIDERS.items() if full in available]


def require_provider(provider: str) -> str:
    """ONNX Runtime's name for an execution provider that is installed.

    Args:
        provider: one of `PROVIDERS`.

    Raises:
        ProviderError: onnxruntime or the provider is not installed.
    """
    installed = installed_providers()
    if provider not in installed:
        extra = _EXTRAS.get(provider)
        step = f'pip install "monoxkit[{extra}]"' if extra else f"one of {', '.join(PROVIDERS)}"
        raise ProviderError(
            f"`provider` {provider}: expected an installed execution provider, found "
            f"{', '.join(installed)}. Next: {step}"
        )
    return PROVIDERS[provider]


def computes_bf16(provider: str) -> bool:
    """Whether float32 weights can be multiplied in bfloat16 on one of `PROVIDERS` here."""
    return provider == "openvino" and has_bf16()


def require_bf16(provider: str) -> None:
    """Check `computes_bf16`.

    Raises:
        ProviderError: the provider has no such arithmetic, or the CPU emulates it at best.
    """
    if computes_bf16(provider):
        return
    if provider != "openvino":
        raise ProviderError(
            f"bf16: expected `provider` openvino, which alone multiplies float32 weights in it, "
            f"found {provider}. Give that provider, or use a bundle in another precision."
        )
    raise ProviderError(
        f"bf16: expected a CPU with AVX512-BF16 or AMX, found {read_hardware().cpu_model} without. "
        "Use another precision here."
    )


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
        provider: one of `PROVIDERS`.
        threads: of one operator; None for the cores that the process may use.
        precision: what the graph's float32 weights are multiplied in.
        streams: calls that the OpenVINO provider runs at once, each on `threads`.

    Raises:
        ProviderError: onnxruntime or the provider is not installed, cannot run here, or does not
            compute in bf16 here.
        ModelError: the graph cannot be loaded.
    """
    runtime = require_runtime()
    name = require_provider(provider)
    if precision == BF16:
        require_bf16(provider)
    threads = threads or num_threads()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    if not may_spin():
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings: dict[str, str] = {}
    if provider == "openvino":
        # Said for fp32 too: OpenVINO itself takes bf16 by default where the CPU has it.
        hint = {"CPU": {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision]}}
        settings = {
            "device_type": "CPU",
            "num_of_threads": str(threads * streams),
            "num_streams": str(streams),
            "load_config": json.dumps(hint),
        }
    try:
        session = runtime.InferenceSession(
            str(graph), sess_options=options, providers=[(name, settings)]
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


def _checked_inputs(session: Any, graph: Path) -> list[str]:
    """The names of a graph's inputs, all of them such as a batch of tokens has.

    Raises:
        ModelError: the graph takes something else.
    """
    inputs = session.get_inputs()
    for value in inputs:
        if value.name not in _INPUTS or value.type != "tensor(int64)" or len(value.shape) != 2:
            raise ModelError(
                f"{graph}: expected inputs among {', '.join(_INPUTS)}, int64 of 2 axes, found "
                f"{value.name[:60]!r}, {value.type} of {len(value.shape)}. Export the model again."
            )
    if "input_ids" not in [value.name for value in inputs]:
        raise ModelError(f"{graph}: expected an input input_ids, found none. Export it again.")
    return [value.name for value in inputs]


def _require_logits(session: Any, graph: Path, num_labels: int) -> None:
    """Check that a graph's output is logits for so many labels."""
    outputs = {value.name: value for value in session.get_outputs()}
    logits = outputs.get("logits")
    if logits is None or len(logits.shape) != 2 or logits.type not in _LOGIT_TYPES:
        found = [f"{name[:60]!r} of {len(value.shape)} axes" for name, value in outputs.items()]
        raise ModelError(
            f"{graph}: expected an output 'logits' of numbers with 2 axes, found "
            f"{', '.join(found)}. Export the model again."
        )
    columns = logits.shape[-1]
    if columns != num_labels:
        raise ModelError(
            f"{graph}: expected logits for the {num_labels} labels "
            f"of the bundle, found {columns}. Export the model again."
        )


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
            'pip install "monoxkit[cpu]" (or [gpu], or [openvino]).'
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            'onnxruntime: expected it to be installed, found none. Run: pip install "monoxkit[cpu]"'
            " (or [gpu], or [openvino]; only one of the three at a time)."
        ) from error
    # What it logs as an error it raises too, and we say it: its own coloured lines go.
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime  # type: ignore[no-any-return]
