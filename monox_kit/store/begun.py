"""A store that has been begun, wherever it lies: what its records say, and whether they agree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from monox_kit.errors import StoreIncomplete
from monox_kit.store.format import (
    COMPLETE_FILE,
    FORMAT_VERSION,
    LANGUAGES_VERSION,
    MANIFEST_KEYS,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
    StoreManifest,
    store_digest,
)
from monox_kit.store.record import DIGEST_KEY, corrupt, parse_record
from monox_kit.store.shard import ShardFiles, ShardRecord, ShardTotals

MANIFEST_STEP = "Restore it from a copy, or delete the store and run `monoxkit label` again."
COMPLETE_STEP = "Delete complete.json and run `monoxkit label` again: finished shards are kept."


class BegunStore(ABC):
    """A store that has been begun, wherever it lies. Reads records when asked, and keeps none.

    Attributes:
        where: the folder or URL, for messages.
        manifest: the content of its `store.json`.
        digest: the `record_digest` of its `store.json`.
        shards: access to its shards.
    """

    def __init__(self, where: Path | str, content: bytes) -> None:
        """Args: the folder or URL, and the bytes of its `store.json`.

        Raises:
            StoreError: it is of a later format.
            StoreCorrupt: `store.json` is damaged.
        """
        file = f"{where}/{STORE_FILE}"
        value = parse_record(
            content,
            file,
            MANIFEST_KEYS,
            LANGUAGES_VERSION,
            MANIFEST_STEP,
            oldest=FORMAT_VERSION,
        )
        self.where = where
        self.manifest = StoreManifest.from_json(value, file, MANIFEST_STEP)
        self.digest: str = value[DIGEST_KEY]
        self.shards = ShardFiles(self.manifest, self.digest)

    @abstractmethod
    def _complete_content(self) -> bytes | None:
        """The bytes of `complete.json`; None where there is none."""

    @abstractmethod
    def finished_shards(
        self, problems: list[str] | None = None, of: range | None = None
    ) -> Collection[ShardRange]:
        """The shards that are there, in order.

        Args:
            problems: where entries that are no shards are noted; None raises them.
            of: the only indices to look for; None for all.

        Raises:
            StoreCorrupt: something else lies among them.
            StorageError: the system refused to list it.
        """

    @abstractmethod
    def finished_records(self) -> Iterator[ShardRecord]:
        """The records of the shards that are there, in order.

        Raises:
            StoreCorrupt: one is damaged, or something else lies among them.
            StorageError: the system refused.
        """

    def read_complete(self) -> CompleteRecord | None:
        """The completion record; None where labelling has not finished.

        Raises:
            StoreCorrupt: it is damaged or belongs to another store.
            StorageError: the system refused.
        """
        content = self._complete_content()
        if content is None:
            return None
        where = f"{self.where}/{COMPLETE_FILE}"
        return CompleteRecord.parse(content, where, self.manifest, COMPLETE_STEP)

    def checked_complete(self) -> tuple[CompleteRecord | None, ShardTotals]:
        """The completion record and what all shards come to that are there, as they fit each other.

        Raises:
            StoreCorrupt: a record is damaged, or a shard is absent or differs from when the store
                was completed.
            StorageError: the system refused.
        """
        # In this order: another writer may commit the last shard and complete the store meanwhile.
        complete, totals = self.read_complete(), ShardTotals()
        for record in self.finished_records():
            totals.add(record)
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

    def _shards_named(
        self, names: Iterable[str], suffix: str, where: Path | str, problems: list[str] | None
    ) -> list[ShardRange]:
        """The shards that names in `shards/` stand for; see `finished_shards`."""
        last = self.manifest.shard(self.manifest.num_shards - 1)
        shards = []
        for name in sorted(names):
            digits = name.removesuffix(suffix) if name.endswith(suffix) else ""
            is_number = len(digits) == 6 and digits.isascii() and digits.isdigit()
            if is_number and int(digits) <= last.index:
                shards.append(self.manifest.shard(int(digits)))
                continue
            wanted = f"only shards 000000{suffix} to {last.name}{suffix}"
            problem = corrupt(where, wanted, repr(name), "Move it elsewhere.")
            if problems is None:
                raise problem
            problems.append(str(problem))
        return shards

    def digest_of(self, shard_digests: Iterable[str]) -> str:
        """The digest of the store with these shard records, in shard order."""
        return store_digest(self.digest, shard_digests)

    def require_complete(
        self, complete: CompleteRecord, shards: Collection[ShardRange], digests: Iterable[str]
    ) -> None:
        """Check that every shard is there, each as it was when the store was completed.

        Raises:
            StoreCorrupt: one is absent or differs.
        """
        path = f"{self.where}/{COMPLETE_FILE}"
        if len(shards) < self.manifest.num_shards:
            present = {shard.index for shard in shards}
            absent = next(index for index in range(len(shards) + 1) if index not in present)
            wanted = f"all {self.manifest.num_shards} shards"
            found = f"no shards/{self.manifest.shard(absent).name}"
            raise corrupt(path, wanted, found, COMPLETE_STEP)
        found = self.digest_of(digests)
        if found != complete.digest:
            wanted = f"shards with the digest {complete.digest[:16]}..."
            raise corrupt(path, wanted, f"{found[:16]}...: one was written later", COMPLETE_STEP)
