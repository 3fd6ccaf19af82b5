"""Globs of local files: `*`, `?`, `[...]` within a name, `**` for any folders."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from monox_kit.cache import true_folders
from monox_kit.errors import CorpusError

_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"


def has_pattern(path: str) -> bool:
    """Whether a path has characters of a glob."""
    return _MAGIC.search(path) is not None


def matching_files(pattern: str) -> list[str]:
    """What matches and is no folder, sorted; names that begin with a dot match only a dot.

    `**` goes into folders, not into links to folders: those may lead anywhere, round in circles
    too.

    Raises:
        CorpusError: a match is a link, or lies behind one, that leads out of the folder that the
            pattern begins with. Someone else may have put it there; named by itself it is read.
    """
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if has_pattern(part))
    top = "/".join(parts[:fixed])
    if fixed:
        top += "/"
    found = sorted(path for path in set(_expand(top, parts[fixed:])) if not os.path.isdir(path))
    inside = true_folders(Path(top))
    for path in found:
        target = Path(os.path.realpath(path))
        if not any(target.is_relative_to(folder) for folder in inside):
            raise CorpusError(
                f"{path}: it leads to {target}, out of the folder {top or '.'} that the pattern "
                "names. Give this file by its own name if it is meant."
            )
    return found


def _expand(top: str, parts: Sequence[str]) -> Iterator[str]:
    """The paths below `top`, which is empty or ends with a slash, that the parts match."""
    part, rest = parts[0], parts[1:]
    if part == _ANY_FOLDERS:
        while rest and rest[0] == _ANY_FOLDERS:  # of several in a row one says it all
            rest = rest[1:]
        rest = rest or ["*"]
        yield from _expand(top, rest)
        for name in _names(top):
            folder = f"{top}{name}"
            if not name.startswith(".") and os.path.isdir(folder) and not os.path.islink(folder):
                yield from _expand(f"{folder}/", parts)
        return
    names = [part] if not has_pattern(part) else _matching(top, part)
    for name in names:
        path = f"{top}{name}"
        if rest and os.path.isdir(path):
            yield from _expand(f"{path}/", rest)
        elif not rest and os.path.lexists(path):
            yield path


def _matching(folder: str, part: str) -> list[str]:
    hidden = part.startswith(".")
    return [
        name
        for name in _names(folder)
        if name.startswith(".") == hidden and fnmatch.fnmatchcase(name, part)
    ]


def _names(folder: str) -> list[str]:
    """What stands in a folder; nothing where it cannot be listed, as for a shell."""
    try:
        return sorted(os.listdir(folder or "."))
    except OSError:
        return []
