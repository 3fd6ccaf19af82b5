"""Which language a row is in: its column, `language`, its file's name, its hub configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

from monox_kit.corpora.paths import COMPRESSION_SUFFIXES, HUB_PREFIX
from monox_kit.errors import ConfigError

# Source: ISO 639-1, the two-letter codes in use.
_CODE_LIST = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy "
    "da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu "
    "hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb "
    "lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om "
    "or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw "
    "ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh "
    "zu"
)
_CODES = frozenset(_CODE_LIST.split())
# Codes that are rather words or abbreviations (`log_to.csv`, `my_ids.csv`): not taken at the end
# of a name, or at its start. Between dots, where nothing else is usual, they are languages.
_WORDS = (
    "ab ae an as av be ch co cr ee ho ia id ie ii io is la li lo ml na ne no oj or os pi sc se so "
    "ss st te ti to ts tt ve vo"
)
_NOT_AT_END = frozenset(_WORDS.split())
_NOT_AT_START = _NOT_AT_END | {"am", "he", "it", "my"}
# Parts of file names between dots that look like codes of three letters and are none.
_ABBREVIATIONS = (
    "all bad bak big csv dev doc fin log new old out raw set sub tmp top tsv txt val xml zip"
)
_NOT_LANGUAGES = frozenset(_ABBREVIATIONS.split())
# `de`, `ast`, `pt_BR`, `zh-Hans`, `zh_Hant_TW`, `es-419`.
_SUBTAGS = r"(?:[_-][A-Z][a-z]{3})?(?:[_-](?:[A-Z]{2}|[0-9]{3}))?"
_TAG = re.compile(rf"([A-Za-z]{{2,3}})({_SUBTAGS})")
_AT_END = re.compile(rf"(?:^|[_-])([a-z]{{2}}|[A-Z]{{2}})({_SUBTAGS})$")
_AT_START = re.compile(rf"^([a-z]{{2}}|[A-Z]{{2}})({_SUBTAGS})[_-]")


def lang_from_name(path: str) -> str | None:
    """The language that a file's name or a hub dataset's configuration tells; None without one.

    Between dots any tag is taken: `test.de.jsonl.gz`, `tickets.DE.csv`, `test.ast.jsonl`. At an end
    of the name, behind or before `_` or `-`, it is one of ISO 639-1 that is no English word:
    `tickets_de.csv`, `test-pt_BR.tsv`, `de_test.jsonl`, `de.csv`. Of `hub:NAME:CONFIG` it is the
    configuration. The code is given in lower case, script and region as they are written.
    """
    if path.startswith(HUB_PREFIX):
        config = path.removeprefix(HUB_PREFIX).partition("@")[0].partition(":")[2]
        found = _TAG.fullmatch(config)
        return found[1].lower() + found[2] if found and found[1].lower() in _CODES else None
    parts = re.split(r"[/\\]", path)[-1].split(".")
    if len(parts) > 1 and f".{parts[-1].lower()}" in COMPRESSION_SUFFIXES:
        parts.pop()
    if len(parts) > 1:
        parts.pop()  # the format's suffix
    if len(parts) > 1 and (tag := _between_dots(parts[-1])):
        return tag
    for pattern, words in ((_AT_END, _NOT_AT_END), (_AT_START, _NOT_AT_START)):
        found = pattern.search(parts[-1])
        if found and found[1].lower() in _CODES - words:
            return found[1].lower() + found[2]
    return None


def told_languages(given: Sequence[str]) -> list[tuple[str, str]]:
    """Files and their languages, of `FILE=TAG` each.

    Raises:
        ConfigError: one has another form.
    """
    found = []
    for each in given:
        name, _, tag = each.rpartition("=")
        if not name or not re.fullmatch(r"[A-Za-z]{2,8}(?:[_-][A-Za-z0-9]{1,8})*", tag):
            raise ConfigError(
                f"`language`: expected FILE=TAG with a language tag such as de or pt-BR, found "
                f"{each!r}. Write it such as tickets.csv=de."
            )
        found.append((name, tag))
    return found


def language_of(name: str, told: Sequence[tuple[str, str]]) -> str | None:
    """The language of a file's rows that name none themselves; None where nothing tells it.

    Args:
        name: of a file or hub dataset.
        told: (file, tag) as `told_languages` gives them; the last one that fits counts.
    """
    for pattern, tag in reversed(told):
        if _fits(name, pattern):
            return tag
    return lang_from_name(name)


def require_used(told: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    """Check that every `--language FILE=TAG` is of a file that is read.

    Raises:
        ConfigError: one is of none.
    """
    for pattern, tag in told:
        if not any(_fits(name, pattern) for name in names):
            raise ConfigError(
                f"`language` {pattern}={tag}: no file of that name is read here; there are "
                f"{', '.join(names[:20])}. Write the name as it stands there, or its last part."
            )


def told_of(language: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Those of `FILE=TAG` that are of one of the files: several sets of files share the setting."""
    told = zip(language, told_languages(language))
    return tuple(one for one, (pattern, _) in told if any(_fits(name, pattern) for name in names))


def _fits(name: str, pattern: str) -> bool:
    """Whether a file's name, or the end of its path, is the given one or matches it as a glob."""
    return (
        name == pattern
        or name.endswith(f"/{pattern}")
        or (fnmatchcase(name, pattern) or fnmatchcase(PurePath(name).name, pattern))
    )


def _between_dots(part: str) -> str | None:
    """The tag that the last part of a name between dots is; None where it is none."""
    found = _TAG.fullmatch(part)
    if found is None or part in _NOT_LANGUAGES:
        return None
    code = found[1].lower()
    # Codes of three letters are too many to list; capitals alone are rather an abbreviation.
    return code + found[2] if code in _CODES or found[1].islower() else None
