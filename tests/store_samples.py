"""Small logit stores whose every value is a function of its row, for the store's tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.data import Document, Int64s, LabelSet, Logits
from monox_kit.store import ShardRange, StoreManifest, StoreWriter

LABELS = LabelSet(("games", "science", "sound"))
FINGERPRINT: Mapping[str, Any] = {
    "teacher": "runs/teacher",
    "teacher_digest": "5d41",
    "max_length": 128,
    "precision": "fp32",
    "provider": None,
    "corpus_digest": "7d79",
}
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


def document(row: int, has_pairs: bool = False) -> Document:
    """The document of a row; texts repeat, ids do not."""
    return Document(
        row=row,
        id=f"id-{row}",
        text=WORDS[row % len(WORDS)] * (row % 3 + 1),
        text_pair=f"pair of {row}" if has_pairs else None,
        label=None if row % 3 == 0 else LABELS.names[row % 3],
    )


def gold(rows: Int64s) -> Any:
    """[n] int32 gold labels that belong to `document`."""
    return np.where(rows % 3 == 0, -1, rows % 3).astype(np.int32)


def logits(rows: Int64s, num_classes: int = 3) -> Logits:
    """[n, C] float32 logits that float16 holds exactly."""
    return ((rows[:, None] * 8 + np.arange(num_classes)) / 4 - 9).astype(np.float32)


def shard_arguments(store: StoreManifest, shard: ShardRange) -> dict[str, Any]:
    """What `write_shard` takes for a shard."""
    rows = np.arange(shard.start, shard.stop, dtype=np.int64)
    return {
        "logits": logits(rows, store.num_classes),
        "documents": [document(row, store.has_pairs) for row in rows.tolist()],
        "labels": gold(rows),
    }


def write_store(folder: Path, store: StoreManifest | None = None) -> Path:
    """Write what is missing, complete the store and give its folder back."""
    store = store or manifest()
    with StoreWriter(folder, store) as writer:
        for shard in writer.missing:
            writer.write_shard(shard, **shard_arguments(store, shard))
        writer.complete(command="label")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
