"""The reduced-precision forms of a graph: each reads an fp32 graph and writes another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Int64s
from monox_kit.errors import ModelError, ProviderError
from monox_kit.exporting.config import PRECISIONS
from monox_kit.exporting.embeddings import quantize_embeddings
from monox_kit.exporting.graph import CONTRIB_DOMAIN, quiet_exporter, save_graph
from monox_kit.exporting.smooth import smoothed
from monox_kit.extras import is_installed
from monox_kit.hardware import has_vnni
from monox_kit.models.batching import pad_batch
from monox_kit.models.folder import BF16, ONNX_DATA_FILE, ONNX_FILE
from monox_kit.models.graph_classifier import OPENVINO_PROVIDERS
from monox_kit.models.scoring import Texts
from monox_kit.runtime_environment import import_openvino

# Operators with constant weights.
_PRODUCTS = ["MatMul", "Gemm"]
# TensorProto.FLOAT: what onnxruntime's own operators give, whose types ONNX cannot infer.
_UNKNOWN_TYPES = {"DefaultTensorType": 1}
# NNCF smooths by itself, with 0.95 unless told: twice the divergence from fp32 of this one, and 0.5
# fifty times as much (benchmarks/LOG.md). `smooth` has its own.
_NNCF_ALPHA = 0.8
_BLOCK_SIZE = 128  # of inputs that share a weight scale; 32 is slower, 256 agrees less


def calibration_feeds(graph: Path, texts: Texts) -> Iterator[dict[str, Int64s]]:
    """What a graph takes of every text alone: padding would stretch the ranges.

    Exporters drop an input that changes nothing, so the graph itself is asked.
    """
    import onnx

    inputs = [one.name for one in onnx.load(str(graph), load_external_data=False).graph.input]
    for row in range(len(texts.encoded.lengths)):
        arrays = pad_batch(texts.encoded, np.array([row]), texts.padding).arrays
        yield {name: arrays[name] for name in inputs}


def write_quantized(precision: str, source: Path, folder: Path, calibration: Texts) -> None:
    """Write `model.onnx` into `folder`, a scratch folder, from the fp32 one in `source`.

    Args:
        precision: one of `PRECISIONS`.
        source: folder of the fp32 graph.
        folder: a folder under construction.
        calibration: real text to learn ranges from: never what the graph is checked on.

    Raises:
        ProviderError: the precision needs a package that is not installed.
    """
    match precision:
        case "fp16":
            _fp16(source, folder)
        case "int8" | "int8-tensor":
            _dynamic(source, folder, None, per_channel=precision == "int8")
        case "int8-smooth":
            _dynamic(source, folder, calibration, per_channel=True)
        case "int8-static" | "int8-static-smooth":
            _static(source, folder, calibration, smooth=precision == "int8-static-smooth")
        case "int8-nncf":
            _nncf(source, folder, calibration)
        case "int8-block" | "int4-block":
            _blockwise(source, folder, bits=4 if precision == "int4-block" else 8)
        case "int8-embedding":
            quantize_embeddings(source, folder)
        case _:
            raise ValueError(f"precision: expected one of {PRECISIONS}, found {precision!r}")


def _dynamic(source: Path, folder: Path, smooth_on: Texts | None, *, per_channel: bool) -> None:
    """Weights to int8; the range of the activations is taken from every batch while it runs."""
    start = source / ONNX_FILE
    if smooth_on is not None:
        start = smoothed_file(source, folder, smooth_on)
    write_dynamic(start, folder, per_channel=per_channel)


def write_dynamic(
    start: Path, folder: Path, *, per_channel: bool = True, leave: Sequence[str] = ()
) -> None:
    """Write `model.onnx` with the products of the graph `start` in dynamic int8.

    Args:
        start: an fp32 graph.
        folder: a folder under construction.
        per_channel: whether each output of a weight has a scale of its own.
        leave: names of nodes that stay in fp32; see `product_names`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_exporter():
        quantize_dynamic(
            str(start),
            str(folder / ONNX_FILE),
            op_types_to_quantize=_dynamic_operators(start),
            # The quantizer first makes a MatMul of every Gemm, under another name.
            nodes_to_exclude=[*leave, *(f"{name}_MatMul" for name in leave)],
            per_channel=per_channel,
            reduce_range=_reduce_range(),
            weight_type=QuantType.QInt8,
            use_external_data_format=start.with_name(f"{start.name}.data").is_file(),
            extra_options={"MatMulConstBOnly": True, **_UNKNOWN_TYPES},
        )


def product_names(start: Path) -> list[str]:
    """The names of the nodes that dynamic int8 rounds, in the order of the graph.

    Raises:
        ModelError: they have no names of their own.
    """
    import onnx

    graph = onnx.load(str(start), load_external_data=False).graph
    weights, operators = {one.name for one in graph.initializer}, _dynamic_operators(start)
    names = [
        node.name
        for node in graph.node
        if node.op_type in operators and len(node.input) > 1 and node.input[1] in weights
    ]
    if len(names) < 2 or len({*names, ""}) <= len(names):
        raise ModelError(
            "int8-mixed: the graph's products with weights have no names of their own to be left "
            "out by. Use int8-smooth."
        )
    return names


def _static(source: Path, folder: Path, calibration: Texts, *, smooth: bool) -> None:
    """Weights and activations to int8 with ranges from the calibration text, as QDQ nodes."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    start = smoothed_file(source, folder, calibration) if smooth else source / ONNX_FILE
    with quiet_exporter():
        quantize_static(
            str(start),
            str(folder / ONNX_FILE),
            _Reader(calibration_feeds(source / ONNX_FILE, calibration)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            reduce_range=_reduce_range(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=(source / ONNX_DATA_FILE).is_file(),
            extra_options={
                "MatMulConstBOnly": True,
                # Products stay in fp32: rounding them too costs half of the labels, and time.
                "OpTypesToExcludeOutputQuantization": _PRODUCTS,
                **_UNKNOWN_TYPES,
            },
        )


def _nncf(source: Path, folder: Path, calibration: Texts) -> None:
    """Static int8 by NNCF, which smooths and corrects biases by itself."""
    try:
        with quiet_exporter():
            if is_installed("openvino"):  # nncf imports it too
                import_openvino()
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise ProviderError(
            "int8-nncf: expected nncf to be installed, found none. "
            'Run: pip install "monoxkit[nncf]"'
        ) from error
    import onnx

    feeds = list(calibration_feeds(source / ONNX_FILE, calibration))
    with quiet_exporter():
        quantized = nncf.quantize(
            onnx.load(str(source / ONNX_FILE)),
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_NNCF_ALPHA),
                # Its own is the mean of the texts' largest values: half of the texts have larger.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
    save_graph(quantized, folder)


def _blockwise(source: Path, folder: Path, *, bits: int) -> None:
    """Weights to 8 or 4 bits with a scale per block of inputs; activations to 8 while it runs."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet_exporter():
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(source / ONNX_FILE)),
            bits=bits,
            block_size=_BLOCK_SIZE,
            is_symmetric=True,
            accuracy_level=4,  # int8 products
        )
        quantizer.process()
        save_graph(quantizer.model.model, folder)


def _fp16(source: Path, folder: Path) -> None:
    """Weights and arithmetic to float16; inputs and logits keep their types."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet_exporter():
        half = convert_float_to_float16(onnx.load(str(source / ONNX_FILE)), keep_io_types=True)
        save_graph(half, folder)


# No faster than others that agree better: fp32 for the first two, int8-block for the third. The
# last takes minutes to find its layers, and is tried where a gate asks by language.
_NOT_ON_CPU = ("fp16", "int8-embedding", "int4-block", "int8-mixed")
# Every reduced precision by the name that `--precision` takes; `write_quantized` makes them.
_OPENVINO_CANDIDATES = (BF16, "int8-static", "int8-static-smooth", "int8-nncf")
# What is worth trying where. OpenVINO runs static graphs in int8, dynamic ones in fp32, and alone
# the fp32 graph in bf16; on GPUs int8 needs TensorRT's own calibration.
CANDIDATE_PRECISIONS: dict[str, Sequence[str]] = {
    "cpu": tuple(name for name in PRECISIONS if name not in _NOT_ON_CPU),
    **dict.fromkeys(OPENVINO_PROVIDERS, _OPENVINO_CANDIDATES),
    "cuda": ("fp16",),
    "tensorrt": ("fp16",),
}


def candidates_of(provider: str, *, has_gate: bool) -> Sequence[str]:
    """The precisions that `auto` tries on a provider."""
    mixed = ("int8-mixed",) if has_gate and provider == "cpu" else ()
    return (*CANDIDATE_PRECISIONS[provider], *mixed)


class _Reader:
    """onnxruntime's `CalibrationDataReader`."""

    def __init__(self, feeds: Iterator[dict[str, Int64s]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Int64s] | None:
        return next(self._feeds, None)


def _dynamic_operators(start: Path) -> list[str]:
    """The operators to quantize; onnxruntime's own Attention, which holds weights, among them.

    Opset 23 has another operator of that name, which onnxruntime's quantizer would take for its
    own and write a graph that is refused.
    """
    import onnx

    graph = onnx.load(str(start), load_external_data=False)
    is_fused = any(
        n.op_type == "Attention" and n.domain == CONTRIB_DOMAIN for n in graph.graph.node
    )
    return [*_PRODUCTS, *(["Attention"] if is_fused else [])]


def _reduce_range() -> bool:
    """Whether weights use 7 of their 8 bits.

    Without VNNI instructions the CPU adds pairs of products in 16 bits, which overflow at the full
    range.
    """
    return not has_vnni()


def smoothed_file(source: Path, folder: Path, calibration: Texts) -> Path:
    """The smoothed fp32 graph, beside the one to write: its name is no part of the bundle."""
    import onnx

    feeds = calibration_feeds(source / ONNX_FILE, calibration)
    graph: Any = smoothed(onnx.load(str(source / ONNX_FILE)), feeds, folder)
    save_graph(graph, folder, "smoothed.onnx")
    return folder / "smoothed.onnx"
