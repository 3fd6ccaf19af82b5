"""Small logit stores whose every value is a function of its row, for the store's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Document, Int64s, LabelSet, Logits
from monox_kit.store import FolderWriter, ShardRange, StoreManifest, StoreWriter
from monox_kit.store.format import text_fields

LABELS = LabelSet(("games", "science", "sound"))
FINGERPRINT: Mapping[str, Any] = {
    "teacher": "runs/teacher",
    "teacher_digest": "5d41",
    "max_length": 128,
    "precision": "fp32",
    "provider": None,
    "corpus_digest": "7d79",
}
LANGUAGES = ("en", "pt-BR", None, "de", "日本")
# One, two, three and four bytes of UTF-8, a NUL, and no text at all.
WORDS = ("plain", "café", "日本語", "🎲🎲", "a\0b", "")


def manifest(**changes: Any) -> StoreManifest:
    """A store of 11 rows in shards of 4, 4 and 3, with some fields changed."""
    fields: dict[str, Any] = {
        "labels": LABELS,
        "num_rows": 11,
        "shard_rows": 4,
        "dtype": "float32",
        "has_pairs": False,
        "fingerprint": FINGERPRINT,
    }
    return StoreManifest(**{**fields, **changes})


def document(row: int, has_pairs: bool = False, has_languages: bool = False) -> Document:
    """The document of a row; texts repeat, ids do not."""
    return Document(
        row=row,
        id=f"id-{row}",
        text=WORDS[row % len(WORDS)] * (row % 3 + 1),
        text_pair=f"pair of {row}" if has_pairs else None,
        label=None if row % 3 == 0 else LABELS.names[row % 3],
        lang=LANGUAGES[row % len(LANGUAGES)] if has_languages else None,
    )


def gold(rows: Int64s) -> Any:
    """[n] int32 gold labels that belong to `document`."""
    return np.where(rows % 3 == 0, -1, rows % 3).astype(np.int32)


def logits(rows: Int64s, num_classes: int = 3) -> Logits:
    """[n, C] float32 logits that float16 holds exactly."""
    return ((rows[:, None] * 8 + np.arange(num_classes)) / 4 - 9).astype(np.float32)


def recomputed(rows: Int64s) -> Any:
    """[n] bool, which rows the fidelity guard recomputed."""
    return rows % 4 == 2


def shard_arguments(store: StoreManifest, shard: ShardRange) -> dict[str, Any]:
    """What `write_shard` takes for a shard."""
    rows = np.arange(shard.start, shard.stop, dtype=np.int64)
    return {
        "logits": logits(rows, store.num_classes),
        "documents": [document(row, store.has_pairs, store.has_languages) for row in rows.tolist()],
        "labels": gold(rows),
        "recomputed": recomputed(rows),
    }


def text_bytes(documents: Sequence[Document]) -> dict[str, int]:
    """The UTF-8 bytes of each text field, counted the plain way."""
    fields = {
        "ids": "".join(document.id for document in documents),
        "text": "".join(document.text for document in documents),
        "text_pair": "".join(document.text_pair or "" for document in documents),
        "lang": "".join(document.lang or "" for document in documents),
    }
    if not fields["lang"]:
        del fields["lang"]
    if documents[0].text_pair is None:
        del fields["text_pair"]
    return {field: len(text.encode("utf-8", "surrogatepass")) for field, text in fields.items()}


def part(arguments: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """What `append` takes for a shard's rows [start, stop), counted from the shard's first."""
    return {name: values[start:stop] for name, values in arguments.items()}


def build_shard(writer: StoreWriter, shard: ShardRange, cuts: Sequence[int]) -> None:
    """Write a shard in parts that end at `cuts`, counted from the shard's first row."""
    arguments = shard_arguments(writer.manifest, shard)
    with writer.shard(shard, text_bytes(arguments["documents"])) as builder:
        for start, stop in pairwise([0, *cuts, len(shard)]):
            builder.append(**part(arguments, start, stop))


def write_shard(
    writer: StoreWriter,
    shard: ShardRange,
    *,
    logits: Logits,
    documents: Sequence[Document],
    labels: Any,
    recomputed: Any = None,
) -> None:
    """Write one of the missing shards at once."""
    given = np.zeros(len(documents), np.bool_) if recomputed is None else recomputed
    sizes = {"text_pair": 0, "lang": 0, **text_bytes(documents)}
    announced = {field: sizes[field] for field in text_fields(writer.manifest)}
    with writer.shard(shard, announced) as builder:
        builder.append(logits=logits, documents=documents, labels=labels, recomputed=given)


def write_store(
    folder: Path,
    store: StoreManifest | None = None,
    *,
    cuts: Sequence[int] | None = None,
    shards: range | None = None,
) -> Path:
    """Write what is missing, complete the store and give its folder back.

    Args:
        folder: the store's folder.
        store: `manifest()` where it is None.
        cuts: where every shard is split into parts; None writes each at once.
        shards: which to write alone; None for all.
    """
    store = store or manifest()
    with FolderWriter(folder, store, shards) as writer:
        for shard in writer.missing:
            if cuts is None:
                write_shard(writer, shard, **shard_arguments(store, shard))
            else:
                build_shard(writer, shard, cuts)
        writer.complete(command="label")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
