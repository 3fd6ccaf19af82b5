"""Changes that hold for every recipe: by preset and command, settings of each of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Chi et al. 2020, section 4.1: Adam, batches of 8, texts of 256 tokens, a constant rate of 5e-6, an
# epoch of 200 steps. AdamW without decay is Adam. What the paper does not say stays as it is here:
# gradients are clipped at a norm of 1, dropout is the model's.
_LOOP: Mapping[str, Any] = {
    "learning_rate": 5e-6,
    "head_factor": 1.0,
    "batch_size": 8,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "weight_decay": 0.0,
    "max_length": 256,
    "embeddings": "full",
    "freeze_layers": 0,
    "eval_every": 200,
}
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "paper": {
        "train-teacher": {"model": "roberta-large", **_LOOP},
        "train-student": {"model": "bert-base-multilingual-cased", **_LOOP},
    },
}
