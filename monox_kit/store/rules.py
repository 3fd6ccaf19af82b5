"""The rules of the format for a shard's values, each written once.

Writers are held to them for what they are given, readers and `store verify` for what they find. A
part is n consecutive rows of a shard; `rows` is the range of their positions in the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monox_kit.data import Document, Int64s, Logits
from monox_kit.errors import StoreError
from monox_kit.problem import Bools, Labels, Problem
from monox_kit.store.format import LOGIT_DESCR, StoreManifest, text_fields
from monox_kit.store.shard import Array


class _Rule(NamedTuple):
    """What the values of one file must be, and [n] bool, in which rows they are."""

    wanted: Callable[[Problem], str]
    holds: Callable[[Array, range, Problem], Any]


VALUE_RULES: Mapping[str, _Rule] = {
    "rows.npy": _Rule(
        lambda problem: "the row's own number",
        lambda values, rows, problem: np.equal(values, np.arange(rows.start, rows.stop)),
    ),
    "logits.npy": _Rule(
        lambda problem: "finite logits",
        lambda values, rows, problem: np.isfinite(values).all(axis=1),
    ),
    "labels.npy": _Rule(
        lambda problem: problem.wanted_labels,
        lambda values, rows, problem: problem.are_valid(values),
    ),
    "recomputed.npy": _Rule(lambda problem: "0 or 1", lambda values, rows, problem: values <= 1),
}


class BrokenRule(NamedTuple):
    """A value that breaks a rule.

    Attributes:
        file: where it stands.
        wanted: what is expected there.
        at: its row among those of the part.
    """

    file: str
    wanted: str
    at: int


def broken_rule(
    arrays: Mapping[str, Array], rows: range, problem: Problem, files: Sequence[str] = ()
) -> BrokenRule | None:
    """The first value of a part that breaks a rule; None where all hold.

    Args:
        arrays: by file, the part's values as they lie on disk.
        rows: the part's.
        problem: what labels and logits mean.
        files: those to look at; empty for all that have a rule.
    """
    for file in files or VALUE_RULES:
        rule = VALUE_RULES[file]
        good = rule.holds(arrays[file], rows, problem)
        if not good.all():
            return BrokenRule(file, rule.wanted(problem), int(np.argmin(good)))
    return None


def are_offsets(offsets: Int64s, part: slice, num_bytes: int) -> bool:
    """Whether a part's texts lie inside of a shard's bytes of text, one behind the other.

    Args:
        offsets: [N + 1], of the whole shard.
        part: the part's entries, one more than it has rows.
        num_bytes: of all texts of the shard.
    """
    bounds = np.concatenate([[0], offsets[:1], offsets[part], offsets[-1:], [num_bytes]])
    # Neighbours are compared: their difference may overflow into a positive one.
    is_ascending = bool((bounds[1:] >= bounds[:-1]).all())
    return is_ascending and offsets[0] == 0 and offsets[-1] == num_bytes


def stored_arrays(
    manifest: StoreManifest,
    rows: range,
    *,
    logits: Logits,
    labels: Labels,
    recomputed: Bools,
    where: str,
) -> dict[str, Array]:
    """What a writer was given for a part, as it will lie on disk, by file; texts aside.

    Args:
        manifest: the store's.
        rows: the part's.
        logits: [n, C] float32.
        labels: in the form of the store's problem.
        recomputed: [n] bool.
        where: the shard, for messages.

    Raises:
        StoreError: something has another shape or type, or breaks a rule.
    """
    problem, num_rows = manifest.problem, len(rows)
    for name, given, dtype, shape in (
        ("logits", logits, "float32", (num_rows, manifest.num_classes)),
        ("labels", labels, np.dtype(problem.label_descr), problem.label_shape(num_rows)),
        ("recomputed", recomputed, "bool", (num_rows,)),
    ):
        if given.dtype != dtype or given.shape != shape:
            raise StoreError(
                f"{where}: expected {name} {dtype} {shape}, found {given.dtype} {given.shape}. "
                "Give one row for each document, and one column for each class where there are "
                "columns."
            )
    with np.errstate(over="ignore"):  # found below
        stored = np.ascontiguousarray(logits, dtype=LOGIT_DESCR[manifest.dtype])
    arrays: dict[str, Array] = {
        "logits.npy": stored,
        "rows.npy": np.arange(rows.start, rows.stop, dtype="<i8"),
        "labels.npy": np.ascontiguousarray(labels, dtype=problem.label_descr),
        "recomputed.npy": np.ascontiguousarray(recomputed, dtype="|u1"),
    }
    broken = broken_rule(arrays, rows, problem)
    if broken is not None:
        found, step = str(arrays[broken.file][broken.at]), "Use the store's label set."
        if broken.file == "logits.npy":
            column = int(np.argmin(np.isfinite(stored[broken.at])))
            found = f"{logits[broken.at, column]} in class {column}"
            step = "Check the teacher's precision; float16 ends at 65504: use dtype float32."
        row = rows[broken.at]
        raise StoreError(f"{where}: expected {broken.wanted} in row {row}, found {found}. {step}")
    return arrays


def stored_texts(
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


def _encoded(document: Document, field: str, where: str) -> bytes:
    text = document.id if field == "ids" else getattr(document, field)
    try:
        return (text or "").encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{where} row {document.row}: expected text that UTF-8 can hold, found half of a "
            f"surrogate pair at character {error.start}. Correct the row."
        ) from error
