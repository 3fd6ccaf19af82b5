"""What quantizing leaves alone: stdout, which holds the command's result."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monox_kit.exporting.quantize import write_quantized
from monox_kit.models.scoring import Texts
from monox_kit.models.tokenizer import Encoded
from monox_kit.models.tokenizer_files import Padding


def one_node() -> Any:
    """A graph that gives its input back."""
    from onnx import TensorProto, helper

    names = ("input_ids", "b")
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, None]) for name in names]
    node = helper.make_node("Identity", names[:1], names[1:])
    return helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:]))


def test_bars_of_nncf_stay_off_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    seen: list[Any] = []

    def quantize(graph: Any, dataset: list[Any], **options: Any) -> Any:
        asked = options["advanced_parameters"]
        ranges = asked.activations_range_estimator_params
        seen.append((len(dataset), asked.smooth_quant_alphas.matmul, ranges))
        return graph

    fake = SimpleNamespace(
        Dataset=list,
        quantize=quantize,
        ModelType=SimpleNamespace(TRANSFORMER="transformer"),
        AdvancedQuantizationParameters=SimpleNamespace,
        AdvancedSmoothQuantParameters=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "nncf", fake)
    monkeypatch.setitem(
        sys.modules,
        "nncf.quantization.range_estimator",
        SimpleNamespace(RangeEstimatorParametersSet=SimpleNamespace(MINMAX="largest")),
    )
    monkeypatch.setitem(sys.modules, "nncf.quantization", SimpleNamespace())
    source, folder = tmp_path / "fp32", tmp_path / "int8"
    source.mkdir()
    folder.mkdir()
    onnx.save(one_node(), str(source / "model.onnx"))
    encoded = Encoded(
        np.array([5, 6, 7]), None, lengths=np.array([2, 1]), truncated=np.zeros(2, np.int64)
    )
    texts = Texts(encoded, np.array([0, 1]), Padding(0), np.arange(2))
    write_quantized("int8-nncf", source, folder, texts)
    assert capsys.readouterr().out == ""
    assert seen == [(2, 0.8, "largest")]
    assert (folder / "model.onnx").is_file()
