"""What writers of a store share, whatever lies behind: a folder or a URL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from monox_kit.errors import StoreError, StoreIncomplete
from monox_kit.store.begun import BegunStore
from monox_kit.store.builder import ShardBuilder
from monox_kit.store.format import CompleteRecord, ShardRange, StoreManifest


class StoreWriter(ABC):
    """Creates the store that `manifest` describes, or continues it; alone or beside others.

    Use as a context manager: entering creates or resumes the store and finds which of the writer's
    shards are missing; leaving completes nothing.

    Attributes:
        manifest: what the store is a store of.
    """

    def __init__(self, manifest: StoreManifest, shards: range | None) -> None:
        """Touches nothing yet.

        Args:
            manifest: what the store is a store of.
            shards: indices of the shards to write, with step 1; None for all.

        Raises:
            ConfigError: the store has no such shards.
        """
        self.manifest = manifest
        self._claimed = range(manifest.num_shards) if shards is None else shards
        manifest.require_shards(self._claimed)
        self._missing: dict[int, ShardRange] = {}

    @abstractmethod
    def __enter__(self) -> Self:
        """Create or resume the store.

        Raises:
            StoreMismatch: it was begun with other settings; names the first and both values.
            StoreCorrupt: a finished shard or a record is damaged. Nothing is deleted.
            StorageError: the disk or the service refused.
        """

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def shard(
        self, shard: ShardRange, text_bytes: Mapping[str, int]
    ) -> AbstractContextManager[ShardBuilder]:
        """Write one of the missing shards part by part, in memory that only a part takes.

        When the block ends without an error, the shard survives a power failure. An exception of
        the block leaves it as it is, and nothing of the shard stays.

        Args:
            shard: one of `missing`.
            text_bytes: the UTF-8 bytes of all `ids`, of all `text` and, in a store of pairs, of
                all `text_pair` of the shard, as in `CorpusMark.text_bytes`.

        Returns:
            A context of a builder to append the shard's rows to, in order. The bytes on disk are
            the same however the rows are split into parts.

        Raises:
            StoreError: when the block ends, other rows or bytes came than the shard's and the
                announced ones; nothing is written.
            StorageError: the disk or the service refused, or gave back other bytes than were
                written.
        """

    @abstractmethod
    def complete(self, **summary: Any) -> CompleteRecord | None:
        """Declare the store finished; on a finished store nothing changes.

        Args:
            summary: JSON values to remember about the run; no part of the store's digest.

        Returns:
            None where shards that other writers have to write are still missing: the last one
            completes the store. Never for a writer that has claimed all.

        Raises:
            StoreIncomplete: one of the claimed shards is missing.
            StoreCorrupt: a shard was changed since it was written.
            StorageError: the disk or the service refused.
        """

    @abstractmethod
    def _begun(self) -> BegunStore:
        """The store, inside of the block.

        Raises:
            StoreError: the writer is used outside of its block.
        """

    @property
    def missing(self) -> list[ShardRange]:
        """The claimed shards that are still to be written, in order."""
        self._begun()
        return list(self._missing.values())

    def absent(self) -> list[ShardRange]:
        """The shards of the whole store that nobody has committed by now, in order."""
        present = {shard.index for shard in self._begun().finished_shards()}
        for index in present:  # another writer may have put some since this one began
            self._missing.pop(index, None)
        return [shard for shard in self.manifest.shards() if shard.index not in present]

    def _require_missing(self, shard: ShardRange) -> None:
        if self._missing.get(shard.index) != shard:
            raise StoreError(
                f"{self._begun().where}: expected one of the {len(self._missing)} missing shards, "
                f"found {shard.name} (rows {shard.start} to {shard.stop - 1}). Take the shard from "
                "StoreWriter.missing."
            )

    def _require_none_missing(self) -> None:
        if self._missing:
            claimed = sum(len(self.manifest.shard(index)) for index in self._claimed)
            done = claimed - sum(map(len, self._missing.values()))
            raise StoreIncomplete(
                f"{self._begun().where}: expected every shard before completing, found {done} of "
                f"{claimed} rows. Write the {len(self._missing)} missing shards."
            )
