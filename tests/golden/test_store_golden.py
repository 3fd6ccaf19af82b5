"""Every released store format opens for ever, and the format's page tells the truth about it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from monox_kit.data import LabelSet
from monox_kit.errors import StoreCorrupt, StoreError
from monox_kit.store import LogitStore, fetch_store
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import MANIFEST_KEYS
from monox_kit.store.record import parse_record
from monox_kit.store.remote.shard_object import pack_shard
from tests.golden import make_store_1_multi as multi
from tests.golden import make_store_2 as languages
from tests.golden.make_store_1 import GOLD, LOGITS, RECOMPUTED, documents, write
from tests.object_store import object_store
from tests.store_samples import tree

STORE = Path(__file__).parent / "store-1"
STORE_MULTI = Path(__file__).parent / "store-1-multi"
STORE_2 = Path(__file__).parent / "store-2"
OBJECTS = Path(__file__).parent / "store-1-objects"
PAGE = Path(__file__).parents[2] / "docs" / "store-format.md"


def test_format_1_opens() -> None:
    store = LogitStore.open(STORE, verify="full")
    assert store.digest == "1ce877b954b0325423f16b75a81f2ffc2029f48db3c25bd5e7c4231fe5bc4cad"
    assert store.labels == LabelSet(("contradiction", "entailment"))
    assert list(store.documents()) == documents()
    expected = np.array(LOGITS, np.float32).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(store.logits(slice(None)), expected)
    assert store.gold(slice(None)).tolist() == [
        -1 if name is None else store.labels.names.index(name) for name in GOLD
    ]
    assert store.recomputed(slice(None)).tolist() == list(RECOMPUTED)
    info = store.info()
    assert dict(info.fingerprint) == {
        "teacher": "golden",
        "max_length": 256,
        "provider": None,
        "share": 0.5,
    }
    assert (info.num_shards, info.num_labelled, info.num_recomputed) == (2, 3, 2)
    assert dict(info.summary) == {"labelled_s": 0.25}


def test_format_1_is_still_written_byte_for_byte(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert tree(tmp_path / "s") == tree(STORE)


def test_format_1_with_any_number_of_labels_opens(tmp_path: Path) -> None:
    store = LogitStore.open(STORE_MULTI, verify="full")
    assert store.labels == multi.LABELS
    assert list(store.documents()) == multi.documents()
    gold = store.gold(slice(None))
    assert (gold.dtype, gold.tolist()) == (np.int8, list(map(list, multi.GOLD_ROWS)))
    np.testing.assert_array_equal(store.logits(slice(None)), np.array(multi.LOGITS, np.float32))
    assert store.info().num_labelled == 3
    multi.write(tmp_path / "s")
    assert tree(tmp_path / "s") == tree(STORE_MULTI)


def test_format_2_opens_and_is_still_written_byte_for_byte(tmp_path: Path) -> None:
    store = LogitStore.open(STORE_2, verify="full")
    assert list(store.documents()) == languages.documents()
    assert store.languages(slice(None)) == list(languages.LANGUAGES)
    assert store.manifest.language is None
    np.testing.assert_array_equal(store.logits(slice(None)), np.array(languages.LOGITS, np.float32))
    languages.write(tmp_path / "s")
    assert tree(tmp_path / "s") == tree(STORE_2)


def test_version_0_1_0_refuses_format_2_by_name() -> None:
    """With the check that it makes of a record: no other version than its own."""
    path = STORE_2 / "store.json"
    with pytest.raises(StoreError, match=r"expected format_version 1, found 2\. Upgrade") as caught:
        parse_record(path.read_bytes(), path, MANIFEST_KEYS, 1, "")
    assert not isinstance(caught.value, StoreCorrupt)


def test_format_1_is_fetched_from_objects(tmp_path: Path) -> None:
    with object_store():
        fetch_store(f"objects://{OBJECTS}", tmp_path / "s")
    assert tree(tmp_path / "s") == tree(STORE)


def test_format_1_is_still_put_byte_for_byte() -> None:
    store = StoreFolder(STORE)
    for shard in store.finished_shards():
        content = pack_shard(store.shard_folder(shard), store.read_shard(shard), "")
        assert content == (OBJECTS / "shards" / f"{shard.name}.shard").read_bytes()
    begins = (OBJECTS / "shards" / "000001.shard").read_bytes()[:24].hex(" ")
    assert begins in PAGE.read_text(encoding="utf-8")


def test_the_page_quotes_the_golden_store() -> None:
    page = PAGE.read_text(encoding="utf-8")
    stores = (STORE, STORE_MULTI, STORE_2)
    paths = (path for store in stores for path in store.rglob("*.json"))
    records = b"".join(path.read_bytes() for path in paths).decode()
    digests = re.findall(r"\b[0-9a-f]{64}\b", page)
    assert digests
    assert all(digest in records for digest in digests)
    dumps = re.findall(r"```hexdump (\S+)\n(.*?)```", page, re.DOTALL)
    assert dumps
    for name, dump in dumps:
        content = (STORE.parent / name).read_bytes()
        end = 0
        for line in dump.strip().splitlines():
            offset, shown = int(line[:4], 16), bytes.fromhex(line[6:54])
            assert content[offset : offset + len(shown)] == shown, f"{name}: {line}"
            assert offset == end or not any(content[end:offset].strip()), f"{name}: {line}"
            end = offset + len(shown)
        assert end == len(content)
