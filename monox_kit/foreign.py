"""Text from outside (names of files, columns, labels, ids, URLs), made safe to show and to store.

Everything that monoxkit shows passes `shown` or `shown_lines`: errors where they are made, notes,
tables and JSON where the command line writes them. What it stores in a file that people publish
passes `stored_name` or `publishable`, and what a Markdown page quotes `markdown_code` or
`markdown_text`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# What a terminal obeys or nobody sees: C0, DEL and C1 controls, soft hyphen, Arabic letter mark,
# Mongolian vowel separator, zero-width space, direction marks, line and paragraph separators,
# embeddings, overrides and isolates, invisible operators, lone surrogates (bytes of a file name
# that are no UTF-8), byte-order mark, interlinear annotation, musical and tag characters. The
# zero-width joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji are written with them.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[{_UNSEEN}]")
_CONTROL_IN_LINES = re.compile(rf"(?![\n\t])[{_UNSEEN}]")

# `scheme://user:password@host`, with one slash where a path was made of it. A password may hold `/`
# and `@`, as keys of object stores do; a number before the first `/` is a port.
_PASSWORD = re.compile(
    r"([a-z][a-z0-9+.-]+:/+)[^\s/@:'\"]*:(?!:|\d+(?:/|$))(?:(?!:/)[^\s'\"])*@", re.IGNORECASE
)
# `scheme://token@host`. Before `@` Azure's schemes have the container, and logins their name.
_TOKEN = re.compile(
    r"(?<![a-z0-9+.-])(?!(?:abfss?|wasbs?|hdfs|ssh|sftp|ftps?|smb):/)([a-z][a-z0-9+.-]+:/+)[^\s/@:'\"]+@",
    re.IGNORECASE,
)
# Values of a URL's query whose names say that they let somebody in; `sig` is Azure's.
_QUERY = re.compile(
    r"([?&][^\s=&'\"#]*(?:token|secret|passw|pwd|signature|credential|key|auth|session)[^\s=&'\"#]*="
    r"|[?&]sig=)[^\s&'\"#]+",
    re.IGNORECASE,
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_CUT = "***"

# An absolute path with at least one folder, not the path of a URL.
_ABSOLUTE_PATH = re.compile(r"(?<![\w/.:~*-])/(?:[^\s/'\"`:,;()]+/)+([^\s/'\"`:,;()]+)")

# Characters that would begin markup in running text or end a table's cell.
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*|<>~$"})


def shown(text: object) -> str:
    """The text on one line, without credentials, its control characters as escapes (`\\x1b`)."""
    return _CONTROL.sub(_escape, without_credentials(str(text)))


def shown_lines(text: object) -> str:
    """As `shown`, but line ends and tabs stay."""
    return _CONTROL_IN_LINES.sub(_escape, without_credentials(str(text)))


def shown_json(json_text: str) -> str:
    """JSON with the same values whose control characters are JSON's own escapes.

    Args:
        json_text: as `json.dumps` wrote it, of values without credentials.
    """
    return _CONTROL_IN_LINES.sub(_escape_json, json_text)


def without_credentials(text: str) -> str:
    """The text with user names, passwords and tokens of its URLs cut."""
    if ":/" in text:
        text = _PASSWORD.sub(rf"\1{_CUT}@", text)
        text = _TOKEN.sub(rf"\1{_CUT}@", text)
        text = _QUERY.sub(rf"\1{_CUT}", text)
    return _HUB_TOKEN.sub(_CUT, text)


def cleaned(value: Any) -> Any:
    """A JSON value whose texts, keys included, have no credentials."""
    return _mapped(value, without_credentials)


def publishable(value: Any) -> Any:
    """A JSON value whose texts have neither credentials nor absolute paths, of which names stay."""
    return _mapped(value, lambda text: without_places(without_credentials(text)))


def without_places(text: str) -> str:
    """The text with every absolute path cut to its last part."""
    if "/" not in text:
        return text
    # Folders with a space in their name are known as wholes alone.
    for place in (Path.cwd(), _home(), Path(tempfile.gettempdir())):
        if place is not None and len(place.parts) > 1:
            text = text.replace(f"{place}/", "")
    return _ABSOLUTE_PATH.sub(r"\1", text)


def stored_name(reference: str) -> str:
    """How a record names a path, URL or hub name: without credentials and without its place.

    A relative path below the current folder stays, any other is known by its last part.
    """
    return "::".join(_stored(part) for part in reference.split("::"))


def stored_names(references: str) -> str:
    """`stored_name` of each of several that stand in one text, with a comma and a space between."""
    return ", ".join(map(stored_name, references.split(", ")))


def markdown_text(text: object) -> str:
    """The text on one line of Markdown, so that it shows as it is, not as markup, links or HTML."""
    line = shown(" ".join(str(text).split())).translate(_MARKUP)
    return line.replace("](", "]\\(").replace("&", "&amp;")


def markdown_code(text: object) -> str:
    """The text as a code span that nothing in it can end."""
    line = shown(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or not line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"


def csv_row(cells: Iterable[object]) -> str:
    """A row of CSV, ended by a line feed, which every reader takes for one row."""
    line = io.StringIO()
    # Python before 3.13 leaves a carriage return unquoted unless it is part of a line's end.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _stored(reference: str) -> str:
    reference = without_credentials(reference)
    scheme, is_url, path = reference.partition("://")
    if is_url and scheme not in ("file", "local"):
        return reference
    path = path if is_url else reference
    parts = Path(path).parts
    if Path(path).is_absolute() or path.startswith("~") or ".." in parts or not parts:
        name = Path(path).name
        return name if name not in ("", "..") else Path(os.path.expanduser(path)).resolve().name
    return path


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry and without HOME
        return None


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change) for each in value]
    return value


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    # repr writes `\n`, `\x1b`, `\u202e`, `\udcff`; the separators that it prints are none of these.
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"


def _escape_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
