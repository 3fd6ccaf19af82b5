"""Writes `store-1`, the golden store of format 1: `python -m tests.golden.make_store_1 FOLDER`.

The folder beside this file was written once, when the format was released, and never again:
every later version of monoxkit must open it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from monox_kit.data import Document, LabelSet
from monox_kit.store import FolderWriter, StoreManifest
from tests.store_samples import write_shard

TEXTS = (
    ("The café opens at nine.", "The café is closed at night."),
    ("東京は日本の首都です。", "Tokyo is a capital."),
    ("A die: 🎲", ""),
    ("Plain text.", "Plain text."),
    ("Plain text.", "Nothing alike."),
)
GOLD = ("entailment", None, "contradiction", "entailment", None)
RECOMPUTED = (False, True, False, False, True)
LOGITS = ((2.5, -1.0), (0.125, 0.0), (-3.75, 65504.0), (1e-7, -0.0), (-2.0, 7.0))


def documents() -> list[Document]:
    """The five rows."""
    rows = zip(TEXTS, GOLD, strict=True)
    return [
        Document(row=row, id=f"pair/{row}", text=text, text_pair=pair, label=label)
        for row, ((text, pair), label) in enumerate(rows)
    ]


def write(folder: Path) -> None:
    """Write the golden store to a folder that does not exist yet."""
    labels = LabelSet(("contradiction", "entailment"))
    manifest = StoreManifest(
        labels=labels,
        num_rows=5,
        shard_rows=3,
        dtype="float16",
        has_pairs=True,
        fingerprint={"teacher": "golden", "max_length": 256, "provider": None, "share": 0.5},
    )
    gold = [-1 if name is None else labels.index(name, "golden") for name in GOLD]
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            part = slice(shard.start, shard.stop)
            write_shard(
                writer,
                shard,
                logits=np.array(LOGITS[part], np.float32),
                documents=documents()[part],
                labels=np.array(gold[part], np.int32),
                recomputed=np.array(RECOMPUTED[part]),
            )
        writer.complete(labelled_s=0.25)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
