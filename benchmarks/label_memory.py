"""Resident memory and rate of `monoxkit label` from 20,000 to 2,000,000 rows.

Labels made-up texts of 3 to 40 words, no two windows alike, with a teacher of two layers of 32, so
that everything around the model is what is measured. Each run is a process of its own, whose
resident memory is read ten times a second. Shards of 262,144 rows show that a large shard costs no
memory either. Needs a checkout: the teacher is the one of the tests.

    python benchmarks/label_memory.py
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import ROOT, environment, note, parser, positive, publish, save, styled
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.hardware import num_threads

SIZES = (20_000, 200_000, 2_000_000)
LARGE_SHARD_ROWS = 262_144
PLOTTED_POINTS = 200
INTERVAL_S = 0.1
# The child labels, then tells what it did and the largest resident memory that it had.
CHILD = """
import json, sys
from pathlib import Path
from harness import peak_bytes
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.labelling import LabelConfig, label_corpus
bundle, corpus, store, shard_rows, threads = sys.argv[1:]
config = LabelConfig(teacher="onnx", model=bundle, corpus=CorpusConfig(paths=(corpus,)),
                     shard_rows=int(shard_rows), sessions=1, threads=int(threads))
summary = label_corpus(config, Path(store)).to_json()
print(json.dumps({**summary, "peak_rss_bytes": peak_bytes()}))
"""


def main() -> None:
    """Measure every size, then write the figures and the plot."""
    made = parser(__file__, __doc__)
    made.add_argument("--rows", type=positive, nargs="+", default=list(SIZES))
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = _bundle(folder)
        runs = []
        plans = [(rows, 16_384) for rows in sorted(arguments.rows)]
        # One large shard; the size in the middle tells as much as the largest, sooner.
        plans.append((sorted(arguments.rows)[len(arguments.rows) // 2], LARGE_SHARD_ROWS))
        for rows, shard_rows in plans:
            corpus = folder / f"{rows}.jsonl"
            if not corpus.exists():
                _write_corpus(corpus, rows)
            runs.append(_run(bundle, corpus, folder / f"store-{rows}-{shard_rows}", shard_rows))
            note(str({k: v for k, v in runs[-1].items() if k != "rss_bytes"}))
    smallest, largest = runs[0], runs[len(runs) - 2]
    result = {
        "runs": runs,
        "peak_rss_ratio": round(largest["peak_rss_bytes"] / smallest["peak_rss_bytes"], 3),
        "rows_per_s_ratio": round(largest["rows_per_s"] / smallest["rows_per_s"], 3),
        "large_shards_peak_rss_ratio": round(
            runs[-1]["peak_rss_bytes"] / largest["peak_rss_bytes"], 3
        ),
    }
    publish(arguments, result, hidden=["runs"])
    _plot(runs, arguments.out.with_suffix(".png"))


def _bundle(folder: Path) -> Path:
    sys.path.append(str(ROOT))
    from tests.tiny_models import bert_classifier

    model = bert_classifier(folder / "model")
    export_model(ExportConfig(model=str(model), max_length=64), folder / "bundle")
    return folder / "bundle"


def _write_corpus(path: Path, rows: int) -> None:
    from tests.tiny_models import WORDS

    generator = random.Random(1)
    with path.open("w", encoding="utf-8") as stream:
        for row in range(rows):
            words = generator.choices(WORDS, k=generator.randint(3, 40))
            stream.write(json.dumps({"id": f"row-{row}", "text": " ".join(words)}) + "\n")


def _run(bundle: Path, corpus: Path, store: Path, shard_rows: int) -> dict[str, Any]:
    """One labelling process, its resident memory read as it goes."""
    given = map(str, (bundle, corpus, store, shard_rows, num_threads()))
    command = [sys.executable, "-c", CHILD, *given]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        samples = []
        while process.poll() is None:
            samples.append((time.perf_counter() - started, _resident_bytes(process.pid)))
            time.sleep(INTERVAL_S)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{corpus}: expected the labelling to end well, found an error.")
    summary = json.loads(output.splitlines()[-1])
    step = max(1, len(samples) // PLOTTED_POINTS)
    return {
        "rows": summary["num_rows"],
        "shard_rows": shard_rows,
        "rows_per_s": summary["rows_per_s"],
        "end_to_end_s": round(samples[-1][0], 1),
        "padding_fraction": summary["padding_fraction"],
        "peak_rss_bytes": summary["peak_rss_bytes"],
        "rss_bytes": [(round(at, 1), size) for at, size in samples[::step] if size],
    }


def _resident_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * 4096 if len(fields) > 1 else 0


def _plot(runs: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for run in runs:
            at, sizes = zip(*run["rss_bytes"])
            label = f"{run['rows']:,} rows, shards of {run['shard_rows']:,}"
            axes.plot([x / at[-1] for x in at], [size / 2**20 for size in sizes], label=label)
        axes.set(xlabel="part of the run", ylabel="resident memory, MiB", ylim=(0, None))
        axes.set_title("monoxkit label: memory over corpora of three sizes")
        axes.legend(frameon=False)
        save(figure, path)


if __name__ == "__main__":
    main()
