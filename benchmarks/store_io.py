"""Random and sequential reads of the same rows from a logit store and from other formats.

A row is a text, C logits and a label. Each contender holds the same rows and gives them in the same
form: a list of str, float32 logits [n, C] in numpy, labels in numpy. All run in one process, in
alternating rounds, over the same seeded rows, with everything in the page cache; a contender's
values are compared with what was written before it is timed. Four rates, in rows per second:

    single      one row at a time, in random order
    batch       256 random rows at a time
    sequential  all rows in order, 1,024 at a time
    from_open   the same, with opening: here `read` pays for its SHA-256 of every file

Parquet is written in row groups of 1,024 rows, which suits random reads better than the default of
a million. Other packages than the store's own need not be installed: what is absent is named.

    python benchmarks/store_io.py --rows 200000 --rounds 7
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import medians, parser, positive, publish, ratio, take_turns
from row_formats import (
    BATCH_ROWS,
    BLOCK_ROWS,
    NUM_CLASSES,
    ROW_GROUP_ROWS,
    Contender,
    Rows,
    Values,
    formats,
)

KINDS = ("single", "batch", "sequential", "from_open")
OURS = ("ours (open)", "ours (read)")
Opened = tuple[Path, Callable[[Path], Contender]]


def main() -> None:
    """Write every format, measure, print and write the medians."""
    made = parser(__file__, __doc__, rounds=7)
    made.add_argument("--rows", type=positive, default=200_000)
    made.add_argument("--shard-rows", type=positive, default=16_384)
    made.add_argument("--limit-s", type=float, default=1.0, help="for one kind of random read")
    made.add_argument("--scratch", type=Path, help="where the formats lie meanwhile")
    arguments = made.parse_args()
    rows = Rows(arguments.rows, seed=1)
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        opened, sizes, absent = _written(rows, scratch, arguments.shard_rows)
        rates = _measure(opened, rows, arguments.rounds, arguments.limit_s)
    finally:
        shutil.rmtree(scratch)
    middle = {name: medians(kinds, 0) for name, kinds in rates.items()}
    result = {
        "rows": len(rows),
        "classes": NUM_CLASSES,
        "mean_text_bytes": round(sum(len(text.encode()) for text in rows.texts) / len(rows), 1),
        "shard_rows": arguments.shard_rows,
        "row_group_rows": ROW_GROUP_ROWS,
        "batch_rows": BATCH_ROWS,
        "block_rows": BLOCK_ROWS,
        "rounds": arguments.rounds,
        "bytes_on_disk": sizes,
        "rows_per_s": middle,
        "ours_to_the_fastest_other": _ratios(rates, middle),
        "absent": absent,
        "rows_per_s_of_each_round": {
            name: {kind: [round(value) for value in values] for kind, values in kinds.items()}
            for name, kinds in rates.items()
        },
    }
    bars = {name: kinds["batch"] for name, kinds in middle.items() if "batch" in kinds}
    publish(
        arguments,
        result,
        bars=bars,
        unit=f"rows per second, {BATCH_ROWS} random rows at a time",
        hidden=["rows_per_s_of_each_round"],
    )


def _written(
    rows: Rows, scratch: Path, shard_rows: int
) -> tuple[dict[str, Opened], dict[str, int], dict[str, str]]:
    """How to open each contender, bytes on disk of each, and why others are absent."""
    opened: dict[str, Opened] = {}
    sizes, absent = {}, {}
    for name, (write, readers) in formats(shard_rows).items():
        path = scratch / name
        try:
            write(rows, path)
        except ImportError as error:
            absent[name] = str(error)
            continue
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for reader, open_it in readers.items():
            opened[reader], sizes[reader] = (path, open_it), size
    return opened, sizes, absent


def _require_equal(name: str, found: Values, expected: Values) -> None:
    texts, logits, labels = found
    right = (
        texts == expected[0]
        and logits.dtype == np.float32
        and np.array_equal(logits, expected[1])
        and np.array_equal(labels, expected[2])
    )
    if not right:
        raise SystemExit(f"{name}: expected the rows that were written, found others.")


def _check(name: str, contender: Contender, rows: Rows, asked: Any) -> None:
    """End where a contender gives other values than were written."""
    start = 0
    for block in contender.all():
        stop = start + len(block[0])
        _require_equal(name, block, rows.at(np.arange(start, stop)))
        start = stop
    if start != len(rows):
        raise SystemExit(f"{name}: expected {len(rows)} rows in a pass, found {start}.")
    _require_equal(name, contender.many(asked[:BATCH_ROWS]), rows.at(asked[:BATCH_ROWS]))
    for row in asked[:8].tolist():
        _require_equal(name, contender.one(row), rows.at(np.array([row])))


def _single(contender: Contender, asked: Any, limit_s: float) -> float:
    done, started, wanted = 0, time.perf_counter(), asked.tolist()
    while done < len(wanted) and time.perf_counter() - started < limit_s:
        for row in wanted[done : done + 16]:
            contender.one(row)
            done += 1
    return done / (time.perf_counter() - started)


def _batches(contender: Contender, asked: Any, limit_s: float) -> float:
    done, started = 0, time.perf_counter()
    while done < len(asked) and time.perf_counter() - started < limit_s:
        done += len(contender.many(asked[done : done + BATCH_ROWS])[0])
    return done / (time.perf_counter() - started)


def _pass(contender: Callable[[], Contender]) -> float:
    started = time.perf_counter()
    done = sum(len(block[0]) for block in contender().all())
    return done / (time.perf_counter() - started)


def _measure(
    opened: Mapping[str, Opened], rows: Rows, rounds: int, limit_s: float
) -> dict[str, dict[str, list[float]]]:
    """By contender and kind of read, the rates of every round."""

    def rates(name: str, contender: Contender, round_: int) -> dict[str, float]:
        # Every contender of a round is asked for the same rows.
        asked = np.random.default_rng([2, round_]).permutation(len(rows))
        path, open_it = opened[name]
        found = {}
        if "StreamingDataset" not in name:  # it is made for passes alone
            found["single"] = _single(contender, asked[:20_000], limit_s)
            found["batch"] = _batches(contender, asked, limit_s)
        found["sequential"] = _pass(lambda: contender)
        found["from_open"] = _pass(lambda: open_it(path))
        return found

    ways = {}
    for name, (path, open_it) in opened.items():
        contender = open_it(path)
        _check(name, contender, rows, np.random.default_rng(2).permutation(len(rows)))
        ways[name] = partial(rates, name, contender)
    runs = take_turns(ways, rounds)
    return {
        name: {kind: [run[kind] for run in found] for kind in KINDS if kind in found[0]}
        for name, found in runs.items()
    }


def _ratios(
    rates: Mapping[str, Mapping[str, list[float]]], middle: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """By kind of read: the fastest other contender, and how many times its rate ours has."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        others = {
            name: kinds[kind]
            for name, kinds in middle.items()
            if kind in kinds and name not in OURS
        }
        if others:
            fastest = max(others, key=lambda name: others[name])
            ours = {name: ratio(rates[name][kind], rates[fastest][kind], 2) for name in OURS}
            found[kind] = {"fastest_other": fastest, **ours}
    return found


if __name__ == "__main__":
    main()
