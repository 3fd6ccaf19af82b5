"""The machine's own limits: how fast it multiplies matrices of the model's shapes.

Shapes: M rows of activations (tokens of a batch), H hidden, I intermediate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.errors import ModelError, ProviderError, first_line
from monox_kit.hardware import num_threads
from monox_kit.models.folder import ModelFolder
from monox_kit.models.onnx_backend import require_execution_provider, require_runtime

NUM_ROWS = 2048  # M; more do not raise the rate
TYPES = ("fp32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """What one token costs in the encoder.

    Attributes:
        hidden: H.
        intermediate: I, of the feed-forward layer.
        ops_per_token: 2 x the parameters of all matrices of the layers: a multiplication and an
            addition each. Attention's products of activations (4 L H a layer), embeddings and the
            classification head are left out.
    """

    hidden: int
    intermediate: int
    ops_per_token: int


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """Best rates of matrix products, in 10^9 operations per second.

    Attributes:
        num_rows: M of all products.
        products: by type and shape `KxN`.
        rates: by type, for a layer: the time of four HxH and two HxI products.
        missing: types that were not measured, with the reason.
    """

    num_rows: int
    products: Mapping[str, Mapping[str, float]]
    rates: Mapping[str, float]
    missing: Mapping[str, str]

    def tokens_per_s(self, size: EncoderSize) -> dict[str, float]:
        """The tokens per second that each rate allows."""
        return {name: rate * 1e9 / size.ops_per_token for name, rate in self.rates.items()}

    def to_json(self) -> dict[str, Any]:
        """The limits as plain JSON values."""
        return asdict(self)


def encoder_size(folder: ModelFolder) -> EncoderSize:
    """The size of a PyTorch folder's encoder, from its configuration and its weights' shapes.

    Raises:
        ModelError: the configuration names no hidden size, or no layer has a matrix.
    """
    hidden = folder.config.get("hidden_size") or folder.config.get("dim")
    parameters = _matrix_parameters(folder.path)
    if not isinstance(hidden, int) or not parameters:
        raise ModelError(
            f"{folder.path}: expected hidden_size and the matrices of numbered layers, found "
            f"{hidden!r} and {parameters} parameters. Give an encoder classifier."
        )
    intermediate = folder.config.get("intermediate_size") or folder.config.get("hidden_dim")
    return EncoderSize(hidden, int(intermediate or 4 * hidden), 2 * parameters)


def measure_limits(
    size: EncoderSize, *, threads: int | None = None, budget_s: float = 2.0
) -> MachineLimits:
    """The best of several products of each type at the shapes HxH and HxI.

    Args:
        size: of the encoder.
        threads: None for the cores that the process may use.
        budget_s: seconds for each type and shape; at least two products are timed.
    """
    threads = threads or num_threads()
    shapes = {(size.hidden, size.hidden), (size.hidden, size.intermediate)}
    makers: dict[str, Callable[[int, int, int], Callable[[], object]]] = {
        "fp32": lambda inner, columns, count: _torch_product("float32", inner, columns, count),
        "bf16": lambda inner, columns, count: _torch_product("bfloat16", inner, columns, count),
        "int8": _int8_product,
    }
    products: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    for name in TYPES:
        try:
            products[name] = {
                f"{inner}x{columns}": 2e-9
                * NUM_ROWS
                * inner
                * columns
                / _best_s(makers[name](inner, columns, threads), budget_s)
                for inner, columns in sorted(shapes)
            }
        except ProviderError as error:
            missing[name] = first_line(error)
    rates = {name: _layer_rate(found, size) for name, found in products.items()}
    return MachineLimits(NUM_ROWS, products, rates, missing)


def best_of(first: MachineLimits, second: MachineLimits, size: EncoderSize) -> MachineLimits:
    """The better product of two measurements, by type and shape: a limit is a maximum."""
    products = {
        name: {shape: max(rate, second.products[name][shape]) for shape, rate in found.items()}
        for name, found in first.products.items()
    }
    rates = {name: _layer_rate(found, size) for name, found in products.items()}
    return MachineLimits(first.num_rows, products, rates, first.missing)


def _layer_rate(products: Mapping[str, float], size: EncoderSize) -> float:
    square, wide = size.hidden * size.hidden, size.hidden * size.intermediate
    seconds = 4 * square / products[f"{size.hidden}x{size.hidden}"]
    seconds += 2 * wide / products[f"{size.hidden}x{size.intermediate}"]
    return (4 * square + 2 * wide) / seconds


def _torch_product(dtype: str, inner: int, columns: int, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    # A linear layer, as the model has it: PyTorch's own layout of weights.
    layer = torch.nn.Linear(inner, columns, bias=False, dtype=getattr(torch, dtype))
    activations = torch.rand(NUM_ROWS, inner).to(getattr(torch, dtype))

    def multiply() -> object:
        with torch.inference_mode():
            return layer(activations)

    return multiply


def _int8_product(inner: int, columns: int, threads: int) -> Callable[[], object]:
    generator = np.random.default_rng(0)
    # 7 bits: without VNNI the CPU adds pairs of products in 16.
    weights = generator.integers(-64, 64, (inner, columns), np.int8)
    activations = generator.integers(0, 256, (NUM_ROWS, inner), np.uint8)
    multiply = integer_product(weights, NUM_ROWS, threads)
    return lambda: multiply(activations)


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
        model.SerializeToString(),
        sess_options=options,
        providers=[require_execution_provider("cpu")],
    )
    product = np.empty((num_rows, columns), np.int32)

    def multiply(activations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        binding = session.io_binding()
        binding.bind_cpu_input("activations", np.ascontiguousarray(activations))
        binding.bind_output("product", "cpu", 0, np.int32, product.shape, product.ctypes.data)
        session.run_with_iobinding(binding)
        return product

    return multiply


def _best_s(multiply: Callable[[], object], budget_s: float) -> float:
    """The shortest time of a product, after one to warm up."""
    multiply()
    times: list[float] = []
    while len(times) < 2 or sum(times) < budget_s:
        started_s = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - started_s)
    return min(times)


def _matrix_parameters(folder: Path) -> int:
    """Parameters of all two-dimensional weights below a numbered layer."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and any(part.isdigit() for part in name.split(".")):
                    total += shape[0] * shape[1]
    return total
