"""What the fidelity guard gives and costs: the reduced graph alone, and guarded in several ways.

Labels the same texts with one bundle in a reduced precision (`monoxkit export --precision auto`),
once without a guard and once with each of `--guards`, and compares the stores with the fp32 graph's
logits: on all rows, and on those that no guard learned or was audited on. What the fp32 graph takes
alone stands beside it, in fp32 and, where a guard computes in it, in bf16.

    python benchmarks/guard_fidelity.py --bundle runs/teacher-onnx --corpus big.jsonl --rows 5000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.hardware import read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import BF16, FP32, FP32_FILE, RunPrecision, open_folder
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import LogitStore
from monoxkit_cli.render import RichProgress

RESULT = Path(__file__).parent / "results" / "guard_fidelity.json"
MAX_KL = 1e-3
GUARDS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"guard_precision": BF16},
    "kl": {"guard_kl": MAX_KL},
    "kl-bf16": {"guard_kl": MAX_KL, "guard_precision": BF16},
}


def main() -> None:
    """Label in every way, compare, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--guard", type=float, default=0.999)
    parser.add_argument("--guard-rows", type=int)
    parser.add_argument("--guards", nargs="+", choices=list(GUARDS), default=["fp32", "kl"])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    progress = RichProgress()
    folder = open_folder(arguments.bundle)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(None))
    source = CorpusConfig(paths=(arguments.corpus,))
    texts = [document.text for document in islice(Corpus(source).documents(), arguments.rows)]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "corpus.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        corpus = CorpusConfig(paths=(str(path),))
        runs: dict[str, Any] = {}
        logits = {}
        asked = {"guard": arguments.guard, "guard_rows": arguments.guard_rows}
        ways = {"plain": {}, **{name: {**asked, **GUARDS[name]} for name in arguments.guards}}
        for name, guard in ways.items():
            config = LabelConfig(
                teacher="onnx", model=arguments.bundle, corpus=corpus, batch_tokens=1024, **guard
            )
            started = time.perf_counter()
            summary = label_corpus(config, Path(scratch) / name, progress=progress)
            store = LogitStore.open(Path(scratch) / name, verify="full")
            problem = store.manifest.problem
            runs[name] = {**summary.to_json(), "end_to_end_s": time.perf_counter() - started}
            logits[name] = store.logits(slice(None))
        documents = list(Corpus(corpus).documents())
        precisions: list[RunPrecision] = [FP32]
        precisions += [BF16] * any("bf16" in name for name in arguments.guards)
        alone_s: dict[str, float] = {}
        for precision in precisions:
            graph = OnnxClassifier(
                folder, file=FP32_FILE, provider=runs["plain"]["provider"], precision=precision
            )
            started = time.perf_counter()
            logits[f"{precision} alone"] = score(graph, tokenizer, documents).logits
            alone_s[precision] = round(time.perf_counter() - started, 1)
        expected = logits[f"{FP32} alone"]
        sampled = 2 * runs[arguments.guards[0]]["guard"]["guard_calibration_rows"]
        # The sample that labelling drew: the same corpus and size give the same rows.
        drawn = max(512, 2 * (arguments.guard_rows or 2000))
        sample = Corpus(corpus).scan(sample_rows=drawn).sample[:sampled]
    unseen = np.ones(len(texts), np.bool_)
    unseen[[document.row for document in sample]] = False
    result = {
        "rows": len(texts),
        "unseen_rows": int(unseen.sum()),
        "agreement": {
            name: {
                "all": agreement(expected, found, problem).to_json(),
                "unseen": agreement(expected[unseen], found[unseen], problem).to_json(),
            }
            for name, found in logits.items()
        },
        "fp32_graph_alone_s": alone_s,
        "runs": {
            name: {key: value for key, value in run.items() if key not in ("store", "plan")}
            for name, run in runs.items()
        },
        "recomputed_fraction": {
            name: runs[name]["num_recomputed_rows"] / len(texts) for name in arguments.guards
        },
        "bundle": {"precision": folder.record.precision if folder.record else None},
        "hardware": read_hardware().to_json(),
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "transformers": version("transformers"),
        },
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
