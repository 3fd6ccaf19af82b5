"""What it takes to open a store of 10,000 shards, and to verify one in full.

Opening is timed in fresh processes, with the page cache warm; with `--before` the same is done in
turn under an older checkout of the package. Verifying is timed as bytes per second of processor
time, for texts in five scripts and in English alone; its memory is read for shards of two sizes.

    python benchmarks/store_checks.py --before ../older-checkout
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from harness import (
    ROOT,
    by_way,
    each_round,
    environment,
    last_line,
    median_of_each,
    parser,
    positive,
    publish,
    ratios,
    take_turns,
)
from row_formats import Rows, write_store

MOST_OPEN_S = 1.0
LEAST_MB_PER_S = 500
OPEN = """
import json, sys, time
from monox_kit.store import LogitStore
wall, processor = time.perf_counter(), time.process_time()
LogitStore.open(sys.argv[1])
print(json.dumps({"wall_s": time.perf_counter() - wall,
                  "processor_s": time.process_time() - processor}))
"""
# Memory is that beyond an interpreter that has imported everything and opened the store.
VERIFY = """
import json, sys, time
import pyarrow
from pathlib import Path
from harness import peak_bytes
from monox_kit.store import LogitStore, verify_store
LogitStore.open(sys.argv[1])
before, processor = peak_bytes(), time.process_time()
report = verify_store(Path(sys.argv[1]))
report.require_intact()
print(json.dumps({"mb_per_processor_s": report.num_bytes / (time.process_time() - processor) / 1e6,
                  "peak_mb_beyond_opening": (peak_bytes() - before) / 1e6}))
"""


def main() -> None:
    """Write the stores, measure, print and write the result."""
    made = parser(__file__, __doc__, rounds=7)
    made.add_argument("--before", type=Path, help="a checkout to compare with")
    made.add_argument("--shards", type=positive, default=10_000)
    made.add_argument("--rows", type=positive, default=262_144, help="of the store to verify")
    made.add_argument("--scratch", type=Path)
    arguments = made.parse_args()
    packages = {"now": ROOT}
    if arguments.before:
        packages = {"before": arguments.before.resolve(), **packages}
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        many = scratch / "many"
        _write(Rows(arguments.shards * 4, seed=1), many, shard_rows=4)
        opened = _taken(OPEN, packages, many, arguments.rounds, warm_up=True)  # fills the cache
        shutil.rmtree(many)
        verified = []
        for scripts in (5, 1):
            rows = Rows(arguments.rows, seed=1, num_scripts=scripts)
            for shard_rows in (16_384, arguments.rows):
                store = scratch / f"{scripts}-{shard_rows}"
                _write(rows, store, shard_rows)
                figures = _taken(VERIFY, packages, store, arguments.rounds)
                run = {"scripts": scripts, "rows": len(rows), "shard_rows": shard_rows}
                verified.append({**run, **figures})
                shutil.rmtree(store)
    finally:
        shutil.rmtree(scratch)
    now = [run["now"]["mb_per_processor_s"] for run in verified]
    result = {
        "shards": arguments.shards,
        "rounds": arguments.rounds,
        "open": opened,
        "verify": verified,
        "goals": {
            f"open under {MOST_OPEN_S} s": opened["now"]["wall_s"] < MOST_OPEN_S,
            f"verify at {LEAST_MB_PER_S} MB/s and more": min(now) >= LEAST_MB_PER_S,
        },
    }
    publish(
        arguments,
        result,
        bars={name: opened[name]["wall_s"] for name in packages},
        unit=f"seconds to open {arguments.shards:,} shards",
    )


def _write(rows: Rows, path: Path, shard_rows: int) -> None:
    """Write a store without fsync: writing is not what is measured."""
    with mock.patch("os.fsync", lambda _descriptor: None):
        write_store(rows, path, shard_rows)


def _taken(
    code: str, packages: dict[str, Path], store: Path, rounds: int, *, warm_up: bool = False
) -> dict[str, Any]:
    """By checkout, the medians of what its processes print; against `before` where it is there."""

    def process(package: Path) -> dict[str, float]:
        command = [sys.executable, "-c", code, str(store)]
        # Run from the store's folder: `python -c` looks for packages where it is started first.
        found: dict[str, float] = last_line(command, env=environment(package), cwd=store)
        return found

    ways = {name: each_round(partial(process, package)) for name, package in packages.items()}
    runs = take_turns(ways, rounds, warm_up=warm_up)
    found: dict[str, Any] = median_of_each(runs)
    if "before" in runs:
        figures = {figure: by_way(runs, figure) for figure in runs["now"][0]}
        found["now_to_before"] = {
            figure: ratios(values, to="before")["now"] for figure, values in figures.items()
        }
    return found


if __name__ == "__main__":
    main()
