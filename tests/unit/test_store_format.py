"""The format's rules: manifests, headers and records that notice their own damage."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, StoreCorrupt, StoreError, StoreMismatch
from monox_kit.store import FolderWriter, StoreManifest
from monox_kit.store.format import MAX_SHARDS, array_bytes, array_header
from monox_kit.store.record import (
    DIGEST_KEY,
    MAX_RECORD_BYTES,
    encode_record,
    parse_record,
    read_record,
)
from tests.store_samples import FINGERPRINT, LABELS, manifest, tree, write_store


@pytest.mark.parametrize("descr", ["<f4", "<f2", "<i8", "<i4", "|u1"])
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 2), (65536, 58), (123_456_789,)])
def test_headers_are_those_that_numpy_writes(descr: str, shape: tuple[int, ...]) -> None:
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    assert array_header(descr, shape) == stream.getvalue()
    assert array_bytes(descr, shape) == 128 + int(np.prod(shape)) * np.dtype(descr).itemsize


def test_the_longest_header_fits() -> None:
    assert len(array_header("<f4", (2**63 - 1, 2**31))) == 128


def test_numpy_opens_every_array(tmp_path: Path) -> None:
    shard = write_store(tmp_path / "s") / "shards" / "000002"
    arrays = {path.name: np.load(path, allow_pickle=False) for path in shard.glob("*.npy")}
    assert {name: (str(array.dtype), array.shape[0]) for name, array in arrays.items()} == {
        "logits.npy": ("float32", 3),
        "rows.npy": ("int64", 3),
        "labels.npy": ("int32", 3),
        "recomputed.npy": ("uint8", 3),
        "ids.npy": ("uint8", len("id-8id-9id-10")),
        "ids_offsets.npy": ("int64", 4),
        "text.npy": ("uint8", arrays["text_offsets.npy"][-1]),
        "text_offsets.npy": ("int64", 4),
    }
    assert arrays["rows.npy"].tolist() == [8, 9, 10]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    assert tree(write_store(tmp_path / "a")) == tree(write_store(tmp_path / "b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows": 0},
        {"num_rows": True},
        {"num_rows": 2**63},
        {"shard_rows": -1},
        {"shard_rows": 4.0},
        {"num_rows": MAX_SHARDS + 1, "shard_rows": 1},
        {"dtype": "float64"},
        {"has_pairs": 1},
        {"format_version": 3},
        {"format_version": 2, "fingerprint": {"language": "de"}},
        {"fingerprint": {"language": 7}},
        {"fingerprint": {"language": ""}},
        {"fingerprint": {"corpus": ["a", "b"]}},
        {"fingerprint": {"rate": float("nan")}},
        {"fingerprint": {1: "a"}},
    ],
)
def test_impossible_manifests_are_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"store manifest: expected .*, found .*\."):
        manifest(**changes)


DRIFT: list[tuple[str, dict[str, Any], str, str]] = [
    ("num_rows", {"num_rows": 12}, "11", "12"),
    ("shard_rows", {"shard_rows": 5}, "4", "5"),
    ("dtype", {"dtype": "float16"}, "'float32'", "'float16'"),
    ("has_pairs", {"has_pairs": True}, "False", "True"),
    ("labels[1]", {"labels": LabelSet(("games", "math", "sound"))}, "'science'", "'math'"),
    ("number of labels", {"labels": LabelSet((*LABELS.names, "x11"))}, "3", "4"),
    *(
        (f"fingerprint.{key}", {"fingerprint": {**FINGERPRINT, key: "other"}}, repr(value), "'oth")
        for key, value in FINGERPRINT.items()
    ),
    # Equal for Python, and still another setting.
    ("fingerprint.max_length", {"fingerprint": {**FINGERPRINT, "max_length": 128.0}}, "128", "128"),
    ("fingerprint.revision", {"fingerprint": {**FINGERPRINT, "revision": 2}}, "nothing", "2"),
    ("fingerprint.teacher", {"fingerprint": {}}, "'runs/teacher'", "nothing"),
]


@pytest.mark.parametrize(("field", "changes", "stored", "given"), DRIFT)
def test_drift_is_refused_by_name_with_both_values(
    tmp_path: Path, field: str, changes: dict[str, Any], stored: str, given: str
) -> None:
    before = tree(write_store(tmp_path / "s"))
    with pytest.raises(StoreMismatch) as caught, FolderWriter(tmp_path / "s", manifest(**changes)):
        pass
    message = str(caught.value)
    assert field in message
    assert f"was {stored}" in message
    assert f"is {given}" in message
    assert "another `store`" in message
    assert tree(tmp_path / "s") == before


def test_several_differences_are_all_named(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    other = manifest(num_rows=12, fingerprint={**FINGERPRINT, "corpus_digest": "x"})
    with pytest.raises(
        StoreMismatch, match=r"corpus_digest.*Also different: num_rows \(11, now 12\)\."
    ):
        FolderWriter(tmp_path / "s", other).__enter__()


def read(path: Path) -> dict[str, Any]:
    names = frozenset({"format_version", "text", "list", DIGEST_KEY})
    return parse_record(read_record(path, "Next."), path, names, 1, "Next.")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_bytes(encode_record({"format_version": 1, "text": "日本", "list": (1, 2.5)}, path))
    return path


def test_a_record_comes_back(record: Path) -> None:
    value = read(record)
    assert (value["text"], value["list"]) == ("日本", [1, 2.5])
    assert json.loads(record.read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("bit", [0, 5])  # the second turns a letter into its other case
def test_every_byte_of_a_record_counts(record: Path, bit: int) -> None:
    content = record.read_bytes()
    for at in range(len(content)):
        record.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        with pytest.raises(StoreError, match=r"a\.json: expected"):
            read(record)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"[1]", "expected a JSON object, found list"),
        (b"\xff\xfe", "decode"),
        (b"[" * 100_000, "expected a JSON record"),
        (b"1" * 5000, "expected a JSON record"),
        (b'{"format_version": NaN}', "the value NaN"),
        (b'{"format_version": true}', "expected format_version 1, found True"),
        (b'{"format_version": 1}', "no key 'list'"),
        (b'{"format_version":1,"list":1,"record_digest":"","text":1,"z":1}', "unknown key 'z'"),
        (b'{"format_version":1,"list":1,"record_digest":"","text":1}', "found another"),
        (b" " * (MAX_RECORD_BYTES + 1), "at most 1048576 bytes, found 1048577"),
    ],
)
def test_other_content_is_a_named_error(record: Path, content: bytes, found: str) -> None:
    record.write_bytes(content)
    with pytest.raises(StoreCorrupt) as caught:
        read(record)
    assert found in str(caught.value)
    assert str(caught.value).startswith(f"{record}: expected ")
    assert str(caught.value).endswith("Next.")


def test_a_later_format_asks_for_an_upgrade(record: Path) -> None:
    record.write_text('{"format_version": 2}')
    with pytest.raises(StoreError, match=r"found 2\. Upgrade monoxkit") as caught:
        read(record)
    assert not isinstance(caught.value, StoreCorrupt)


def test_a_later_problem_type_asks_for_an_upgrade() -> None:
    value = {**manifest().to_json(), "labels": {"names": ["a", "b"], "problem_type": "ranking"}}
    with pytest.raises(
        StoreError, match=r"s\.json: expected problem_type .*, found 'ranking'\. Upgrade monoxkit"
    ) as caught:
        StoreManifest.from_json(value, "s.json", "Next.")
    assert not isinstance(caught.value, StoreCorrupt)


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"a": float("inf")}, "not JSON compliant"),
        ({"a": object()}, "not JSON serializable"),
        ({"a": "\ud800"}, "surrogates not allowed"),
        ({"a": "x" * MAX_RECORD_BYTES}, "at most 1048576 bytes"),
        # Brackets count wherever they stand, as they do for the reader.
        ({"a": [[]] * 99_999}, "more than 100000 objects and lists"),
        ({"a": "[" * 100_000}, "more than 100000 objects and lists"),
        ({"a": {1: 0, "1": 0}}, "a key that is given twice"),
        ({"record_digest": "5d41"}, "a key that is given twice"),
        ({"a": nested(100_000)}, "recursion|too deep a nesting"),
    ],
    ids=["inf", "object", "surrogate", "large", "lists", "text", "twice", "digest", "deep"],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, value: Any, found: str) -> None:
    with pytest.raises(StoreError, match=rf"a\.json: expected .*({found})"):
        encode_record(value, tmp_path / "a.json")


def test_as_many_brackets_as_may_be_read_may_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"format_version": 1, "a": "[" * (100_000 - 1)}
    content = encode_record(value, path)
    names = frozenset({"format_version", "a", DIGEST_KEY})
    assert parse_record(content, path, names, 1, "")["a"] == value["a"]
