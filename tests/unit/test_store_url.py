"""A store at a URL: whole objects, put where none is; whatever the service does, no wrong store."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import (
    ConfigError,
    StorageError,
    StoreCorrupt,
    StoreError,
    StoreIncomplete,
    StoreMismatch,
)
from monox_kit.store import (
    LogitStore,
    ShardRange,
    fetch_store,
    store_location,
    verify_remote,
)
from monox_kit.store.remote import drivers
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.shard_object import ShardHead
from monox_kit.store.remote.staging import staging_folder, staging_root
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.shard import ShardRecord
from tests.object_store import DiskObjects, do, flip, lose_answer, refuse, url_writer, write_url
from tests.store_samples import manifest, shard_arguments, text_bytes, tree, write_store

pytestmark = pytest.mark.usefixtures("service")


def expect_finished(url: str, staging: Path, **changes: Any) -> None:
    """Run again, fetch, and compare with the store of a local run."""
    store = manifest(**changes)
    write_url(url, staging, store)
    assert not [path for path in staging.iterdir() if path.is_dir()]
    fetch_store(url, staging.parent / "fetched")
    write_store(staging.parent / "local", store)
    assert tree(staging.parent / "fetched") == tree(staging.parent / "local")


@pytest.mark.parametrize("changes", [{}, {"has_pairs": True, "dtype": "float16"}])
def test_what_is_fetched_is_what_a_local_run_writes(
    url: str, tmp_path: Path, bucket: Path, changes: dict[str, Any]
) -> None:
    expect_finished(url, tmp_path / "staging", **changes)
    names = ["complete.json", *(f"shards/00000{i}.shard" for i in range(3)), "store.json"]
    assert sorted(tree(bucket)) == names
    assert LogitStore.open(tmp_path / "fetched", verify="full").complete
    assert tree(tmp_path / "staging") == {"lock": b""}


def test_a_memory_url_with_a_slash_at_its_end(tmp_path: Path) -> None:
    expect_finished("memory://bucket/store/", tmp_path / "staging")


def test_an_object_is_the_record_and_the_files_in_order(
    url: str, tmp_path: Path, bucket: Path
) -> None:
    write_url(url, tmp_path / "staging")
    folder = write_store(tmp_path / "s") / "shards" / "000001"
    record = (folder / "shard.json").read_bytes()
    expected = b"\x93MXSHARD" + len(record).to_bytes(8, "little") + record
    fields = ("logits", "rows", "labels", "recomputed", "ids", "ids_offsets", "text")
    for field in (*fields, "text_offsets"):
        expected += (folder / f"{field}.npy").read_bytes()
    assert (bucket / "shards" / "000001.shard").read_bytes() == expected


def test_parts_of_several_runs_make_one_store(url: str, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    write_url(url, staging, shards=range(1, 2))
    info = store_location(url).info()
    assert (info.num_rows_done, info.complete) == (4, False)
    with pytest.raises(StoreIncomplete, match=f"{url}: .* found 4 of 11 rows labelled"):
        fetch_store(url, tmp_path / "fetched")
    assert verify_remote(url, staging=staging).num_shards == 1
    write_url(url, staging, shards=range(1))
    expect_finished(url, staging)


def test_a_finished_store_is_left_as_it_is(url: str, tmp_path: Path, bucket: Path) -> None:
    write_url(url, tmp_path / "staging")
    before = tree(bucket)
    with url_writer(url, tmp_path / "staging") as writer:
        assert (writer.missing, writer.absent()) == ([], [])
        record = writer.complete(command="another")
    assert record is not None and record.summary == {"command": "label"}
    assert tree(bucket) == before


def test_info_and_verify_tell_what_they_tell_of_a_folder(url: str, tmp_path: Path) -> None:
    write_url(url, tmp_path / "staging")
    folder = write_store(tmp_path / "s")
    there, here = store_location(url).info().to_json(), store_location(folder).info().to_json()
    assert there.pop("path") == url and here.pop("path") == str(folder)
    assert there == here
    report = verify_remote(url, staging=tmp_path / "staging")
    local = LogitStore.open(folder).verify()
    assert report.to_json() == {**local.to_json(), "path": url}


# What the service does


def test_a_put_that_fails_is_tried_again(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    for name in ("store.json", "000001.shard", "000001.shard", "complete.json"):
        service.faults.append(("put", name, refuse))
    expect_finished(url, tmp_path / "staging")


@pytest.mark.parametrize("name", ["store.json", "000001.shard", "complete.json"])
def test_a_put_that_fails_for_good_ends_the_run_and_the_next_one_goes_on(
    url: str, tmp_path: Path, service: type[DiskObjects], name: str
) -> None:
    service.faults.extend([("put", name, refuse)] * 4)
    wanted = rf"{url}/.*{name}: expected to put the object, found: connection reset\. Check"
    with pytest.raises(StorageError, match=wanted):
        write_url(url, tmp_path / "staging")
    assert not service.faults
    assert tree(tmp_path / "staging") in ({}, {"lock": b""})
    expect_finished(url, tmp_path / "staging")


@pytest.mark.parametrize("name", ["store.json", "000001.shard", "complete.json"])
def test_an_answer_that_is_lost_is_no_error(
    url: str, tmp_path: Path, service: type[DiskObjects], name: str
) -> None:
    service.faults.append(("put", name, lose_answer))
    expect_finished(url, tmp_path / "staging")


def test_an_object_that_was_put_in_part_is_no_shard(
    url: str, tmp_path: Path, bucket: Path, service: type[DiskObjects]
) -> None:
    def put_in_part(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        act()
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[:-100])
        raise ConnectionError("connection reset")

    service.faults.append(("put", "000001.shard", put_in_part))
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=r"000001\.shard: expected \d+ bytes, found \d+\. "):
            write_url(url, tmp_path / "staging")
    (bucket / "shards" / "000001.shard").unlink()
    expect_finished(url, tmp_path / "staging")


def test_a_service_that_changes_what_is_put_is_found_out(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    def put_other(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        act()
        flip(Path(path), -1)

    service.faults.append(("put", "000001.shard", put_other))
    wanted = r"000001\.shard: expected the service to give back what was put, found: .*text_offsets"
    with pytest.raises(StorageError, match=wanted):
        write_url(url, tmp_path / "staging")


def test_a_read_that_ends_early_is_an_error(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    def cut(service: DiskObjects, path: str, act: Callable[[], Any]) -> Any:
        return act()[:-1]

    write_url(url, tmp_path / "staging")
    service.faults += [("read", "000001.shard", each) for each in (do, do, cut)]  # head twice, rest
    with pytest.raises(StorageError, match=r"000001\.shard: expected the bytes \d+ to \d+, found"):
        fetch_store(url, tmp_path / "fetched")
    assert fetch_store(url, tmp_path / "fetched").num_resumed_rows == 4


def test_what_ends_early_unnoticed_is_no_shard(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ObjectFolder.blocks

    def cut(self: ObjectFolder, name: str, start: int, stop: int) -> Iterator[bytes]:
        blocks = b"".join(read(self, name, start, stop))
        yield blocks[: -1 if start else None]  # the head, which begins at 0, is whole

    write_url(url, tmp_path / "staging")
    monkeypatch.setattr(ObjectFolder, "blocks", cut)
    with pytest.raises(
        StoreCorrupt, match=r"000000\.shard: text_offsets\.npy: expected \d+ bytes, found"
    ):
        fetch_store(url, tmp_path / "fetched")


def test_a_service_without_put_if_absent_is_refused_before_any_work(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    service.ignores_mode = True
    with pytest.raises(StorageError, match=r"probe: .*second put"):
        store_location(url, str(tmp_path / "staging")).require_writable()
    service.ignores_mode = False
    for _ in range(2):
        store_location(url, str(tmp_path / "staging")).require_writable()


def test_a_probe_that_is_there_does_not_stand_for_the_right_to_write(
    url: str, service: type[DiskObjects]
) -> None:
    place = store_location(url, "unused")
    place.require_writable()
    service.faults += [("put", "probe", refuse)] * 4
    with pytest.raises(StorageError, match=r"probe: .*connection"):
        place.require_writable()


def test_a_put_is_tried_again_while_the_service_tells_nothing(
    url: str, tmp_path: Path, service: type[DiskObjects], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = DiskObjects.info

    def info(self: DiskObjects, path: str, **kwargs: Any) -> dict[str, Any]:
        if path.endswith("000001.shard") and service.faults:
            raise ConnectionError("no route")
        return told(self, path, **kwargs)

    monkeypatch.setattr(DiskObjects, "info", info)
    service.faults += [("put", "000001.shard", refuse)] * 3
    write_url(url, tmp_path / "staging")
    assert not service.faults
    assert store_location(url).info().num_rows_done == 11


def test_a_refusal_that_only_its_status_tells(url: str, service: type[DiskObjects]) -> None:
    class Answer(Exception):
        response = {"ResponseMetadata": {"HTTPStatusCode": 412}}  # noqa: RUF012

    def refuse_by_status(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        raise OSError(22, "At least one of the preconditions did not hold") from Answer()

    place = store_location(url, "unused")
    place.require_writable()
    service.faults.append(("put", "probe", refuse_by_status))
    place.require_writable()
    assert not service.faults


def test_records_of_many_shards_are_never_in_memory_together(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 of them are 36 MB. Each that is read by completing, by info, by fetch, by verify."""
    store, alive = manifest(shard_rows=1), []
    heads = RemoteStore.heads

    def records() -> list[ShardRecord]:
        return [each for each in gc.get_objects() if type(each) is ShardRecord]

    others = records()  # of tests before this one in this process; held, so that none goes

    def counted(self: RemoteStore, shards: dict[ShardRange, int]) -> Iterator[ShardHead]:
        for head in heads(self, shards):
            alive.append(len(records()) - len(others))
            yield head

    monkeypatch.setattr(RemoteStore, "heads", counted)
    for use in (
        lambda: write_url(url, tmp_path / "staging", store),
        lambda: store_location(url).info(),
        lambda: fetch_store(url, tmp_path / "fetched"),
        lambda: verify_remote(url, staging=tmp_path / "staging"),
    ):
        alive.clear()
        use()
        assert len(alive) >= 11 and max(alive) < 5


def test_an_object_that_is_replaced_while_it_is_fetched_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = shard_arguments(manifest(), manifest().shard(1))
    other = shard_of_another(tmp_path, 1, logits=arguments["logits"] + 1)
    write_url(url, tmp_path / "staging")
    finished = RemoteStore.finished

    def then_replaced(self: RemoteStore) -> Any:
        found = finished(self)
        self.objects._filesystem.pipe_file(self.objects._path("shards/000001.shard"), other)
        return found

    monkeypatch.setattr(RemoteStore, "finished", then_replaced)
    with pytest.raises(StoreCorrupt, match=r"000001\.shard: expected .* as it was"):
        fetch_store(url, tmp_path / "fetched")


def test_a_service_that_nothing_can_be_read_from(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    write_url(url, tmp_path / "staging")
    service.faults.append(("read", "store.json", refuse))
    with pytest.raises(StorageError, match=r"store\.json: "):
        store_location(url).info()


# Other writers


def shard_of_another(folder: Path, index: int, **changes: Any) -> bytes:
    """The object of a shard of the same store that another run labelled, some values changed."""
    other = f"objects://{folder}/other"
    with url_writer(other, folder / "other-staging") as writer:
        shard = writer.missing[index]
        arguments = shard_arguments(manifest(), shard) | changes
        with writer.shard(shard, text_bytes(arguments["documents"])) as builder:
            builder.append(**arguments)
    return (folder / "other" / "shards" / f"{shard.name}.shard").read_bytes()


def before_put(content: bytes) -> Callable[[DiskObjects, str, Callable[[], Any]], None]:
    """Another writer puts the object first."""

    def happen(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        service.put_whole(path, content)
        act()

    return happen


def test_of_two_that_label_a_shard_the_first_one_wins(
    url: str, tmp_path: Path, bucket: Path, service: type[DiskObjects]
) -> None:
    arguments = shard_arguments(manifest(), manifest().shard(1))
    other = shard_of_another(
        tmp_path, 1, logits=arguments["logits"] + 1, recomputed=~arguments["recomputed"]
    )
    service.faults.append(("put", "000001.shard", before_put(other)))
    write_url(url, tmp_path / "staging")
    assert (bucket / "shards" / "000001.shard").read_bytes() == other
    fetch_store(url, tmp_path / "fetched")
    logits = LogitStore.open(tmp_path / "fetched", verify="full").logits(slice(4, 8))
    assert (logits == arguments["logits"] + 1).all()


def test_a_shard_of_other_rows_is_no_winner(
    url: str, tmp_path: Path, bucket: Path, service: type[DiskObjects]
) -> None:
    other = shard_of_another(tmp_path, 1, labels=np.zeros(4, np.int32))
    service.faults.append(("put", "000001.shard", before_put(other)))
    with pytest.raises(StoreMismatch, match=r"000001\.shard: expected labels\.npy with SHA-256"):
        write_url(url, tmp_path / "staging")


def test_a_damaged_shard_is_no_winner(url: str, tmp_path: Path, service: type[DiskObjects]) -> None:
    other = bytearray(shard_of_another(tmp_path, 1))
    other[-1] ^= 1
    service.faults.append(("put", "000001.shard", before_put(bytes(other))))
    with pytest.raises(StoreCorrupt, match=r"000001\.shard: text_offsets\.npy: expected SHA-256"):
        write_url(url, tmp_path / "staging")


def test_another_writer_begins_the_store_meanwhile(
    url: str, tmp_path: Path, service: type[DiskObjects]
) -> None:
    def begin(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        write_url(url, tmp_path / "staging", manifest(shard_rows=5), range(0))
        act()

    service.faults.append(("put", "store.json", begin))
    wanted = r"store/store\.json: .*\(shard_rows\) was 5 when this store was begun, and is 4 now"
    with pytest.raises(StoreMismatch, match=wanted):
        write_url(url, tmp_path / "staging")


def test_another_writer_completes_the_store_meanwhile(
    url: str, tmp_path: Path, bucket: Path, service: type[DiskObjects]
) -> None:
    def complete(service: DiskObjects, path: str, act: Callable[[], Any]) -> None:
        with url_writer(url, tmp_path / "staging", shards=range(0)) as writer:
            assert writer.complete(command="another")
        act()

    service.faults.append(("put", "complete.json", complete))
    write_url(url, tmp_path / "staging")
    assert json.loads((bucket / "complete.json").read_bytes())["summary"] == {"command": "another"}
    assert verify_remote(url, staging=tmp_path / "staging").problems == ()


def test_a_completion_record_of_other_shards_is_refused(
    url: str, tmp_path: Path, bucket: Path
) -> None:
    write_url(url, tmp_path / "staging")
    other = shard_of_another(tmp_path, 1, labels=np.zeros(4, np.int32))
    (bucket / "shards" / "000001.shard").write_bytes(other)
    wanted = r"store/complete\.json: expected shards with the digest .* one was written later"
    for use in (
        lambda: write_url(url, tmp_path / "staging"),
        lambda: fetch_store(url, tmp_path / "fetched"),
        lambda: store_location(url).info(),
    ):
        with pytest.raises(StoreCorrupt, match=wanted):
            use()
    (problem,) = verify_remote(url, staging=tmp_path / "staging").problems
    assert "one was written later" in problem


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {"fingerprint": {"teacher": "other"}},
            r"\(fingerprint\.teacher\) was 'runs/teacher'.*'other'",
        ),
        ({"num_rows": 12}, r"\(num_rows\) was 11 when this store was begun, and is 12 now"),
    ],
)
def test_other_settings_are_refused_by_name(
    url: str, tmp_path: Path, changes: dict[str, Any], wanted: str
) -> None:
    write_url(url, tmp_path / "staging", shards=range(1))
    with pytest.raises(StoreMismatch, match=wanted):
        write_url(url, tmp_path / "staging", manifest(**changes))


def test_a_shard_that_does_not_fit_is_refused_whole(url: str, tmp_path: Path, bucket: Path) -> None:
    with (
        pytest.raises(StoreError, match="expected the 4 rows 0 to 3, found 0"),
        url_writer(url, tmp_path / "staging") as writer,
        writer.shard(manifest().shard(0), {"ids": 0, "text": 0}),
    ):
        pass
    assert sorted(tree(bucket)) == ["store.json"]
    assert tree(tmp_path / "staging") == {"lock": b""}


# Drivers


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("file:///data/store", r"expected a store at s3://, .*found file://\. Give a folder;"),
        ("ftp://host/store", r"found ftp://\. Give one of those, or a folder"),
        ("simplecache::s3://bucket/store", "found simplecache::s3://"),
        ("https://host/store", "found https://"),
    ],
)
def test_a_protocol_that_is_not_known_to_be_safe_is_refused(address: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        store_location(address, "unused")


def test_a_driver_must_be_there_and_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for packages, wanted in (
        (
            {"absent-driver": "1.2"},
            r"absent-driver 1\.2 or later, found none\. Run: pip install \"",
        ),
        ({"fsspec": "9999"}, r"fsspec 9999 or later, found 20.*pip install \"fsspec>=9999\""),
    ):
        monkeypatch.setitem(drivers.DRIVERS, "objects", drivers.Driver(packages, {}, 1))
        with pytest.raises(ConfigError, match=f"objects:///x: expected the package {wanted}"):
            store_location("objects:///x", "unused")


def test_a_shard_that_is_too_large_for_the_service(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = drivers.Driver({}, {}, 1500)
    monkeypatch.setitem(drivers.DRIVERS, "objects", driver)
    wanted = r"000000\.shard: expected at most 1500 bytes, found \d+\. Give smaller `shard_rows`"
    with pytest.raises(ConfigError, match=wanted):
        write_url(url, tmp_path / "staging")


def test_a_url_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objects://: .*none"):
        store_location("objects://", "unused")


# Staging


def test_every_process_has_a_staging_folder_of_its_own(tmp_path: Path) -> None:
    with staging_folder(tmp_path) as first, staging_folder(tmp_path) as second:
        assert first != second
        for folder in (first, second):
            folder.mkdir()
        with staging_folder(tmp_path) as third:
            assert third not in (first, second)
            assert first.exists() and second.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    for number in (1, 7):
        write_store(tmp_path / f"shards-{number}")
    # What is somebody else's stays, whatever its name.
    others = ["2024", "99999999999999999999999", "notes", "shards-0", "shards-1-old"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "shards-9").write_text("a file")
    with staging_folder(tmp_path) as folder:
        kept = sorted([*others, "lock", "shards-9"])
        assert sorted(path.name for path in tmp_path.iterdir()) == kept
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_a_run_that_has_nothing_to_write_removes_what_a_killed_one_left(
    url: str, tmp_path: Path
) -> None:
    write_url(url, tmp_path / "staging")
    write_store(tmp_path / "staging" / "shards-1")
    write_url(url, tmp_path / "staging")
    assert tree(tmp_path / "staging") == {"lock": b""}


def test_staging_has_a_folder_of_its_own(tmp_path: Path) -> None:
    root = staging_root(str(tmp_path))
    assert root.parent == tmp_path / "monoxkit-staging"  # and in it one for each machine
    with pytest.raises(ConfigError, match="`staging` s3://b/x: "):
        staging_root("s3://b/x")


def test_shards_that_others_put_meanwhile_are_not_missed(url: str, tmp_path: Path) -> None:
    with url_writer(url, tmp_path / "staging") as writer:
        write_url(url, tmp_path / "other-staging")
        assert writer.absent() == []
        assert writer.missing == []
        assert writer.complete() is not None
        with (
            pytest.raises(StoreError, match=r"0 missing shards.*000000"),
            writer.shard(manifest().shard(0), {"ids": 0, "text": 0}),
        ):
            pass


def test_a_writer_that_has_not_been_entered(url: str) -> None:
    writer = store_location(url, "unused").writer(manifest())
    with pytest.raises(StoreError, match="Use RemoteWriter in a with statement"):
        _ = writer.missing
