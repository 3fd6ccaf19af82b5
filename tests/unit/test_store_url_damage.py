"""Damage to a store at a URL is named with the object, and nothing wrong is ever fetched."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from monox_kit.errors import (
    ConfigError,
    StorageError,
    StoreCorrupt,
    StoreError,
    StoreIncomplete,
    StoreMismatch,
)
from monox_kit.store import FolderWriter, LogitStore, fetch_store, store_location, verify_remote
from monox_kit.store.format import CompleteRecord
from monox_kit.store.record import encode_record
from monox_kit.store.remote.shard_object import MAGIC, PREFIX_BYTES
from monox_kit.store.remote.store import RemoteStore
from monox_kit.store.shard import ShardTotals
from tests.object_store import DiskObjects, do, flip, refuse, write_url
from tests.store_samples import manifest, shard_arguments, tree, write_shard, write_store

pytestmark = pytest.mark.usefixtures("service")


@pytest.mark.parametrize("name", ["store.json", "complete.json", "shards/000001.shard"])
def test_a_flipped_bit_anywhere_is_found_by_fetch_and_verify(
    url: str, tmp_path: Path, bucket: Path, name: str
) -> None:
    write_url(url, tmp_path / "staging")
    sound = (bucket / name).read_bytes()
    # Of a shard: the magic, the length, the record and each file.
    for at in {0, 7, 8, 12, 15, 16, 40, *range(0, len(sound), 97), len(sound) - 1}:
        if at >= len(sound):
            continue
        flip(bucket / name, at)
        with pytest.raises(StoreCorrupt, match=str(bucket / name)):
            fetch_store(url, tmp_path / "fetched")
        if name == "store.json":
            with pytest.raises(StoreCorrupt):
                verify_remote(url, staging=tmp_path / "staging")
        else:
            report = verify_remote(url, staging=tmp_path / "staging")
            assert len(report.problems) == 1 and str(bucket / name) in report.problems[0], at
        (bucket / name).write_bytes(sound)
        shutil.rmtree(tmp_path / "fetched", ignore_errors=True)
    assert verify_remote(url, staging=tmp_path / "staging").problems == ()


@pytest.mark.parametrize("size", [0, 5, PREFIX_BYTES, PREFIX_BYTES + 9, -1, +1])
def test_an_object_of_another_length_is_found(
    url: str, tmp_path: Path, bucket: Path, size: int
) -> None:
    write_url(url, tmp_path / "staging")
    path = bucket / "shards" / "000001.shard"
    content = path.read_bytes()
    path.write_bytes(content + b"x" if size == 1 else content[:size])
    with pytest.raises(StoreCorrupt, match=r"000001\.shard: (shard\.json: )?expected"):
        fetch_store(url, tmp_path / "fetched")


def test_a_record_that_claims_to_be_large_is_not_read(
    url: str, tmp_path: Path, bucket: Path
) -> None:
    write_url(url, tmp_path / "staging")
    (bucket / "shards" / "000001.shard").write_bytes(MAGIC + b"\xff" * 8 + b"{}")
    with pytest.raises(StoreCorrupt, match=r"a shard\.json of at most 1048576 bytes, found one of"):
        store_location(url).info()


def test_a_record_that_is_longer_than_ours_is_read_whole(
    url: str, tmp_path: Path, bucket: Path
) -> None:
    """JSON allows spaces anywhere; the digest is over the bytes as they are."""
    write_url(url, tmp_path / "staging", shards=range(1, 2))
    path = bucket / "shards" / "000001.shard"
    content = path.read_bytes()
    length = int.from_bytes(content[8:PREFIX_BYTES], "little")
    record, files = content[PREFIX_BYTES:][:length], content[PREFIX_BYTES + length :]
    body = b"{" + b" " * 9000 + record.removeprefix(b"{").partition(b'  "record_digest"')[0]
    record = body + f'  "record_digest": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()
    path.write_bytes(MAGIC + len(record).to_bytes(8, "little") + record + files)
    assert store_location(url).info().num_rows_done == 4
    assert verify_remote(url, staging=tmp_path / "staging").problems == ()


def test_a_shard_of_values_that_no_run_writes(url: str, tmp_path: Path, bucket: Path) -> None:
    """Right digests over wrong values: only reading the values finds it."""
    write_url(url, tmp_path / "staging")
    folder = write_store(tmp_path / "s") / "shards" / "000001"
    rows = bytearray((folder / "rows.npy").read_bytes())
    rows[128] ^= 1
    (folder / "rows.npy").write_bytes(rows)
    record = resealed(folder, "rows.npy")
    (bucket / "complete.json").unlink()
    parts = [MAGIC, len(record).to_bytes(8, "little"), record]
    parts += [(folder / name).read_bytes() for name in json.loads(record)["files"]]
    (bucket / "shards" / "000001.shard").write_bytes(b"".join(parts))
    (problem,) = verify_remote(url, staging=tmp_path / "staging").problems
    assert problem.startswith(f"{url}/shards/000001.shard: rows.npy: expected the row's own number")
    assert "Delete shards/000001.shard (and complete.json" in problem


def resealed(folder: Path, name: str) -> bytes:
    """The shard's record, made right again for a changed file."""
    value = json.loads((folder / "shard.json").read_bytes())
    del value["record_digest"]
    value["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return encode_record(value, "shard.json")


def test_an_object_that_goes_while_a_store_is_fetched_is_named(
    url: str, tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_url(url, tmp_path / "staging")
    finished = RemoteStore.finished

    def lose(self: RemoteStore) -> tuple[CompleteRecord, ShardTotals]:
        found = finished(self)
        (bucket / "shards" / "000001.shard").unlink()
        return found

    monkeypatch.setattr(RemoteStore, "finished", lose)
    with pytest.raises(StoreCorrupt, match=r"000001\.shard: "):
        fetch_store(url, tmp_path / "fetched")


def test_other_objects_among_the_shards_are_named(url: str, tmp_path: Path, bucket: Path) -> None:
    write_url(url, tmp_path / "staging")
    for name in ("000003.shard", "000001", "notes.txt"):
        (bucket / "shards" / name).write_bytes(b"")
        with pytest.raises(StoreCorrupt, match=f"expected only shards 000000.shard .* '{name}'"):
            store_location(url).info()
        (problem,) = verify_remote(url, staging=tmp_path / "staging").problems
        assert repr(name) in problem
        (bucket / "shards" / name).unlink()


def test_shards_without_their_store_json_are_not_begun_anew(
    url: str, tmp_path: Path, bucket: Path
) -> None:
    write_url(url, tmp_path / "staging")
    (bucket / "store.json").unlink()
    with pytest.raises(StoreCorrupt, match=r"store/store\.json: .*none"):
        write_url(url, tmp_path / "staging")


# Fetching


def test_a_fetch_goes_on_where_it_was(url: str, tmp_path: Path, service: type[DiskObjects]) -> None:
    write_url(url, tmp_path / "staging")
    service.faults += [("read", "000002.shard", each) for each in (do, refuse)]
    with pytest.raises(StorageError, match="connection reset"):
        fetch_store(url, tmp_path / "fetched")
    with pytest.raises(StoreIncomplete):
        LogitStore.open(tmp_path / "fetched")
    report = fetch_store(url, tmp_path / "fetched")
    assert (report.num_resumed_rows, report.num_rows, report.num_shards) == (8, 11, 3)
    assert tree(tmp_path / "fetched") == tree(write_store(tmp_path / "local"))
    assert fetch_store(url, tmp_path / "fetched").num_resumed_rows == 11


def test_a_fetch_into_another_store_is_refused(url: str, tmp_path: Path) -> None:
    write_url(url, tmp_path / "staging")
    other = write_store(tmp_path / "other", manifest(shard_rows=5))
    with pytest.raises(StoreMismatch, match="shard_rows"):
        fetch_store(url, other)
    turned = dict(reversed(list(manifest().fingerprint.items())))
    other = write_store(tmp_path / "turned", manifest(fingerprint=turned), shards=range(1))
    with pytest.raises(StoreMismatch, match=r"expected the record_digest .* Give another folder"):
        fetch_store(url, other)


def test_a_fetch_over_shards_with_other_logits_is_refused(url: str, tmp_path: Path) -> None:
    write_url(url, tmp_path / "staging")
    with FolderWriter(tmp_path / "out", manifest()) as writer:
        arguments = shard_arguments(manifest(), writer.missing[0])
        arguments["logits"] += 1
        write_shard(writer, writer.missing[0], **arguments)
    with pytest.raises(StoreMismatch, match=r"out/shards/000000: expected the digest"):
        fetch_store(url, tmp_path / "out")


def test_where_no_store_is(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{url}: .*store.json"):
        fetch_store(url, tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a URL, found a path"):
        fetch_store(str(tmp_path), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"/bucket/store: .*folder"):
        fetch_store(url, Path(url))
    assert not list(tmp_path.iterdir())
