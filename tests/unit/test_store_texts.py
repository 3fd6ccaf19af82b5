"""Texts out of bytes: every way agrees with Python's decoder, and none reads outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from monox_kit.store.texts import decode_run, decode_text, decode_texts, require_utf8

# Every kind of first and following byte of UTF-8, and the borders of what may follow which.
BYTES = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4)


def arrays(texts: Sequence[bytes]) -> tuple[Any, Any]:
    """Content and offsets of some texts."""
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), ends


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def accepts(read: Callable[..., Any], *arguments: Any) -> bool:
    try:
        read(*arguments)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("before", [b"", b"0123456789abcdef"])
def test_what_python_takes_is_what_verifying_takes(length: int, before: bytes) -> None:
    wrong = []
    for tail in product(BYTES, repeat=length):
        if length == 4 and tail[0] < 0xF0:
            continue  # no more than a shorter one
        text = before + bytes(tail)
        if accepts(require_utf8, *arrays([b"", text])) != is_utf8(text):
            wrong.append(text)
    assert not wrong


def test_all_ways_give_the_same_texts() -> None:
    texts = ["plain", "", "café", "日本語", "🎲", "a\0b", ""]
    content, offsets = arrays([text.encode() for text in texts])
    assert decode_run(content, offsets) == texts
    assert decode_texts(content, offsets[:-1], offsets[1:]) == texts
    assert [decode_text(content, int(a), int(b)) for a, b in pairwise(offsets)] == texts
    assert decode_run(*arrays([b"", b""])) == ["", ""]


@pytest.mark.parametrize("offsets", [[0, 4], [-1, 2], [2, 1], [0, 4, 3], [0, 2**62]])
def test_offsets_outside_are_refused_where_memory_goes_on(offsets: list[int]) -> None:
    content = np.frombuffer(b"abcdef", np.uint8)[:3]
    ends = np.array(offsets, np.int64)
    for read in (decode_run, require_utf8):
        with pytest.raises(ValueError, match="into 3 bytes"):
            read(content, ends)
    with pytest.raises(ValueError, match="into 3 bytes"):
        decode_texts(content, ends[:-1], ends[1:])


def test_a_character_is_not_shared_by_two_texts() -> None:
    content, offsets = arrays(["é".encode()[:1], "é".encode()[1:]])
    for read in (decode_run, require_utf8):
        with pytest.raises(ValueError, match=r"UTF-?8|utf-8"):
            read(content, offsets)
