"""Configurations are checked field by field, nested ones too, in the command line's words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.training.config import LoopConfig, ObjectiveConfig
from monox_kit.training.run import StudentConfig
from monox_kit.validation import checked

CONFIG = StudentConfig(model="m", method="kd", dev=CorpusConfig(paths=("dev.jsonl",)))


def test_a_good_configuration_comes_back_as_it_is() -> None:
    assert checked(CONFIG) is CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": ObjectiveConfig(temperature=0.0)},
            "--temperature: expected greater than 0, found 0.0",
        ),
        ({"method": "dk"}, "--method: expected 'ce', 'pl', 'kd' or 'self-training', found 'dk'"),
        ({"store_weight": (1.0, 0.0)}, "--store-weight: expected greater than 0, found 0.0"),
        ({"loop": LoopConfig(batch_size=0)}, "--batch-size: expected greater than or equal to 1"),
        ({"loop": LoopConfig(schedule="up")}, "--schedule: expected 'linear' or 'constant'"),  # type: ignore[arg-type]
        ({"loop": LoopConfig(max_steps="2")}, "--max-steps: expected 2, found '2'"),  # type: ignore[arg-type]
        ({"loop": LoopConfig(warmup_fraction=float("nan"))}, "--warmup-fraction"),
    ],
)
def test_a_bad_field_is_named_as_it_is_typed(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(replace(CONFIG, **changes))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
