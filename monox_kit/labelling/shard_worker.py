"""What runs in a worker's process of a Ray cluster: one shard after the other, committed there."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus
from monox_kit.corpora.marks import CorpusMark
from monox_kit.errors import ConfigError, ModelError
from monox_kit.labelling.shards import Assignment, TeacherModel, label_shards
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.progress import Silent
from monox_kit.store import staged_place


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

    def __init__(self, cores: int) -> None:
        """Args: the cores that Ray has reserved for the worker."""
        # The tokenizer would take every core of the machine, in each of its workers.
        os.environ.setdefault("RAYON_NUM_THREADS", str(cores))
        self._loaded: tuple[Corpus, TeacherModel, Teacher] | None = None

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
        place = staged_place(assignment.store, assignment.config.staging)
        with place.writer(assignment.manifest, claim) as writer:
            if writer.missing:
                if self._loaded is None:  # the service may look otherwise from here
                    place.require_writable()
                corpus, model, teacher = self._load(assignment)
                label_shards(
                    replace(assignment, marks={index: mark}),
                    writer,
                    corpus=corpus,
                    tokenizer=model.tokenizer,
                    teacher=teacher,
                    task=Silent().task("", None, ""),
                    totals=totals,
                )
        return ShardDone(totals, time.perf_counter() - started)

    def _load(self, assignment: Assignment) -> tuple[Corpus, TeacherModel, Teacher]:
        if self._loaded is None:
            model = TeacherModel(assignment.config, Silent())
            expected = str(assignment.manifest.fingerprint["teacher_digest"])
            found = model.folder.model_digest
            if found != expected:
                raise ModelError(
                    f"{assignment.config.model}: expected the teacher {expected[:16]} as where "
                    f"the run was started, found {found[:16]} on a worker's machine. Put the same "
                    "folder there, or share it."
                )
            teacher = model.teacher(assignment.plan, assignment.guard)
            self._loaded = Corpus(assignment.config.corpus), model, teacher
        return self._loaded
