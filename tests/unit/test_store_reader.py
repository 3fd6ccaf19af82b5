"""Reading a store: random access against an oracle, and what is refused."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from monox_kit.errors import ConfigError, StoreCorrupt, StoreError, StoreIncomplete
from monox_kit.store import FolderWriter, LogitStore, verify_store
from tests.store_samples import (
    FINGERPRINT,
    LABELS,
    document,
    gold,
    logits,
    manifest,
    recomputed,
    shard_arguments,
    write_shard,
    write_store,
)

ROWS = np.arange(11, dtype=np.int64)


@pytest.fixture(params=["float32", "float16"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    "rows", [[3], [10, 0, 10, 4], list(range(11)), list(range(10, -1, -1)), [], [7, 8]]
)
def test_rows_come_in_the_order_asked_for(tmp_path: Path, dtype: Any, rows: list[int]) -> None:
    store = LogitStore.open(write_store(tmp_path / "s", manifest(dtype=dtype)))
    asked = np.array(rows, np.int64)
    found = store.logits(asked)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, logits(asked).reshape(len(rows), 3))
    np.testing.assert_array_equal(store.gold(asked), gold(asked))
    assert store.recomputed(asked).dtype == np.bool_
    np.testing.assert_array_equal(store.recomputed(asked), recomputed(asked))


@pytest.mark.parametrize("start", [None, 0, 3, 4, 11, -4])
@pytest.mark.parametrize("stop", [None, 0, 4, 5, 11, 99, -1])
@pytest.mark.parametrize("step", [None, 3, -1])
def test_slices_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, start: Any, stop: Any, step: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "sliced"
    store = LogitStore.open(folder if folder.exists() else write_store(folder))
    part = slice(start, stop, step)
    np.testing.assert_array_equal(store.logits(part), logits(ROWS)[part])
    np.testing.assert_array_equal(store.gold(part), gold(ROWS)[part])
    np.testing.assert_array_equal(store.recomputed(part), recomputed(ROWS)[part])


def test_a_copy_is_given_not_the_file(tmp_path: Path) -> None:
    store = LogitStore.open(write_store(tmp_path / "s"))
    store.logits(slice(0, 4))[:] = 0
    np.testing.assert_array_equal(store.logits(slice(0, 4)), logits(ROWS[:4]))


@pytest.mark.parametrize("has_pairs", [False, True])
def test_texts_labels_and_ids(tmp_path: Path, has_pairs: bool) -> None:
    store = LogitStore.open(write_store(tmp_path / "s", manifest(has_pairs=has_pairs)))
    assert (len(store), store.num_classes, store.labels) == (11, 3, LABELS)
    for row in (10, 0, 5):
        expected = document(row, has_pairs)
        assert store.text(row) == expected.text
        assert store.text_pair(row) == expected.text_pair
        assert store.id(row) == expected.id
        assert store.label(row) == gold(ROWS)[row]
    rows = np.array([10, 0, 5, 0])
    wanted = [document(row, has_pairs) for row in rows.tolist()]
    for part, expected_part in (
        (rows, wanted),
        (slice(3, 9), [document(row, has_pairs) for row in range(3, 9)]),
        (slice(9, 2, -3), [document(row, has_pairs) for row in (9, 6, 3)]),
        (slice(4, 4), []),
        (rows[:0], []),
    ):
        pairs = [d.text_pair for d in expected_part] if has_pairs else None
        assert store.texts(part) == [d.text for d in expected_part]
        assert store.text_pairs(part) == pairs
        assert store.ids(part) == [d.id for d in expected_part]
    assert list(store.documents()) == [document(row, has_pairs) for row in range(11)]
    assert list(store.documents(slice(3, 9))) == [document(row, has_pairs) for row in range(3, 9)]


@pytest.mark.parametrize("rows", [[11], [-1], [0, 99], [0, -5], [2**62]])
def test_rows_outside_are_refused(tmp_path: Path, rows: list[int]) -> None:
    store = LogitStore.open(write_store(tmp_path / "s"))
    with pytest.raises(StoreError, match="row from 0 to 10, "):
        store.logits(np.array(rows, np.int64))
    with pytest.raises(StoreError, match="row from 0 to 10, "):
        store.text(rows[-1])
    with pytest.raises(StoreError, match="row from 0 to 10, "):
        store.texts(np.array(rows, np.int64))


@pytest.mark.parametrize("rows", [np.zeros(2), np.zeros((2, 1), np.int64), np.array([True])])
def test_rows_must_be_whole_numbers(tmp_path: Path, rows: Any) -> None:
    store = LogitStore.open(write_store(tmp_path / "s"))
    with pytest.raises(StoreError, match="expected whole-numbered rows"):
        store.logits(rows)


def half_store(folder: Path) -> Path:
    """A store whose shard 1 is missing."""
    with FolderWriter(folder, manifest()) as writer:
        for shard in (writer.missing[0], writer.missing[2]):
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
    return folder


def test_an_incomplete_store_is_refused_unless_asked_for(tmp_path: Path) -> None:
    folder = half_store(tmp_path / "s")
    with pytest.raises(StoreIncomplete, match="found 7 of 11 rows labelled"):
        LogitStore.open(folder)
    store = LogitStore.open(folder, allow_incomplete=True)
    assert not store.complete
    assert [shard.index for shard in store.shards()] == [0, 2]
    assert store.text(9) == document(9).text
    for ask in (
        lambda: store.text(5),
        lambda: store.texts(np.array([0, 5])),
        lambda: store.logits(np.array([0, 5])),
        lambda: store.logits(slice(0, 11)),
        lambda: store.digest,
    ):
        with pytest.raises(StoreIncomplete, match="monoxkit label"):
            ask()
    info = store.info()
    assert (info.num_rows_done, info.num_shards_done, info.complete) == (7, 2, False)
    report = store.verify()
    assert (report.num_rows, report.complete, report.problems) == (7, False, ())


def test_info(tmp_path: Path) -> None:
    store = LogitStore.open(write_store(tmp_path / "s", manifest(dtype="float16")))
    arrays = sum(path.stat().st_size for path in (tmp_path / "s").rglob("*.npy"))
    assert store.info().to_json() == {
        "path": str(tmp_path / "s"),
        "complete": True,
        "num_rows": 11,
        "num_rows_done": 11,
        "num_shards": 3,
        "num_shards_done": 3,
        "num_classes": 3,
        "labels": LABELS.names,
        "problem_type": "single_label_classification",
        "num_labelled": 7,
        "num_recomputed": 3,
        "dtype": "float16",
        "has_pairs": False,
        "has_languages": False,
        "num_bytes": arrays,
        "digest": store.digest,
        "fingerprint": FINGERPRINT,
        "summary": {"command": "label"},
    }
    assert store.verify().to_json()["num_bytes"] == arrays


def test_the_digest_is_of_the_content_and_the_settings(tmp_path: Path) -> None:
    def digest(name: str, **changes: Any) -> str:
        return LogitStore.open(write_store(tmp_path / name, manifest(**changes))).digest

    first = digest("a")
    assert digest("b") == first
    others = {digest("c", dtype="float16"), digest("d", shard_rows=11), digest("e", num_rows=10)}
    assert len(others | {first}) == 4


@pytest.mark.parametrize("verify", ["open", "read", "full"])
def test_when_a_changed_byte_is_noticed(
    tmp_path: Path, verify: Literal["open", "read", "full"]
) -> None:
    folder = write_store(tmp_path / "s")
    path = folder / "shards" / "000001" / "text.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"plain", b"plane"))
    if verify == "full":
        with pytest.raises(StoreCorrupt, match=r"text\.npy: expected SHA-256"):
            LogitStore.open(folder, verify=verify)
        return
    store = LogitStore.open(folder, verify=verify)
    assert store.text(0) == document(0).text
    if verify == "read":
        with pytest.raises(StoreCorrupt, match=r"000001/text\.npy: expected SHA-256"):
            store.text(5)
    else:
        assert store.text(6) == "plane"  # what `open` promises is less


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_noticed_at_once(tmp_path: Path, change: int) -> None:
    folder = write_store(tmp_path / "s")
    path = folder / "shards" / "000001" / "text.npy"
    size = path.stat().st_size
    os.truncate(path, size + change)
    with pytest.raises(StoreCorrupt, match=rf"text\.npy: expected {size} bytes, found"):
        LogitStore.open(folder)


def test_an_unknown_verify_mode_is_refused(tmp_path: Path) -> None:
    mode: Any = "always"
    with pytest.raises(ConfigError, match=r"open, read or full.*'always'"):
        LogitStore.open(write_store(tmp_path / "s"), verify=mode)


@pytest.mark.parametrize(
    ("name", "found"), [("absent", "nothing"), ("empty", r"no store\.json"), ("file", "a file")]
)
def test_what_is_no_store(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for open_it in (LogitStore.open, verify_store):
        with pytest.raises(StoreError, match=f"{name}: .*{found}"):
            open_it(tmp_path / name)


def test_many_shards_need_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    store = LogitStore.open(
        write_store(tmp_path / "s", manifest(num_rows=60, shard_rows=1)), verify="read"
    )
    before = len(os.listdir("/proc/self/fd"))
    assert [d.text for d in store.documents()] == [document(row).text for row in range(60)]
    np.testing.assert_array_equal(store.logits(slice(None)), logits(np.arange(60, dtype=np.int64)))
    assert len(os.listdir("/proc/self/fd")) - before <= 256 // 4
