"""Predict labels from Python: `python examples/predict.py MODEL "a text" "another text"`.

MODEL is a PyTorch folder or an ONNX bundle; a bundle needs no PyTorch.
"""

from __future__ import annotations

import sys

import monox_kit as mk


def main(model: str, texts: list[str]) -> None:
    """Print each text's label with its probability, and the runner-up."""
    for text, one in zip(texts, mk.load(model).predict(texts, top_k=2)):
        (first, probability), (second, other) = one.top
        print(f"{first} {probability:.2f} (then {second} {other:.2f}): {text}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
