"""SHA-256 digests of files, folders and JSON values: what fingerprints are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def digest_bytes(content: bytes) -> str:
    """The SHA-256 of `content`, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_json(value: Any) -> str:
    """The SHA-256 of `value` as compact JSON with sorted keys: equal values, equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())


def digest_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def encode_row(*fields: str | Sequence[str] | None) -> bytes:
    """A row's fields as bytes that no other row has. None differs from the empty string."""
    parts = []
    for field in fields:
        if field is None:
            parts.append(b"\xff\xff\xff\xff\xff\xff\xff\xff")
        elif not isinstance(field, str):  # several texts: a length that no text has, their number
            parts += b"\xfe\xff\xff\xff\xff\xff\xff\xff", len(field).to_bytes(8, "little")
            parts.append(encode_row(*field))
        else:
            encoded = field.encode()
            parts += len(encoded).to_bytes(8, "little"), encoded
    return b"".join(parts)


class RowDigest:
    """A running digest over rows of text fields; equal only for equal rows in equal order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, *fields: str | Sequence[str] | None) -> None:
        """Include one row. None differs from the empty string."""
        self.add_encoded(encode_row(*fields))

    def add_encoded(self, row: bytes) -> None:
        """Include one row as `encode_row` gave it."""
        self._hash.update(row)

    def hexdigest(self) -> str:
        """The digest of the rows so far, in hexadecimal."""
        return self._hash.hexdigest()
