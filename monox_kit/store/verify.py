"""Reading every byte of a store, and reporting everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monox_kit.errors import StoreCorrupt, StoreError
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result
from monox_kit.store.begun import BegunStore
from monox_kit.store.contents import check_shard
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import CompleteRecord, ShardRange
from monox_kit.store.shard import ShardRecord, ShardTotals


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport(Result):
    """The outcome of reading every byte of a store.

    Attributes:
        num_rows: rows in shards without a problem.
        num_shards: shards without a problem.
        num_bytes: bytes of arrays in those shards.
        complete: whether the store is finished and nothing in it is wrong.
        problems: one message for each damaged shard, for wrong records and for foreign files.
    """

    path: str
    num_rows: int
    num_shards: int
    num_bytes: int
    complete: bool
    problems: tuple[str, ...]

    def require_intact(self) -> None:
        """Check that there were no problems.

        Raises:
            StoreCorrupt: there were; the message is the first and the number of others.
        """
        if self.problems:
            more = len(self.problems) - 1
            raise StoreCorrupt(self.problems[0] + (f" ({more} more problems)" if more else ""))


def verify_store(folder: Path, progress: Progress | None = None) -> VerifyReport:
    """Read every byte of a store, complete or not, and check it.

    Raises:
        StoreError: the folder is no store, or its manifest cannot be read.
    """
    store = StoreFolder(folder)
    return verify_records(store, partial(check_shard, store), progress)


def verify_records(
    store: BegunStore, check: Callable[[ShardRange], ShardRecord], progress: Progress | None
) -> VerifyReport:
    """Check a store's records, and every shard that is there by `check`."""
    problems: list[str] = []
    complete: CompleteRecord | None = None
    is_complete = True
    try:
        complete = store.read_complete()
        is_complete = complete is not None
    except StoreError as error:  # damage may also look like a later version
        problems.append(str(error))
    shards = store.finished_shards(problems)
    totals = ShardTotals()
    with (progress or Silent()).task("verify", sum(map(len, shards)), "rows") as task:
        for shard in shards:
            try:
                totals.add(check(shard))
            except StoreError as error:
                problems.append(str(error))
            task.advance(len(shard))
    # With a damaged shard the store's digest cannot be computed; an absent one is still told.
    num_intact = len(totals.digests)
    if complete and (num_intact == len(shards) or len(shards) < store.manifest.num_shards):
        try:
            store.require_complete(complete, shards, totals.digests.values())
        except StoreCorrupt as error:
            problems.append(str(error))
    return VerifyReport(
        path=str(store.where),
        num_rows=totals.num_rows,
        num_shards=num_intact,
        num_bytes=totals.num_bytes,
        complete=is_complete and not problems,
        problems=tuple(problems),
    )
