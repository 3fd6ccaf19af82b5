"""Values of released rows: text that a corpus can hold, and ids that occur once."""

from __future__ import annotations

from typing import Any

from monox_kit.corpora.rows import shown
from monox_kit.errors import CorpusError
from monox_kit.unseen import is_blank

BLANK = "blank text"


def text_of(value: Any, where: str, field: str) -> str | None:
    """A field's text without white space at its ends; None where nothing of it can be seen.

    Raises:
        CorpusError: it is no text, or none that UTF-8 can hold.
    """
    if type(value) is not str:
        raise CorpusError(
            f"{where}: expected text in {field!r}, found {type(value).__name__}. The file is "
            "damaged: fetch it again."
        )
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise CorpusError(
            f"{where}: expected text in {field!r}, found characters that no text has: "
            f"{shown(value)}. The file is damaged: fetch it again."
        )
    return None if is_blank(value) else value.strip()


class Ids:
    """Makes the ids of one file's rows distinct: the second `7e` becomes `7e#2`.

    Attributes:
        num_repeated: how many ids had occurred before.
    """

    def __init__(self) -> None:
        self.num_repeated = 0
        self._seen: dict[str, int] = {}

    def distinct(self, key: str) -> str:
        """The id, with a number behind it where it has occurred before."""
        if key not in self._seen:
            self._seen[key] = 1
            return key
        self.num_repeated += 1
        while True:
            self._seen[key] += 1
            other = f"{key}#{self._seen[key]}"
            if other not in self._seen:
                self._seen[other] = 1
                return other
