"""The two training stages: an English teacher, and a multilingual student."""

from __future__ import annotations

from pathlib import Path

from monox_kit.corpora.classes import class_notes
from monox_kit.corpora.corpus import read_labelled
from monox_kit.data import LabelSet
from monox_kit.progress import Progress, Silent
from monox_kit.training.config import StudentConfig, TeacherConfig
from monox_kit.training.evaluate import DevConfig
from monox_kit.training.methods import Sources
from monox_kit.training.processes import is_first
from monox_kit.training.self_training import self_train
from monox_kit.training.student import corpus_name, labels_for, train_objective
from monox_kit.training.summary import TrainingSummary
from monox_kit.training.training_run import TrainingRun


def train_teacher(
    config: TeacherConfig, out: Path, *, progress: Progress | None = None
) -> TrainingSummary:
    """Fine-tune an encoder on gold labels with cross-entropy, into the model folder `out`.

    Run again, it resumes at the newest checkpoint, or returns at once where `out` is finished.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = (progress if is_first() else None) or Silent()
    labels = labels_for(config.labels, config.train, progress)
    train = read_labelled(config.train, labels, progress)
    labels = labels or LabelSet.from_documents(train, corpus_name(config.train))
    for note in class_notes(train, labels, corpus_name(config.train)):
        progress.note(note)
    sources = Sources(labels, train, corpus_name(config.train))
    run = TrainingRun(
        command="train-teacher",
        method="ce",
        model=config.model,
        dev=DevConfig(config.dev, config.report_dev, config.select_on),
        loop=config.loop,
        out=out,
        sources=sources,
        new_head=config.new_head,
    )
    return run.execute(progress)


def train_student(
    config: StudentConfig, out: Path, *, progress: Progress | None = None
) -> TrainingSummary:
    """Train a multilingual student from stores and gold labels, into the model folder `out`.

    The teacher is not needed. Run again, it resumes at the newest checkpoint, or returns at once
    where `out` is finished.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = (progress if is_first() else None) or Silent()
    if config.method == "self-training":
        return self_train(config, out, progress)
    return train_objective(config, out, progress=progress)
