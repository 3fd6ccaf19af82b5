"""Classes of labelled text before it is learned from: their rows, and names that may be slips.

A label that nobody meant ("Shiping" beside "Shipping") is a class to every program. It is seen by
who reads a list of classes with their counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from monox_kit.data import Document, LabelSet
from monox_kit.unseen import edits

# Classes that are listed by name, and pairs of near names.
_MOST_LISTED = 30
_MOST_PAIRS = 10
# Above it, comparing every two names takes seconds, and nobody reads them.
_MOST_COMPARED = 500
_FEW_ROWS = 5
_MANY_SHARED = 0.01


def class_counts(documents: Sequence[Document], labels: LabelSet) -> dict[str, int]:
    """Rows with each class, in the order of the label set; a row of several counts for each."""
    found: Counter[str] = Counter()
    for document in documents:
        label = document.label
        found.update((label,) if isinstance(label, str) else label or ())
    return {name: found[name] for name in labels.names}


def class_notes(documents: Sequence[Document], labels: LabelSet, where: str) -> Iterator[str]:
    """What a user should see of the classes of labelled text before anything is learned from it."""
    counts = class_counts(documents, labels)
    yield f"{where}: {listed_counts(counts)}"
    few = {name: count for name, count in counts.items() if count < _FEW_ROWS}
    if few:
        yield (
            f"{where}: classes with fewer than {_FEW_ROWS} rows, of which little can be learned: "
            f"{listed_counts(few)}"
        )
    pairs = near_names(counts)
    if pairs:
        shown = ", ".join(
            f"{one!r} ({counts[one]:,}) and {other!r} ({counts[other]:,})"
            for one, other in pairs[:_MOST_PAIRS]
        )
        yield f"{where}: classes whose names are near each other, is one a slip? {shown}"


def dev_notes(
    dev: Sequence[Document], labelled: Sequence[Document], labels: LabelSet
) -> Iterator[str]:
    """How a dev set fits the classes and the text that is trained on, where it does not."""
    counts = class_counts(dev, labels)
    absent = [name for name, count in counts.items() if not count]
    if absent:
        more = f", ... ({len(absent)} in all)" if len(absent) > _MOST_LISTED else ""
        yield (
            f"`dev`: no row of {', '.join(map(repr, absent[:_MOST_LISTED]))}{more}: whether they "
            "are learned is not measured"
        )
    texts = {(document.text, document.text_pair) for document in labelled}
    shared = sum((document.text, document.text_pair) in texts for document in dev)
    if dev and shared == len(dev):
        same = " and no others" if len(labelled) == len(dev) else ""
        yield (
            f"`dev`: all {len(dev):,} texts are in the training text{same}: its results say "
            "nothing of new texts. Give rows that are not trained on"
        )
    elif shared > _MANY_SHARED * len(dev):
        yield (
            f"`dev`: {shared:,} of {len(dev):,} texts are in the training text too: its results "
            "are too good by that much"
        )


def near_names(names: Mapping[str, int] | Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that one may write for the other by a slip.

    Names that differ in upper and lower case, white space or punctuation alone; or by one inserted,
    missing, wrong or exchanged letter in a word of five letters and more, two from nine on. Other
    numbers are other names ("step 1", "step 2").
    """
    listed = list(names)
    if len(listed) > _MOST_COMPARED:
        return []
    plain = [re.sub(r"[\W_]+", "", name).casefold() for name in listed]
    digits = [re.sub(r"\D", "", name) for name in plain]
    return [
        (listed[one], listed[other])
        for one in range(len(listed))
        for other in range(one + 1, len(listed))
        if digits[one] == digits[other] and _is_slip(plain[one], plain[other])
    ]


def _is_slip(one: str, other: str) -> bool:
    length = min(len(one), len(other))
    if one == other:
        return bool(one)
    most = 2 if length >= 9 else 1 if length >= 5 else 0
    return abs(len(one) - len(other)) <= most and edits(one, other, most) <= most


def listed_counts(counts: Mapping[str, int]) -> str:
    """Classes with their rows, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in ordered[:_MOST_LISTED])
    more = f", ... ({len(counts)} classes)" if len(counts) > _MOST_LISTED else ""
    return f"{shown}{more}"
