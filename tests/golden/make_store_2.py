"""Writes `store-2`, the golden store of format 2: each row has its own language, or none.

`python -m tests.golden.make_store_2 FOLDER`; as with `store-1`, the folder beside this file was
written once, and every later version of monoxkit must open it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from monox_kit.data import Document, LabelSet
from monox_kit.store import FolderWriter, StoreManifest
from tests.store_samples import write_shard

LABELS = LabelSet(("games", "mail"))
TEXTS = ("A chess game.", "Ein Schachspiel.", "日本語のメール", "Plain text.")
LANGUAGES = ("en", "de", "ja", None)
GOLD = (0, 0, 1, -1)
LOGITS = ((2.5, 0.125), (3.0, -0.5), (0.0, 6.0), (-1e-7, 0.75))


def documents() -> list[Document]:
    """The four rows."""
    rows = zip(TEXTS, LANGUAGES, GOLD, strict=True)
    return [
        Document(row, f"p{row}", text, None, None if gold < 0 else LABELS.names[gold], lang)
        for row, (text, lang, gold) in enumerate(rows)
    ]


def write(folder: Path) -> None:
    """Write the golden store to a folder that does not exist yet."""
    manifest = StoreManifest(
        labels=LABELS,
        num_rows=4,
        shard_rows=3,
        dtype="float32",
        has_pairs=False,
        fingerprint={"teacher": "golden", "max_length": 256},
        format_version=2,
    )
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            part = slice(shard.start, shard.stop)
            write_shard(
                writer,
                shard,
                logits=np.array(LOGITS[part], np.float32),
                documents=documents()[part],
                labels=np.array(GOLD[part], np.int32),
            )
        writer.complete(labelled_s=0.25)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
