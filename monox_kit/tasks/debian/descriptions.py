"""Package descriptions as text: read from Debian's lists, joined to packages, markup resolved."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from monox_kit.errors import ConfigError, CorpusError
from monox_kit.tasks.debian.lists import read_stanzas
from monox_kit.tasks.fields import joined, normalized

_LIST_MARKS = ("* ", "- ", "+ ", "o ", "• ")
_ANY_INDENT = 1000
# They describe an upgrade path, not a program; "dummy" alone is also a term of bridge.
_TRANSITIONAL = re.compile(r"\b(transition(al)? (dummy )?package|dummy package|\(transitional\))")
# Names and short lists are equal in any language; more than that is text left in English.
_MAX_ENGLISH_FRACTION = 0.3


@dataclass(frozen=True, order=True, slots=True)
class Package:
    """One binary package: what a row is made of, and what splits keep together.

    Attributes:
        name: the binary package's name.
        source: the source package it is built from; its own name where the index gives none.
        section: the section, which is the label.
        md5: the digest of its English description, which its translations carry too.
    """

    name: str
    source: str
    section: str
    md5: str


@dataclass(frozen=True, slots=True)
class Description:
    """A description without markup: the one-line summary, then paragraphs and list items."""

    summary: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The summary and each paragraph on a line of its own."""
        return "\n".join((self.summary, *self.paragraphs))


def read_packages(path: Path, sections: Collection[str]) -> dict[str, Package]:
    """The packages of the named sections by name, in the index's order, the first version of each.

    Raises:
        ConfigError: a section is not in the index; those that are there are named.
        CorpusError: the index names no section at all.
    """
    found: dict[str, Package] = {}
    sizes: Counter[str] = Counter()
    for stanza in read_stanzas(path, ("Package", "Source", "Section", "Description-md5")):
        name, section = stanza.get("Package"), stanza.get("Section")
        if not name or not section:
            continue
        sizes[section] += 1
        if section in sections and "Description-md5" in stanza:
            # `Source: glibc (2.36-9)` where the versions differ.
            source = (stanza.get("Source") or name).split()[0]
            found.setdefault(name, Package(name, source, section, stanza["Description-md5"]))
    if not sizes:
        raise CorpusError(
            f"{path}: expected a Debian package index, found no package with a section. "
            "Check apt's sources."
        )
    absent = [section for section in sections if section not in sizes]
    if absent:
        raise ConfigError(
            f"`sections`: expected sections of Debian ({', '.join(sorted(sizes))}), found "
            f"{', '.join(absent)}. Take some of the listed."
        )
    return found


def read_descriptions(
    path: Path, language: str, packages: Mapping[str, Package]
) -> dict[str, Description]:
    """The descriptions of `packages` in one language, by package name.

    A description counts where both its package and the digest of the English text that it
    translates are those of the index: an outdated translation is left out.
    """
    field = f"Description-{language}"
    found: dict[str, Description] = {}
    for stanza in read_stanzas(path, ("Package", "Description-md5", field)):
        package = packages.get(stanza.get("Package", ""))
        value = stanza.get(field, "")
        if package is None or package.md5 != stanza.get("Description-md5") or "\ufffd" in value:
            continue
        description = resolved(value, language)
        if description.summary and description.paragraphs:
            found.setdefault(package.name, description)
    return found


def resolved(value: str, language: str) -> Description:
    """A description field without its markup.

    Lines of a paragraph become one line, and so do the lines of a list item; ` .` ends a paragraph,
    and other verbatim lines stay lines of their own. Runs of spaces become one; characters are in
    Unicode's form NFC.

    Source: Debian Policy, section 5.6.13, the format of `Description`.
    """
    summary, *lines = unicodedata.normalize("NFC", value).split("\n")
    paragraphs: list[str] = []
    # The indent that a line needs at least and at most to continue the last paragraph.
    least, most = 1, 0
    for line in lines:
        words = " ".join(line.split())
        if words in {"", "."}:
            least, most = 1, 0
            continue
        indent = len(line) - len(line.lstrip())
        is_item = words.startswith(_LIST_MARKS)
        if least <= indent <= most and not is_item:
            paragraphs[-1] = joined(paragraphs[-1], words, language)
            continue
        paragraphs.append(words)
        if is_item:
            least, most = indent + 1 if indent > 1 else 1, _ANY_INDENT
        else:
            least, most = 1, 1 if indent == 1 else 0
    return Description(" ".join(summary.split()), tuple(paragraphs))


def is_transitional(english: Description) -> bool:
    """Whether the package is empty and only leads to another one."""
    text = f"{english.summary} {' '.join(english.paragraphs[-2:])}".lower()
    return _TRANSITIONAL.search(text) is not None


def is_translated(translation: Description, english: Description) -> bool:
    """Whether the text is in its own language: few of its characters stand in English lines."""
    left = {normalized(line) for line in (english.summary, *english.paragraphs)}
    lines = (translation.summary, *translation.paragraphs)
    same = sum(len(line) for line in lines if normalized(line) in left)
    return same <= _MAX_ENGLISH_FRACTION * sum(map(len, lines))
