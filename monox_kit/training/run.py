"""The two training stages: an English teacher, and a multilingual student."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from monox_kit.bundle import RECORD_FILE, BundleRecord, ModelFolder, open_folder, require_same_run
from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document, LabelSet
from monox_kit.digest import digest_json
from monox_kit.durable import is_free, new_folder, owned_folder
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress, Silent
from monox_kit.store import LogitStore
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import new_classifier, save_classifier
from monox_kit.training.card import model_card
from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.config import LoopConfig, Method
from monox_kit.training.evaluate import DEV, DevConfig, DevSets
from monox_kit.training.log import LOG_FILE
from monox_kit.training.loop import FitResult, Trainer, resolve_precision
from monox_kit.training.methods import Sources, Task, build_task
from monox_kit.training.origin import Origin, StoreOrigin
from monox_kit.training.processes import is_first
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
        loop: how it is trained.
    """

    model: str
    train: CorpusConfig
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    labels: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """What a multilingual student is trained from.

    Attributes:
        model: multilingual encoder to fine-tune: a folder, `packaged:NAME` or a hub name.
        method: `ce`, `pl` or `kd`.
        stores: folders of complete logit stores; `ce` does not use them.
        labelled: gold-labelled text; None where there is none, which only `kd` allows.
        dev: gold-labelled text in the source language that chooses the weights to keep.
        report_dev: gold-labelled text, in any languages, whose results are reported.
        select_on: which sets choose the weights: `dev` alone is zero-shot, languages of
            `report_dev` are not.
        labels: `labels.json`; None for the stores' labels, else as for the teacher.
        temperature: of the teacher's soft targets; the paper's best on its dev set is 0.1.
        threshold: least confidence of a pseudo-label; the paper keeps everything: 0.
        loop: how it is trained.
    """

    model: str
    method: Method
    dev: CorpusConfig
    report_dev: CorpusConfig | None = None
    select_on: tuple[str, ...] = (DEV,)
    stores: tuple[Path, ...] = ()
    labelled: CorpusConfig | None = None
    labels: Path | None = None
    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.1
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a training stage did.

    Attributes:
        path: the trained model's folder.
        method: the objective.
        counts: rows by what they are.
        num_steps: optimizer steps.
        dev_accuracy: of the weights that were kept, in [0, 1]; on `--dev`.
        dev_loss: their mean cross-entropy there.
        best_step: the step that they are from.
        history: every dev evaluation.
        precision: `fp32` or `bf16`.
        trained_s: seconds that the training took, in the process that finished it.
        reused: whether the folder held the finished model of the same run.
        stopped_early: whether `patience` ended it.
        selected_on: the dev sets that chose the weights.
        dev_sets: accuracy, loss and rows of those weights by dev set.
    """

    path: Path
    method: str
    counts: Mapping[str, int]
    num_steps: int
    dev_accuracy: float
    dev_loss: float
    best_step: int
    history: Sequence[Mapping[str, float]]
    precision: str
    trained_s: float
    reused: bool
    stopped_early: bool
    selected_on: Sequence[str]
    dev_sets: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


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
    labels = _labels_for(config.labels, config.train)
    train = read_labelled(config.train, labels)
    labels = labels or LabelSet.from_names([d.label or "" for d in train])
    sources = Sources(labels, train, _name(config.train), (), 1.0, 0.0)
    run = _Run(
        command="train-teacher",
        method="ce",
        model=config.model,
        dev=DevConfig(config.dev, config.report_dev, config.select_on),
        loop=config.loop,
        out=out,
        sources=sources,
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
    progress = (progress if is_first() else None) or Silent()
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
    name = _name(config.labelled) if config.labelled else ""
    sources = Sources(labels, labelled, name, stores, config.temperature, config.threshold)
    run = _Run(
        command="train-student",
        method=config.method,
        model=config.model,
        dev=DevConfig(config.dev, config.report_dev, config.select_on),
        loop=config.loop,
        out=out,
        sources=sources,
    )
    return run.execute(progress)


class _Run:
    """One training run: its fingerprint, its checkpoints and its finished folder."""

    def __init__(
        self,
        *,
        command: str,
        method: str,
        model: str,
        dev: DevConfig,
        loop: LoopConfig,
        out: Path,
        sources: Sources,
    ) -> None:
        self._command, self._method, self._model, self._loop = command, method, model, loop
        self._dev_config, self._out, self._sources = dev, out, sources

    def execute(self, progress: Progress) -> TrainingSummary:
        """Train, or return what an earlier equal run left."""
        dev = self._dev_config.read(self._sources.labels, self._sources.labelled)
        folder = open_folder(self._model, progress)
        task = build_task(self._method, self._sources)
        if any(
            (document.text_pair is not None) != task.rows.has_pairs
            for documents in dev.documents.values()
            for document in documents
        ):
            raise ConfigError(
                "--dev, --report-dev: expected single texts or pairs as the training rows have, "
                "found the other. Check the columns of both."
            )
        max_length = folder.resolve_max_length(self._loop.max_length)
        fingerprint = self._fingerprint(folder, dev, max_length)
        # Of several processes the first alone writes.
        with owned_folder(self._out) if is_first() else nullcontext():
            checkpoints = Checkpoints(
                self._out.parent / f"{self._out.name}.checkpoints", fingerprint
            )
            finished = self._finished(fingerprint)
            if finished is not None:
                if is_first():
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
            summary = self._summary(task, dev, result, time.perf_counter() - started)
            origin = self._origin(dev)
            record = BundleRecord(
                labels=self._sources.labels,
                max_length=max_length,
                backend="torch",
                precision="fp32",
                has_pairs=task.rows.has_pairs,
                provenance={
                    "model": self._model,
                    "origin": origin.to_json(),
                    "run": fingerprint,
                    "summary": _without_path(summary),
                },
            )
            if not is_first():
                return summary
            with new_folder(self._out) as building:
                card = model_card(self._model, summary, origin, fingerprint)
                save_classifier(model, tokenizer, building, record, card)
                shutil.copyfile(checkpoints.log_path, building / LOG_FILE)
            checkpoints.remove()
            return summary

    def _fingerprint(self, folder: ModelFolder, dev: DevSets, max_length: int) -> dict[str, Any]:
        """Everything that the trained weights depend on, flat."""
        loop = asdict(self._loop)
        loop["max_length"] = max_length
        loop["precision"] = resolve_precision(self._loop)
        loop["device"] = self._loop.device.partition(":")[0]
        for name in ("checkpoint_every", "tensorboard", "workers"):  # they change nothing in the result
            del loop[name]
        sources = self._sources
        return {
            "command": self._command,
            "method": self._method,
            "model_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            "labels": sources.labels.fingerprint,
            "labelled_digest": _digest_documents(() if self._method == "kd" else sources.labelled),
            **{
                f"{name}_digest" if name == DEV else f"report_dev_{name}_digest": digest
                for name, digest in _digests(dev).items()
            },
            "select_on": ", ".join(dev.select_on),
            "stores": digest_json([store.digest for store in sources.stores]),
            "temperature": sources.temperature if self._method == "kd" else None,
            "threshold": sources.threshold if self._method == "pl" else None,
            **loop,
        }

    def _finished(self, fingerprint: Mapping[str, Any]) -> TrainingSummary | None:
        """The summary of the equal run that already stands at `out`, if one does."""
        if is_free(self._out):
            return None
        if not (self._out / RECORD_FILE).is_file():
            raise ConfigError(
                f"--out {self._out}: expected no folder or a finished run of this command, found "
                "something else. Give another --out."
            )
        record = open_folder(str(self._out.absolute())).record
        if record is None or "run" not in record.provenance:
            raise ConfigError(
                f"{self._out}: expected no folder or a finished run of this command, found "
                "another model. Give another --out."
            )
        require_same_run(record.provenance["run"], json.loads(json.dumps(fingerprint)), self._out)
        values = {**record.provenance["summary"], "reused": True}
        return TrainingSummary(path=self._out, **values)

    def _origin(self, dev: DevSets) -> Origin:
        """What the model card says it was made from."""
        sources = self._sources
        learned_from = () if self._method == "kd" else sources.labelled
        return Origin(
            labelled_name=sources.labelled_name if learned_from else "",
            num_labelled=len(learned_from),
            labelled_digest=_digest_documents(learned_from),
            dev_names={DEV: _name(self._dev_config.dev)},
            dev_digests=_digests(dev),
            select_on=dev.select_on,
            stores=[StoreOrigin.of(store) for store in sources.stores],
        )

    def _summary(
        self, task: Task, dev: DevSets, result: FitResult, trained_s: float
    ) -> TrainingSummary:
        return TrainingSummary(
            path=self._out,
            method=self._method,
            counts=dict(task.counts),
            num_steps=result.num_steps,
            dev_accuracy=result.best_sets[DEV]["accuracy"],
            dev_loss=result.best_sets[DEV]["loss"],
            best_step=int(result.best["step"]),
            history=[dict(entry) for entry in result.history],
            precision=result.precision,
            trained_s=round(trained_s, 2),
            reused=False,
            stopped_early=result.stopped_early,
            selected_on=list(dev.select_on),
            dev_sets=result.best_sets,
        )


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


def _digests(sets: DevSets) -> dict[str, str]:
    return {name: _digest_documents(documents) for name, documents in sets.documents.items()}


def _name(corpus: CorpusConfig) -> str:
    return ", ".join(corpus.paths)


def _without_path(summary: TrainingSummary) -> dict[str, Any]:
    return {key: value for key, value in summary.to_json().items() if key != "path"}
