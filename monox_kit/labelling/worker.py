"""What a worker does, in the run's process or in one of a Ray cluster: label and commit shards."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus
from monox_kit.corpora.languages import told_languages
from monox_kit.corpora.marks import CorpusMark, MarksByIndex
from monox_kit.corpora.paths import absolute_path
from monox_kit.errors import ConfigError, ModelError
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard
from monox_kit.labelling.teacher import Labeller, TeacherModel
from monox_kit.labelling.totals import Totals
from monox_kit.labelling.windows import shard_windows
from monox_kit.models.run_plan import RunPlan
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.overlap import Behind, ahead
from monox_kit.progress import ProgressTask, Silent
from monox_kit.spinning import settle_spinning
from monox_kit.stage import kept_tokenization
from monox_kit.store import StoreManifest, StoreWriter, store_location
from monox_kit.store.filling import ShardSink


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What a worker must know to label shards of a store: plain values that can be sent.

    Attributes:
        config: the run's.
        store: the store's folder or URL, as text.
        manifest: what the store is a store of.
        marks: what the scan found of each shard's rows, by index.
        plan: how batches are run.
        guard: which rows the fp32 graph settles, and in what precision; None without one.
    """

    config: LabelConfig
    store: str
    manifest: StoreManifest
    marks: MarksByIndex
    plan: RunPlan
    guard: Guard | None

    def for_cluster(self, corpus: Corpus, model: TeacherModel) -> Assignment:
        """The same for workers elsewhere, which start in folders of their own.

        Paths are absolute, a glob is the files that it stood for when they were scanned, and the
        provider is what `auto` stands for.
        """
        config = self.config
        config = replace(
            config,
            model=_absolute(config.model),
            corpus=replace(
                config.corpus,
                paths=tuple(map(absolute_path, corpus.files)),
                language=tuple(
                    f"{_absolute(name)}={tag}"
                    for name, tag in told_languages(config.corpus.language)
                ),
            ),
            provider=model.provider if config.teacher == "onnx" else config.provider,
            staging=config.staging and os.path.abspath(config.staging),
        )
        return replace(self, config=config, store=_absolute(self.store))


def label_shards(
    assignment: Assignment,
    writer: StoreWriter,
    *,
    corpus: Corpus,
    tokenizer: Tokenizer,
    labeller: Labeller,
    task: ProgressTask,
    totals: Totals,
) -> None:
    """Label what `writer` misses; the next window is read and the last one written meanwhile."""
    started = time.perf_counter()
    num_rows = assignment.manifest.num_rows
    stream = ahead(shard_windows(corpus, writer.missing, assignment.marks, num_rows, tokenizer))
    ignored = assignment.config.ignore_labels
    sink = ShardSink(writer, assignment.manifest.labels, ignore_labels=ignored)
    with closing(stream), sink, Behind() as behind:
        for window in stream:
            logits, recomputed = labeller.label(window.texts, task, totals)
            behind.do(partial(sink.add, window.rows, logits, recomputed))
        behind.wait()
        took = time.perf_counter() - started
        totals.worker_s += took
        totals.seconds += took


@dataclass(frozen=True, slots=True)
class ShardDone:
    """What a worker reports of one shard.

    Attributes:
        totals: of labelling it; of nothing where it was there already.
        busy_s: seconds from the task's start in the worker to its end.
    """

    totals: Totals
    busy_s: float


class ShardWorker:
    """Labels shards in a process of the cluster; the graphs are loaded once.

    Nothing that can fail stands in the constructor: Ray tells such errors as text alone.
    """

    def __init__(self, cores: int, umask: int | None = None) -> None:
        """Prepares the process.

        Args:
            cores: that Ray has reserved for the worker.
            umask: of the run, where Ray was started under a private one; None to leave it.
        """
        if umask is not None:
            os.umask(umask)
        # The tokenizer would take every core of the machine, in each of its workers.
        os.environ.setdefault("RAYON_NUM_THREADS", str(cores))
        self._cores = cores
        self._loaded: tuple[Corpus, TeacherModel, Labeller] | None = None

    def ready(self, version: str) -> int:
        """The process's id, once it is known that both ends understand each other.

        Raises:
            ConfigError: another version of monoxkit is installed here.
        """
        if version != __version__:
            raise ConfigError(
                f"a worker: expected monoxkit {version} as where the run was started, found "
                f"{__version__}. Install the same version on every machine."
            )
        return os.getpid()

    def label(self, assignment: Assignment, index: int, mark: CorpusMark) -> ShardDone:
        """Commit a shard, unless it stands there already.

        Args:
            assignment: the run's, the same one on every call; its own marks are not looked at.
            index: the shard's.
            mark: what the scan found of its rows.

        Raises:
            StoreLocked: another process is writing it.
            MonoxError: by kind, see `monox_kit.errors`.
        """
        started, totals = time.perf_counter(), Totals()
        claim = range(index, index + 1)
        location = store_location(assignment.store, assignment.config.staging)
        with location.writer(assignment.manifest, claim) as writer:
            if writer.missing:
                if self._loaded is None:  # the service may look otherwise from here
                    location.require_writable()
                corpus, model, labeller = self._load(assignment)
                label_shards(
                    replace(assignment, marks={index: mark}),
                    writer,
                    corpus=corpus,
                    tokenizer=model.tokenizer,
                    labeller=labeller,
                    task=Silent().task("", None, ""),
                    totals=totals,
                )
        return ShardDone(totals, time.perf_counter() - started)

    def _load(self, assignment: Assignment) -> tuple[Corpus, TeacherModel, Labeller]:
        if self._loaded is None:
            settle_spinning(threads=self._cores)
            model = TeacherModel(assignment.config, Silent())
            expected = str(assignment.manifest.fingerprint["teacher_digest"])
            found = model.folder.model_digest
            if found != expected:
                raise ModelError(
                    f"{assignment.config.model}: expected the teacher {expected[:16]} as where "
                    f"the run was started, found {found[:16]} on a worker's machine. Put the same "
                    "folder there, or share it."
                )
            where = f"{assignment.config.model} on a worker's machine"
            now = {"tokenizer_digest": model.folder.tokenizer_digest}
            now |= model.tokenizer.fingerprint()
            kept_tokenization(assignment.manifest.fingerprint, now, where)
            labeller = model.labeller(assignment.plan, assignment.guard)
            self._loaded = Corpus(assignment.config.corpus), model, labeller
        return self._loaded


def _absolute(path: str) -> str:
    """A local path from the root on; names of models and URLs as they are."""
    return os.path.abspath(path) if os.path.lexists(path) else path
