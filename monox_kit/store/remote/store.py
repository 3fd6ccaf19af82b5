"""A store at a URL as a whole: which records and shards are there, and whether they agree.

URL/store.json, URL/shards/000017.shard, URL/complete.json: see docs/store-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from monox_kit.errors import StoreError, StoreIncomplete
from monox_kit.store.folder import COMPLETE_STEP, MANIFEST_STEP, StoreRecords
from monox_kit.store.format import (
    COMPLETE_FILE,
    SHARDS_FOLDER,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
)
from monox_kit.store.record import MAX_RECORD_BYTES, corrupt
from monox_kit.store.remote.objects import ObjectFolder
from monox_kit.store.remote.shard_object import (
    PREFIX_BYTES,
    ShardHead,
    head_bytes,
    parse_head,
    split_files,
)
from monox_kit.store.shard import ShardTotals

_SUFFIX = ".shard"
_NAME = re.compile(r"(?P<index>[0-9]{6})\.shard", re.ASCII)
# A head of ours has 1.6 to 2.1 kB; another writer's spacing may need a second request.
_HEAD_BYTES = 4096


class RemoteStore(StoreRecords):
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
        """The shards that are there, in order, and their objects' bytes.

        Args:
            problems: where objects that are no shards are noted; None raises them.
            of: the only indices to look for; None for all. A single one is looked for by name.

        Raises:
            StoreCorrupt: something else lies among them.
            StorageError: the service refused.
        """
        if of is not None and len(of) <= 1:
            shards = [self.manifest.shard(index) for index in of]
            sizes = {shard: self.objects.size(self.shard_name(shard)) for shard in shards}
            return {shard: size for shard, size in sizes.items() if size is not None}
        found = {}
        last = self.manifest.shard(self.manifest.num_shards - 1)
        for name, size in self.objects.sizes(SHARDS_FOLDER).items():
            match = _NAME.fullmatch(name)
            index = int(match["index"]) if match else -1
            if size is None or not 0 <= index <= last.index:
                wanted = f"only shards 000000{_SUFFIX} to {last.name}{_SUFFIX}"
                where = self.objects.where(SHARDS_FOLDER)
                problem = corrupt(where, wanted, repr(name), "Move it elsewhere.")
                if problems is None:
                    raise problem
                problems.append(str(problem))
            elif of is None or index in of:
                found[self.manifest.shard(index)] = size
        return found

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

    def read_complete(self) -> CompleteRecord | None:
        """The completion record; None where labelling has not finished.

        Raises:
            StoreCorrupt: it is damaged or belongs to another store.
            StorageError: the service refused.
        """
        content = self.objects.read(COMPLETE_FILE, MAX_RECORD_BYTES)
        if content is None:
            return None
        where = self.objects.where(COMPLETE_FILE)
        return CompleteRecord.parse(content, where, self.manifest, COMPLETE_STEP)

    def checked_complete(self) -> tuple[CompleteRecord | None, ShardTotals]:
        """The completion record and what all shards come to that are there, as they fit each other.

        Raises:
            StoreCorrupt: a record is damaged, or a shard is absent or differs from when the store
                was completed.
            StorageError: the service refused.
        """
        complete = self.read_complete()
        totals = ShardTotals()
        for head in self.heads(self.finished_shards()):
            totals.add(head.record)
        if complete is not None:
            self.require_complete(complete, totals.digests, totals.digests.values())
        return complete, totals

    def finished(self) -> tuple[CompleteRecord, ShardTotals]:
        """The same of a finished store; see `checked_complete`.

        Raises:
            StoreIncomplete: labelling has not finished.
        """
        complete, totals = self.checked_complete()
        if complete is None:
            raise StoreIncomplete(
                f"{self.where}: expected a complete store, found {totals.num_rows} of "
                f"{self.manifest.num_rows} rows labelled. "
                "Run the same `monoxkit label` command again to finish it."
            )
        return complete, totals
