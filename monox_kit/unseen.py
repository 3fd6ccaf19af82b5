"""Texts that nobody sees, names that only such characters tell apart, and slips of the pen."""

from __future__ import annotations

import difflib
import re
import unicodedata

# Controls and white space; braille's blank; and Unicode's Default_Ignorable_Code_Point.
# Source: DerivedCoreProperties.txt of Unicode 15.
_CONTROLS = "\x00-\x1f\x7f-\x9f"
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_VISIBLE = re.compile(rf"[^\s{_CONTROLS}{_IGNORABLE}]")
_REMOVED = re.compile(f"[{_IGNORABLE}]")
_SPACE = re.compile(rf"[\s{_CONTROLS}]+")

# Cyrillic and Greek letters that fonts draw as Latin ones.
# Source: Unicode's confusables.txt, the letters whose prototype is one basic Latin letter.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝАВЕЗКМНОРСТУХІЈЅԌԚԜοΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhqwABE3KMHOPCTYXIJSGQWoABEZHIKMNOPTYX",
)

# How alike a name and that of a file or folder must be to be taken for the same, mistyped;
# `roberta-large` and `roberta-base` are at 0.80.
_MISTYPED = 0.82


def is_blank(text: str) -> bool:
    """Whether no character of the text can be seen; so of the empty text."""
    return _VISIBLE.search(text) is None


def edits(one: str, other: str, most: int) -> int:
    """Edits between two words, exchanged neighbours being one; above `most` some larger number.

    Source: optimal string alignment; Damerau, "A technique for computer detection and correction of
    spelling errors" (1964).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        row = [i]
        for j, right in enumerate(other, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return last[-1]


def is_near(one: str, other: str) -> bool:
    """Whether two names differ by one letter, by two that changed places, or by little."""
    if max(len(one), len(other)) >= 3 and edits(one, other, 1) <= 1:
        return True
    return difflib.SequenceMatcher(None, one, other).ratio() >= _MISTYPED


def look(name: str) -> str:
    """What a name looks like: equal for names that differ by nothing that can be seen.

    White space counts as one space and not at all at the ends, composed and decomposed letters are
    one, characters without a glyph are none, and a Cyrillic or Greek letter is the Latin one that
    fonts draw it as.
    """
    seen = _SPACE.sub(" ", _REMOVED.sub("", name)).strip()
    return unicodedata.normalize("NFC", seen).translate(_LOOKALIKES)
