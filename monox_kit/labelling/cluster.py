"""Labelling on a Ray cluster: shards go to workers, and again to another where one is lost.

A worker commits a shard exactly as a local run does, under the shard's own lock in the store. A
task that is repeated finds the shard committed and does nothing, so that no row is lost or doubled
whatever becomes of workers and machines.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus
from monox_kit.errors import (
    ClusterError,
    ConfigError,
    ModelError,
    MonoxError,
    StoreLocked,
    first_line,
)
from monox_kit.labelling.shards import Assignment, TeacherModel, label_shards
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.progress import ProgressTask, Silent
from monox_kit.store import ShardRange, StoreWriter
from monox_kit.tuning import GPU_PROVIDERS

if TYPE_CHECKING:
    from types import ModuleType

# A shard that so many workers were lost over is at fault itself: too large for their memory, say.
_MOST_ATTEMPTS = 10
# Between tries for a shard that another process still holds: a lost worker that is not dead yet.
_LOCKED_PAUSE_S = 0.5
_MOST_LOCKED_S = 120.0


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
    """Labels one shard after the other in a process of the cluster; the graphs are loaded once."""

    def __init__(self, version: str, assignment: Assignment) -> None:
        """Nothing is loaded yet: what a constructor raises, Ray reports as a lost worker."""
        self._version = version
        self._assignment = assignment
        self._loaded: tuple[Corpus, TeacherModel, Teacher] | None = None

    def label(self, index: int) -> ShardDone:
        """Commit a shard, unless it stands there already.

        Raises:
            StoreLocked: another process is writing it.
            MonoxError: by kind, see `monox_kit.errors`.
        """
        started = time.perf_counter()
        assignment, totals = self._assignment, Totals()
        claim = range(index, index + 1)
        with StoreWriter(assignment.store, assignment.manifest, claim) as writer:
            if writer.missing:
                corpus, model, teacher = self._load()
                label_shards(
                    assignment,
                    writer,
                    corpus=corpus,
                    tokenizer=model.tokenizer,
                    teacher=teacher,
                    task=Silent().task("", None, ""),
                    totals=totals,
                )
        return ShardDone(totals, time.perf_counter() - started)

    def _load(self) -> tuple[Corpus, TeacherModel, Teacher]:
        if self._loaded is None:
            if self._version != __version__:
                raise ConfigError(
                    f"a worker: expected monoxkit {self._version} as where the run was started, "
                    f"found {__version__}. Install the same version on every machine."
                )
            assignment = self._assignment
            model = TeacherModel(assignment.config, Silent())
            expected = assignment.manifest.fingerprint["teacher_digest"]
            if model.folder.model_digest != expected:
                raise ModelError(
                    f"{assignment.config.model}: expected the teacher {str(expected)[:16]} as "
                    f"where the run was started, found {model.folder.model_digest[:16]} on a "
                    "worker's machine. Put the same folder there, or share it."
                )
            teacher = model.teacher(assignment.plan, assignment.guard)
            self._loaded = Corpus(assignment.config.corpus), model, teacher
        return self._loaded


@dataclass(slots=True)
class ClusterRun:
    """What a run on the cluster did.

    Attributes:
        totals: of all workers; `seconds` is the time that the run took here.
        num_workers: at work at once, at most.
        num_lost: workers that were lost and replaced.
        busy_s: seconds that workers spent in shards, added up.
    """

    totals: Totals = field(default_factory=Totals)
    num_workers: int = 0
    num_lost: int = 0
    busy_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON values, without the totals."""
        return {
            "num_workers": self.num_workers,
            "num_lost_workers": self.num_lost,
            "busy_s": round(self.busy_s, 3),
        }


def label_on_cluster(
    assignment: Assignment, missing: Sequence[ShardRange], task: ProgressTask
) -> ClusterRun:
    """Label the missing shards on Ray workers; returns when every one is committed.

    Args:
        assignment: what is labelled; the store has been begun. Its store, corpus and model must be
            reachable under the same paths from every machine of the cluster.
        missing: the shards to label.
        task: told the rows of every committed shard.

    Raises:
        ClusterError: Ray is not installed or not reached, or workers were lost over one shard
            again and again.
        MonoxError: what a worker met, as it met it.
    """
    ray = _require_ray()
    with _connected(ray, assignment.config.address):
        return _Scheduler(ray, assignment, task).run(missing)


class _Scheduler:
    """Hands shards to workers until all are committed."""

    def __init__(self, ray: ModuleType, assignment: Assignment, task: ProgressTask) -> None:
        self._ray = ray
        self._task = task
        self._make = self._maker(assignment)
        self._most = _most_workers(ray, assignment)
        self._run = ClusterRun()
        self._attempts: Counter[int] = Counter()
        self._locked_since: dict[int, float] = {}

    def run(self, missing: Sequence[ShardRange]) -> ClusterRun:
        """See `label_on_cluster`."""
        started = time.perf_counter()
        waiting = deque(missing)
        idle: list[Any] = []
        running: dict[Any, tuple[Any, ShardRange]] = {}
        workers = min(self._most, len(missing))
        self._run.num_workers = workers
        while waiting or running:
            while waiting and len(running) < workers:
                worker, shard = idle.pop() if idle else self._make(), waiting.popleft()
                running[worker.label.remote(shard.index)] = worker, shard
            done, _ = self._ray.wait(list(running), num_returns=1)
            worker, shard = running.pop(done[0])
            if self._settled(done[0], shard):
                self._task.advance(len(shard))
                self._task.detail(f"{workers} workers, {self._run.num_lost} lost")
                idle.append(worker)
            else:
                waiting.append(shard)
                if shard.index in self._locked_since:
                    idle.append(worker)
                    time.sleep(_LOCKED_PAUSE_S)
        self._run.totals.seconds = time.perf_counter() - started
        return self._run

    def _settled(self, result: Any, shard: ShardRange) -> bool:
        """Whether the shard is committed; False where it is to be tried again."""
        errors = self._ray.exceptions
        try:
            done: ShardDone = self._ray.get(result)
        except errors.RayTaskError as error:
            self._require_locked(error, shard)
            return False
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            self._locked_since.pop(shard.index, None)
            self._run.num_lost += 1
            self._attempts[shard.index] += 1
            if self._attempts[shard.index] == _MOST_ATTEMPTS:
                raise ClusterError(
                    f"shard {shard.name}: expected a worker to label it, found {_MOST_ATTEMPTS} "
                    f"that were lost over it, the last one: {first_line(error)}. Give workers more "
                    "memory or smaller --batch-tokens, then run the same command again."
                ) from error
            return False
        self._locked_since.pop(shard.index, None)
        self._run.totals.add(done.totals)
        self._run.busy_s += done.busy_s
        return True

    def _require_locked(self, error: Any, shard: ShardRange) -> None:
        """Raise what the worker met, unless it is another's lock that may yet go."""
        cause = error.cause
        if isinstance(cause, StoreLocked):
            since = self._locked_since.setdefault(shard.index, time.monotonic())
            if time.monotonic() - since < _MOST_LOCKED_S:
                return
        if isinstance(cause, MonoxError):
            raise cause from error
        raise ClusterError(
            f"shard {shard.name}: expected a worker to label it, found: {cause!r}. "
            "The log of the Ray worker tells where."
        ) from error

    def _maker(self, assignment: Assignment) -> Callable[[], Any]:
        """A function that starts a worker."""
        shared = self._ray.put(assignment)  # sent to a machine once
        remote = self._ray.remote(**_resources(assignment))(ShardWorker)
        return lambda: remote.remote(__version__, shared)


def _most_workers(ray: ModuleType, assignment: Assignment) -> int:
    """How many workers were asked for; else how many the cluster has room for now."""
    if assignment.config.workers is not None:
        return assignment.config.workers
    room = ray.cluster_resources()
    needs = {"CPU": "num_cpus", "GPU": "num_gpus"}
    each = _resources(assignment)
    fitting = [int(room.get(name, 0) // each[key]) for name, key in needs.items() if each[key]]
    if min(fitting) < 1:
        shown = ", ".join(f"{each[key]} {name}" for name, key in needs.items() if each[key])
        raise ClusterError(
            f"ray: expected room for a worker of {shown}, found {_shown(room)}. Give --threads, "
            "or --workers where the cluster grows by itself."
        )
    return min(fitting)


def _resources(assignment: Assignment) -> dict[str, int]:
    """What Ray reserves for a worker."""
    session = assignment.plan.session
    config = assignment.config
    is_on_gpu = config.provider in GPU_PROVIDERS or config.device.startswith("cuda")
    return {
        "num_cpus": session.sessions * session.threads if session else config.threads or 1,
        "num_gpus": int(is_on_gpu),
    }


def _shown(room: Mapping[str, float]) -> str:
    return ", ".join(f"{room.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


@contextmanager
def _connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Be connected to a cluster for the block: the one at hand, else the one named or its own."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises whatever its parts do
        raise ClusterError(
            f"--address {address}: expected a Ray cluster, found: {first_line(error)}. "
            "Start one with `ray start --head`, or leave --address out to use this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_ray() -> ModuleType:
    """The `ray` module.

    Raises:
        ClusterError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(
            'ray: expected it to be installed, found none. Run: pip install "monoxkit[ray]"'
        ) from error
    return ray  # type: ignore[no-any-return]
