"""Settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

TARGET_LANGUAGES = ("da", "de", "es", "fr", "it", "ja", "ko", "pl", "pt-BR", "ru")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """What the demo runs on; the defaults are chosen in benchmarks/LOG.md.

    Attributes:
        data: folder with labelled.jsonl, unlabelled.jsonl, dev.jsonl, test.LANG.jsonl and
            labels.json; None prepares Debian's package descriptions with apt.
        teacher_model: English encoder.
        student_model: multilingual encoder.
        labelled: labelled English rows; not used with `data`, nor are the next four.
        unlabelled: English rows without labels.
        dev: labelled English rows for choosing checkpoints.
        test_rows: rows of each test set, at most.
        languages: target languages.
        teacher_max_length: the teacher's cut in tokens: it runs once, so it may read more.
        max_length: the student's cut in tokens.
        teacher_steps: of 16 rows.
        student_steps: of 16 rows, the same for every objective.
        teacher_learning_rate: peak rate.
        student_learning_rate: peak rate, the same for every objective.
        head_factor: the fresh heads' rates are so many times those of the encoders.
        freeze_layers: the student's lowest layers that stay as pretrained.
        temperature: of kd's soft targets.
        threshold: least confidence of pl's pseudo-labels.
        seed: of everything random.
    """

    data: Path | None = None
    teacher_model: str = "packaged:minilm-l6"
    student_model: str = "packaged:e5-small"
    labelled: Annotated[int, Field(ge=1)] = 1000
    unlabelled: Annotated[int, Field(ge=1)] = 4000
    dev: Annotated[int, Field(ge=1)] = 300
    test_rows: Annotated[int, Field(ge=20)] = 200
    languages: tuple[str, ...] = TARGET_LANGUAGES
    teacher_max_length: Annotated[int, Field(ge=8)] = 32
    max_length: Annotated[int, Field(ge=8)] = 32
    teacher_steps: Annotated[int, Field(ge=1)] = 360
    student_steps: Annotated[int, Field(ge=1)] = 280
    teacher_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    student_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 10.0
    freeze_layers: Annotated[int, Field(ge=0)] = 8
    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.1
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
