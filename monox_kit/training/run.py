"""The two training stages: an English teacher, and a multilingual student."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from monox_kit import __version__
from monox_kit.bundle import BundleRecord, ModelFolder, open_folder
from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document, LabelSet
from monox_kit.digest import digest_json
from monox_kit.durable import new_folder, owned_folder
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress, Silent
from monox_kit.store import LogitStore
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import new_classifier, save_classifier
from monox_kit.training.card_tables import objective_tables
from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.config import LoopConfig, Method, ObjectiveConfig
from monox_kit.training.loop import FitResult, Trainer, planned_steps, resolve_precision
from monox_kit.training.methods import Sources, Task, build_task
from monox_kit.training.summary import TrainingSummary, finished_run
from monox_kit.training.teachers import StoredTeacher
from monox_kit.validation import checked

LABELS_FILE = "labels.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """What an English teacher is trained from.

    Attributes:
        model: encoder to fine-tune: a folder, `packaged:NAME` or a hub name.
        train: gold-labelled text.
        dev: gold-labelled text that chooses the weights to keep.
        labels: `labels.json`; None for the one beside the training file, else for the distinct
            labels of the training file.
        loop: how it is trained.
    """

    model: str
    train: CorpusConfig
    dev: CorpusConfig
    labels: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """What a multilingual student is trained from.

    Attributes:
        model: multilingual encoder to fine-tune: a folder, `packaged:NAME` or a hub name.
        method: `ce`, `pl`, `kd` or `self-training`.
        stores: folders of complete logit stores; `ce` and `self-training` do not use them.
        combine: `concatenate` learns from the stores' rows one after the other; `average` takes
            stores of the same corpus as one teacher, see `StoredTeacher`.
        store_weight: of each store in that average, in any scale; None for equal ones.
        labelled: gold-labelled text; None where there is none, which only `kd` allows.
        unlabelled: text that `self-training` labels with the student of the round before.
        rounds: of `self-training` after the first, which learns from gold labels alone; None for 2.
        dev: gold-labelled text in the source language that chooses the weights to keep.
        labels: `labels.json`; None for the stores' labels, else as for the teacher.
        objective: temperatures, weights and thresholds.
        loop: how it is trained; in `self-training`, each round.
    """

    model: str
    method: Method
    dev: CorpusConfig
    stores: tuple[Path, ...] = ()
    combine: Literal["concatenate", "average"] = "concatenate"
    store_weight: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    labelled: CorpusConfig | None = None
    unlabelled: CorpusConfig | None = None
    rounds: Annotated[int, Field(ge=1, le=99)] | None = None
    labels: Path | None = None
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
                "--store-weight: expected with --combine average, found --combine "
                f"{self.combine}, which takes every row once. Add --combine average."
            )
        if self.method not in ("pl", "kd") and self.combine != "concatenate":
            raise ConfigError(
                f"--combine {self.combine}: expected with --method pl or kd, found --method "
                f"{self.method}, which uses no store. Leave it out or change the method."
            )
        if self.method == "self-training":
            return
        for option, is_given in {
            "--unlabelled": self.unlabelled is not None,
            "--rounds": self.rounds is not None,
        }.items():
            if is_given:
                raise ConfigError(
                    f"{option}: expected with --method self-training, found --method "
                    f"{self.method}. Leave it out or change the method."
                )


class Prepared(NamedTuple):
    """What a run has opened and checked before it trains."""

    dev: Sequence[Document]
    folder: ModelFolder
    task: Task
    max_length: int
    fingerprint: dict[str, Any]


def train_teacher(
    config: TeacherConfig, out: Path, *, progress: Progress | None = None
) -> TrainingSummary:
    """Fine-tune an encoder on gold labels with cross-entropy, into the model folder `out`.

    Run again, it resumes at the newest checkpoint, or returns at once where `out` is finished.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    labels = _labels_for(config.labels, config.train)
    train = read_labelled(config.train, labels)
    labels = labels or LabelSet.from_names([d.label or "" for d in train])
    sources = Sources(labels, train, _name(config.train))
    run = TrainingRun(
        command="train-teacher",
        method="ce",
        model=config.model,
        dev=config.dev,
        loop=config.loop,
        out=out,
        sources=sources,
    )
    return run.execute(progress or Silent())


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
    progress = progress or Silent()
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
    stores = (
        ()
        if config.method == "ce"
        else tuple(LogitStore.open(p, verify="read") for p in config.stores)
    )
    if config.method == "ce" and config.stores:
        progress.note(
            f"--method ce learns from gold labels alone: {len(config.stores)} store(s) not used"
        )
    labels = LabelSet.read(config.labels) if config.labels else None
    for path, store in zip(config.stores, stores):
        labels = labels or store.labels
        store.labels.require_equal(labels, str(path), str(config.labels or config.stores[0]))
    labelled: list[Document] = []
    if config.labelled is not None:
        labels = labels or _labels_for(None, config.labelled)
        labelled = read_labelled(config.labelled, labels)
        if config.method == "kd":
            progress.note(
                "--method kd learns from the stores alone: --labelled only names the classes"
            )
    if labels is None and not labelled:
        raise ConfigError(
            f"--labelled: expected gold-labelled text or a logit store for --method "
            f"{config.method}, found neither. Give --labelled FILE or --store DIR."
        )
    labels = labels or LabelSet.from_names([d.label or "" for d in labelled])
    if config.combine == "average" and stores:
        teachers = [StoredTeacher(stores, config.store_weight)]
    else:
        teachers = [StoredTeacher([store]) for store in stores]
    name = _name(config.labelled) if config.labelled else ""
    return TrainingRun(
        command="train-student",
        method=config.method,
        model=config.model,
        dev=config.dev,
        loop=config.loop,
        out=out,
        sources=Sources(labels, labelled, name, teachers, config.objective),
    )


class TrainingRun:
    """One training run: its fingerprint, its checkpoints and its finished folder."""

    def __init__(
        self,
        *,
        command: str,
        method: str,
        model: str,
        dev: CorpusConfig,
        loop: LoopConfig,
        out: Path,
        sources: Sources,
    ) -> None:
        self._command, self._method, self._model, self._loop = command, method, model, loop
        self._dev_config, self._out, self._sources = dev, out, sources

    def prepared(self, progress: Progress) -> Prepared:
        """The inputs opened and checked, and the run's fingerprint; nothing is written."""
        dev = read_labelled(self._dev_config, self._sources.labels)
        folder = open_folder(self._model, progress)
        task = build_task(self._method, self._sources)
        if bool(dev[0].text_pair) != task.rows.has_pairs:
            raise ConfigError(
                "--dev: expected single texts or pairs as the training rows have, found the "
                "other. Check the columns of both."
            )
        max_length = folder.resolve_max_length(self._loop.max_length)
        fingerprint = self._fingerprint(folder, dev, max_length, task)
        return Prepared(dev, folder, task, max_length, fingerprint)

    def execute(self, progress: Progress) -> TrainingSummary:
        """Train, or return what an earlier equal run left."""
        dev, folder, task, max_length, fingerprint = self.prepared(progress)
        with owned_folder(self._out):
            checkpoints = Checkpoints(
                self._out.parent / f"{self._out.name}.checkpoints", fingerprint
            )
            finished = finished_run(self._out, fingerprint)
            if finished is not None:
                checkpoints.remove()  # a kill between commit and clean-up left them
                return finished
            started = time.perf_counter()
            tokenizer = Tokenizer(folder.path, max_length)
            model = new_classifier(folder, self._sources.labels, self._loop.seed)
            trainer = Trainer(
                model=model,
                tokenizer=tokenizer,
                labels=self._sources.labels,
                rows=task.rows,
                loss=task.loss,
                dev=dev,
                config=self._loop,
                checkpoints=checkpoints,
                progress=progress,
            )
            result = trainer.fit(f"{self._command} ({self._method})")
            summary = self._summary(task, result, time.perf_counter() - started)
            record = BundleRecord(
                labels=self._sources.labels,
                max_length=max_length,
                backend="torch",
                precision="fp32",
                has_pairs=task.rows.has_pairs,
                provenance={
                    "model": self._model,
                    "run": fingerprint,
                    "summary": summary.to_record(),
                },
            )
            with new_folder(self._out) as building:
                card = model_card(self._model, summary, fingerprint)
                save_classifier(model, tokenizer, building, record, card)
            checkpoints.remove()
            return summary

    def _fingerprint(
        self, folder: ModelFolder, dev: Sequence[Document], max_length: int, task: Task
    ) -> dict[str, Any]:
        """Everything that the trained weights depend on, flat."""
        loop = asdict(self._loop)
        loop["max_length"] = max_length
        loop["precision"] = resolve_precision(self._loop)
        loop["device"] = self._loop.device.partition(":")[0]
        del loop["checkpoint_every"]  # changes nothing in the result
        sources = self._sources
        return {
            "command": self._command,
            "method": self._method,
            "model_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            "labels": sources.labels.fingerprint,
            "labelled_digest": _digest_documents(() if self._method == "kd" else sources.labelled),
            "dev_digest": _digest_documents(dev),
            "stores": digest_json([s.digest for t in sources.teachers for s in t.stores]),
            "store_weights": _weights(sources.teachers),
            **task.settings,
            **loop,
        }

    def _summary(self, task: Task, result: FitResult, trained_s: float) -> TrainingSummary:
        return TrainingSummary(
            path=self._out,
            method=self._method,
            counts=dict(task.counts),
            num_steps=planned_steps(self._loop, len(task.rows)),
            dev_accuracy=result.best["accuracy"],
            dev_loss=result.best["loss"],
            best_step=int(result.best["step"]),
            history=[dict(entry) for entry in result.history],
            precision=result.precision,
            trained_s=round(trained_s, 2),
            reused=False,
            classes=task.classes,
        )


def _weights(teachers: Sequence[StoredTeacher]) -> list[float] | None:
    """The stores' weights where they are averaged; None where each is a teacher of its own."""
    return next((list(each.weights) for each in teachers if len(each.stores) > 1), None)


def _labels_for(path: Path | None, corpus: CorpusConfig) -> LabelSet | None:
    """The label set at `path`, else beside the corpus's first file; None where there is neither."""
    if path is not None:
        return LabelSet.read(path)
    beside = Path(corpus.paths[0]).parent / LABELS_FILE
    return LabelSet.read(beside) if beside.is_file() else None


def _digest_documents(documents: Sequence[Document]) -> str:
    digest = DocumentDigest()
    for document in documents:
        digest.add_document(document)
    return digest.hexdigest()


def _name(corpus: CorpusConfig) -> str:
    return ", ".join(corpus.paths)


def model_card(model: str, summary: TrainingSummary, fingerprint: Mapping[str, Any]) -> str:
    """The model card: what it was made from, how, and how it did on the dev set."""
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.counts.items())
    settings = "\n".join(f"| {key} | {value} |" for key, value in fingerprint.items())
    tables = "".join(f"{line}\n" for line in objective_tables(summary))
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n\n"
        f"# {summary.path.name}\n\nFine-tuned from `{model}` with monoxkit {__version__}, "
        f"objective `{summary.method}`.\n\n- rows: {counts}\n- steps: {summary.num_steps}, weights "
        f"kept from step {summary.best_step}\n- dev accuracy: {100 * summary.dev_accuracy:.1f} %\n"
        f"{tables}\n| setting | value |\n|---|---|\n{settings}\n"
    )
