"""Values of released rows: text that a corpus can hold, its lines, and ids that occur once."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from monox_kit.corpora.rows import shown
from monox_kit.errors import CorpusError
from monox_kit.unseen import is_blank

BLANK = "blank text"
# Scripts that write no space where a line of running text was broken.
_UNSPACED = frozenset({"ja", "zh", "zh_CN", "zh_TW", "km"})


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


def joined(left: str, right: str, language: str) -> str:
    """Two lines of one paragraph; between two characters of an unspaced script without a space.

    Args:
        left: a line, not empty.
        right: the next one, not empty.
        language: tag with an underscore, such as `zh_TW`.
    """
    if language in _UNSPACED and ord(left[-1]) > 0x2E7F and ord(right[0]) > 0x2E7F:
        return left + right
    return f"{left} {right}"


def normalized(text: str) -> str:
    """The text's letters in lower case with every number as 0: the key that duplicates share.

    Sources of one program in several versions (gcc-11, gcc-12) differ in nothing else.
    """
    lowered = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"\d+(?:[.:_-]\d+)*", "0", re.sub(r"[^\w.:-]+", " ", lowered)).split())


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
