"""Ways to damage a complete store of three shards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monox_kit.errors import StoreCorrupt, StoreError
from monox_kit.store.format import store_digest
from monox_kit.store.record import encode_record
from tests.store_samples import manifest, write_store

SHARD = "shards/000001"
RECORD = f"{SHARD}/shard.json"
STORE = "store.json"
COMPLETE = "complete.json"

Act = Callable[[Path], Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind of damage.

    Attributes:
        act: does it to a store's folder.
        place: the end of the path that the error names; several by `|` where either may be first.
        says: a part of what the error says is expected or found.
        error: its type.
    """

    act: Act
    place: str
    says: str
    error: type[StoreError] = StoreCorrupt


# Acts


def lose(path: str) -> Act:
    """Remove a file or a folder."""

    def act(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return act


def put(path: str, content: bytes) -> Act:
    """Replace what stands at a path by a file."""

    def act(folder: Path) -> None:
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
        (folder / path).write_bytes(content)

    return act


def put_folder(path: str) -> Act:
    return lambda folder: ((folder / path).unlink(), (folder / path).mkdir())


def put_pipe(path: str) -> Act:
    return lambda folder: ((folder / path).unlink(), os.mkfifo(folder / path))


def resize(path: str, num_bytes: int) -> Act:
    """Cut a file, or let it end in a hole."""
    return lambda folder: os.truncate(folder / path, num_bytes)


def append(path: str, extra: bytes) -> Act:
    return lambda folder: put(path, (folder / path).read_bytes() + extra)(folder)


def replace(path: str, old: bytes, new: bytes) -> Act:
    """Change bytes in place, with no digest made to fit."""

    def act(folder: Path) -> None:
        content = (folder / path).read_bytes()
        assert old in content
        (folder / path).write_bytes(content.replace(old, new, 1))

    return act


def link(path: str) -> Act:
    """Move what stands at a path out of the store and link to it."""

    def act(folder: Path) -> None:
        target = folder.parent / "elsewhere"
        shutil.move(folder / path, target)
        (folder / path).symlink_to(target)

    return act


def link_to_nothing(path: str) -> Act:
    return lambda folder: (lose(path)(folder), (folder / path).symlink_to("nothing"))


def rewrite(path: str, change: Callable[[dict[str, Any]], Any]) -> Act:
    """Change a record's values and give it a digest that fits, as a hostile hand would."""

    def act(folder: Path) -> None:
        value = json.loads((folder / path).read_bytes())
        del value["record_digest"]
        change(value)
        (folder / path).write_bytes(encode_record(value, folder / path))

    return act


def set_in(path: str, *keys: Any, to: Any) -> Act:
    """Set one value of a record, its digest made to fit."""

    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return rewrite(path, change)


def pop(path: str, key: str) -> Act:
    return rewrite(path, lambda value: value.pop(key))


def sign(path: str, old: bytes, new: bytes) -> Act:
    """Change a record's text and give it a digest that fits."""

    def act(folder: Path) -> None:
        content = (folder / path).read_bytes()
        body = content[: content.rindex(b'  "record_digest"')]
        assert old in body
        body = body.replace(old, new, 1)
        digest = hashlib.sha256(body).hexdigest()
        (folder / path).write_bytes(body + f'  "record_digest": "{digest}"\n}}\n'.encode())

    return act


def swap(folder: Path) -> None:
    """Exchange two shards."""
    shards = folder / "shards"
    (shards / "000000").rename(shards / "x")
    (shards / "000001").rename(shards / "000000")
    (shards / "x").rename(shards / "000001")


def foreign(path: str) -> Act:
    """Put the same part of a store of another teacher in its place."""

    def act(folder: Path) -> None:
        other = write_store(folder.parent / "other", manifest(fingerprint={"teacher": "other"}))
        lose(path)(folder)
        shutil.move(other / path, folder / path)

    return act


def header(name: str, text: str, *, version: bytes = b"\x01\x00") -> Act:
    """Give an array another header of 128 bytes."""

    def act(folder: Path) -> None:
        path = folder / SHARD / name
        claim = b"\x93NUMPY" + version + b"\x76\x00" + text.encode().ljust(117) + b"\n"
        path.write_bytes(claim + path.read_bytes()[128:])

    return act


def forge(name: str, change: Callable[[Any], Any]) -> Act:
    """Change an array and every digest above it: only the format's own rules can tell."""

    def act(folder: Path) -> None:
        path = folder / SHARD / name
        array = np.load(path)
        content = path.read_bytes()[:128] + change(array).tobytes()
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        set_in(RECORD, "files", name, "sha256", to=sha256)(folder)
        fit_records(folder)

    return act


def fit_records(folder: Path) -> None:
    """Let every record fit those that it depends on, as they are."""
    digests = [digest_in(folder / STORE)]
    for index in range(3):
        path = f"shards/00000{index}/shard.json"
        set_in(path, "store", to=digests[0])(folder)
        digests.append(digest_in(folder / path))
    set_in(COMPLETE, "digest", to=store_digest(digests[0], digests[1:]))(folder)


def digest_in(path: Path) -> str:
    """What a record says its digest is."""
    return str(json.loads(path.read_bytes())["record_digest"])


def at(index: Any, value: Any) -> Callable[[Any], Any]:
    """A change of values of an array."""

    def change(array: Any) -> Any:
        array[index] = value
        return array

    return change
