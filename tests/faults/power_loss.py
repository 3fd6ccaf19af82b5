"""What a disk may hold after the power went: every state that a recorded trace allows.

What the model takes for legal is what POSIX promises, no more, and what ext4, xfs and disks with
volatile caches were seen to do within that:

- fsync of a file makes the bytes written so far durable, and nothing else: not the file's name.
  fsync of a folder makes its entries so far durable: names, renames, removals; not what is in them.
- A folder's other entries are there or not, each change by itself and in any order; a rename is
  there whole or not at all (the journals of ext4 and xfs keep it in one transaction). A folder that
  has lost its own name is gone with all that is in it, synced or not: nobody can reach it.
- A file's other bytes are, for every block of 512 by itself, new, old, or zero where the file was
  shorter before (its length is in the journal before its blocks are on the disk: ext4's
  data=writeback, xfs without its zeroing). Its length may be any block's end up to the new one, or
  any byte: a torn write. Blocks may also hold what lay on the disk before, of any file.
- ext4 and xfs order the changes of names by their journal: states that kept all changes up to one
  and none after it are among those that are built. In data=ordered mode they are stricter still
  than the model; a store that stands the model stands them.

Not modelled: a disk that lies about fsync, and damage to what was durable. `verify` is for those.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk_trace import (
    ROOT,
    Entry,
    Make,
    Promise,
    Remove,
    Rename,
    Resize,
    Sync,
    Trace,
    Tree,
    Write,
    change_entries,
    changed_bytes,
    tree_of,
)

BLOCK_BYTES = 512  # what a disk writes whole
ALL_LOST = "all lost"

# Whether a change of names, given by its position in the trace, is on the disk.
Kept = Callable[[int], bool]
# What a file holds, from its durable bytes and those with all that was written since.
Content = Callable[[bytes, bytes], bytes]


@dataclass(frozen=True, slots=True)
class State:
    """What the disk holds.

    Attributes:
        tree: files and folders.
        point: operations that had happened.
        how: what became of those that were not durable.
        promised: what must be there and whole.
        is_sharp: whether a promise was the last that happened, and all that could be lost is lost.
    """

    tree: Tree
    point: int
    how: str
    promised: frozenset[str]
    is_sharp: bool = False

    def materialise(self, root: Path) -> None:
        """Write it into an empty folder."""
        for path, content in self.tree.items():  # parents come before what is in them
            if content is None:
                (root / path).mkdir()
            else:
                (root / path).write_bytes(content)


@dataclass
class _Folder:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, Entry]] = field(default_factory=list)

    def entries(self, kept: Kept) -> dict[str, int]:
        found = dict(self.durable)
        for position, operation in self.pending:
            if kept(position):
                change_entries(found, operation)
        return found


@dataclass
class _File:
    durable: bytes = b""
    content: bytes = b""


def states(
    trace: Trace, *, seed: int, draws: int = 3, points: range | None = None
) -> Iterator[State]:
    """The distinct states that a power loss at any point of the trace may leave.

    Args:
        trace: what happened to a folder that was empty, and itself durable.
        seed: of what is drawn.
        draws: random states at every point, next to those that are always built.
        points: positions in the trace; None for all, its end among them.
    """
    folders, files = {ROOT: _Folder()}, {}
    promised: set[str] = set()
    seen: set[tuple[bytes, frozenset[str]]] = set()
    for point in range(len(trace.operations) + 1):
        if points is None or point in points:
            chance = random.Random(f"{seed} {point}")
            for how, kept, content in _outcomes(chance, point, draws):
                tree = tree_of(
                    {node: folder.entries(kept) for node, folder in folders.items()},
                    {
                        node: content(file.durable, file.content)
                        if file.durable != file.content
                        else file.durable
                        for node, file in files.items()
                    },
                )
                key = (tree_digest(tree), frozenset(promised))
                if key not in seen:
                    seen.add(key)
                    is_last = point > 0 and isinstance(trace.operations[point - 1], Promise)
                    yield State(tree, point, how, key[1], is_last and how == ALL_LOST)
        if point < len(trace.operations):
            operation = trace.operations[point]
            match operation:
                case Make(parent, _, node, is_folder):
                    if is_folder:
                        folders[node] = _Folder()
                    else:
                        files[node] = _File()
                    folders[parent].pending.append((point, operation))
                case Rename() | Remove():
                    folders[operation.parent].pending.append((point, operation))
                case Write(node) | Resize(node):
                    files[node].content = changed_bytes(files[node].content, operation)
                case Sync(node):
                    if node in files:
                        files[node].durable = files[node].content
                    else:
                        folders[node].durable = folders[node].entries(lambda _: True)
                        folders[node].pending.clear()
                case Promise(what):
                    promised.add(what)


def tree_digest(tree: Tree) -> bytes:
    """Equal for equal trees."""
    digest = hashlib.sha256()
    for path, content in sorted(tree.items()):
        kind = b"folder" if content is None else hashlib.sha256(content).digest()
        digest.update(f"{path}\0".encode() + kind)
    return digest.digest()


def _outcomes(chance: random.Random, point: int, draws: int) -> Iterator[tuple[str, Kept, Content]]:
    """Names and rules of what becomes of the changes that are not durable."""

    def everything(position: int) -> bool:
        return True

    yield ALL_LOST, lambda _: False, _old
    yield "all there", everything, _new
    for content in (_old, _zeros, _torn(chance), _blocks(chance, "hole"), _blocks(chance, "stale")):
        yield f"names there, bytes {content.__name__.strip('_')}", everything, content
    last = chance.randrange(point + 1)
    yield f"names up to {last}", lambda position: position <= last, _new
    for _ in range(draws):
        lost = frozenset(position for position in range(point) if chance.random() < 0.5)
        content = chance.choice(
            [_old, _new, _zeros, _torn(chance), _blocks(chance, "any"), _blocks(chance, "stale")]
        )
        how = f"some names, bytes {content.__name__.strip('_')}"
        yield how, lambda position, lost=lost: position not in lost, content


def _old(durable: bytes, content: bytes) -> bytes:
    return durable


def _new(durable: bytes, content: bytes) -> bytes:
    return content


def _zeros(durable: bytes, content: bytes) -> bytes:
    """The new length is there, the bytes are not."""
    return durable[: len(content)].ljust(len(content), b"\0")


def _torn(chance: random.Random) -> Content:
    def torn(durable: bytes, content: bytes) -> bytes:
        stop = chance.randint(min(len(durable), len(content)), len(content))
        return content[:stop]

    return torn


def _blocks(chance: random.Random, kind: str) -> Content:
    """Bytes that went to the disk in blocks, in no order."""

    def blocks(durable: bytes, content: bytes) -> bytes:
        before = _zeros(durable, content)
        starts = range(0, len(content), BLOCK_BYTES)
        changed = [
            start
            for start in starts
            if start >= len(durable)
            or before[start : start + BLOCK_BYTES] != content[start : start + BLOCK_BYTES]
        ]
        if not changed:
            return content
        lost = (
            {chance.choice(changed)}
            if kind == "hole"
            else {start for start in changed if chance.random() < 0.5}
        )
        found = bytearray(content)
        for start in lost:
            stop = min(start + BLOCK_BYTES, len(content))
            stale = kind == "stale" and start >= len(durable)
            found[start:stop] = chance.randbytes(stop - start) if stale else before[start:stop]
        # The length in the journal may be older than the last block.
        stops = [len(content), *(start for start in changed if start > len(durable))]
        return bytes(found[: chance.choice(stops) if kind == "any" else len(content)])

    blocks.__name__ = kind
    return blocks
