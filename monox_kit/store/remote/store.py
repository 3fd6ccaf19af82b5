"""A store at a URL as a whole: which records and shards are there, and whether they agree.

URL/store.json, URL/shards/000017.shard, URL/complete.json: see docs/store-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from monox_kit.errors import StoreError
from monox_kit.store.begun import MANIFEST_STEP, BegunStore
from monox_kit.store.format import COMPLETE_FILE, SHARDS_FOLDER, STORE_FILE, ShardRange
from monox_kit.store.record import MAX_RECORD_BYTES, corrupt
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.shard_object import (
    PREFIX_BYTES,
    ShardHead,
    head_bytes,
    parse_head,
    split_files,
)
from monox_kit.store.shard import ShardRecord

_SUFFIX = ".shard"
# A head of ours has 1.6 to 2.1 kB; another writer's spacing may need a second request.
_HEAD_BYTES = 4096


class RemoteStore(BegunStore):
    """A store that has been begun at a URL. Reads records when asked, and keeps none.

    Attributes:
        objects: what lies at the URL.
    """

    def __init__(self, objects: ObjectFolder, content: bytes) -> None:
        """Args: what lies at the URL, and the bytes of its `store.json`."""
        super().__init__(objects.url, content)
        self.objects = objects

    @classmethod
    def begun(cls, objects: ObjectFolder) -> RemoteStore | None:
        """The store at a URL; None where none has been begun.

        Raises:
            StoreCorrupt: its `store.json` is damaged, or lost.
            StorageError: the service refused.
        """
        content = objects.read(STORE_FILE, MAX_RECORD_BYTES)
        if content is not None:
            return cls(objects, content)
        if objects.size(COMPLETE_FILE) is not None or objects.sizes(SHARDS_FOLDER):
            # Another writer may have begun it meanwhile; that one puts store.json first.
            content = objects.read(STORE_FILE, MAX_RECORD_BYTES)
            if content is None:
                raise corrupt(objects.where(STORE_FILE), "the object", "none", MANIFEST_STEP)
            return cls(objects, content)
        return None

    @classmethod
    def at(cls, url: str) -> RemoteStore:
        """The store at a URL.

        Raises:
            StoreError: there is none.
            ConfigError: no store may lie there, or the driver is not installed.
        """
        store = cls.begun(ObjectFolder(url))
        if store is None:
            raise StoreError(
                f"{url}: expected a logit store, found no store.json. "
                "Give the URL that `monoxkit label --store` wrote to."
            )
        return store

    def shard_name(self, shard: ShardRange) -> str:
        """The name of the shard's object."""
        return f"{SHARDS_FOLDER}/{shard.name}{_SUFFIX}"

    def step(self, shard: ShardRange) -> str:
        """What the user should do about a damaged shard."""
        return (
            f"Delete {self.shard_name(shard)} (and complete.json, if there is one) and run "
            "`monoxkit label` again; finished shards are kept."
        )

    def finished_shards(
        self, problems: list[str] | None = None, of: range | None = None
    ) -> dict[ShardRange, int]:
        """The shards that are there, and their objects' bytes; see `BegunStore`.

        A single one is looked for by name.
        """
        if of is not None and len(of) <= 1:
            shards = [self.manifest.shard(index) for index in of]
            sizes = {shard: self.objects.size(self.shard_name(shard)) for shard in shards}
            return {shard: size for shard, size in sizes.items() if size is not None}
        listed, where = self.objects.sizes(SHARDS_FOLDER), self.objects.where(SHARDS_FOLDER)
        # A folder is no object: its name is told like any other that is no shard's.
        names = (name if size is not None else f"{name}/" for name, size in listed.items())
        named = self._shards_named(names, _SUFFIX, where, problems)
        found = {shard: listed[f"{shard.name}{_SUFFIX}"] or 0 for shard in named}
        return found if of is None else {s: n for s, n in found.items() if s.index in of}

    def finished_records(self) -> Iterator[ShardRecord]:
        """The records of the shards that are there; see `heads`."""
        return (head.record for head in self.heads(self.finished_shards()))

    def heads(self, shards: dict[ShardRange, int]) -> Iterator[ShardHead]:
        """The records of some shards, in order, given their objects' bytes.

        Raises:
            StoreCorrupt: one is damaged, or its object has another length than it says.
            StorageError: the service refused.
        """
        names = [self.shard_name(shard) for shard in shards]
        firsts = self.objects.heads(names, _HEAD_BYTES)
        for (shard, size), name, first in zip(shards.items(), names, firsts):
            where, step = self.objects.where(name), self.step(shard)
            wanted = min(head_bytes(first[:PREFIX_BYTES], where, step), size)
            rest = self.objects.blocks(name, len(first), wanted)  # nothing, as a rule
            head = b"".join((first, *rest))
            yield parse_head(head, size, files=self.shards, shard=shard, where=where, step=step)

    def head(self, shard: ShardRange) -> ShardHead | None:
        """The record of one shard; None where it is not there. See `heads`."""
        size = self.objects.size(self.shard_name(shard))
        return None if size is None else next(self.heads({shard: size}))

    def files(self, head: ShardHead) -> Iterator[tuple[str, bytes]]:
        """Names of a shard's files with their next bytes, each file's digest checked at its end.

        Raises:
            StoreCorrupt: a file is not as the record says.
            StorageError: the service refused.
        """
        shard = head.record.shard
        name = self.shard_name(shard)
        blocks = self.objects.blocks(name, head.num_bytes, head.object_bytes)
        return split_files(head, blocks, self.objects.where(name), self.step(shard))

    def _complete_content(self) -> bytes | None:
        return self.objects.read(COMPLETE_FILE, MAX_RECORD_BYTES)
