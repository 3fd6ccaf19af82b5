"""What fsync and reading back cost when a shard is committed, beside the labelling of its rows.

Writes the same shards with and without them, in alternating rounds; what is left out is replaced
here, in this script, not in the library. Dirty pages of the last round are written out before the
next one begins, so that no fsync pays for another's. The price of a shard is set against the time
that a teacher of a given rate takes to label it; the break-even is the rate at which the price is
3 % of it. Reading everything once more at the end (`verify`) is measured too.

    python benchmarks/store_price.py --rows-per-s 9.5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from monox_kit.data import Document, LabelSet
from monox_kit.hardware import read_hardware
from monox_kit.store import StoreManifest, StoreWriter, builder, verify_store
from store_io import NUM_CLASSES, Rows

RESULT = Path(__file__).parent / "results" / "store_price.json"
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
    real_fsync, real_folder = os.fsync, builder.new_folder

    def unread(final: Path, *, verify: Callable[[Path], None]) -> Any:
        return real_folder(final)

    try:
        if not fsync:
            os.fsync = lambda descriptor: None
        if not read_back:
            builder.new_folder = unread  # type: ignore[assignment]
        yield
    finally:
        os.fsync, builder.new_folder = real_fsync, real_folder


def write_seconds(rows: Rows, folder: Path, shard_rows: int) -> list[float]:
    """Seconds of each shard's commit, rows in memory to durable folder."""
    manifest = StoreManifest(
        labels=LabelSet(tuple(f"class {index}" for index in range(NUM_CLASSES))),
        num_rows=len(rows),
        shard_rows=shard_rows,
        dtype="float32",
        has_pairs=False,
        fingerprint={"made": "up"},
    )
    seconds = []
    with StoreWriter(folder, manifest) as writer:
        for shard in writer.missing:
            here = slice(shard.start, shard.stop)
            documents = [
                Document(row=row, id=str(row), text=text)
                for row, text in enumerate(rows.texts[here], shard.start)
            ]
            started = time.perf_counter()
            writer.write_shard(
                shard, logits=rows.logits[here], documents=documents, labels=rows.labels[here]
            )
            seconds.append(time.perf_counter() - started)
        writer.complete()
    return seconds


def measure(
    rows: Rows, shard_rows: int, rounds: int, rows_per_s: float, scratch: Path | None
) -> dict[str, Any]:
    """Medians over all shards of all rounds, and what follows from them."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    verify_s = []
    names, report = list(VARIANTS), None
    for round_ in range(rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            fsync, read_back = VARIANTS[name]
            folder = Path(tempfile.mkdtemp(dir=scratch))
            try:
                os.sync()
                with without(fsync=fsync, read_back=read_back):
                    seconds[name] += write_seconds(rows, folder / "store", shard_rows)
                if name == "as it is":
                    started = time.perf_counter()
                    report = verify_store(folder / "store")
                    verify_s.append(time.perf_counter() - started)
                    report.require_intact()
            finally:
                shutil.rmtree(folder)
    shard_s = {name: median(values) for name, values in seconds.items()}
    assert report is not None
    label_s = shard_rows / rows_per_s
    price_s = max(0.0, shard_s["as it is"] - shard_s["neither"])
    return {
        "shard_rows": shard_rows,
        "shards": len(rows) // shard_rows,
        "shard_bytes": report.num_bytes // report.num_shards,
        "shard_s": {name: round(value, 4) for name, value in shard_s.items()},
        "label_s": round(label_s, 1),
        "fsync_and_read_back_of_labelling": round(price_s / label_s, 6),
        "whole_commit_of_labelling": round(shard_s["as it is"] / label_s, 6),
        "break_even_rows_per_s": round(MOST_PART * shard_rows / price_s) if price_s else None,
        "verify_mb_per_s": round(report.num_bytes / median(verify_s) / 1e6),
        "verify_of_labelling": round(median(verify_s) / (len(rows) / rows_per_s), 6),
    }


def main() -> None:
    """Measure each size of shard, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows-per-s", type=float, default=9.5, help="the teacher's rate")
    parser.add_argument("--shard-rows", type=int, nargs="+", default=[256, 1024, 16_384])
    parser.add_argument("--shards", type=int, default=4, help="of each size and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    runs = []
    for shard_rows in arguments.shard_rows:
        rows = Rows(shard_rows * arguments.shards, seed=1)
        run = measure(rows, shard_rows, arguments.rounds, arguments.rows_per_s, arguments.scratch)
        print(json.dumps(run), flush=True)
        runs.append(run)
    result = {
        "rows_per_s": arguments.rows_per_s,
        "most_part": MOST_PART,
        "rounds": arguments.rounds,
        "runs": runs,
        "hardware": read_hardware().to_json(),
        "python": platform.python_version(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
