"""Canaries: files that no hostile input may get read, written or run.

A watch of the kernel's (inotify) sees every open of a canary: by Python, Rust or C++, in any
process.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
from pathlib import Path
from typing import Any

SENTINEL = "canary-7f3a91 nobody reads this line"

# Source: inotify(7), linux/inotify.h.
_EVENTS = {0x1: "read", 0x2: "written", 0x4: "changed", 0x20: "opened", 0x400: "deleted"}
_EVENTS |= {0x800: "moved"}
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Canary:
    """A secret beside a hostile input, and a marker that its code would leave.

    Attributes:
        secret: a file with `SENTINEL` in it.
        marker: stands once the canary's code has run.
        code: Python source that makes the marker.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.secret = folder / "secret.txt"
        self.secret.write_text(f"{SENTINEL}\n" * 3)
        self.marker = folder / "marker"
        self.code = f"open({str(self.marker)!r}, 'w').close()\n"
        self._watch = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.guard(self.secret)

    def guard(self, path: Path) -> Path:
        """Watch one more file; returns it."""
        if _libc.inotify_add_watch(self._watch, os.fsencode(path), sum(_EVENTS)) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))
        return path

    def pickled(self) -> bytes:
        """A pickle that makes the marker when it is loaded."""
        return pickle.dumps(_Runs(self.code))

    def touched(self) -> list[str]:
        """What happened to the canaries since the last call; empty where nothing did."""
        try:
            found = os.read(self._watch, 1 << 16)
        except BlockingIOError:
            found = b""
        happened = []
        while found:
            _, mask, _, length = _HEADER.unpack_from(found)
            happened += [name for bit, name in _EVENTS.items() if mask & bit]
            found = found[_HEADER.size + length :]
        return sorted({*happened, *(["run"] if self.marker.exists() else [])})

    def require_untouched(self, *outputs: Path) -> None:
        """Assert that no canary was touched, and that no file below `outputs` holds the secret."""
        assert self.touched() == []
        files = [path for folder in outputs for path in [folder, *folder.rglob("*")]]
        leaked = [path for path in files if path.is_file() and SENTINEL in _text(path)]
        assert leaked == []

    def close(self) -> None:
        """End the watch."""
        os.close(self._watch)


class _Runs:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def _text(path: Path) -> str:
    return path.read_bytes().decode("latin-1")
