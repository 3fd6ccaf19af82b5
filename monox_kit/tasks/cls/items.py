"""Reviews of CLS as its files are released: items in what looks like XML.

The files are read by their own few rules and by no XML parser: there is nothing in them that a
parser could be made to load or to multiply, and a damaged place is told by its line.

Source: Prettenhofer and Stein (2010), cls-acl10-unprocessed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from monox_kit.corpora.blocks import read_blocks
from monox_kit.corpora.detection import known_encoding
from monox_kit.corpora.paths import SourceFile
from monox_kit.corpora.rows import Meter, place, shown
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.tasks.members import in_encoding, lines_of

_BEGIN, _END = "<item>", "</item>"
_AROUND = re.compile(r"\s*(?:<\?xml[^<>]*\?>|<(/?)items>)")
_DECLARED = re.compile(rb"<\?xml[^<>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_FIELD = re.compile(r"<(rating|text|summary)(?:\s[^<>]*)?(?:/>|>(.*?)</\1\s*>)", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
# The longest review is some 100,000 characters.
_MAX_ITEM_CHARS = 16 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One review.

    Attributes:
        where: its file and first line.
        number: its position in the file, from 0.
        rating: 1 to 5 stars.
        text: the review.
        summary: its title; empty where it has none.
    """

    where: str
    number: int
    rating: float
    text: str
    summary: str


def read_items(file: SourceFile) -> Iterator[Item]:
    """The items of a file in order, one in memory at a time.

    Raises:
        CorpusError: the file is cut or damaged; the message names file and line.
    """
    for number, (line, body) in enumerate(_bodies(_as_declared(file))):
        yield _item(body, place(file.name, "line", line), number)


def _as_declared(file: SourceFile) -> SourceFile:
    """The file in the encoding that its first line declares, unless the user has named one."""
    if file.dialect.encoding is not None:
        return file
    head = next(read_blocks(file, Meter()), b"")[:1024]
    declared = _DECLARED.search(head)
    if declared is None:
        return file
    name = declared[1].decode("ascii")
    try:
        known_encoding(name)
    except ConfigError:
        raise CorpusError(
            f"{place(file.name, 'line', 1)}: it declares the encoding {shown(name)}, which is none "
            "that is read. Name the right one with `encoding`."
        ) from None
    return in_encoding(file, name)


def _bodies(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Of each item the line that it begins in, and what stands between its tags."""
    begun: int | None = None
    is_open = False
    parts: list[str] = []
    num_chars = number = 0
    for number, line in lines_of(file):
        rest = line
        while rest:
            where = place(file.name, "line", number)
            if begun is None:
                before, tag, rest = rest.partition(_BEGIN)
                is_open = _require_nothing(before, is_open, where)
                if tag:
                    begun, parts, num_chars = number, [], 0
                continue
            body, tag, behind = rest.partition(_END)
            if _BEGIN in body:
                raise CorpusError(
                    f"{where}: an item begins here, and the one that begins in line {begun} has no "
                    "end. The file is damaged: fetch it again."
                )
            parts.append(body)
            num_chars += len(body) + 1
            rest = behind
            if tag:
                yield begun, "\n".join(parts)
                begun = None
            elif num_chars > _MAX_ITEM_CHARS:
                raise CorpusError(
                    f"{place(file.name, 'line', begun)}: expected an item of at most "
                    f"{_MAX_ITEM_CHARS:,} characters, found a longer one. The file is damaged: "
                    "fetch it again."
                )
    if begun is not None or is_open:
        what = "the file ends" if begun is None else f"the item of line {begun} ends"
        missing = "</items>" if begun is None else _END
        raise CorpusError(
            f"{place(file.name, 'line', number)}: {what} without {missing}. The file was cut "
            "short: fetch it again."
        )


def _require_nothing(text: str, is_open: bool, where: str) -> bool:
    """Whether the list of items is open behind some text between items, which may hold no other."""
    while text.strip():
        found = _AROUND.match(text)
        if found is None:
            raise CorpusError(
                f"{where}: expected an item, found {shown(text.strip()[:60])}. Give the file as it "
                "was released."
            )
        if found[1] is not None:
            is_open = not found[1]
        text = text[found.end() :]
    return is_open


def _item(body: str, where: str, number: int) -> Item:
    """An item of what stands between its tags."""
    fields: dict[str, str] = {}
    for name, content in _FIELD.findall(body):
        fields.setdefault(name, _plain(content))
    absent = [name for name in ("rating", "text") if name not in fields]
    if absent:
        raise CorpusError(
            f"{where}: expected rating and text in the item, found no {' and no '.join(absent)}. "
            "The file is damaged: fetch it again."
        )
    try:
        rating = float(fields["rating"])
    except ValueError:
        rating = 0.0
    if not 1 <= rating <= 5:
        raise CorpusError(
            f"{where}: expected a rating of 1 to 5, found {shown(fields['rating'])}. The file is "
            "damaged: fetch it again."
        )
    return Item(where, number, rating, fields["text"], fields.get("summary", ""))


def _plain(content: str) -> str:
    """Characters instead of entities; what CDATA holds is taken as it is."""
    parts = _CDATA.split(content)
    return "".join(part if index % 2 else html.unescape(part) for index, part in enumerate(parts))
