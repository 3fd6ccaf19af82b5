"""What stands inside a line of roff: fonts, sizes and motions go, named characters become Unicode.

Source: groff_char(7) for the characters, groff(7) for the forms of escapes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_COMMENT = re.compile(r'(?<!\\)((?:\\\\)*)\\["#].*')
_ESCAPE = re.compile(
    r"""\\(?:
        (?:[fFgkmMVY](?:\[[^\]]*\]|\(..|.)      # fonts, colours, variables
          |s(?:[-+]?\[[^\]]*\]|[-+]?\(..|[-+]?'[^']*'|[-+]\d|[1-3]\d|\d)
          |n[-+]?(?:\[[^\]]*\]|\(..|.)
          |[ABbDhHlLRSvwxXZ]'[^']*')
        |\*(?:\[(?P<string>[^\]]*)\]|\((?P<pair>..)|(?P<letter>.))
        |\[(?P<name>[^\]]*)\]
        |\((?P<two>..)
        |C'(?P<quoted>[^']*)'
        |N'(?P<number>\d{1,7})'
        |o'(?P<over>[^']*)'
        |(?P<one>.)
        |$)""",
    re.VERBOSE,
)
# Escapes of one character that print something else than that character.
_ONE = {
    **dict.fromkeys("&)%:/,|^c{}pudrz!", ""),
    **dict.fromkeys(" ~0ta", " "),
    "e": "\\",
    "'": "\u00b4",
}
_GLYPHS = {
    "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "bq": "‚", "Bq": "„",
    "Fo": "«", "Fc": "»", "fo": "‹", "fc": "›", "bu": "•", "em": "—", "en": "–", "hy": "-",
    "mi": "−", "pl": "+", "eq": "=", "sl": "/", "rs": "\\", "ul": "_", "ru": "_", "br": "│",
    "bv": "|", "or": "|", "ba": "|", "bb": "¦", "ha": "^", "ti": "~", "ga": "`", "aa": "´",
    "at": "@", "sh": "#", "Do": "$", "ct": "¢", "Po": "£", "Eu": "€", "Ye": "¥", "sc": "§",
    "ps": "¶", "dg": "†", "dd": "‡", "fm": "′", "sd": "″", "de": "°", "la": "⟨", "ra": "⟩",
    "lB": "[", "rB": "]", "lC": "{", "rC": "}", "r!": "¡", "r?": "¿", "12": "½", "14": "¼",
    "34": "¾", "S1": "¹", "S2": "²", "S3": "³", "Of": "ª", "Om": "º", "co": "©", "rg": "®",
    "tm": "™", "+-": "±", "mu": "×", "di": "÷", "->": "→", "<-": "←", "<>": "↔", "ua": "↑",
    "da": "↓", "rA": "⇒", "lA": "⇐", "<=": "≤", ">=": "≥", "!=": "≠", "==": "≡", "~=": "≅",
    "~~": "≈", "if": "∞", "mo": "∈", "sr": "√", "no": "¬", "mc": "µ", "ci": "○", "sq": "□",
    "OK": "✓", "lf": "⌊", "rf": "⌋", "lc": "⌈", "rc": "⌉", "ss": "ß", "ae": "æ", "AE": "Æ",
    "oe": "œ", "OE": "Œ", "/o": "ø", "/O": "Ø", "/l": "ł", "/L": "Ł", "-D": "Ð", "Sd": "ð",
    "Tp": "þ", "TP": "Þ", ".i": "ı", "oa": "å", "oA": "Å", "md": "⋅",
}  # fmt: skip
_GREEK = dict(zip("abgdezyhiklmncoprstufxqw", "αβγδεζηθικλμνξοπρστυφχψω", strict=True))
# The accent that stands before a letter, as a mark that combines with it.
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303", ":": "\u0308", ",": "\u0327",
    "v": "\u030c", "a": "\u0304", "h": "\u0328", "o": "\u030a",
}  # fmt: skip
_STRINGS = {"R": "®", "Tm": "™", "lq": "“", "rq": "”", "Aq": "'", "S": ""}


def without_comment(line: str) -> str:
    """The line up to a comment."""
    return _COMMENT.sub(r"\1", line)


def plain(text: str, strings: Mapping[str, str]) -> str:
    r"""The text as it is read: `\fB--all\fP` is `--all`, `\(bu` a bullet.

    Args:
        text: of one line, without a comment.
        strings: those that the page defines, by name, each plain already.
    """

    def character(match: re.Match[str]) -> str:
        found = match.groupdict()
        string = found["string"] or found["pair"] or found["letter"]
        if string is not None:
            return strings.get(string, _STRINGS.get(string, ""))
        name = found["name"] or found["two"] or found["quoted"]
        if name is not None:
            return _named(name)
        if found["number"] is not None:
            return _code_point(int(found["number"]))
        if found["over"] is not None:
            return found["over"][:1]
        one = found["one"] or ""
        return _ONE.get(one, one)

    return _ESCAPE.sub(character, text) if "\\" in text else text


def _named(name: str) -> str:
    """The character that roff calls so; nothing where it has no such character."""
    if name in _GLYPHS or len(name) == 1:
        return _GLYPHS.get(name, name)
    if match := re.fullmatch(r"u([0-9A-F]{4,6}(?:_[0-9A-F]{4,6})*)", name):
        parts = (_code_point(int(part, 16)) for part in match[1].split("_"))
        return unicodedata.normalize("NFC", "".join(parts))
    if match := re.fullmatch(r"char(\d{1,3})", name):
        return _code_point(int(match[1]))
    return _accented(*name) if len(name) == 2 else ""


def _accented(mark: str, letter: str) -> str:
    """A letter under an accent, or the Greek letter of `*a`; nothing for other pairs."""
    if mark == "*" and letter.lower() in _GREEK:
        greek = _GREEK[letter.lower()]
        return greek if letter.islower() else greek.upper()
    if mark in _ACCENTS and letter.isalpha():
        return unicodedata.normalize("NFC", letter + _ACCENTS[mark])
    return ""


def _code_point(number: int) -> str:
    """The character of a number; nothing where text cannot hold it."""
    is_text = 32 <= number < 0x110000 and not 0xD800 <= number < 0xE000
    return chr(number) if is_text else ""
