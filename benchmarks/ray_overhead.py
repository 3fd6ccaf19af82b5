"""What Ray costs beside the work: per shard, and against the local engine on as many cores.

Both engines label the same rows in alternating rounds: two workers of one thread on a Ray cluster
of this machine, and one process with two sessions of one thread. The rate is taken from the first
report of rows to the last, so that neither loading a graph nor starting a worker is in it; the
whole time of labelling stands beside it. Scheduling is the time from handing a shard out to hearing
of its end, less the worker's own. The cost of claiming one shard of a store that has many is timed
on its own: a worker lists the store's folder for each.

    python benchmarks/ray_overhead.py --bundle runs/teacher-onnx --corpus big.jsonl --rows 4096
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import by_way, medians, middle, parser, positive, publish, ratios, seconds, take_turns
from monox_kit.data import LabelSet
from monox_kit.labelling import LabelConfig
from monox_kit.progress import Silent, SilentTask
from monox_kit.store import FolderWriter, StoreManifest
from texts import corpus_of, first_documents, labelled

CORES = 2
CLAIMS = (1_000, 10_000, 100_000)


class Reports(Silent):
    """A progress that notes when rows were reported."""

    def __init__(self) -> None:
        self.times: list[tuple[float, int]] = []

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> SilentTask:
        """Note the rows of labelling alone."""
        return Noting(self.times) if description.startswith("labelling") else SilentTask()

    def rows_per_s(self) -> float:
        """Rows after the first report over the time since then."""
        rows = sum(amount for _, amount in self.times[1:])
        return rows / (self.times[-1][0] - self.times[0][0])


class Noting(SilentTask):
    """A bar that notes the time of each advance."""

    def __init__(self, times: list[tuple[float, int]]) -> None:
        self._times = times

    def advance(self, amount: int = 1) -> None:
        """Note the time."""
        self._times.append((time.perf_counter(), amount))


def main() -> None:
    """Time both engines in turn, compare their stores, print and write the result."""
    arguments = parsed()
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    start = partial(
        ray.init, address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False
    )
    start_s = seconds(start)
    digests = set()
    with tempfile.TemporaryDirectory() as scratch:
        documents = first_documents(arguments.corpus, arguments.rows)
        config = LabelConfig(
            teacher="onnx",
            model=arguments.bundle,
            corpus=corpus_of([each.text for each in documents], Path(scratch) / "corpus.jsonl"),
            shard_rows=arguments.shard_rows,
            batch_tokens=arguments.batch_tokens,
            sessions=CORES,
            threads=1,
        )

        def run(engine: str, chosen: LabelConfig, round_: int) -> dict[str, Any]:
            reports = Reports()
            summary, store, _ = labelled(chosen, Path(scratch) / f"{engine}-{round_}", reports)
            digests.add(store.digest)
            return {
                "shards": summary.num_shards,
                "labelled_s": summary.labelled_s,
                "rows_per_s_whole": summary.rows_per_s,
                "rows_per_s": round(reports.rows_per_s(), 2),
                **(summary.cluster or {}),
            }

        on_ray = replace(config, engine="ray", workers=CORES, sessions=1)
        ways = {"local": partial(run, "local", config), "ray": partial(run, "ray", on_ray)}
        runs = take_turns(ways, arguments.rounds)
        ray.shutdown()
        claims = {
            str(count): claim_ms(Path(scratch) / "claims", count) for count in arguments.claims
        }
    rates = by_way(runs, "rows_per_s")
    scheduling = [1000 * (r["handed_s"] - r["busy_s"]) / r["shards"] for r in runs["ray"]]
    result = {
        "rows": arguments.rows,
        "shards": runs["ray"][0]["shards"],
        "equal_stores": len(digests) == 1,
        "cluster_start_s": round(start_s, 2),
        "scheduling_ms_per_shard": middle(scheduling, 2),
        "rows_per_s": medians(rates),
        "ray_to_local": ratios(rates, to="local")["ray"],
        "claim_ms_by_shards": claims,
        "runs": runs,
    }
    publish(arguments, result, bars=medians(rates), unit="rows per second")


def parsed() -> argparse.Namespace:
    """The command line."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("--bundle", required=True)
    made.add_argument("--corpus", required=True)
    made.add_argument("--rows", type=positive, default=4096)
    made.add_argument("--shard-rows", type=positive, default=128)
    made.add_argument("--batch-tokens", type=positive, default=1024)
    made.add_argument("--claims", type=positive, nargs="+", default=CLAIMS, help="shards of stores")
    return made.parse_args()


def claim_ms(parent: Path, num_shards: int) -> float:
    """Milliseconds to claim one missing shard of a store whose others are there; the median of 5.

    Folders alone stand for the others, for nothing is read of shards that are not claimed.
    """
    folder = parent / str(num_shards)
    manifest = StoreManifest(
        labels=LabelSet(("a", "b")),
        num_rows=num_shards,
        shard_rows=1,
        dtype="float32",
        has_pairs=False,
        fingerprint={},
    )
    claim = range(num_shards - 1, num_shards)
    with FolderWriter(folder, manifest, claim):
        pass
    for index in range(num_shards - 1):
        (folder / "shards" / f"{index:06d}").mkdir()
    taken_ms = []
    for _ in range(5):
        started = time.perf_counter()
        with FolderWriter(folder, manifest, claim) as writer:
            taken_ms.append(1000 * (time.perf_counter() - started))
            assert len(writer.missing) == 1
    return middle(taken_ms, 2)


if __name__ == "__main__":
    main()
