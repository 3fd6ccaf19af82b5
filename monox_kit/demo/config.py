"""Settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from monox_kit.config import Config, Separated

TARGET_LANGUAGES = ("da", "de", "es", "fr", "it", "ja", "ko", "pl", "pt-BR", "ru")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig(Config):
    """What the demo runs on; the defaults are chosen in benchmarks/LOG.md.

    Attributes:
        data: folder of your own corpus: labelled.jsonl, unlabelled.jsonl, dev.jsonl, labels.json
            and test.LANG.jsonl for each language [default: Debian's texts, fetched with apt].
        teacher_model: English encoder: a folder, packaged:NAME or a hub name.
        student_model: multilingual encoder: a folder, packaged:NAME or a hub name.
        labelled: number of labelled English rows. Not used with `data`, nor are the next four.
        unlabelled: number of English rows without labels.
        dev: number of English rows that choose the weights.
        test_rows: largest number of rows of each test set.
        languages: target languages.
        teacher_max_length: truncate the teacher's texts at this many tokens. It runs once, so it
            may read more.
        max_length: truncate the students' texts at this many tokens.
        teacher_steps: steps of 16 rows that the teacher trains for.
        student_steps: steps of 16 rows that each student trains for.
        teacher_learning_rate: peak learning rate of the teacher.
        student_learning_rate: peak learning rate of the students.
        head_factor: learning rate of the new heads, as a multiple of the encoder's.
        freeze_layers: keep this many of the students' lowest layers as they are.
        temperature: temperature of the soft targets in kd.
        threshold: leave out pseudo-labels of which the teacher is less confident.
        seed: seed of everything that is random.
    """

    data: Path | None = None
    teacher_model: str = "packaged:minilm-l6"
    student_model: str = "packaged:e5-small"
    labelled: Annotated[int, Ge(1)] = 1000
    unlabelled: Annotated[int, Ge(1)] = 4000
    dev: Annotated[int, Ge(1)] = 300
    test_rows: Annotated[int, Ge(20)] = 200
    languages: Annotated[tuple[str, ...], Separated()] = TARGET_LANGUAGES
    teacher_max_length: Annotated[int, Ge(8)] = 32
    max_length: Annotated[int, Ge(8)] = 32
    teacher_steps: Annotated[int, Ge(1)] = 360
    student_steps: Annotated[int, Ge(1)] = 280
    teacher_learning_rate: Annotated[float, Gt(0), Lt(1)] = 1e-4
    student_learning_rate: Annotated[float, Gt(0), Lt(1)] = 2e-4
    head_factor: Annotated[float, Gt(0), Le(1000)] = 10.0
    freeze_layers: Annotated[int, Ge(0)] = 8
    temperature: Annotated[float, Gt(0), Le(1000)] = 0.1
    threshold: Annotated[float, Ge(0), Le(1)] = 0.0
    seed: Annotated[int, Ge(0), Lt(2**63)] = 1
