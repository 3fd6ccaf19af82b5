"""Reads saved folders with transformers 4.57 and optimum-onnx; runs in an environment of theirs.

Standard input: a JSON list of {folder, kind, texts}; standard output: for each its ids and logits.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def read(folder: str, kind: str, texts: list[str]) -> dict[str, Any]:
    """Ids and logits of each text alone, truncated as the folder says."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if kind == "onnx":
        from optimum.onnxruntime import ORTModelForSequenceClassification

        model: Any = ORTModelForSequenceClassification.from_pretrained(folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, logits = [], []
    for text in texts:
        inputs = tokenizer(text, truncation=True, return_tensors="pt")
        ids.append(inputs["input_ids"][0].tolist())
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0].tolist())
    return {"ids": ids, "logits": logits, "labels": list(model.config.id2label.values())}


def main() -> None:
    """Answer standard input."""
    import transformers

    asked = json.load(sys.stdin)
    answers = [read(**each) for each in asked]
    json.dump({"transformers": transformers.__version__, "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
