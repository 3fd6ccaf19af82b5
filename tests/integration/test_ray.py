"""Labelling on a real Ray cluster of this machine: the store is the one that a local run writes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ClusterError, ConfigError, CorpusError, ModelError, StoreLocked
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus, run, scheduler
from monox_kit.labelling.scheduler import Scheduler
from monox_kit.store import FolderWriter, LogitStore, begun_manifest
from tests.store_samples import tree
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [
    pytest.mark.slow,
    # Ray's own, of its own parts.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CORES = 2
HANGS_S = 250.0  # what takes longer hangs, also beside other work


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and one corpus of 150 rows in four files."""
    folder = tmp_path_factory.mktemp("data")
    rows = labelled_rows(150, seed=1)
    write_jsonl(folder / "part-0.jsonl", rows[:40])
    lines = "".join(json.dumps(row) + "\n" for row in rows[40:70])
    (folder / "part-1.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    head = "id\ttext\tlabel\tlang\n"
    table = "".join("\t".join(row[k] for k in head.split()) + "\n" for row in rows[70:110])
    (folder / "part-2.tsv").write_text(head + table, "utf-8")
    write_jsonl(folder / "part-3.jsonl", rows[110:])
    bert_classifier(folder / "model")
    export_model(ExportConfig(model=str(folder / "model"), max_length=32), folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of `CORES` cores, whatever the machine has, that runs of this process use."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


def config_for(files: Path, **changes: Any) -> LabelConfig:
    config = LabelConfig(
        teacher="onnx",
        model=str(files / "bundle"),
        corpus=CorpusConfig(paths=(str(files / "part-*"),)),
        shard_rows=16,
        batch_tokens=64,
        sessions=1,
        threads=1,
        engine="ray",
        workers=1,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def local(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store that one process writes."""
    store = tmp_path_factory.mktemp("local") / "store"
    assert label_corpus(config_for(files, engine="local", workers=None), store).num_shards == 10
    return arrays(store)


def arrays(store: Path) -> dict[str, bytes]:
    """All of a complete store but what it remembers of the run."""
    assert LogitStore.open(store, verify="full").digest
    found = tree(store)
    del found["complete.json"]
    return found


def on_welcome(monkeypatch: pytest.MonkeyPatch, act: Callable[[Scheduler, Any, int], None]) -> None:
    """Call `act` with each worker that is ready, and the id of its process."""
    welcome = Scheduler._welcome

    def welcomed(self: Scheduler, worker: Any, future: Any) -> None:
        welcome(self, worker, future)
        act(self, worker, future.result())

    monkeypatch.setattr(Scheduler, "_welcome", welcomed)


def test_the_store_is_the_one_that_a_local_run_writes(
    files: Path,
    local: dict[str, bytes],
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Workers start in folders of their own, where relative paths would lead elsewhere.
    monkeypatch.chdir(files)
    store = Path(os.path.relpath(tmp_path / "store"))
    corpus = CorpusConfig(paths=("part-*",))
    config = config_for(files, model="bundle", corpus=corpus, workers=None)
    summary = label_corpus(config, store)
    assert arrays(tmp_path / "store") == local
    assert summary.complete
    assert summary.cluster is not None
    assert 1 <= summary.cluster["num_workers"] <= CORES
    assert summary.cluster["num_lost_workers"] == 0
    again = label_corpus(config, store)
    assert again.num_resumed_rows == 150
    assert again.cluster is None


def test_a_half_finished_store_is_finished_by_more_workers_than_there_is_room_for(
    files: Path, local: dict[str, bytes], cluster: None, tmp_path: Path
) -> None:
    here = config_for(files, engine="local", workers=None)
    label_corpus(replace(here, begin=True), tmp_path / "store")
    here = replace(here, shard_range=(3, 6))
    assert not label_corpus(here, tmp_path / "store").complete
    part = label_corpus(config_for(files, shard_range=(5, 7)), tmp_path / "store")
    assert (part.complete, part.num_rows_done, part.num_resumed_rows) == (False, 64, 16)
    summary = label_corpus(config_for(files, workers=CORES + 3), tmp_path / "store")
    assert summary.num_resumed_rows == 64
    assert summary.cluster is not None
    assert summary.cluster["num_workers"] <= CORES
    assert arrays(tmp_path / "store") == local


def test_a_worker_killed_in_the_middle_is_replaced(
    files: Path,
    local: dict[str, bytes],
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []

    def kill_the_first(self: Scheduler, worker: Any, pid: int) -> None:
        if not killed:
            killed.append(pid)
            # Loading the graph alone takes longer than this.
            threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()

    on_welcome(monkeypatch, kill_the_first)
    summary = label_corpus(config_for(files, workers=2), tmp_path / "store")
    assert summary.cluster is not None
    assert summary.cluster["num_lost_workers"] == 1
    assert arrays(tmp_path / "store") == local


def test_workers_lost_again_and_again_end_the_run_and_leave_a_store_to_resume(
    files: Path,
    local: dict[str, bytes],
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "_MOST_ATTEMPTS", 2)
    with monkeypatch.context() as patch:
        on_welcome(patch, lambda self, worker, pid: os.kill(pid, signal.SIGKILL))
        with pytest.raises(ClusterError, match="2 that were lost over it") as caught:
            label_corpus(config_for(files, workers=1), tmp_path / "store")
    assert "\n" not in str(caught.value)
    label_corpus(config_for(files), tmp_path / "store")
    assert arrays(tmp_path / "store") == local


def before_the_workers(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the driver's checks and the workers' start."""
    label_on_cluster = run.label_on_cluster

    def acting(*arguments: Any) -> Any:
        act()
        return label_on_cluster(*arguments)

    monkeypatch.setattr(run, "label_on_cluster", acting)


def test_another_model_on_a_workers_machine_is_refused(
    files: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(files / "bundle", bundle)

    def swap() -> None:
        shutil.rmtree(bundle)
        bert_classifier(tmp_path / "other", seed=5)
        export_model(ExportConfig(model=str(tmp_path / "other"), max_length=32), bundle)

    before_the_workers(monkeypatch, swap)
    with pytest.raises(ModelError, match=r"found .* on a worker's machine") as caught:
        label_corpus(config_for(files, model=str(bundle)), tmp_path / "store")
    assert type(caught.value) is ModelError
    assert not os.listdir(tmp_path / "store" / "shards")


def test_a_corpus_that_changed_is_refused_by_the_worker_that_meets_it(
    files: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(64, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = config_for(files, corpus=CorpusConfig(paths=(str(corpus),)))
    changed = [*rows[:40], {**rows[40], "text": "another"}, *rows[41:]]
    before_the_workers(monkeypatch, lambda: write_jsonl(corpus, changed))
    with pytest.raises(CorpusError, match="changed while it was labelled"):
        label_corpus(config, tmp_path / "store")
    assert "000002" not in os.listdir(tmp_path / "store" / "shards")
    assert not (tmp_path / "store" / "complete.json").exists()


def test_another_version_on_a_workers_machine_is_refused(
    files: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "__version__", "0.0.1")
    with pytest.raises(ConfigError, match=r"expected monoxkit 0\.0\.1 .* on every machine"):
        label_corpus(config_for(files), tmp_path / "store")


def test_a_shard_that_another_writer_holds_is_waited_for(
    files: Path,
    local: dict[str, bytes],
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "store"
    here = config_for(files, engine="local", workers=None)
    label_corpus(replace(here, begin=True), store)
    for shards in ((0, 4), (5, 10)):
        label_corpus(replace(here, shard_range=shards), store)
    manifest = begun_manifest(store)
    assert manifest is not None
    with FolderWriter(store, manifest, range(4, 5)) as holder:
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "_MOST_LOCKED_S", 1.0)
            with pytest.raises(StoreLocked, match="no other writer of shards 4 to 4"):
                label_corpus(config_for(files), store)
        letting_go = threading.Timer(3.0, holder.__exit__, (None, None, None))
        before_the_workers(monkeypatch, letting_go.start)
        label_corpus(config_for(files), store)
    assert arrays(store) == local


def test_a_worker_that_fits_on_no_machine_is_told(
    files: Path, cluster: None, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=f"a worker of 64 CPU, found {CORES} CPU"):
        label_corpus(config_for(files, workers=None, threads=64), tmp_path / "store")


def command_line(files: Path, store: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "monoxkit_cli", "label", "--model", f"{files}/bundle"),
        *("--corpus", f"{files}/part-*", "--store", str(store), "--shard-rows", "16"),
        *("--batch-tokens", "64", "--sessions", "1", "--threads", "1", "--engine", "ray", *more),
    ]


def started(files: Path, store: Path, *more: str) -> subprocess.Popen[str]:
    """The command with a cluster of its own, in a process of its own."""
    return subprocess.Popen(
        command_line(files, store, *more),
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(is_so: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_so()


def test_the_command_prints_its_result_and_nothing_of_rays(
    files: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """Of a lost worker neither: Ray tells of it on stdout."""
    process = started(files, tmp_path / "store", "--workers", "1", "--json")
    workers: list[int] = []

    def found() -> list[int]:
        workers[:] = [pid for pid in descendants(process.pid) if is_worker(pid)]
        return workers

    wait_until(found, HANGS_S)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    result, messages = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, messages
    assert json.loads(result)["cluster"]["num_lost_workers"] == len(workers) == 1
    ours = ("checking the corpus: ", "labelling (onnx): ", "150 of 150 rows have gold labels")
    assert [line for line in messages.splitlines() if not line.startswith(ours)] == []
    assert arrays(tmp_path / "store") == local


def test_a_signal_ends_the_command_and_its_cluster(files: Path, tmp_path: Path) -> None:
    process = started(files, tmp_path / "store", "--workers", "1")
    wait_until((tmp_path / "store" / "shards" / "000000").exists, HANGS_S)
    children = descendants(process.pid)
    process.terminate()
    _, messages = process.communicate(timeout=HANGS_S)
    assert process.returncode == 143
    assert messages.splitlines()[-1].startswith("Stopped by SIGTERM. Finished work is kept")
    assert len(children) > 2
    wait_until(lambda: not any(map(is_alive, children)), HANGS_S)


def descendants(pid: int) -> set[int]:
    """The processes below one, by their ids; threads may end while they are looked at."""
    found, open_ids = set(), [pid]
    while open_ids:
        for children in Path(f"/proc/{open_ids.pop()}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                below = {int(child) for child in children.read_text().split()}
                open_ids.extend(below - found)
                found |= below
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def is_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ShardWorker")
    except (FileNotFoundError, ProcessLookupError):
        return False
