"""The two training stages: an English teacher, and a multilingual student."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from monox_kit.corpora.classes import class_notes
from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.corpora.paths import HubDataset, resolve_paths
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress, Silent
from monox_kit.store import LogitStore
from monox_kit.training.config import LoopConfig, Method, ObjectiveConfig
from monox_kit.training.evaluate import DEV, DevConfig
from monox_kit.training.methods import Sources
from monox_kit.training.processes import is_first
from monox_kit.training.summary import TrainingSummary
from monox_kit.training.teachers import StoredTeacher
from monox_kit.training.training_run import TrainingRun
from monox_kit.validation import checked

LABELS_FILE = "labels.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """What an English teacher is trained from.

    Attributes:
        model: encoder to fine-tune: a folder, `packaged:NAME` or a hub name.
        train: gold-labelled text.
        dev: gold-labelled text that chooses the weights to keep.
        report_dev: gold-labelled text, in any languages, whose results are reported.
        select_on: which sets choose the weights: `dev`, and languages of `report_dev`.
        labels: `labels.json`; None for the one beside the training file, else for the distinct
            labels of the training file.
        new_head: start with a new classification head, where the model has one of another task.
        loop: how it is trained.
    """

    model: str
    train: CorpusConfig
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    labels: Path | None = None
    new_head: bool = False
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """What a multilingual student is trained from.

    Attributes:
        model: multilingual encoder to fine-tune: a folder, `packaged:NAME` or a hub name.
        method: `ce`, `pl`, `kd` or `self-training`.
        stores: folders of complete logit stores, for `pl` and `kd`.
        combine: `concatenate` learns from the stores' rows one after the other; `average` takes
            stores of the same corpus as one teacher, see `StoredTeacher`.
        store_weight: of each store in that average, in any scale; None for equal ones.
        labelled: gold-labelled text; None where there is none, which only `kd` allows.
        unlabelled: text that `self-training` labels with the student of the round before.
        rounds: of `self-training` after the first, which learns from gold labels alone; None for 2.
        dev: gold-labelled text in the source language that chooses the weights to keep.
        report_dev: gold-labelled text, in any languages, whose results are reported.
        select_on: which sets choose the weights: `dev` alone is zero-shot, languages of
            `report_dev` are not.
        labels: `labels.json`; None for the stores' labels, else as for the teacher.
        new_head: start with a new classification head, where the model has one of another task.
        objective: temperatures, weights and thresholds.
        loop: how it is trained; in `self-training`, each round.
    """

    model: str
    method: Method
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    stores: tuple[Path, ...] = ()
    combine: Literal["concatenate", "average"] = "concatenate"
    store_weight: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    labelled: CorpusConfig | None = None
    unlabelled: CorpusConfig | None = None
    rounds: Annotated[int, Field(ge=1, le=99)] | None = None
    labels: Path | None = None
    new_head: bool = False
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def require_consistent(self) -> None:
        """Check that nothing was asked for that the method would ignore.

        Raises:
            ConfigError: something was.
        """
        self.objective.require_used(self.method)
        if self.store_weight is not None and self.combine != "average":
            raise ConfigError(
                f"--store-weight: --combine {self.combine} takes every row once and uses no "
                "weights. Add --combine average."
            )
        for option, is_given in {
            "--store": bool(self.stores),
            f"--combine {self.combine}": self.combine != "concatenate",
        }.items():
            if is_given and self.method not in ("pl", "kd"):
                raise ConfigError(
                    f"{option}: --method {self.method} uses no store; --method pl or kd does. "
                    "Leave it out or change the method."
                )
        if self.combine == "average" and len(self.stores) < 2:
            raise ConfigError(
                f"--combine average: expected at least 2 stores, found {len(self.stores)}. Give "
                "the others with --store, or leave it out."
            )
        if self.method == "self-training":
            return
        for option, is_given in {
            "--unlabelled": self.unlabelled is not None,
            "--rounds": self.rounds is not None,
        }.items():
            if is_given:
                raise ConfigError(
                    f"{option}: --method {self.method} does not use it; --method self-training "
                    "does. Leave it out or change the method."
                )


def train_teacher(
    config: TeacherConfig, out: Path, *, progress: Progress | None = None
) -> TrainingSummary:
    """Fine-tune an encoder on gold labels with cross-entropy, into the model folder `out`.

    Run again, it resumes at the newest checkpoint, or returns at once where `out` is finished.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    progress = (progress if is_first() else None) or Silent()
    labels = _labels_for(config.labels, config.train, progress)
    train = read_labelled(config.train, labels, progress)
    labels = labels or LabelSet.from_documents(train, _name(config.train))
    for note in class_notes(train, labels, _name(config.train)):
        progress.note(note)
    sources = Sources(labels, train, _name(config.train))
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
    checked(config)
    config.require_consistent()
    progress = (progress if is_first() else None) or Silent()
    if config.method == "self-training":
        # Imported here because it calls this function, once a round.
        from monox_kit.training.self_training import self_train

        return self_train(config, out, progress)
    return student_run(config, out, progress).execute(progress)


def student_run(config: StudentConfig, out: Path, progress: Progress) -> TrainingRun:
    """The run of one objective: `ce`, `pl` or `kd`. Stores and labelled text are opened, no more.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    stores = tuple(LogitStore.open(path, verify="read") for path in config.stores)
    labels = LabelSet.read(config.labels) if config.labels else None
    for path, store in zip(config.stores, stores):
        labels = labels or store.labels
        store.labels.require_equal(labels, str(path), str(config.labels or config.stores[0]))
    labelled: list[Document] = []
    if config.labelled is not None:
        labels = labels or _labels_for(None, config.labelled, progress)
        labelled = read_labelled(config.labelled, labels, progress)
        if config.method == "kd":
            progress.note(
                "--method kd learns from the stores alone; --labelled serves to check labels and "
                "language"
            )
    name = _name(config.labelled) if config.labelled else ""
    if labels is None and not labelled:
        raise ConfigError(
            f"--method {config.method}: it needs gold-labelled text or a logit store. Give "
            "--labelled FILE or --store DIR."
        )
    labels = labels or LabelSet.from_documents(labelled, name)
    if labelled:
        for note in class_notes(labelled, labels, name):
            progress.note(note)
    if config.combine == "average" and stores:
        teachers = [StoredTeacher(stores, config.store_weight)]
    else:
        teachers = [StoredTeacher([store]) for store in stores]
    return TrainingRun(
        command="train-student",
        method=config.method,
        model=config.model,
        dev=DevConfig(config.dev, config.report_dev, config.select_on),
        loop=config.loop,
        out=out,
        sources=Sources(labels, labelled, name, teachers, config.objective),
        new_head=config.new_head,
    )


def _labels_for(path: Path | None, corpus: CorpusConfig, progress: Progress) -> LabelSet | None:
    """The label set at `path`, else of the corpus's `label_names`, else beside its first file.

    None where there is none of these.

    Beside what is not a local file it is not looked for, which a note says.
    """
    if path is not None:
        return LabelSet.read(path)
    if corpus.label_names:
        return LabelSet(corpus.label_names)
    first = resolve_paths(corpus.paths)[0]
    if isinstance(first, HubDataset) or first.filesystem is not None:
        progress.note(
            f"{first.name}: {LABELS_FILE} is looked for "
            "beside local files alone; the classes are the labels that occur. Give --labels FILE "
            "for others, or for another order"
        )
        return None
    beside = Path(first.location).parent / LABELS_FILE
    if not beside.is_file():
        return None
    labels = LabelSet.read(beside)
    progress.note(
        f"{beside}: the {len(labels)} classes are those of this file, which stands beside the "
        "training text; --labels names another one"
    )
    return labels


def _name(corpus: CorpusConfig) -> str:
    return ", ".join(corpus.paths)
