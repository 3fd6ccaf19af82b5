"""Writes `store-1-multi`, the golden store of format 1 with any number of labels a row.

`python -m tests.golden.make_store_1_multi FOLDER`; as with `store-1`, the folder beside this file
was written once, and every later version of monoxkit must open it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from monox_kit.data import MULTI_LABEL, Document, LabelSet
from monox_kit.store import FolderWriter, StoreManifest
from tests.store_samples import write_shard

LABELS = LabelSet(("games", "mail", "text"), MULTI_LABEL)
TEXTS = ("A chess game by mail.", "Nichts davon.", "日本語のフォント", "Plain text.")
GOLD = (("games", "mail"), (), None, ("text",))
GOLD_ROWS = ((1, 1, 0), (0, 0, 0), (-1, -1, -1), (0, 0, 1))
LOGITS = ((2.5, 0.125, -1.0), (-3.0, -0.5, -2.0), (0.0, -1.5, 6.0), (-1e-7, -2.0, 0.75))


def documents() -> list[Document]:
    """The four rows."""
    rows = zip(TEXTS, GOLD, strict=True)
    return [
        Document(row=row, id=f"text/{row}", text=text, label=label)
        for row, (text, label) in enumerate(rows)
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
    )
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            part = slice(shard.start, shard.stop)
            write_shard(
                writer,
                shard,
                logits=np.array(LOGITS[part], np.float32),
                documents=documents()[part],
                labels=np.array(GOLD_ROWS[part], np.int8),
            )
        writer.complete(labelled_s=0.25)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
