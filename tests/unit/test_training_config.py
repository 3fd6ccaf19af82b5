"""The settings of training: each is checked when it is made, and named where it does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig

GIVEN = {"model": "m", "method": "kd", "dev": CorpusConfig(paths=("dev.jsonl",))}


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (ObjectiveConfig, {"temperature": 0.0}, ("`temperature`", "0.0")),
        (ObjectiveConfig, {"threshold": 1.5}, ("`threshold`", "1.5")),
        (StudentConfig, {**GIVEN, "method": "dk"}, ("`method`", "'dk'")),
        (StudentConfig, {**GIVEN, "store_weight": (1.0, 0.0)}, ("`store_weight`", "0.0")),
        (LoopConfig, {"batch_size": 0}, ("`batch_size`", "0")),
        (LoopConfig, {"schedule": "up"}, ("`schedule`", "'up'")),
        (LoopConfig, {"max_steps": "2"}, ("`max_steps`", "'2'")),
        (LoopConfig, {"warmup_fraction": float("nan")}, ("`warmup_fraction`", "nan")),
    ],
)
def test_a_bad_setting_is_named_with_its_value(
    kind: Any, settings: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert all(part in str(caught.value) for part in named)
