"""What it takes to open a store of 10,000 shards, and to verify one in full.

Opening is timed in fresh processes, with the page cache warm; with `--before` the same is done in
turn under an older checkout of the package. Verifying is timed as bytes per second of processor
time, for texts in five scripts and in English alone; its memory is read for shards of two sizes.

    python benchmarks/store_checks.py --before ../older-checkout
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from monox_kit.hardware import read_hardware
from store_io import Rows, _write_ours

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "store_checks.json"
MOST_OPEN_S = 1.0
LEAST_MB_PER_S = 500
OPEN = """
import json, sys, time
from monox_kit.store import LogitStore
wall, processor = time.perf_counter(), time.process_time()
LogitStore.open(sys.argv[1])
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""
# Memory is that beyond an interpreter that has imported everything and opened the store.
VERIFY = """
import json, sys, time
import pyarrow
from pathlib import Path
from monox_kit.store import LogitStore, verify_store
def peak_bytes():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024
LogitStore.open(sys.argv[1])
before, processor = peak_bytes(), time.process_time()
report = verify_store(Path(sys.argv[1]))
report.require_intact()
print(json.dumps([report.num_bytes / (time.process_time() - processor) / 1e6,
                  peak_bytes() - before]))
"""


def _child(code: str, package: Path, store: Path) -> Any:
    command = [sys.executable, "-c", code, str(store)]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    # Run from the store's folder: `python -c` looks for packages where it is started first.
    output = subprocess.run(
        command, env=environment, cwd=store, stdout=subprocess.PIPE, check=True
    ).stdout
    return json.loads(output)


def _open(packages: dict[str, Path], store: Path, rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[list[float]]] = {name: [] for name in packages}
    for round_ in range(rounds + 1):
        for name, package in packages.items():
            taken = _child(OPEN, package, store)
            if round_:  # the first one fills the cache
                seconds[name].append(taken)
    return {
        name: {
            "wall_s": round(median(wall for wall, _ in taken), 3),
            "processor_s": round(median(processor for _, processor in taken), 3),
        }
        for name, taken in seconds.items()
    }


def _verify(packages: dict[str, Path], store: Path, rounds: int) -> dict[str, Any]:
    found: dict[str, list[list[float]]] = {name: [] for name in packages}
    for _ in range(rounds):
        for name, package in packages.items():
            found[name].append(_child(VERIFY, package, store))
    return {
        name: {
            "mb_per_processor_s": round(median(rate for rate, _ in runs)),
            "peak_mb_beyond_opening": round(median(peak for _, peak in runs) / 1e6, 1),
        }
        for name, runs in found.items()
    }


def main() -> None:
    """Write the stores, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=262_144, help="of the store to verify")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    packages = {"now": ROOT}
    if arguments.before:
        packages = {"before": arguments.before.resolve(), **packages}
    os.fsync = lambda descriptor: None  # writing is not what is measured
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        many = scratch / "many"
        _write_ours(Rows(arguments.shards * 4, seed=1), many, shard_rows=4)
        result: dict[str, Any] = {
            "shards": arguments.shards,
            "rounds": arguments.rounds,
            "open": _open(packages, many, arguments.rounds),
            "verify": [],
        }
        shutil.rmtree(many)
        for scripts in (5, 1):
            rows = Rows(arguments.rows, seed=1, num_scripts=scripts)
            for shard_rows in (16_384, arguments.rows):
                store = scratch / f"{scripts}-{shard_rows}"
                _write_ours(rows, store, shard_rows)
                figures = _verify(packages, store, arguments.rounds)
                run = {"scripts": scripts, "rows": len(rows), "shard_rows": shard_rows}
                result["verify"].append({**run, **figures})
                shutil.rmtree(store)
    finally:
        shutil.rmtree(scratch)
    now = [run["now"]["mb_per_processor_s"] for run in result["verify"]]
    result["goals"] = {
        f"open under {MOST_OPEN_S} s": result["open"]["now"]["wall_s"] < MOST_OPEN_S,
        f"verify at {LEAST_MB_PER_S} MB/s and more": min(now) >= LEAST_MB_PER_S,
    }
    result["hardware"] = read_hardware().to_json()
    result["python"] = platform.python_version()
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
