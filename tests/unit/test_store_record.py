"""A shard's record read as it is written, byte for byte, and as any JSON: the same record."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from monox_kit.digest import digest_bytes
from monox_kit.errors import StoreError
from monox_kit.store import LogitStore
from monox_kit.store import shard as shard_module
from monox_kit.store.folder import StoreFolder
from tests.store_samples import manifest, write_store


def refuse(*arguments: Any) -> Any:
    raise AssertionError("read as any JSON")


def sealed(body: bytes) -> bytes:
    """A record's file of this body, as docs/store-format.md specifies it."""
    return body + f'  "record_digest": "{digest_bytes(body)}"\n}}\n'.encode()


@pytest.mark.parametrize("has_pairs", [False, True])
def test_what_is_written_needs_no_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pairs: bool
) -> None:
    folder = write_store(tmp_path / "s", manifest(has_pairs=has_pairs))
    slow = StoreFolder(folder)
    monkeypatch.setattr(shard_module._ShardForm, "read", lambda *arguments: None)
    expected = [slow.read_shard(shard) for shard in slow.finished_shards()]
    monkeypatch.undo()
    monkeypatch.setattr(shard_module, "parse_record", refuse)
    fast = StoreFolder(folder)
    assert [fast.read_shard(shard) for shard in fast.finished_shards()] == expected
    assert len(LogitStore.open(folder)) == 11


def test_other_spacing_is_the_same_record(tmp_path: Path) -> None:
    store = StoreFolder(write_store(tmp_path / "s"))
    shard = store.manifest.shard(1)
    path = store.shard_folder(shard) / "shard.json"
    written = store.read_shard(shard)
    values = json.loads(path.read_bytes())
    del values["record_digest"]
    path.write_bytes(sealed(json.dumps(values).removesuffix("}").encode() + b",\n"))
    found = store.read_shard(shard)
    assert (found.shard, found.files) == (written.shard, written.files)
    assert found.digest != written.digest


def test_a_changed_record_fares_the_same_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes changed, doubled and dropped, with a digest that fits and with the old one."""
    store = StoreFolder(write_store(tmp_path / "s"))
    shard = store.manifest.shard(1)
    path = store.shard_folder(shard) / "shard.json"
    content = path.read_bytes()
    body = content[: content.rindex(b"  ")]
    generator = random.Random(5)

    def outcome() -> Any:
        try:
            return store.read_shard(shard)
        except StoreError as error:
            return str(error)

    refused = 0
    for number in range(600):
        at = generator.randrange(len(body))
        new = [generator.choice(b'0123456789abcf"{}:, \n\\-'), body[at], body[at]]
        changed = body[:at] + bytes(new[: number % 4]) + body[at + 1 + (number % 7 == 0) :]
        path.write_bytes(sealed(changed) if number % 5 else content.replace(body, changed))
        fast = outcome()
        with monkeypatch.context() as patch:
            patch.setattr(shard_module._ShardForm, "read", lambda *arguments: None)
            assert outcome() == fast, changed
        refused += isinstance(fast, str)
    assert 300 < refused < 600
