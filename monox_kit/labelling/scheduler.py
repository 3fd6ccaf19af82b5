"""Which worker of a Ray cluster gets which shard, and what happens when one is lost."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monox_kit import __version__
from monox_kit.corpora.marks import MarksByIndex
from monox_kit.errors import ClusterError, MonoxError, StoreLocked
from monox_kit.labelling.totals import Totals
from monox_kit.labelling.worker import ShardDone
from monox_kit.progress import ProgressTask
from monox_kit.store import ShardRange

if TYPE_CHECKING:
    from types import ModuleType

# A shard that so many workers were lost over is at fault itself: too large for their memory, say.
_MOST_ATTEMPTS = 10
# Workers lost in a row before any of them was ready: the cluster cannot run one.
_MOST_FALSE_STARTS = 10
# A cluster that grows needs minutes for its first machine.
_MOST_PENDING_S = 900.0
# Between tries for a shard that another process holds: a worker that is lost but not dead yet. NFS
# gives a dead machine's locks back after 90 s, the lease of a usual server.
_LOCKED_PAUSE_S = 1.0
_MOST_LOCKED_S = 300.0


@dataclass(slots=True)
class ClusterRun:
    """What a run on the cluster did.

    Attributes:
        totals: of all workers; `seconds` is the time that the run took here.
        num_workers: ready at once, at most.
        num_lost: workers that were lost and replaced.
        busy_s: seconds that workers spent in shards, added up.
        handed_s: seconds from handing a shard out to hearing that it is done, added up; less
            `busy_s`, it is the price of scheduling.
    """

    totals: Totals = field(default_factory=Totals)
    num_workers: int = 0
    num_lost: int = 0
    busy_s: float = 0.0
    handed_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON values, without the totals."""
        return {
            "num_workers": self.num_workers,
            "num_lost_workers": self.num_lost,
            "busy_s": round(self.busy_s, 3),
            "handed_s": round(self.handed_s, 3),
        }


@dataclass(frozen=True, slots=True)
class _Handed:
    """A shard in a worker's hands, since a time of `time.perf_counter`."""

    worker: Any
    shard: ShardRange
    at: float


class Scheduler:
    """Hands shards to workers until all are committed.

    A worker gets a shard only when it is ready: what a full cluster has no room for yet waits
    without holding a shard back. Waiting is done on futures, because Ray's own waiting swallows
    the exception of a signal's handler.
    """

    def __init__(
        self, ray: ModuleType, hire: Callable[[], Any], most_workers: int, task: ProgressTask
    ) -> None:
        """Starts nothing yet."""
        self._ray = ray
        self._hire = hire
        self._most = most_workers
        self._task = task
        self._run = ClusterRun()
        self._starting: dict[Future[Any], Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Future[Any], _Handed] = {}
        self._waiting: deque[ShardRange] = deque()
        self._locked: dict[ShardRange, float] = {}  # to be tried again at that time
        self._locked_since: dict[ShardRange, float] = {}
        self._attempts: Counter[ShardRange] = Counter()
        self._false_starts = 0
        self._nobody_since = time.monotonic()

    def run(
        self, missing: Sequence[ShardRange], assignment: Any, marks: MarksByIndex
    ) -> ClusterRun:
        """Have all of them committed.

        Raises:
            ClusterError: workers are lost again and again, or never come.
            MonoxError: what a worker met, as it met it.
        """
        started = time.perf_counter()
        self._waiting.extend(missing)
        try:
            while self._waiting or self._locked or self._busy:
                self._retry_locked()
                self._fill_up()
                while self._idle and self._waiting:
                    worker, shard = self._idle.pop(), self._waiting.popleft()
                    handed = _Handed(worker, shard, time.perf_counter())
                    result = worker.label.remote(assignment, shard.index, marks[shard.index])
                    self._busy[result.future()] = handed
                self._settle()
        finally:
            self._dismiss()
        self._run.totals.seconds = time.perf_counter() - started
        return self._run

    def _fill_up(self) -> None:
        """Start workers, as many as are asked for and have something to do."""
        open_shards = len(self._waiting) + len(self._locked) + len(self._busy)
        staff = len(self._starting) + len(self._idle) + len(self._busy)
        for _ in range(min(self._most, open_shards) - staff):
            worker = self._hire()
            self._starting[worker.ready.remote(__version__).future()] = worker

    def _settle(self) -> None:
        """Wait for some workers to end what they do, and take it in."""
        pending = [*self._starting, *self._busy]
        if not pending:
            time.sleep(_LOCKED_PAUSE_S)  # every shard left is another's for now
            return
        done, _ = wait(pending, timeout=_LOCKED_PAUSE_S, return_when=FIRST_COMPLETED)
        for future in done:
            if future in self._starting:
                self._welcome(self._starting.pop(future), future)
            else:
                self._take_in(self._busy.pop(future), future)
        self._require_workers()

    def _welcome(self, worker: Any, future: Future[Any]) -> None:
        """Take in a worker that is ready."""
        try:
            future.result()
        except self._ray.exceptions.RayError as error:
            self._raise_from_worker("a worker", error)
            if getattr(error, "actor_init_failed", False):
                raise ClusterError(
                    f"a worker: expected monoxkit {__version__} on every machine of the cluster, "
                    f"found: {_why(error)}. Install it there, with the extras that this run needs."
                ) from error
            self._lose(worker)
            self._false_starts += 1
            if self._false_starts >= _MOST_FALSE_STARTS:
                raise ClusterError(
                    f"ray: expected workers that start, found {self._false_starts} in a row that "
                    f"did not, the last one: {_why(error)}. See the logs of Ray on the cluster's "
                    "machines, then run the same command again."
                ) from error
        else:
            self._false_starts = 0
            self._idle.append(worker)
            ready = len(self._idle) + len(self._busy)
            self._run.num_workers = max(self._run.num_workers, ready)
            self._show()

    def _take_in(self, handed: _Handed, future: Future[Any]) -> None:
        """Take in what came of a shard."""
        worker, shard = handed.worker, handed.shard
        try:
            done: ShardDone = future.result()
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, StoreLocked) and self._may_yet_go(shard):
                self._idle.append(worker)
                self._locked[shard] = time.monotonic() + _LOCKED_PAUSE_S
                return
            self._raise_from_worker(f"shard {shard.name}", error)
            self._lose(worker)
            self._try_again(shard, error)
        else:
            self._idle.append(worker)
            self._locked_since.pop(shard, None)
            self._run.totals.add(done.totals)
            self._run.busy_s += done.busy_s
            self._run.handed_s += time.perf_counter() - handed.at
            self._task.advance(len(shard))
            self._show()

    def _try_again(self, shard: ShardRange, error: Exception) -> None:
        """Put a shard back whose worker was lost."""
        self._attempts[shard] += 1
        if self._attempts[shard] >= _MOST_ATTEMPTS:
            raise ClusterError(
                f"shard {shard.name}: expected a worker to label it, found {_MOST_ATTEMPTS} that "
                f"were lost over it, the last one: {_why(error)}. Give workers more memory or "
                "smaller `batch_tokens`, then run the same command again."
            ) from error
        self._waiting.append(shard)

    def _may_yet_go(self, shard: ShardRange) -> bool:
        """Whether a lock that another process holds may be a lost worker's, which ends with it."""
        since = self._locked_since.setdefault(shard, time.monotonic())
        return time.monotonic() - since < _MOST_LOCKED_S

    def _retry_locked(self) -> None:
        now = time.monotonic()
        for shard in [shard for shard, due in self._locked.items() if due <= now]:
            del self._locked[shard]
            self._waiting.append(shard)

    def _raise_from_worker(self, where: str, error: Exception) -> None:
        """Raise what a worker itself raised; nothing where it was lost instead.

        Raises:
            MonoxError: as the worker raised it.
            ClusterError: the worker raised something else, or Ray cannot go on.
        """
        errors = self._ray.exceptions
        if isinstance(error, errors.RayTaskError):
            cause = error.cause
            if isinstance(cause, MonoxError):
                raise cause from error
            raise ClusterError(
                f"{where}: expected a worker to do its part, found: {_why(cause)}. The traceback "
                "is shown with --debug."
            ) from error
        lost = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )
        if not isinstance(error, lost):
            raise ClusterError(
                f"{where}: expected Ray to run it, found: {_why(error)}. See the logs of Ray, then "
                "run the same command again."
            ) from error

    def _require_workers(self) -> None:
        """Check that there is a worker, or that one may yet come."""
        now = time.monotonic()
        if self._idle or self._busy:
            self._nobody_since = now
        elif now - self._nobody_since > _MOST_PENDING_S:
            raise ClusterError(
                f"ray: expected a worker within {_MOST_PENDING_S:.0f} s, found none: the cluster "
                "has no room for it. Stop what else runs there, or give fewer `threads`."
            )

    def _lose(self, worker: Any) -> None:
        """Count a lost worker. One that is out of reach, and not dead, is not to work on."""
        self._run.num_lost += 1
        self._kill(worker)
        self._show()

    def _dismiss(self) -> None:
        """End every worker; what they have not committed is not in the store."""
        staff = [*self._starting.values(), *self._idle, *(h.worker for h in self._busy.values())]
        for worker in staff:
            self._kill(worker)

    def _kill(self, worker: Any) -> None:
        with contextlib.suppress(Exception):  # it is gone, or Ray is
            self._ray.kill(worker)

    def _show(self) -> None:
        ready = len(self._idle) + len(self._busy)
        self._task.detail(f"{ready} workers, {self._run.num_lost} lost")


def _why(error: BaseException, most: int = 400) -> str:
    """An error's message on one line, without the table of ids that Ray puts into it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    text = " ".join(" ".join(lines).split()).rstrip(".") or type(error).__name__
    if isinstance(error, Exception) and not hasattr(error, "actor_init_failed"):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
