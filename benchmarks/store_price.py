"""What fsync and reading back cost when a shard is committed, beside the labelling of its rows.

Writes the same shards with and without them, in alternating rounds; what is left out is replaced
here, in this script, not in the library. Dirty pages of the last round are written out before the
next one begins, so that no fsync pays for another's. The price of a shard is set against the time
that a teacher of a given rate takes to label it; the break-even is the rate at which the price is
3 % of it. Reading everything once more at the end (`verify`) is measured too.

    python benchmarks/store_price.py --rows-per-s 9.5
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from harness import medians, note, parser, positive, publish, take_turns, timed
from monox_kit.durable import new_folder
from monox_kit.store import verify_store
from row_formats import Rows, write_store

MOST_PART = 0.03
# By name: whether files and folders are fsynced, whether shards are read back.
VARIANTS = {
    "as it is": (True, True),
    "no fsync": (False, True),
    "no read-back": (True, False),
    "neither": (False, False),
}


@contextmanager
def without(*, fsync: bool, read_back: bool) -> Iterator[None]:
    """Leave out of the library's writing what is not wanted, for the block."""

    def unread(final: Path, *, verify: Callable[[Path], None]) -> Any:
        return new_folder(final)

    with ExitStack() as stack:
        if not fsync:
            stack.enter_context(mock.patch("os.fsync", lambda _descriptor: None))
        if not read_back:
            stack.enter_context(mock.patch("monox_kit.store.builder.new_folder", unread))
        yield


def measure(
    rows: Rows, shard_rows: int, rounds: int, rows_per_s: float, scratch: Path | None
) -> dict[str, Any]:
    """Medians over all shards of all rounds, and what follows from them."""
    verify_s: list[float] = []
    reports = []

    def write(name: str, _round: int) -> list[float]:
        fsync, read_back = VARIANTS[name]
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            os.sync()
            with without(fsync=fsync, read_back=read_back):
                taken_s = write_store(rows, folder / "store", shard_rows)
            if name == "as it is":
                seconds, report = timed(partial(verify_store, folder / "store"))
                report.require_intact()
                verify_s.append(seconds)
                reports.append(report)
        finally:
            shutil.rmtree(folder)
        return taken_s

    found = take_turns({name: partial(write, name) for name in VARIANTS}, rounds)
    report = reports[0]
    shard_s = medians({name: [s for each in runs for s in each] for name, runs in found.items()})
    label_s = shard_rows / rows_per_s
    price_s = max(0.0, shard_s["as it is"] - shard_s["neither"])
    return {
        "shard_rows": shard_rows,
        "shards": len(rows) // shard_rows,
        "shard_bytes": report.num_bytes // report.num_shards,
        "shard_s": shard_s,
        "label_s": round(label_s, 1),
        "fsync_and_read_back_of_labelling": round(price_s / label_s, 6),
        "whole_commit_of_labelling": round(shard_s["as it is"] / label_s, 6),
        "break_even_rows_per_s": round(MOST_PART * shard_rows / price_s) if price_s else None,
        "verify_mb_per_s": round(report.num_bytes / median(verify_s) / 1e6),
        "verify_of_labelling": round(median(verify_s) / (len(rows) / rows_per_s), 6),
    }


def main() -> None:
    """Measure each size of shard, print and write the result."""
    made = parser(__file__, __doc__, rounds=7)
    made.add_argument("--rows-per-s", type=float, default=9.5, help="the teacher's rate")
    made.add_argument("--shard-rows", type=positive, nargs="+", default=[256, 1024, 16_384])
    made.add_argument("--shards", type=positive, default=4, help="of each size and round")
    made.add_argument("--scratch", type=Path, help="a folder on the disk to measure")
    arguments = made.parse_args()
    runs = []
    for shard_rows in arguments.shard_rows:
        rows = Rows(shard_rows * arguments.shards, seed=1)
        run = measure(rows, shard_rows, arguments.rounds, arguments.rows_per_s, arguments.scratch)
        note(str(run))
        runs.append(run)
    result = {
        "rows_per_s": arguments.rows_per_s,
        "most_part": MOST_PART,
        "rounds": arguments.rounds,
        "runs": runs,
    }
    publish(
        arguments,
        result,
        bars=runs[-1]["shard_s"],
        unit=f"seconds of a shard of {runs[-1]['shard_rows']:,} rows",
    )


if __name__ == "__main__":
    main()
