"""Which documents are held out, which may be trained on, and in what order they are taken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monox_kit.digest import digest_bytes
from monox_kit.tasks.debian.descriptions import Description, Package
from monox_kit.tasks.fields import normalized

TEST_FRACTION = 0.25
DEV_FRACTION = 0.08
# A training text that shares a paragraph of at least this length with held-out text is left out;
# shorter ones are phrases such as "This package contains the documentation."
_MIN_SHARED_CHARS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an output file."""

    package: Package
    text: str
    lang: str

    def to_json(self, *, labelled: bool) -> dict[str, Any]:
        """The line's fields; without `labelled` there is no `label`."""
        label = {"label": self.package.section} if labelled else {}
        return {"id": self.package.name, "text": self.text, **label, "lang": self.lang}


class HeldOut:
    """What may not be seen in training: whole texts and their longer paragraphs, normalized."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._paragraphs: set[str] = set()

    def add(self, description: Description) -> None:
        """Hold out one description."""
        self._texts.add(normalized(description.text))
        self._paragraphs.update(_long_paragraphs(description))

    def reason(self, description: Description) -> str | None:
        """Why a text may not be used for training, or None where it may."""
        if normalized(description.text) in self._texts:
            return "equal to held-out text"
        if not self._paragraphs.isdisjoint(_long_paragraphs(description)):
            return "paragraph shared with held-out text"
        return None


def parted(packages: Iterable[Package], seed: int) -> dict[str, list[Package]]:
    """The packages by part, `test`, `dev` or `train`; all of one source are in one part.

    Within a part, the first package of every source comes before the second of any, and equals
    stand in an order that only the seed and their names fix.
    """
    by_source: defaultdict[str, list[Package]] = defaultdict(list)
    for package in packages:
        by_source[package.source].append(package)
    parts: dict[str, list[tuple[int, str, Package]]] = {"test": [], "dev": [], "train": []}
    for source, siblings in by_source.items():
        keyed = sorted((_digest(seed, "row", package.name), package) for package in siblings)
        part = parts[_part(source, seed)]
        part.extend((rank, key, package) for rank, (key, package) in enumerate(keyed))
    return {name: [package for *_, package in sorted(part)] for name, part in parts.items()}


def first_of_each_source(packages: Iterable[Package]) -> list[Package]:
    """One package of each source, so that the rows of a held-out set are independent."""
    first: dict[str, Package] = {}
    for package in packages:
        first.setdefault(package.source, package)
    return list(first.values())


def distinct_rows(
    packages: Iterable[Package], texts: Mapping[str, Description], lang: str
) -> list[Row]:
    """One row for each distinct normalized text, the first of equal ones."""
    rows: dict[str, Row] = {}
    for package in packages:
        text = texts[package.name].text
        rows.setdefault(normalized(text), Row(package, text, lang))
    return list(rows.values())


def unseen_rows(
    packages: Iterable[Package],
    texts: Mapping[str, Description],
    held_out: HeldOut,
    left_out: Counter[str],
    lang: str = "en",
) -> list[Row]:
    """The distinct texts that share nothing with held-out text; the others are counted."""
    allowed = []
    for package in packages:
        reason = held_out.reason(texts[package.name])
        if reason is None:
            allowed.append(package)
        else:
            left_out[reason] += 1
    rows = distinct_rows(allowed, texts, lang)
    left_out["duplicate"] += len(allowed) - len(rows)
    return rows


def _part(source: str, seed: int) -> str:
    """The part that a source belongs to."""
    position = int(_digest(seed, "source", source)[:15], 16) / 16**15
    if position < TEST_FRACTION:
        return "test"
    return "dev" if position < TEST_FRACTION + DEV_FRACTION else "train"


def _digest(seed: int, purpose: str, name: str) -> str:
    return digest_bytes(f"{seed}:{purpose}:{name}".encode())


def _long_paragraphs(description: Description) -> list[str]:
    """The normalized paragraphs that are long enough to give a text away."""
    keys = map(normalized, description.paragraphs)
    return [key for key in keys if len(key) >= _MIN_SHARED_CHARS]
