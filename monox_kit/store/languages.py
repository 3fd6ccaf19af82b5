"""How a store keeps the languages of its rows: one for all in the manifest, or one for each row."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from monox_kit.data import UNKNOWN_LANGUAGE
from monox_kit.store.format import FORMAT_VERSION, LANGUAGE_KEY, LANGUAGES_VERSION, StoreManifest


def keeping_languages(
    manifest: StoreManifest, languages: Collection[str], begun: StoreManifest | None
) -> StoreManifest:
    """The manifest of a store that keeps the languages of its rows.

    Args:
        manifest: all else of it.
        languages: the distinct languages of the rows, `und` for those that nothing tells.
        begun: the store that is continued; one of 0.1.0 keeps no languages. None for a new one.
    """
    if begun is not None and not knows_languages(begun):
        return manifest
    if len(languages) > 1:
        return replace(manifest, format_version=LANGUAGES_VERSION)
    (tag,) = languages
    told = None if tag == UNKNOWN_LANGUAGE else tag
    return replace(manifest, fingerprint={**manifest.fingerprint, LANGUAGE_KEY: told})


def knows_languages(manifest: StoreManifest) -> bool:
    """Whether the store was asked for its rows' languages; those of 0.1.0 were not."""
    return manifest.has_languages or LANGUAGE_KEY in manifest.fingerprint


def merged_languages(first: StoreManifest, parts: Iterable[StoreManifest]) -> StoreManifest:
    """`first` with the languages of stores that follow each other."""
    parts = list(parts)
    fingerprint = {key: value for key, value in first.fingerprint.items() if key != LANGUAGE_KEY}
    languages = {part.language for part in parts}
    if len(languages) > 1 or any(part.has_languages for part in parts):
        return replace(first, format_version=LANGUAGES_VERSION, fingerprint=fingerprint)
    if any(map(knows_languages, parts)):
        fingerprint[LANGUAGE_KEY] = first.language
    return replace(first, format_version=FORMAT_VERSION, fingerprint=fingerprint)
