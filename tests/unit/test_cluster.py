"""Connecting to Ray and handing out shards, with a Ray that does what the test says."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ClusterError, ConfigError, CorpusError, StoreLocked
from monox_kit.labelling import LabelConfig, cluster, scheduler
from monox_kit.labelling.ray_privacy import clusters_here
from monox_kit.labelling.scheduler import ClusterRun, Scheduler
from monox_kit.labelling.totals import Totals
from monox_kit.labelling.worker import ShardDone
from monox_kit.progress import Silent
from monox_kit.store import ShardRange

CONFIG = LabelConfig(
    teacher="onnx", model="M", corpus=CorpusConfig(paths=("c.jsonl",)), engine="ray"
)


class RayError(Exception):
    """Ray's base class."""


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"ray::ShardWorker.label()\n{cause}")
        self.cause = cause


class RayActorError(RayError):
    def __init__(self, text: str, actor_init_failed: bool = False) -> None:
        super().__init__(text)
        self.actor_init_failed = actor_init_failed


class Worker:
    """A handle whose calls answer at once; `behave` decides with what, None for never."""

    def __init__(self, behave: Callable[[Worker, int | None], Any]) -> None:
        self.behave = behave
        self.is_killed = False
        self.ready = SimpleNamespace(remote=lambda version: self._answer(None))
        self.label = SimpleNamespace(remote=lambda work, index, mark: self._answer(index))

    def _answer(self, index: int | None) -> Any:
        future: Future[Any] = Future()
        found = RayActorError("killed") if self.is_killed else self.behave(self, index)
        if isinstance(found, Exception):
            future.set_exception(found)
        elif found is not None:
            future.set_result(found)
        return SimpleNamespace(future=lambda: future)


class Site:
    """A cluster of such workers, and what became of the shards."""

    def __init__(self, behave: Callable[[Worker, int | None], Any]) -> None:
        self.workers: list[Worker] = []
        self.committed: list[int] = []
        self._behave = behave
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
        errors = {name: type(name, (RayError,), {}) for name in names}
        errors |= {"RayError": RayError, "RayTaskError": RayTaskError}
        self.errors = SimpleNamespace(**errors, RayActorError=RayActorError)
        self.ray = SimpleNamespace(exceptions=self.errors, kill=self._kill)

    def hire(self) -> Worker:
        worker = Worker(self._do)
        self.workers.append(worker)
        return worker

    def run(self, num_shards: int, most_workers: int = 2) -> ClusterRun:
        shards = [ShardRange(index, 10 * index, 10 * index + 10) for index in range(num_shards)]
        marks: Any = dict.fromkeys(range(num_shards))
        ray: Any = self.ray
        with Silent().task("", None, "") as task:
            return Scheduler(ray, self.hire, most_workers, task).run(shards, "work", marks)

    def _do(self, worker: Worker, index: int | None) -> Any:
        found = self._behave(worker, index)
        if found == "done":
            if index is None:
                return 1
            self.committed.append(index)
            return ShardDone(Totals(), 0.5)
        return found

    def _kill(self, worker: Worker) -> None:
        worker.is_killed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_LOCKED_PAUSE_S", 0.01)


def test_every_shard_is_done_once_and_every_worker_ended() -> None:
    site = Site(lambda worker, index: "done")
    run = site.run(7, most_workers=3)
    assert sorted(site.committed) == list(range(7))
    assert (run.num_workers, run.num_lost, run.busy_s) == (3, 0, 3.5)
    assert len(site.workers) == 3
    assert all(worker.is_killed for worker in site.workers)


def test_seconds_of_workers_add_up_beside_those_of_the_run() -> None:
    """What computing again cost is the workers' seconds too: its price is a fraction of theirs."""
    spent = Totals(seconds=90.0, worker_s=90.0, recomputing_s=30.0)
    site = Site(lambda worker, index: 1 if index is None else ShardDone(spent, 91.0))
    totals = site.run(4, most_workers=2).totals
    assert (totals.worker_s, totals.recomputing_s) == (360.0, 120.0)
    assert 0 < totals.seconds < 90
    assert totals.guard_price()["price"] == 0.5


def test_no_more_workers_than_shards() -> None:
    site = Site(lambda worker, index: "done")
    site.run(2, most_workers=50)
    assert len(site.workers) == 2


def test_a_worker_that_the_cluster_has_no_room_for_holds_no_shard() -> None:
    site = Site(lambda worker, index: "done" if worker is site.workers[0] else None)
    run = site.run(5, most_workers=4)
    assert sorted(site.committed) == list(range(5))
    assert run.num_workers == 1


@pytest.mark.parametrize(
    "name", ["RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError"]
)
def test_a_lost_worker_is_replaced_and_its_shard_done_by_another(name: str) -> None:
    first: list[int] = []

    def behave(worker: Worker, index: int | None) -> Any:
        if index in (1, 3) and index not in first:
            first.append(index)
            return getattr(site.errors, name)("gone")
        return "done"

    site = Site(behave)
    run = site.run(5)
    assert sorted(site.committed) == list(range(5))
    assert run.num_lost == 2
    assert len(site.workers) == 4


def test_a_shard_that_loses_every_worker_ends_the_run() -> None:
    site = Site(lambda worker, index: RayActorError("out of memory") if index == 2 else "done")
    with pytest.raises(ClusterError, match=r"shard 000002: .* 10 that were lost .*out of memory"):
        site.run(3)
    assert sorted(site.committed) == [0, 1]
    assert all(worker.is_killed for worker in site.workers)


def test_workers_that_never_start_end_the_run() -> None:
    site = Site(lambda worker, index: RayActorError("no such image"))
    with pytest.raises(ClusterError, match=r"\b10\b.*no such image"):
        site.run(3)


def test_a_machine_without_the_package_is_told_at_once() -> None:
    broken = RayActorError("\tid: 1\nNo module named 'monox_kit'", actor_init_failed=True)
    site = Site(lambda worker, index: broken)
    with pytest.raises(ClusterError, match=r"on every machine .*No module named 'monox_kit'"):
        site.run(3, most_workers=1)
    assert len(site.workers) == 1


def test_no_room_at_all_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_MOST_PENDING_S", 0.05)
    site = Site(lambda worker, index: None)
    with pytest.raises(ClusterError, match="has no room"):
        site.run(3)


def test_what_a_worker_raises_comes_through_as_it_is() -> None:
    for index in (None, 2):
        error = CorpusError("c.jsonl: expected text, found none. Put it there.")
        site = Site(lambda worker, i, at=index, e=error: RayTaskError(e) if i == at else "done")
        with pytest.raises(CorpusError) as caught:
            site.run(3)
        assert caught.value is error


def test_what_nobody_expected_names_the_shard() -> None:
    site = Site(lambda worker, index: RayTaskError(ZeroDivisionError("by 0")) if index else "done")
    with pytest.raises(ClusterError, match=r"shard 000001: .*ZeroDivisionError: by 0"):
        site.run(3, most_workers=1)
    site = Site(lambda worker, index: RayError("odd") if index else "done")
    with pytest.raises(ClusterError, match=r"shard 000001: .*RayErr"):
        site.run(3, most_workers=1)


def test_a_locked_shard_is_tried_again_while_others_go_on() -> None:
    tries: list[int] = []

    def behave(worker: Worker, index: int | None) -> Any:
        if index == 0:
            tries.append(0)
            if len(tries) < 4:
                return RayTaskError(StoreLocked("held"))
        return "done"

    site = Site(behave)
    run = site.run(4, most_workers=1)
    assert site.committed == [1, 2, 3, 0]
    assert run.num_lost == 0


def test_a_shard_that_stays_locked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_MOST_LOCKED_S", 0.05)
    site = Site(lambda worker, index: RayTaskError(StoreLocked("held")) if index == 1 else "done")
    with pytest.raises(StoreLocked, match="held"):
        site.run(3)
    assert sorted(site.committed) == [0, 2]


class FakeRay(ModuleType):
    """Notes how it was started, and does to the process what Ray's `init` does."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.started: dict[str, Any] = {}
        self.is_up = False
        self.fails: Exception | None = None
        self.address = "127.0.0.1:40000"

    def init(self, **options: Any) -> None:
        self.started, self.is_up = options, True
        self.variables, self.umask = dict(os.environ), os.umask(0o077)
        os.umask(self.umask)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        if self.fails is not None:
            raise self.fails

    def is_initialized(self) -> bool:
        return self.is_up

    def shutdown(self) -> None:
        self.is_up = False

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.address)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRay]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    yield FakeRay()
    signal.signal(signal.SIGTERM, handler)


def test_nothing_is_reported_and_the_process_stays_its_own(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with cluster._connected(ray, None):
        assert signal.getsignal(signal.SIGTERM) is handler
    assert ray.variables["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray.started["address"] == "local"
    assert not ray.started["include_dashboard"]
    assert not ray.started["log_to_driver"]
    assert not ray.is_up


def test_a_cluster_of_the_runs_own_is_this_users_alone(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    try:
        with cluster._connected(ray, None) as umask:
            assert umask == 0o022
            (folder,) = tmp_path.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert Path(ray.started["_temp_dir"]).parent == folder
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert ray.umask == 0o077
    assert ray.started["_node_ip_address"] == "127.0.0.1"
    assert ray.variables["RAY_AUTH_MODE"] == "token"
    assert len(ray.variables["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert not list(tmp_path.iterdir())


def test_the_users_own_token_is_taken(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere")
    with cluster._connected(ray, None):
        pass
    assert "RAY_AUTH_TOKEN" not in ray.variables


def test_a_cluster_that_others_reach_is_ended(ray: FakeRay) -> None:
    ray.address = "10.0.0.1:6379"
    with pytest.raises(ClusterError, match=r"listens at 10\.0\.0\.1:6379"):
        cluster._connected(ray, None).__enter__()
    assert not ray.is_up


def a_process(proc: Path, number: int, *arguments: str) -> None:
    (proc / str(number)).mkdir(parents=True)
    (proc / str(number) / "cmdline").write_bytes(b"\0".join(map(str.encode, arguments)) + b"\0")


def test_clusters_are_this_users_by_their_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raylet = "/site/ray/core/src/ray/raylet/raylet"
    a_process(tmp_path, 10, raylet, "--node_id=1", "--gcs-address=10.0.0.1:6379")
    a_process(tmp_path, 11, raylet, "--gcs-address=10.0.0.1:6379")
    # Neither a program that names a raylet, nor a process that has ended, is one.
    a_process(tmp_path, 12, "/bin/grep", "raylet", "--gcs-address=6.6.6.6:6379")
    a_process(tmp_path, 13, "")
    (tmp_path / "14").mkdir()
    assert clusters_here(tmp_path) == (["10.0.0.1:6379"], 0)
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "10").stat().st_uid + 1)
    assert clusters_here(tmp_path) == ([], 2)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (([], 0), "found none"),
        (([], 3), "found none .other users have 3 processes of Ray"),
        ((["10.0.0.1:1", "10.0.0.2:2"], 0), r"found 10\.0\.0\.1:1, 10\.0\.0\.2:2"),
    ],
)
def test_auto_believes_one_cluster_of_this_user(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, found: tuple[list[str], int], told: str
) -> None:
    monkeypatch.setattr(cluster, "clusters_here", lambda: found)
    with pytest.raises(ClusterError, match=f"`address` auto: .*{told}"):
        cluster._connected(ray, "auto").__enter__()
    assert not ray.started
    monkeypatch.setattr(cluster, "clusters_here", lambda: (["10.0.0.1:6379"], 2))
    with cluster._connected(ray, "auto") as umask:
        assert umask is None
    assert ray.started["address"] == "auto"
    assert ray.variables["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert "RAY_ADDRESS" not in os.environ


def test_the_address_is_the_one_given_then_the_environments(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    for asked, expected in ((None, "10.0.0.2:6379"), ("auto", "auto")):
        with cluster._connected(ray, asked) as umask:
            assert umask is None
        assert ray.started["address"] == expected
        assert "include_dashboard" not in ray.started


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "RAY_TMPDIR"),
        (RuntimeError("Failed to start GCS. \nmore"), "logs below .*/ray-"),
    ],
)
def test_a_cluster_that_does_not_start_is_told(ray: FakeRay, error: Exception, step: str) -> None:
    ray.fails = error
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ClusterError, match=f"expected a Ray cluster, found: .*{step}"):
        cluster._connected(ray, None).__enter__()
    assert not ray.is_up
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_process_at_another_cluster_is_refused(ray: FakeRay) -> None:
    ray.is_up = True
    ray.address = "10.0.0.1:6379"
    for asked in (None, "auto", "10.0.0.1:6379"):
        with cluster._connected(ray, asked) as umask:
            assert umask is None
    assert ray.is_up
    with pytest.raises(ClusterError, match=r"10\.0\.0\.1:6379"):
        cluster._connected(ray, "10.0.0.2:6379").__enter__()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "`address` 127.0.0.1:1: expected a Ray cluster, found: .*refused"),
        ("somewhere", "`address` somewhere: expected a Ray cluster, found: "),
        ("ray://localhost:10001", "expected HOST:PORT .* found an address of Ray Client"),
    ],
)
def test_an_address_is_tried_before_any_work(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ModuleType("ray.exceptions"))
    config = LabelConfig(
        teacher="onnx", model="M", corpus=CONFIG.corpus, engine="ray", address=address
    )
    with pytest.raises(ClusterError, match=message):
        cluster.require_cluster(config)
    cluster.require_cluster(CONFIG)


def test_without_ray_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r'pip install "monoxkit\[ray\]"'):
        cluster.require_cluster(CONFIG)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"address": "auto", "engine": "local"}, ("`address` auto", "`engine` ray")),
        ({"workers": 2, "engine": "local"}, ("`workers` 2", "`engine` ray")),
        ({"teacher": "torch", "device": "cuda:1"}, ("`device` cuda:1", "`engine` ray")),
        ({"begin": True}, ("`begin` True", "`engine` local")),
    ],
)
def test_options_that_do_not_go_with_the_engine_are_refused(
    change: dict[str, Any], named: tuple[str, ...]
) -> None:
    values = {"teacher": "onnx", "model": "M", "corpus": CONFIG.corpus, "engine": "ray", **change}
    with pytest.raises(ConfigError) as found:
        cluster.require_cluster(LabelConfig(**values))
    assert all(part in str(found.value) for part in named)
