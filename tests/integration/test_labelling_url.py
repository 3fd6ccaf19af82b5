"""Labelling to a URL: the store that comes back is the one that labelling into a folder gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import StorageError, StoreMismatch
from monox_kit.labelling import label_corpus, teacher
from monox_kit.labelling.worker import Assignment, ShardWorker
from monox_kit.store import LogitStore, fetch_store
from monox_kit.store.remote.staging import staging_root
from tests.faults.states import entries, label_config
from tests.object_store import DiskObjects, object_store
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a corpus of 60 rows, and the store of a local run."""
    folder = tmp_path_factory.mktemp("files")
    bert_classifier(folder / "model")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(60, seed=3))
    label_corpus(label_config(folder), folder / "local")
    return folder


@pytest.fixture(autouse=True)
def service() -> Iterator[type[DiskObjects]]:
    with object_store() as service:
        yield service


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"objects://{tmp_path}/bucket/store"


def config(files: Path, tmp_path: Path, **changes: Any) -> Any:
    return replace(label_config(files), staging=str(tmp_path / "staging"), **changes)


def expect_the_local_store(files: Path, url: str, tmp_path: Path) -> None:
    fetch_store(url, tmp_path / "fetched")
    assert entries(tmp_path / "fetched") == entries(files / "local")
    assert [path.name for path in staging_root(str(tmp_path / "staging")).iterdir()] == ["lock"]


def test_a_store_at_a_url_is_that_of_a_local_run(files: Path, url: str, tmp_path: Path) -> None:
    summary = label_corpus(config(files, tmp_path), url)
    assert (summary.store, summary.complete, summary.num_rows_done) == (url, True, 60)
    assert summary.store_digest == LogitStore.open(files / "local").digest
    expect_the_local_store(files, url, tmp_path)
    again = label_corpus(config(files, tmp_path), url)
    assert (again.num_resumed_rows, again.store_digest) == (60, summary.store_digest)
    assert again.rows_per_s is None


def test_parts_complete_the_store_together(files: Path, url: str, tmp_path: Path) -> None:
    label_corpus(config(files, tmp_path, begin=True), url)
    for shards in ((4, 6), (0, 1), (1, 4)):
        summary = label_corpus(config(files, tmp_path, shard_range=shards), url)
        assert summary.complete == (shards == (1, 4))
    expect_the_local_store(files, url, tmp_path)


def test_a_run_that_fails_goes_on(
    files: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = teacher.score_texts, itertools.count()

    def failing(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("power cut")
        return score(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "score_texts", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            label_corpus(config(files, tmp_path), url)
    resumed = label_corpus(config(files, tmp_path), url).num_resumed_rows
    assert resumed in (20, 30)  # the third shard may have been on its way
    expect_the_local_store(files, url, tmp_path)


def test_other_settings_are_refused_before_any_work(files: Path, url: str, tmp_path: Path) -> None:
    label_corpus(config(files, tmp_path, begin=True), url)
    wanted = r"store/store\.json: .*\(fingerprint\.max_length\) was 32 .* is 16 now"
    with pytest.raises(StoreMismatch, match=wanted):
        label_corpus(config(files, tmp_path, max_length=16), url)


def test_a_service_without_put_if_absent_is_refused_before_the_model_is_opened(
    files: Path, url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    service.ignores_mode = True
    with pytest.raises(StorageError, match="probe: "):
        label_corpus(config(files / "nowhere", tmp_path), url)


def test_a_worker_of_a_cluster_puts_its_shard(
    files: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs in its process, in this one."""
    from monox_kit.labelling import begin, run
    from monox_kit.labelling.scheduler import ClusterRun

    def here(assignment: Assignment, missing: Any, task: Any) -> ClusterRun:
        worker = ShardWorker(1)
        for shard in reversed(missing):
            for _ in range(2):  # the second time it is there
                mark = assignment.marks[shard.index]
                worker.label(replace(assignment, marks={}), shard.index, mark)
        return ClusterRun()

    monkeypatch.setattr(run, "label_on_cluster", here)
    monkeypatch.setattr(begin, "require_cluster", lambda config: None)
    monkeypatch.chdir(tmp_path)
    asked = replace(label_config(files), staging="staging", engine="ray")
    assert label_corpus(asked, url).complete
    expect_the_local_store(files, url, tmp_path)
