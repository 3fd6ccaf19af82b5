"""The stores that faults are laid on, and what must hold of them whatever happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from monox_kit.errors import StoreError, StoreIncomplete
from monox_kit.store import LogitStore
from monox_kit.store.format import SCAN_FILE
from tests.store_samples import manifest

if TYPE_CHECKING:
    from monox_kit.labelling import LabelConfig
    from monox_kit.training.config import TeacherConfig

# 23 rows in six shards, five of four rows and one of three.
SIX_SHARDS = manifest(num_rows=23)
# Marks of a suite's whole, which runs sampled otherwise.
COMPLETE = [pytest.mark.complete, pytest.mark.timeout(3600)]

T = TypeVar("T")


def label_config(files: Path) -> LabelConfig:
    """Six shards of the corpus of 60 rows in `files`, under the tiny model there."""
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.labelling import LabelConfig

    return LabelConfig(
        teacher="torch",
        model=str(files / "model"),
        corpus=CorpusConfig(paths=(str(files / "corpus.jsonl"),)),
        max_length=32,
        shard_rows=10,
    )


# Steps of the run below; an epoch has six.
TRAINING_STEPS = 24
EPOCH_STEPS = 6


def teacher_config(
    files: Path, num_steps: int = TRAINING_STEPS, checkpoint_every: int = 5
) -> TeacherConfig:
    """Steps over the labelled rows in `files`, with dropout, from the tiny encoder there."""
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.training.config import LoopConfig, TeacherConfig

    return TeacherConfig(
        model=str(files / "encoder"),
        train=CorpusConfig(paths=(str(files / "train.jsonl"),)),
        dev=CorpusConfig(paths=(str(files / "dev.jsonl"),)),
        loop=LoopConfig(
            max_steps=num_steps,
            batch_size=4,
            accumulate=2,
            learning_rate=5e-3,
            max_length=16,
            checkpoint_every=checkpoint_every,
        ),
    )


def entries(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder, folders too: mode and bytes by path.

    Of the completion record the run's summary is left out: it holds times.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if path == folder / "complete.json":
            record = json.loads(content)
            content = json.dumps([record[key] for key in ("num_rows", "num_shards", "digest")])
            content = content.encode()
        found[str(path.relative_to(folder))] = path.stat().st_mode, content
    return found


def finished(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The entries that a reader would look at: no unfinished work of a writer, no kept scan."""
    return {
        name: entry
        for name, entry in entries(folder).items()
        if ".tmp-" not in name and name != SCAN_FILE
    }


def expect_right_or_incomplete(folder: Path, whole: Path) -> None:
    """Finished files are the whole store's, and a reader takes a store for complete if it is."""
    if not folder.exists():
        return
    assert finished(folder).items() <= entries(whole).items()
    try:
        assert LogitStore.open(folder, verify="full").digest == LogitStore.open(whole).digest
    except StoreError as error:
        assert isinstance(error, StoreIncomplete) or not (folder / "store.json").exists()


def some(items: Sequence[T], number: int | None) -> Sequence[T]:
    """So many of the items, spread over all of them; None for all."""
    return items if number is None else items[:: max(1, len(items) // number)]
