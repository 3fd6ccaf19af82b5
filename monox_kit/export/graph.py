"""PyTorch classifier to ONNX graph, and the graph's reduced-precision forms."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from monox_kit.bundle import ONNX_DATA_FILE, ONNX_FILE, ModelFolder
from monox_kit.errors import ModelError, ProviderError, first_line

# The first opset with an Attention operator: SDPA stays one node instead of a dozen.
OPSET = 23
# protobuf refuses messages of 2 GiB; weights go into a file beside the graph well before that.
_EXTERNAL_DATA_BYTES = 1_500_000_000
# Operators with constant weights. "Attention" must not be quantized: onnxruntime's quantizer takes
# opset 23's operator for its own older one of the same name and writes a graph that is refused.
_QUANTIZED_OPERATORS = ["MatMul", "Gemm", "Gather"]

Exporter = Literal["dynamo", "optimum"]


def write_fp32(model: Any, folder: Path, token_types: bool) -> None:
    """Write `model.onnx` with dynamic batch and length, logits as [batch, C].

    Args:
        model: a transformers sequence classifier on the CPU, in evaluation mode.
        folder: a folder under construction.
        token_types: whether the graph takes `token_type_ids`.

    Raises:
        ModelError: PyTorch cannot express the model as a graph.
    """
    inputs = {"input_ids": torch.ones(2, 16, dtype=torch.int64)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if token_types:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                model,
                (),
                kwargs=inputs,
                dynamo=True,
                opset_version=OPSET,
                output_names=["logits"],
                dynamic_shapes=dict.fromkeys(inputs, axes),
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ModelError(
                f"{type(model).__name__}: expected a model that torch.onnx.export expresses, "
                f"found: {first_line(error)}. Try --exporter optimum."
            ) from error
    if program is None:
        raise ModelError("torch.onnx.export: expected a program, found none.")
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    program.save(str(folder / ONNX_FILE), external_data=size > _EXTERNAL_DATA_BYTES)


def write_fp32_with_optimum(source: ModelFolder, folder: Path) -> None:
    """Write `model.onnx` with optimum-onnx's exporter.

    Raises:
        ProviderError: optimum-onnx is not installed.
    """
    try:
        from optimum.exporters.onnx import main_export
    except ImportError as error:
        raise ProviderError(
            "--exporter optimum: expected optimum-onnx to be installed, found none. Run in an "
            'environment of its own: pip install "optimum-onnx[onnxruntime]" "transformers<4.58"'
        ) from error
    main_export(
        str(source.path), output=str(folder), task="text-classification", do_validation=False
    )


def write_int8(source: Path, folder: Path, *, reduce_range: bool) -> None:
    """Quantize a graph's weights to int8 per channel; activations are quantized while it runs.

    Args:
        source: folder of the fp32 graph.
        folder: a folder under construction.
        reduce_range: whether weights use 7 of their 8 bits. Without VNNI instructions the CPU adds
            pairs of products in 16 bits, which overflow at the full range.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_exporter():
        quantize_dynamic(
            str(source / ONNX_FILE),
            str(folder / ONNX_FILE),
            op_types_to_quantize=_QUANTIZED_OPERATORS,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=(source / ONNX_DATA_FILE).is_file(),
            extra_options={"MatMulConstBOnly": True},
        )


def write_fp16(source: Path, folder: Path) -> None:
    """Convert a graph's weights and arithmetic to float16; inputs and logits keep their types."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet_exporter():
        half = convert_float_to_float16(onnx.load(str(source / ONNX_FILE)), keep_io_types=True)
        onnx.save(half, str(folder / ONNX_FILE))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporters' remarks about packages that a text model does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
