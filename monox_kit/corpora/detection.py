"""What a file's first bytes tell: another content than its name says, its encoding, its delimiter.

A guess is always told, with text that it was read as, so that a person can see whether it is right.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Sequence

from monox_kit.corpora.rows import Columns, shown
from monox_kit.errors import ConfigError, CorpusError

UTF_8 = "utf-8"
# Bytes of a file that its encoding and content are judged by.
HEAD_BYTES = 1 << 16

# Codecs whose line ends are found in what they decode to, by their names in Python. Those that
# are no character sets (zlib, idna, unicode_escape) are not among them.
_ENCODING_NAMES = (
    "utf-8 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be ascii "
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp437 cp850 cp852 cp866 "
    "cp874 "
    "iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 "
    "iso8859-10 iso8859-11 iso8859-13 iso8859-14 iso8859-15 iso8859-16 koi8-r koi8-u mac-roman "
    "gbk gb2312 gb18030 big5 big5hkscs shift_jis cp932 euc_jp iso2022_jp euc_kr cp949"
)
ENCODINGS = frozenset(_ENCODING_NAMES.split())
_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# First bytes, what has them, and what to do.
_UNPACK = "Unpack it, or end its name in {} so that it is unpacked while it is read."
_SIGNATURES = (
    (b"\x1f\x8b", "gzip data", _UNPACK.format(".gz")),
    (b"\x28\xb5\x2f\xfd", "zstd data", _UNPACK.format(".zst")),
    (b"BZh", "bzip2 data", "Unpack it first: .gz and .zst alone are read."),
    (b"\xfd7zXZ\0", "xz data", "Unpack it first: .gz and .zst alone are read."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and give the files in it."),
    (
        b"PK\x03\x04",
        "a zip archive or an Office file",
        "Unpack it, or save the sheet as CSV UTF-8.",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file", "Save the sheet as CSV."),
    (b"PAR1", "Parquet", "End its name in .parquet, or use `format` parquet."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet."),
    (b"%PDF-", "a PDF", "Give its text in one of the formats."),
    (b"SQLite format 3\0", "an SQLite database", "Write the table as CSV or Parquet."),
    (b"\x89HDF\r\n", "an HDF5 file", "Write the table as CSV or Parquet."),
    (b"\x80\x04\x95", "a Python pickle", "Pickles are never read: write the table as Parquet."),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file that it stands for",
        "Run `git lfs pull` in its repository.",
    ),
)
_PAGE = re.compile(rb"\s*<(?:!doctype html|html)[\s>]", re.IGNORECASE)

_DELIMITERS = (",", ";", "\t", "|")
# Characters of a text in a Western language that are not ASCII: one in ten, and seldom two in a
# row. Cyrillic, Greek and Asian texts have words of nothing else.
_MOST_HIGH = 0.2
_HIGH_RUN = re.compile(rb"[\x80-\xff]{4}")
_HIGH = re.compile(rb"[\x80-\xff]")
_LETTER = re.compile(rb"[A-Za-z]")
_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def refuse_other_content(head: bytes, name: str) -> None:
    """Check that a file's first bytes do not say that it holds something else than lines of text.

    Raises:
        CorpusError: they do.
    """
    for signature, content, step in _SIGNATURES:
        if head.startswith(signature):
            raise CorpusError(f"{name}: it holds {content}, which its name does not say. {step}")
    if _PAGE.match(head):
        raise CorpusError(
            f"{name}: it holds a web page, perhaps one that asks for a login. Download the file "
            "that was meant."
        )


def known_encoding(name: str) -> str:
    """Python's name of an encoding.

    Raises:
        ConfigError: there is none of that name, or it has no lines.
    """
    try:
        found = codecs.lookup(name).name.removesuffix("-sig")
    except (LookupError, ValueError):
        found = ""
    if found not in ENCODINGS:
        raise ConfigError(
            f"`encoding`: {shown(name)} is none that is read. Give one of "
            f"{', '.join(sorted(ENCODINGS))}."
        )
    return found


def encoding_of(head: bytes, name: str, guess: bool, note: Callable[[str], None]) -> str:
    """The encoding that a file's first bytes show; UTF-8 where they show no other.

    Args:
        head: the first bytes, `HEAD_BYTES` or all.
        name: of the file.
        guess: whether one of one byte a character may be guessed.
        note: told what is no UTF-8.

    Raises:
        CorpusError: it is not UTF-8 and cannot be guessed.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if encoding != UTF_8:
                note(f"{name}: read as {encoding}, as its byte order mark says")
            return encoding
    if (guessed := _without_mark(head)) is not None:
        note(f"{name}: read as {guessed}, by its zero bytes; set it with `encoding`")
        return guessed
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(head)
        return UTF_8
    except UnicodeDecodeError as error:
        at = error.start
    if not guess or _is_damaged(head):
        return UTF_8  # the reader names line and byte
    line = head.count(b"\n", 0, at) + 1
    if not _looks_western(head):
        raise CorpusError(
            f"{name}, line {line}: expected UTF-8, found byte 0x{head[at]:02x} at byte offset "
            f"{at}, in an encoding that cannot be guessed. Name it, such as `encoding` cp1251, "
            "shift_jis, gb18030 or cp1252, or convert the file to UTF-8."
        )
    sample = head[max(0, at - 20) : at + 20].decode("cp1252").splitlines()
    text = next(each for each in sample if not each.isascii()).strip()
    note(
        f"{name}: no UTF-8, read as cp1252, which is guessed: line {line} has {text!r}. Where that "
        "is wrong, name its `encoding`"
    )
    return "cp1252"


def delimiter_of(
    header: str, columns: Columns, default: str, parse: Callable[[str, str], Sequence[str]]
) -> str:
    """The delimiter under which a header has the text's column; else the one of most fields.

    Args:
        header: the first line.
        columns: those that are read.
        default: what the format's name says; it counts where it fits.
        parse: the fields of a line under a delimiter.
    """
    found: dict[str, Sequence[str]] = {}
    for delimiter in (default, *_DELIMITERS):
        try:
            found[delimiter] = parse(header, delimiter)
        except csv.Error:
            continue
    for delimiter, fields in found.items():
        if columns.text in fields:
            return delimiter
    return max(found, key=lambda each: len(found[each]), default=default)


def _without_mark(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: every other byte of ASCII characters is zero."""
    pairs = len(head) // 2
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if pairs < 2 or max(even, odd) < 0.4 * pairs or min(even, odd) > 0.2 * max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_damaged(head: bytes) -> bool:
    """Whether it is UTF-8 with wrong bytes in it, not another encoding."""
    right = len(_SEQUENCE.findall(head))
    return right > 0 and right >= len(_HIGH.findall(_SEQUENCE.sub(b"", head)))


def _looks_western(head: bytes) -> bool:
    """Whether the bytes can be cp1252, of words that are ASCII for the most part."""
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters, high = len(_LETTER.findall(head)), len(_HIGH.findall(head))
    return high <= _MOST_HIGH * (letters + high) and _HIGH_RUN.search(head) is None
