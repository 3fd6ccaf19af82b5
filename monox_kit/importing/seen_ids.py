"""Which ids an earlier row had, in 8 bytes a row."""

from __future__ import annotations

import hashlib

import numpy as np

# Ids that are looked up in a Python set, before they are sorted in between the others.
_RECENT = 1 << 20


class SeenIds:
    """The ids of the rows so far, as digests of 64 bits.

    That two ids share one, and a row counts as a repetition by mistake, is expected N**2 / 2**65
    times, once in 37 files of 10**9 rows.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, key: str) -> bool:
        """Remember an id; whether it is new."""
        digest = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
        at = int(np.searchsorted(self._sorted, np.uint64(digest)))
        is_old = at < len(self._sorted) and int(self._sorted[at]) == digest
        if is_old or digest in self._recent:
            return False
        self._recent.add(digest)
        if len(self._recent) >= _RECENT:
            more = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, more]))
            self._recent = set()
        return True
