"""A labelling benchmark of a few seconds."""

from __future__ import annotations

from pathlib import Path

from labelling_race.plan import LabelBenchmarkConfig
from monox_kit.corpora.corpus import CorpusConfig


def config_for(files: Path, **options: object) -> LabelBenchmarkConfig:
    """The benchmark of the fixture `files`, with `options`."""
    values: dict[str, object] = {
        "model": str(files / "model"),
        "corpus": CorpusConfig(paths=(str(files / "corpus.jsonl"),), pair="none"),
        "rounds": 2,
        "rows_per_round": 12,
        "warmup_rows": 4,
        "calibration_rows": 4,
        "batch_sizes": (2, 4),
        "max_length": 32,
        "limit_budget_s": 0.0,
    }
    return LabelBenchmarkConfig(**{**values, **options})  # type: ignore[arg-type]
