"""Reads folders with transformers 4.57, both optimums and tritonclient, in their environment.

Standard input: a JSON list of {folder, kind, texts}; standard output: what each holds.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def read(folder: str, kind: str, texts: list[str]) -> dict[str, Any]:
    """Ids, logits and the pipeline's answers of each text alone, truncated as the folder says."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    if kind == "triton":
        return triton_config(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if kind == "onnx":
        from optimum.onnxruntime import ORTModelForSequenceClassification

        model: Any = ORTModelForSequenceClassification.from_pretrained(folder)
    elif kind == "openvino":
        model = openvino_model(folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, logits = [], []
    for text in texts:
        inputs = tokenizer(text, truncation=True, return_tensors="pt")
        ids.append(inputs["input_ids"][0].tolist())
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0].tolist())
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    return {
        "ids": ids,
        "logits": logits,
        "labels": list(model.config.id2label.values()),
        "pipeline": classify(texts, truncation=True),
    }


def openvino_model(folder: str) -> Any:
    """A bundle in optimum-intel, told to multiply in fp32 as its record says."""
    # Its import sends an event and writes into the home folder; the suite's sentence-transformers
    # is for another transformers.
    for name in ("openvino_telemetry", "sentence_transformers"):
        sys.modules[name] = None  # type: ignore[assignment]
    from optimum.intel import OVModelForSequenceClassification

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return OVModelForSequenceClassification.from_pretrained(folder, from_onnx=True, ov_config=hint)


def triton_config(folder: str) -> dict[str, Any]:
    """A `config.pbtxt`, read with Triton's own message."""
    from google.protobuf import json_format, text_format

    # Beside the package, whose import wants grpc and rapidjson.
    own = importlib.util.find_spec("tritonclient")
    assert own is not None and own.submodule_search_locations
    path = Path(own.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = text_format.Parse(Path(folder, "config.pbtxt").read_text(), module.ModelConfig())
    found: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return found


def main() -> None:
    """Answer standard input."""
    import transformers

    asked = json.load(sys.stdin)
    answers = [read(**each) for each in asked]
    json.dump({"transformers": transformers.__version__, "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
