"""What other programs find in an export: the store's own values, read back by their own readers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import ConfigError, StorageError, StoreCorrupt, StoreIncomplete
from monox_kit.store import FolderWriter, LogitStore, export, export_store
from tests.store_samples import (
    FINGERPRINT,
    LABELS,
    manifest,
    shard_arguments,
    tree,
    write_shard,
    write_store,
)


def expected_rows(store: LogitStore) -> list[dict[str, Any]]:
    """The rows of an export, one by one from the store's reader."""
    rows = []
    for document in store.documents():
        row = np.array([document.row])
        gold = store.label(document.row)
        rows.append(
            {
                "row": document.row,
                "id": document.id,
                "text": document.text,
                **({"text_pair": document.text_pair} if store.manifest.has_pairs else {}),
                "label": document.label,
                "label_index": None if gold < 0 else gold,
                "recomputed": bool(store.recomputed(row)[0]),
                "logits": store.logits(row)[0].tolist(),
            }
        )
    return rows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("has_pairs", [False, True])
def test_parquet_holds_every_row(tmp_path: Path, has_pairs: bool, dtype: str) -> None:
    folder = write_store(tmp_path / "s", manifest(has_pairs=has_pairs, dtype=dtype))
    store = LogitStore.open(folder)
    written = export_store(folder, tmp_path / "s.parquet")
    file = pq.ParquetFile(tmp_path / "s.parquet")
    table = file.read()
    assert table.to_pylist() == expected_rows(store)
    table.validate(full=True)
    groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert groups == [4, 4, 3]
    kinds = {field.name: str(field.type) for field in table.schema}
    texts = {"text": "string", "text_pair": "string"} if has_pairs else {"text": "string"}
    assert kinds == {
        "row": "int64",
        "id": "string",
        **texts,
        "label": "string",
        "label_index": "int64",
        "recomputed": "bool",
        "logits": f"fixed_size_list<element: {'float' if dtype == 'float32' else 'halffloat'}>[3]",
    }
    origin = json.loads(file.schema_arrow.metadata[b"monoxkit"])
    assert origin == {
        "digest": store.digest,
        "labels": LABELS.to_json(),
        "fingerprint": dict(FINGERPRINT),
    }
    size = (tmp_path / "s.parquet").stat().st_size
    assert (written.num_rows, written.num_bytes, written.store_digest) == (11, size, store.digest)


def test_shards_of_much_text_become_large_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_store(tmp_path / "s")
    # Its shards hold up to 57 bytes of text, and less of ids.
    monkeypatch.setattr(export, "_MOST_STRING_BYTES", 128 + 30)
    export_store(folder, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.field("text").type == pa.large_string()
    assert table.schema.field("id").type == pa.string()
    assert table.to_pylist() == expected_rows(LogitStore.open(folder))


def test_an_export_is_a_corpus_again(tmp_path: Path) -> None:
    store = manifest(num_rows=9, has_pairs=True)
    with FolderWriter(tmp_path / "s", store) as writer:
        for shard in writer.missing:
            arguments = shard_arguments(store, shard)
            # Empty texts and NULs are refused in a corpus.
            arguments["documents"] = [
                replace(each, text=each.text.replace("\0", "") or "filled in")
                for each in arguments["documents"]
            ]
            # Every class, the first one too, which is not to be taken for no label.
            rows = np.arange(shard.start, shard.stop)
            arguments["labels"] = np.where(rows % 4 == 0, -1, rows % 3).astype(np.int32)
            write_shard(writer, shard, **arguments)
        writer.complete()
    export_store(tmp_path / "s", tmp_path / "s.parquet")
    rows_found = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert rows_found == expected_rows(LogitStore.open(tmp_path / "s"))
    assert {row["label_index"] for row in rows_found} == {None, 0, 1, 2}
    config = CorpusConfig(paths=(str(tmp_path / "s.parquet"),))
    found = list(Corpus(config).documents())
    assert found == list(LogitStore.open(tmp_path / "s").documents())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_datasets_reads_the_parquet_file(tmp_path: Path, dtype: str) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    folder = write_store(tmp_path / "s", manifest(has_pairs=True, dtype=dtype))
    export_store(folder, tmp_path / "s.parquet")
    found = datasets.Dataset.from_parquet(
        str(tmp_path / "s.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert list(found) == expected_rows(LogitStore.open(folder))
    require_features(datasets, found.features, dtype)


def require_features(datasets: Any, features: Any, dtype: str) -> None:
    assert features == datasets.Features(
        {
            "row": datasets.Value("int64"),
            "id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "text_pair": datasets.Value("string"),
            "label": datasets.Value("string"),
            "label_index": datasets.ClassLabel(names=list(LABELS.names)),
            "recomputed": datasets.Value("bool"),
            "logits": datasets.List(datasets.Value(dtype), length=3),
        }
    )


def test_an_unfinished_store_is_not_exported(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        shard = writer.missing[0]
        write_shard(writer, shard, **shard_arguments(manifest(), shard))
    with pytest.raises(StoreIncomplete, match="found 4 of 11 rows"):
        export_store(tmp_path / "s", tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()


def test_an_export_that_is_there_is_kept(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s")
    first = export_store(folder, tmp_path / "s.parquet")
    before = (tmp_path / "s.parquet").stat()
    assert export_store(folder, tmp_path / "s.parquet") == first
    assert (tmp_path / "s.parquet").stat().st_ino == before.st_ino


@pytest.mark.parametrize("found", ["another store's export", "a text file", "a folder"])
def test_nothing_else_is_overwritten(tmp_path: Path, found: str) -> None:
    folder, out = write_store(tmp_path / "s"), tmp_path / "out"
    if found == "another store's export":
        export_store(write_store(tmp_path / "other", manifest(num_rows=5)), out)
        reason = "store .* differs: [0-9a-f]{12} then"
    elif found == "a text file":
        out.write_text("precious")
        reason = "something is there"
    else:
        out.mkdir()
        (out / "precious").write_text("precious")
        reason = "something is there"
    before = tree(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(ConfigError, match=rf"/out: .*{reason}"):
        export_store(folder, out)
    assert (tree(out) if out.is_dir() else out.read_bytes()) == before


@pytest.mark.parametrize("asked", ["datasets", "csv"])
def test_another_format_is_refused_with_the_line_that_reads_parquet(
    tmp_path: Path, asked: str
) -> None:
    line = re.escape(f"datasets.Dataset.from_parquet({str(tmp_path / 'out')!r})")
    with pytest.raises(ConfigError, match=rf"`format`: .*'{asked}'.*{line}"):
        export_store(write_store(tmp_path / "s"), tmp_path / "out", asked)
    assert not (tmp_path / "out").exists()


def test_a_changed_byte_leaves_no_export(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s")
    path = folder / "shards" / "000002" / "text.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"000002/text\.npy: expected SHA-256"):
        export_store(folder, tmp_path / "s.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_store(tmp_path / "s")

    def full(*arguments: object, **options: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match="No space left on device"):
        export_store(folder, tmp_path / "s.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]
