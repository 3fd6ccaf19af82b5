"""A shard's record as JSON: what is written otherwise, and what was changed."""

from __future__ import annotations

import json
import random
from pathlib import Path

from monox_kit.digest import digest_bytes
from monox_kit.errors import StoreError
from monox_kit.store.folder import StoreFolder
from tests.store_samples import write_store


def sealed(body: bytes) -> bytes:
    """A record's file of this body, as docs/store-format.md specifies it."""
    return body + f'  "record_digest": "{digest_bytes(body)}"\n}}\n'.encode()


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


def test_a_changed_record_is_refused_or_says_what_it_holds(tmp_path: Path) -> None:
    """Bytes changed, doubled and dropped, with a digest that fits and with the old one."""
    store = StoreFolder(write_store(tmp_path / "s"))
    shard = store.manifest.shard(1)
    path = store.shard_folder(shard) / "shard.json"
    content, written = path.read_bytes(), store.read_shard(shard)
    body = content[: content.rindex(b"  ")]
    generator = random.Random(5)
    refused = 0
    for number in range(600):
        at = generator.randrange(len(body))
        new = [generator.choice(b'0123456789abcf"{}:, \n\\-'), body[at], body[at]]
        changed = body[:at] + bytes(new[: number % 4]) + body[at + 1 + (number % 7 == 0) :]
        path.write_bytes(sealed(changed) if number % 5 else content.replace(body, changed))
        try:
            found = store.read_shard(shard)
        except StoreError:
            refused += 1
        else:
            sizes = {name: file.num_bytes for name, file in found.files.items()}
            assert found.shard == written.shard
            assert sizes == {name: file.num_bytes for name, file in written.files.items()}, changed
    assert 300 < refused < 600
