"""What a part of a labelled shard looks like as arrays; everything wrong with it is an error here.

Every function takes the part's rows as a `range` of positions in the corpus; n is its length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monox_kit.data import Document, Int64s, Logits
from monox_kit.errors import StoreError
from monox_kit.problem import Bools, Labels
from monox_kit.store.format import LOGIT_DESCR, StoreManifest, text_fields
from monox_kit.store.shard import Array


def checked_logits(manifest: StoreManifest, rows: range, logits: Logits, where: str) -> Array:
    """The logits as they will lie on disk, [n, C].

    Raises:
        StoreError: they have another shape or type, or a value is not finite on disk.
    """
    shape = (len(rows), manifest.num_classes)
    if logits.dtype != np.float32 or logits.shape != shape:
        raise StoreError(
            f"{where}: expected logits float32 {shape}, found {logits.dtype} {logits.shape}. "
            "Give one row for each document and one column for each label."
        )
    _require_finite(logits, rows, where, "Check the teacher's precision: it overflows.", logits)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(logits, dtype=LOGIT_DESCR[manifest.dtype])
    step = "float16 ends at 65504: use dtype float32."
    _require_finite(stored, rows, where, step, logits)
    return stored


def _require_finite(values: Array, rows: range, where: str, step: str, logits: Logits) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        at, column = (int(index) for index in np.argwhere(~finite)[0])
        raise StoreError(
            f"{where}: expected finite {values.dtype} logits, found {logits[at, column]} in row "
            f"{rows[at]}, class {column}. {step}"
        )


def checked_labels(manifest: StoreManifest, rows: range, labels: Labels, where: str) -> Array:
    """The gold labels as they will lie on disk, [n] or, of several labels a row, [n, C].

    Raises:
        StoreError: they have another shape or type, or a value is no class.
    """
    problem = manifest.problem
    dtype, shape = np.dtype(problem.label_descr), problem.label_shape(len(rows))
    if labels.dtype != dtype or labels.shape != shape:
        raise StoreError(
            f"{where}: expected labels {dtype} {shape}, found {labels.dtype} "
            f"{labels.shape}. Give the labels of each document as Problem.encode does, -1 for none."
        )
    valid = problem.are_valid(labels)
    if not valid.all():
        at = int(np.argmin(valid))
        raise StoreError(
            f"{where}: expected {problem.wanted_labels}, found {labels[at]} "
            f"in row {rows[at]}. Use the store's label set."
        )
    return np.ascontiguousarray(labels, dtype=problem.label_descr)


def checked_recomputed(rows: range, recomputed: Bools, where: str) -> Array:
    """Which rows were recomputed as it will lie on disk, [n] of 0 and 1.

    Raises:
        StoreError: it has another shape or type.
    """
    if recomputed.dtype != np.bool_ or recomputed.shape != (len(rows),):
        raise StoreError(
            f"{where}: expected recomputed bool ({len(rows)},), found {recomputed.dtype} "
            f"{recomputed.shape}. Give true or false for each document."
        )
    return np.ascontiguousarray(recomputed, dtype="|u1")


def checked_texts(
    manifest: StoreManifest, rows: range, documents: Sequence[Document], where: str
) -> dict[str, tuple[bytes, Int64s]]:
    """By text field: the UTF-8 bytes of all its texts, and [n] int64, where each ends in them.

    Raises:
        StoreError: the documents are not exactly those of the rows, or hold no valid text.
    """
    for row, document in zip(rows, documents, strict=True):
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
    texts = {}
    for field in text_fields(manifest):
        encoded = [_encoded(document, field, where) for document in documents]
        lengths = np.fromiter(map(len, encoded), "<i8", len(encoded))
        texts[field] = b"".join(encoded), np.cumsum(lengths, dtype="<i8")
    return texts


def text_sizes(
    manifest: StoreManifest, documents: Sequence[Document], where: str
) -> dict[str, int]:
    """The UTF-8 bytes of all texts, by text field.

    Raises:
        StoreError: a text is none that UTF-8 can hold.
    """
    return {
        field: sum(len(_encoded(document, field, where)) for document in documents)
        for field in text_fields(manifest)
    }


def _encoded(document: Document, field: str, where: str) -> bytes:
    text = document.id if field == "ids" else getattr(document, field)
    try:
        return (text or "").encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{where} row {document.row}: expected text that UTF-8 can hold, found half of a "
            f"surrogate pair at character {error.start}. Correct the row."
        ) from error
