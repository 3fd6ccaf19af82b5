"""A store's rows for other programs: one Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.durable import new_file
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result
from monox_kit.stage import is_finished
from monox_kit.store.contents import checked_contents
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import ShardRange
from monox_kit.store.reader import LogitStore
from monox_kit.store.shard import Array

PARQUET = "parquet"
# The key of Parquet's metadata where an export says what it is an export of.
_ORIGIN_KEY = b"monoxkit"
# Arrow's plain strings count their bytes in 32 bits, for a whole column of a shard.
_MOST_STRING_BYTES = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedStore(Result):
    """What an export wrote.

    Attributes:
        path: the file.
        format: `parquet`.
        num_rows: its rows.
        num_bytes: its size.
        store_digest: of the store that it was made from.
    """

    path: str
    format: str
    num_rows: int
    num_bytes: int
    store_digest: str


def export_store(
    folder: Path, out: Path, format: str = PARQUET, progress: Progress | None = None
) -> ExportedStore:
    """Write a finished store's rows for other programs; labels stand there by name and by index.

    Every byte and value is checked on the way. The memory is that of the largest shard. An export
    of the same store that is already there is left as it is.

    Args:
        folder: the store's folder.
        out: the file to write.
        format: `parquet`, one file with a row group for each shard.
        progress: where progress is reported.

    Raises:
        ConfigError: there is no such format, or `out` is something else.
        StoreIncomplete: labelling has not finished.
        StoreCorrupt: a file of the store is not as its record says.
        StorageError: the disk refused.
    """
    if format != PARQUET:
        raise ConfigError(
            f"`format`: expected parquet, found {format!r}. Write parquet: Hugging Face datasets "
            f"reads its columns and classes with datasets.Dataset.from_parquet({str(out)!r})."
        )
    rows = _Rows(LogitStore.open(folder), progress or Silent())
    kept = _exported_digest(out)
    if not is_finished(out, kept and {"store": kept}, {"store": rows.digest}):
        _write_parquet(rows, out)
    return ExportedStore(
        path=str(out),
        format=format,
        num_rows=rows.num_rows,
        num_bytes=out.stat().st_size,
        store_digest=rows.digest,
    )


class _Rows:
    """The rows of a store as Arrow tables.

    Attributes:
        digest: the store's.
        num_rows: of the store.
        origin: what an export remembers of the store, as JSON values.
        schema: of every table.
    """

    def __init__(self, store: LogitStore, progress: Progress) -> None:
        import pyarrow as pa

        manifest = store.manifest
        self.digest = store.digest
        self.num_rows = len(store)
        self.origin = {
            "digest": store.digest,
            "labels": manifest.labels.to_json(),
            "fingerprint": dict(manifest.fingerprint),
        }
        self._store = StoreFolder(store.folder)
        self._shards = store.shards()
        self._progress = progress
        self._names = pa.array(manifest.labels.names, pa.string())
        self._texts = {"id": "ids", "text": "text"}
        if manifest.has_pairs:
            self._texts["text_pair"] = "text_pair"
        self._language = manifest.language
        self._has_languages = manifest.has_languages
        logit = pa.float32() if manifest.dtype == "float32" else pa.float16()
        fields = {
            "row": pa.int64(),
            **{column: self._text_type(field) for column, field in self._texts.items()},
            "label": pa.list_(pa.string()) if manifest.labels.is_multi else pa.string(),
            "label_index": pa.list_(pa.int64()) if manifest.labels.is_multi else pa.int64(),
            **self._language_type(),
            "recomputed": pa.bool_(),
            "logits": pa.list_(logit, manifest.num_classes),
        }
        features = {column: _feature(kind) for column, kind in fields.items()}
        # Class labels are 64-bit numbers in datasets: a column of names would be plain text there.
        names = {"names": list(manifest.labels.names), "_type": "ClassLabel"}
        features["label_index"] = (
            {"feature": names, "_type": "List"} if manifest.labels.is_multi else names
        )
        metadata = {
            "huggingface": json.dumps({"info": {"features": features}}),
            _ORIGIN_KEY: json.dumps(self.origin, ensure_ascii=False),
        }
        self.schema = pa.schema(list(fields.items()), metadata=metadata)

    def tables(self) -> Iterator[Any]:
        """A table for every shard, in order."""
        with self._progress.task("exporting", self.num_rows, "rows") as task:
            for shard in self._shards:
                yield self._shard_table(shard)
                task.advance(len(shard))

    def _shard_table(self, shard: ShardRange) -> Any:
        import pyarrow as pa

        arrays = checked_contents(self._store, shard).arrays
        index = _label_indices(arrays["labels.npy"])
        logits = self.schema.field("logits").type
        flat = pa.array(arrays["logits.npy"].reshape(-1), logits.value_type)
        columns = {
            "row": pa.array(arrays["rows.npy"]),
            "label": self._named(index),
            "label_index": index,
            "recomputed": pa.array(arrays["recomputed.npy"].astype(np.bool_)),
            "logits": pa.FixedSizeListArray.from_arrays(flat, type=logits),
        }
        if "lang" in self.schema.names:
            columns["lang"] = self._languages(arrays, len(shard))
        for column, field in self._texts.items():
            kind = self.schema.field(column).type
            offsets, content = arrays[f"{field}_offsets.npy"], arrays[f"{field}.npy"]
            columns[column] = _strings(kind, offsets, content)
        return pa.Table.from_arrays(
            [columns[name] for name in self.schema.names], schema=self.schema
        )

    def _language_type(self) -> dict[str, Any]:
        """The column of languages, where the store tells any."""
        import pyarrow as pa

        if self._has_languages:
            return {"lang": self._text_type("lang")}
        return {"lang": pa.string()} if self._language else {}

    def _languages(self, arrays: Mapping[str, Array], num_rows: int) -> Any:
        """Each row's language; null where nothing tells it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = self.schema.field("lang").type
        if not self._has_languages:
            return pa.repeat(pa.scalar(self._language, kind), num_rows)
        tags = _strings(kind, arrays["lang_offsets.npy"], arrays["lang.npy"])
        return pc.if_else(pc.equal(tags, ""), pa.scalar(None, kind), tags)

    def _named(self, index: Any) -> Any:
        """The names of labels that are given by index, or of lists of them."""
        import pyarrow as pa

        if not pa.types.is_list(index.type):
            return self._names.take(index)
        names = self._names.take(index.values)
        return pa.ListArray.from_arrays(index.offsets, names, mask=index.is_null())

    def _text_type(self, field: str) -> Any:
        """A string, or a large one where a shard holds more text than a plain one can count."""
        import pyarrow as pa

        records = (self._store.read_shard(shard) for shard in self._shards)
        most = max(record.files[f"{field}.npy"].num_bytes for record in records)
        return pa.string() if most <= _MOST_STRING_BYTES else pa.large_string()


def _label_indices(gold: Array) -> Any:
    """Labels of a store, whose values were checked, as an Arrow array; null where a row has none.

    Of several labels a row it is one of lists, empty where none of the classes applies.
    """
    import pyarrow as pa

    if gold.ndim == 1:
        return pa.array(gold.astype(np.int64), mask=gold < 0)
    offsets = np.concatenate([[0], np.cumsum((gold > 0).sum(axis=1))]).astype(np.int32)
    indices = pa.array(np.nonzero(gold > 0)[1].astype(np.int64))
    return pa.ListArray.from_arrays(pa.array(offsets), indices, mask=pa.array(gold[:, 0] < 0))


def _strings(kind: Any, offsets: Array, content: Array) -> Any:
    """The texts as an Arrow array, without a copy of their bytes."""
    import pyarrow as pa

    narrow = np.ascontiguousarray(offsets, np.int32 if kind == pa.string() else np.int64)
    buffers = [None, pa.py_buffer(narrow), pa.py_buffer(content)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)


def _feature(kind: Any) -> dict[str, Any]:
    """How `datasets` describes a column of an Arrow type.

    Source: `datasets.Features.to_dict`, of which version 4 and later read the same form.
    """
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        inner = _feature(kind.value_type)
        return {"feature": inner, "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float32(): "float32", pa.float16(): "float16"}  # Arrow's own: float, halffloat
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _write_parquet(rows: _Rows, out: Path) -> None:
    import pyarrow.parquet as pq

    # Names repeat; the other columns would only fill a dictionary before it is given up.
    repeating = [name for name in ("label", "lang") if name in rows.schema.names]
    settings: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeating}
    with new_file(out) as stream, pq.ParquetWriter(stream, rows.schema, **settings) as writer:
        for table in rows.tables():
            writer.write_table(table, row_group_size=table.num_rows)


def _exported_digest(out: Path) -> str | None:
    """The digest of the store that `out` is an export of; None where it is none."""
    import pyarrow.parquet as pq

    try:
        origin = json.loads((pq.read_schema(out).metadata or {})[_ORIGIN_KEY])
        return str(origin["digest"])
    except (OSError, ValueError, KeyError, TypeError):  # Arrow's errors are ValueErrors
        return None
