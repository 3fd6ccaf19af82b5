"""Who may write which shards of a store in a folder: locks on bytes of its file `lock`."""

from __future__ import annotations

from pathlib import Path

from monox_kit.locks import RangeLocks
from monox_kit.store.format import LOCK_FILE

# The first byte is for what concerns the whole store; behind it is one for each shard.
WHOLE = 0


def store_locks(folder: Path) -> RangeLocks:
    """The locks of the store at `folder`, to be entered."""
    advice = (
        "; parts can be labelled into stores of their own and put together by "
        "`monoxkit store merge`"
    )
    return RangeLocks(folder / LOCK_FILE, advice)


def shard_bytes(claimed: range) -> tuple[int, int]:
    """Where the bytes of consecutive shards lie in the lock file."""
    return WHOLE + 1 + claimed.start, WHOLE + 1 + claimed.stop
