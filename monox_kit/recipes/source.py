"""Where recipes stand: files, and those that come along; and messages that point into them."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from monox_kit.errors import ConfigError
from monox_kit.foreign import shown

_SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class Source:
    """A recipe's file, which messages point into.

    Attributes:
        origin: its path.
        text: what it holds.
    """

    origin: str
    text: str

    def where(self, *keys: str) -> str:
        """File, line and table of a key; of one that a change has added, the file alone.

        The line is that of the statement with which the key comes into what the file's lines so
        far mean. They are read again and again, which an error in a file of 100 lines allows.
        """
        begins, lines = 1, self.text.splitlines()
        for stop in range(1, len(lines) + 1):
            try:
                found: Any = tomllib.loads("\n".join(lines[:stop]))
            except tomllib.TOMLDecodeError:
                continue  # in the middle of a statement of several lines
            for key in keys:
                found = found.get(key) if isinstance(found, dict) else None
            if found is not None:
                table = keys if isinstance(found, dict) else keys[:-1]
                named = f", [{'.'.join(table)}]" if table else ""
                return f"{self.origin}, line {begins}{named}"
            begins = stop + 1
        return f"{self.origin}, {'.'.join(keys)} as it is set"

    def require_known(self, name: Any, known: Iterable[str], what: str, *keys: str) -> None:
        """Refuse a name that is not known, with the closest that are.

        Raises:
            ConfigError: it is not; the message begins with the place of `keys`.
        """
        names = list(known)
        if name not in names:
            raise ConfigError(
                f"{self.where(*keys)}: {shown(name)} is no {what}. {closest(str(name), names)}"
            )


def shipped() -> list[str]:
    """The names of the recipes that come along."""
    folder = resources.files("monox_kit.recipes")
    return sorted(
        p.name.removesuffix(_SUFFIX) for p in folder.iterdir() if p.name.endswith(_SUFFIX)
    )


def as_keys(message: object) -> str:
    """A message of the library, which names settings in backticks, with a recipe's keys instead."""
    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", r"\1", str(message))


def closest(name: str, known: Iterable[str]) -> str:
    """The known names that are near one, or all of them, for a message."""
    names = list(dict.fromkeys(map(str, known)))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"The closest are {', '.join(near)}."
    return f"There are {', '.join(names)}." if names else "There is none."


def find_recipe(reference: str) -> tuple[str, Source]:
    """The name and the file of a recipe."""
    path = Path(reference)
    if path.is_file():
        try:  # some editors begin a file with a byte order mark
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{reference}: expected UTF-8, found {error}. Save it so.") from error
        return path.name.removesuffix(_SUFFIX), Source(reference, text)
    name = reference.removesuffix(_SUFFIX)
    if name not in shipped():
        raise ConfigError(
            f"`recipe` {reference}: there is no such file, and no recipe of that name. "
            f"{closest(name, shipped())}"
        )
    file = resources.files("monox_kit.recipes") / f"{name}{_SUFFIX}"
    return name, Source(file.name, file.read_text(encoding="utf-8"))
