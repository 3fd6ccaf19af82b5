"""ONNX Runtime sequence classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monox_kit.bundle import ONNX_FILE, ModelFolder
from monox_kit.data import LabelSet, Logits, TokenBatch
from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.hardware import num_threads

if TYPE_CHECKING:
    from types import ModuleType

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_EXTRAS = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu", "openvino": "openvino"}


class OnnxClassifier:
    """A classifier that ONNX Runtime runs.

    Args:
        folder: an ONNX bundle.
        labels: names for the columns instead of the folder's own.
        provider: one of `PROVIDERS`; it is an error where it is not installed.
        threads: of one operator; None for the cores that the process may use.

    Raises:
        ProviderError: onnxruntime or the provider is not installed.
        ModelError: the graph cannot be loaded or does not score the folder's labels.
    """

    def __init__(
        self,
        folder: ModelFolder,
        labels: LabelSet | None = None,
        *,
        provider: str = "cpu",
        threads: int | None = None,
    ) -> None:
        folder.require_backend("onnx")
        self._labels = folder.resolve_labels(labels)
        self._session = open_session(folder, provider, threads)
        self._inputs = [value.name for value in self._session.get_inputs()]
        columns = self._session.get_outputs()[0].shape[-1]
        if columns != len(self._labels):
            raise ModelError(
                f"{folder.path / ONNX_FILE}: expected logits for the {len(self._labels)} labels "
                f"of the bundle, found {columns}. Export the model again."
            )

    @property
    def labels(self) -> LabelSet:
        """What the columns of the logits mean."""
        return self._labels

    def logits(self, batch: TokenBatch) -> Logits:
        """[B, C] float32 logits in the order of the batch."""
        arrays = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        feed = {name: arrays[name] for name in self._inputs}
        (logits,) = self._session.run(["logits"], feed)
        return np.asarray(logits, np.float32)


def require_provider(provider: str) -> str:
    """ONNX Runtime's name for an execution provider that is installed.

    Args:
        provider: one of `PROVIDERS`.

    Raises:
        ProviderError: onnxruntime or the provider is not installed.
    """
    available = require_runtime().get_available_providers()
    name = PROVIDERS.get(provider)
    if name is None or name not in available:
        installed = [short for short, full in PROVIDERS.items() if full in available]
        extra = _EXTRAS.get(provider)
        step = f'pip install "monoxkit[{extra}]"' if extra else f"one of {', '.join(PROVIDERS)}"
        raise ProviderError(
            f"--provider {provider}: expected an installed execution provider, found "
            f"{', '.join(installed)}. Next: {step}"
        )
    return name


def open_session(folder: ModelFolder, provider: str, threads: int | None) -> Any:
    """An `onnxruntime.InferenceSession` on exactly the provider that was asked for."""
    runtime = require_runtime()
    name = require_provider(provider)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or num_threads()
    options.log_severity_level = 3  # errors only: warnings of graph fusion are no news to a user
    try:
        session = runtime.InferenceSession(
            str(folder.path / ONNX_FILE), sess_options=options, providers=[name]
        )
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise ModelError(
            f"{folder.path / ONNX_FILE}: expected a graph that onnxruntime {runtime.__version__} "
            f"loads, found: {first_line(error)}. Export the model again."
        ) from error
    if name not in session.get_providers():
        raise ProviderError(
            f"--provider {provider}: expected it to run the graph, found that onnxruntime fell "
            f"back to {', '.join(session.get_providers())}. Check its drivers: monoxkit doctor."
        )
    return session


def integer_product(
    weights: npt.NDArray[np.int8], num_rows: int, threads: int | None = None
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int32]]:
    """A function that multiplies uint8 activations [M, K] by constant int8 weights [K, N].

    What onnxruntime's CPU kernel for int8 does, and nothing else: the machine's int8 limit. The
    function returns the same int32 [M, N] array each time, so that no memory is asked for in it.

    Args:
        weights: [K, N]; the session prepares them once.
        num_rows: M.
        threads: None for the cores that the process may use.
    """
    from onnx import TensorProto, helper, numpy_helper

    runtime = require_runtime()
    inner, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["activations", "weights"], ["product"])],
        "product",
        [helper.make_tensor_value_info("activations", TensorProto.UINT8, [num_rows, inner])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [num_rows, columns])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or num_threads()
    session = runtime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=[require_provider("cpu")]
    )
    product = np.empty((num_rows, columns), np.int32)

    def multiply(activations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        binding = session.io_binding()
        binding.bind_cpu_input("activations", np.ascontiguousarray(activations))
        binding.bind_output("product", "cpu", 0, np.int32, product.shape, product.ctypes.data)
        session.run_with_iobinding(binding)
        return product

    return multiply


def require_runtime() -> ModuleType:
    """The `onnxruntime` module.

    Raises:
        ProviderError: it is not installed; the message gives the exact commands.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            'onnxruntime: expected it to be installed, found none. Run: pip install "monoxkit[cpu]"'
            " (or [gpu], or [openvino]; only one of the three at a time)."
        ) from error
    return onnxruntime  # type: ignore[no-any-return]
