"""What a labelled shard looks like as arrays; everything that is wrong with it is an error here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monox_kit.data import Document, Logits
from monox_kit.errors import StoreError
from monox_kit.store.format import LOGIT_DESCR, ShardRange, StoreManifest
from monox_kit.store.shard import Array


def checked_logits(manifest: StoreManifest, shard: ShardRange, logits: Logits, where: str) -> Array:
    """The logits as they will lie on disk, [n, C].

    Raises:
        StoreError: they have another shape or type, or a value is not finite on disk.
    """
    shape = (len(shard), manifest.num_classes)
    if logits.dtype != np.float32 or logits.shape != shape:
        raise StoreError(
            f"{where}: expected logits float32 {shape}, found {logits.dtype} {logits.shape}. "
            "Give one row for each document and one column for each label."
        )
    _require_finite(logits, shard, where, "Check the teacher's precision: it overflows.", logits)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(logits, dtype=LOGIT_DESCR[manifest.dtype])
    step = "float16 ends at 65504: use dtype float32."
    _require_finite(stored, shard, where, step, logits)
    return stored


def _require_finite(
    values: Array, shard: ShardRange, where: str, step: str, logits: Logits
) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        at, column = (int(index) for index in np.argwhere(~finite)[0])
        raise StoreError(
            f"{where}: expected finite {values.dtype} logits, found {logits[at, column]} in row "
            f"{shard.start + at}, class {column}. {step}"
        )


def checked_labels(
    manifest: StoreManifest, shard: ShardRange, labels: npt.NDArray[np.int32], where: str
) -> Array:
    """The gold labels as they will lie on disk, [n].

    Raises:
        StoreError: they have another shape or type, or a value is no class.
    """
    if labels.dtype != np.int32 or labels.shape != (len(shard),):
        raise StoreError(
            f"{where}: expected labels int32 ({len(shard)},), found {labels.dtype} "
            f"{labels.shape}. Give one label index for each document, -1 for none."
        )
    wrong = (labels < -1) | (labels >= manifest.num_classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise StoreError(
            f"{where}: expected labels from -1 to {manifest.num_classes - 1}, found {labels[at]} "
            f"in row {shard.start + at}. Use the store's label set."
        )
    return np.ascontiguousarray(labels, dtype="<i4")


def text_arrays(
    manifest: StoreManifest, shard: ShardRange, documents: Sequence[Document], where: str
) -> dict[str, Array]:
    """Ids and texts as UTF-8 bytes [bytes] and offsets [n + 1], by file name.

    Raises:
        StoreError: the documents are not exactly the shard's, in order, or hold no valid text.
    """
    if len(documents) != len(shard):
        raise StoreError(
            f"{where}: expected {len(shard)} documents, found {len(documents)}. "
            "Give every row of the shard once."
        )
    for row, document in enumerate(documents, shard.start):
        if document.row != row:
            raise StoreError(
                f"{where}: expected the document of row {row}, found row {document.row}. "
                "Give the shard's documents in the corpus's order."
            )
        if (document.text_pair is not None) != manifest.has_pairs:
            expected, found = ("a pair", "a single text")[:: 1 if manifest.has_pairs else -1]
            raise StoreError(
                f"{where}: expected {expected} in row {row} as in the rest of the store, found "
                f"{found}. Label pairs and single texts into two stores."
            )
    arrays: dict[str, Array] = {}
    columns = {
        "ids": [document.id for document in documents],
        "text": [document.text for document in documents],
    }
    if manifest.has_pairs:
        columns["text_pair"] = [document.text_pair or "" for document in documents]
    for field, texts in columns.items():
        encoded = [
            _encoded(text, f"{where} row {row}") for row, text in enumerate(texts, shard.start)
        ]
        offsets = np.zeros(len(shard) + 1, "<i8")
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        arrays[f"{field}.npy"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{field}_offsets.npy"] = offsets
    return arrays


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{where}: expected text that UTF-8 can hold, found half of a surrogate pair at "
            f"character {error.start}. Correct the row."
        ) from error
