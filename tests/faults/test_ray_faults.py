"""Workers of a Ray cluster killed at random while they label 100,000 rows: none is lost or doubled.

The sampled run is `tests/integration/test_ray.py`, where one worker dies in the middle.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.labelling.scheduler import Scheduler
from monox_kit.store import LogitStore
from tests.store_samples import tree
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [
    pytest.mark.complete,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WORKERS = 4
ROWS = int(os.environ.get("MONOXKIT_RAY_ROWS", "100000"))
SHARD_ROWS = 250
KILLS = 25


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


class Killer:
    """Kills one of the workers at random times, by the ids that they tell."""

    def __init__(self, seed: int) -> None:
        self.num_killed = 0
        self._random = random.Random(seed)
        self._pids: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def add(self, pid: int) -> None:
        self._pids.append(pid)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while self.num_killed < KILLS and not self._stop.wait(self._random.uniform(0.5, 5.0)):
            if not self._pids:
                continue
            pid = self._pids.pop(self._random.randrange(len(self._pids)))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.num_killed += 1


def test_a_store_of_100000_rows_is_the_one_process_store_whatever_workers_are_killed(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert_classifier(tmp_path / "model")
    export_model(ExportConfig(model=str(tmp_path / "model"), max_length=32), tmp_path / "bundle")
    corpus = write_jsonl(tmp_path / "corpus.jsonl", labelled_rows(ROWS, seed=9))
    values: dict[str, Any] = {
        "teacher": "onnx",
        "model": str(tmp_path / "bundle"),
        "corpus": CorpusConfig(paths=(str(corpus),)),
        "shard_rows": SHARD_ROWS,
        "batch_tokens": 2048,
        "sessions": 1,
        "threads": 1,
    }
    label_corpus(LabelConfig(**values), tmp_path / "one")

    welcome = Scheduler._welcome
    killer = Killer(seed=4)

    def welcomed(self: Scheduler, worker: Any, future: Any) -> None:
        welcome(self, worker, future)
        if future.exception() is None:
            killer.add(future.result())

    monkeypatch.setattr(Scheduler, "_welcome", welcomed)
    config = LabelConfig(**values, engine="ray", workers=WORKERS)
    with killer:
        summary = label_corpus(config, tmp_path / "many")
    assert summary.cluster is not None
    seen = {"rows": ROWS, "kills": killer.num_killed, "s": summary.labelled_s, **summary.cluster}
    (tmp_path / "seen.json").write_text(json.dumps(seen))
    assert killer.num_killed >= min(KILLS, ROWS // 10_000)
    assert summary.cluster["num_lost_workers"] >= killer.num_killed - WORKERS
    one, many = (LogitStore.open(tmp_path / name, verify="full") for name in ("one", "many"))
    assert one.digest == many.digest
    trees = [tree(tmp_path / name) for name in ("one", "many")]
    for found in trees:
        del found["complete.json"]
    assert trees[0] == trees[1]
