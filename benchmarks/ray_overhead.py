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
import json
import os
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import LabelSet
from monox_kit.hardware import read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.progress import Silent, SilentTask
from monox_kit.store import LogitStore, StoreManifest, StoreWriter

RESULT = Path(__file__).parent / "results" / "ray_overhead.json"
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
    started = time.perf_counter()
    ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    start_s = time.perf_counter() - started
    runs: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as scratch:
        corpus = some_rows(arguments.corpus, arguments.rows, Path(scratch) / "corpus.jsonl")
        config = LabelConfig(
            teacher="onnx",
            model=arguments.bundle,
            corpus=corpus,
            shard_rows=arguments.shard_rows,
            batch_tokens=arguments.batch_tokens,
            sessions=CORES,
            threads=1,
        )
        configs = {"local": config, "ray": replace(config, engine="ray", workers=CORES, sessions=1)}
        digests = set()
        for number in range(arguments.rounds):
            for engine, chosen in configs.items():
                reports = Reports()
                store = Path(scratch) / f"{engine}-{number}"
                summary = label_corpus(chosen, store, progress=reports)
                digests.add(LogitStore.open(store, verify="full").digest)
                runs[engine].append(
                    {
                        "labelled_s": summary.labelled_s,
                        "rows_per_s_whole": summary.rows_per_s,
                        "rows_per_s": round(reports.rows_per_s(), 2),
                        **(summary.cluster or {}),
                    }
                )
        ray.shutdown()
        num_shards = summary.num_shards
        claims = {str(count): claim_ms(Path(scratch) / "claims", count) for count in CLAIMS}
    rates = {engine: median(run["rows_per_s"] for run in found) for engine, found in runs.items()}
    result = {
        "rows": arguments.rows,
        "shards": num_shards,
        "equal_stores": len(digests) == 1,
        "cluster_start_s": round(start_s, 2),
        "scheduling_ms_per_shard": round(
            1000 * median((r["handed_s"] - r["busy_s"]) / num_shards for r in runs["ray"]), 2
        ),
        "rows_per_s": rates,
        "ray_to_local": round(rates["ray"] / rates["local"], 4),
        "claim_ms_by_shards": claims,
        "runs": runs,
        "hardware": read_hardware().to_json(),
        "versions": {name: version(name) for name in ("ray", "onnxruntime", "transformers")},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--shard-rows", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def some_rows(source: str, count: int, path: Path) -> CorpusConfig:
    """The first rows of a corpus as one of their own."""
    documents = islice(Corpus(CorpusConfig(paths=(source,))).documents(), count)
    lines = [json.dumps({"text": document.text}) + "\n" for document in documents]
    path.write_text("".join(lines), "utf-8")
    return CorpusConfig(paths=(str(path),))


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
    with StoreWriter(folder, manifest, claim):
        pass
    for index in range(num_shards - 1):
        (folder / "shards" / f"{index:06d}").mkdir()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        with StoreWriter(folder, manifest, claim) as writer:
            seconds.append(time.perf_counter() - started)
            assert len(writer.missing) == 1
    return round(1000 * median(seconds), 2)


if __name__ == "__main__":
    main()
