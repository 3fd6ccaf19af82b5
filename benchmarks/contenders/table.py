"""Every row of the benchmark's table."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from contenders.contract import Row
from contenders.openvino_rows import load_int8, load_openvino, prepare_int8
from contenders.our_row import OurRow
from contenders.pipeline_rows import (
    load_optimum,
    load_pipeline,
    prepare_optimum,
)
from contenders.torch_rows import CrossEncoderRow, TorchLoop

REFERENCE_ROWS = 32
CURATOR_ROWS = 256  # NeMo Curator's default rows per batch

_TORCH_LOOP = functools.partial(TorchLoop, rows=REFERENCE_ROWS, autocast=False, is_exact=True)
_CURATOR = functools.partial(TorchLoop, rows=CURATOR_ROWS, autocast=True, is_exact=False)
REFERENCE = "reference"
ROWS: Mapping[str, Row] = {
    REFERENCE: Row("PyTorch fp32, batches of texts of one length: nothing padded", _TORCH_LOOP),
    "pipeline": Row(
        "transformers pipeline, fp32, a list of texts as documented (one text a batch)",
        functools.partial(load_pipeline, dtype="float32", is_sorted=False),
    ),
    "pipeline-sorted": Row(
        "transformers pipeline, fp32, sorted by tokens, best batch size",
        functools.partial(load_pipeline, dtype="float32", is_sorted=True),
    ),
    "pipeline-sorted-bf16": Row(
        "transformers pipeline, model in bf16, sorted by tokens, best batch size",
        functools.partial(load_pipeline, dtype="bfloat16", is_sorted=True),
    ),
    "crossencoder": Row(
        "sentence-transformers CrossEncoder.predict, fp32, its own sorting, best batch size",
        CrossEncoderRow,
    ),
    "optimum-onnx": Row(
        "optimum-onnx ORTModelForSequenceClassification, fp32, in the sorted pipeline",
        load_optimum,
        prepare_optimum,
    ),
    "openvino-fp32": Row(
        "OpenVINO's own API, f32, batches of 1,024 tokens, best number of streams",
        functools.partial(load_openvino, precision="f32"),
    ),
    "openvino-bf16": Row(
        "OpenVINO's own API, bf16, batches of 1,024 tokens, best number of streams",
        functools.partial(load_openvino, precision="bf16"),
    ),
    "openvino-int8": Row(
        "OpenVINO's own API, NNCF int8, batches of 1,024 tokens, best number of streams",
        load_int8,
        prepare_int8,
    ),
    "curator": Row(
        "NeMo Curator's way: PyTorch, sorted by tokens, 256 rows a batch, bf16 autocast", _CURATOR
    ),
    "monoxkit": Row("monoxkit label: file in, verified store out, session included", OurRow),
    "monoxkit-fp32": Row("the same with the fp32 bundle", OurRow),
    "monoxkit-guard": Row("the same with the fidelity guard", OurRow),
    "monoxkit-openvino": Row("the same on OpenVINO", OurRow),
}
