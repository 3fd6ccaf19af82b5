"""Debian's package index and translated descriptions, as apt fetches them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monox_kit.errors import ConfigError, CorpusError
from monox_kit.tasks.apt import COMPONENT, Index, private_apt

COMMAND = "data debian"
WITHOUT_APT = (
    "Pass your own text instead, `monoxkit demo --data DIR`, where DIR holds labelled.jsonl, "
    "unlabelled.jsonl, dev.jsonl, test.<lang>.jsonl and labels.json."
)
# Digest, size, name; a size of 3 digits or more, for a language may have an empty list.
_TRANSLATION = re.compile(
    rf"\s\d{{3,}}\s+{COMPONENT}/i18n/Translation-([A-Za-z_@]+)(?:\.[a-z0-9]+)?$"
)


@dataclass(frozen=True, slots=True)
class DebianLists:
    """The lists of one Debian release, as plain text files.

    Attributes:
        release: what the release file says of itself (codename, suite, version, date ...).
        packages: the `Packages` index of the `main` component.
        translations: language tag as Debian writes it (`pt_BR`) to its `Translation` list; always
            with `en`.
    """

    release: Mapping[str, str]
    packages: Path
    translations: Mapping[str, Path]

    @property
    def files(self) -> dict[str, Path]:
        """Every list by a short name, `Packages` or `Translation-<language>`."""
        named = {f"Translation-{name}": path for name, path in self.translations.items()}
        return {"Packages": self.packages, **named}


@contextlib.contextmanager
def fetched_lists(languages: Sequence[str]) -> Iterator[DebianLists]:
    """Fetch the lists of this machine's Debian release; they are removed when the block ends.

    Args:
        languages: tags as Debian writes them, such as `de` and `pt_BR`; English is always fetched.

    Raises:
        ConfigError: Debian has no translations into one of `languages`; the offered are named.
        CorpusError: there is no apt, apt failed, or the machine has no Debian package source.
    """
    wanted = ["en", *(name for name in languages if name != "en")]
    with private_apt(COMMAND, WITHOUT_APT, languages=wanted) as apt:
        yield _found_lists(apt.update(), wanted)


def read_stanzas(path: Path, fields: Collection[str]) -> Iterator[dict[str, str]]:
    """Each stanza of a deb822 file in order, with only the named fields, one in memory at a time.

    Values keep their continuation lines, each with its leading space; bytes that are not UTF-8
    become U+FFFD.

    Source: Debian Policy, section 5.1, the syntax of control files.
    """
    stanza: dict[str, str] = {}
    lines: list[str] = []
    field = ""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            if line[0] in " \t":
                if field:
                    lines.append(line.rstrip("\n"))
                continue
            if field:
                stanza[field] = "\n".join(lines)
                field = ""
            if not line.strip():
                if stanza:
                    yield stanza
                    stanza = {}
                continue
            name, _, value = line.partition(":")
            if name in fields:
                field, lines = name, [value.strip()]
    if field:
        stanza[field] = "\n".join(lines)
    if stanza:
        yield stanza


def _found_lists(index: Index, languages: Sequence[str]) -> DebianLists:
    """The lists of these languages; a missing one is an error that quotes apt."""
    offered = _offered_languages(index.release_file)
    absent = [name for name in languages if name not in offered]
    if absent:
        listed = ", ".join(sorted(offered - {"en"})).replace("_", "-")
        raise ConfigError(
            f"`languages`: expected languages with translated descriptions in Debian "
            f"{index.codename} ({listed}), found {', '.join(absent).replace('_', '-')}. "
            "Take some of the listed."
        )
    translations = index.translations
    for language in languages:
        if language not in translations or not translations[language].is_file():
            raise CorpusError(
                f"{COMMAND}: expected apt to fetch Translation-{language}, found no list; apt "
                f"says: {index.last_line!r}. Check the network and run again. {WITHOUT_APT}"
            )
    return DebianLists(
        release=index.release,
        packages=index.packages,
        translations={language: translations[language] for language in languages},
    )


def _offered_languages(release_file: Path) -> frozenset[str]:
    """The languages that the release file lists descriptions in."""
    with release_file.open(encoding="utf-8", errors="replace") as stream:
        found = (_TRANSLATION.search(line.rstrip()) for line in stream)
        return frozenset(match.group(1) for match in found if match)
