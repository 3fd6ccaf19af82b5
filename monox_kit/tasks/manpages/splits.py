"""Which pages are held out, which may be trained on, and in what order they are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from monox_kit.digest import digest_bytes
from monox_kit.tasks.fields import normalized

# Lines of at least so many characters that stand in the English page too are text that was left
# in English; shorter ones are names, code and options, which are equal in any language.
_LONG_LINE = 60
_MAX_ENGLISH_FRACTION = 0.3


@dataclass(frozen=True, slots=True)
class Page:
    """A page that can be used.

    Attributes:
        id: its name and section, equal in all languages.
        name: what is in one part in all languages.
        section: the label.
        text: without markup.
    """

    id: str
    name: str
    section: str
    text: str


@dataclass(slots=True)
class Pages:
    """The pages of every language by id, and how many fell out and why."""

    by_language: dict[str, dict[str, Page]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, number: int = 1) -> None:
        """Count pages that are not used."""
        if number:
            self.left_out[reason] += number


def distinct(found: Iterable[Page], pages: Pages, seen: set[str]) -> list[Page]:
    """The pages whose text none before has had; their texts are added to those that were seen."""
    kept = []
    for page in found:
        key = normalized(page.text)
        if key in seen:
            pages.drop("text of another page")
            continue
        seen.add(key)
        kept.append(page)
    return kept


def is_translated(page: Page, english: Page) -> bool:
    """Whether few of the text's characters stand in long lines of the English page."""
    left = {line for line in english.text.split("\n") if len(line) >= _LONG_LINE}
    same = sum(len(line) for line in page.text.split("\n") if line in left)
    return same <= _MAX_ENGLISH_FRACTION * len(page.text)


def part_of(name: str, seed: int, *, test: float, dev: float) -> str:
    """The part that a page name belongs to: `test`, `dev` or `train`.

    Args:
        name: of the page, in any language.
        seed: any whole number.
        test: share of the names that are held out.
        dev: share of the names that choose the weights.
    """
    position = int(ordering_key(seed, "name", name)[:15], 16) / 16**15
    if position < test:
        return "test"
    return "dev" if position < test + dev else "train"


def ordering_key(seed: int, purpose: str, name: str) -> str:
    """What orders names as the seed alone decides."""
    return digest_bytes(f"{seed}:{purpose}:{name}".encode())
