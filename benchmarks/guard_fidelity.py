"""What the fidelity guard gives and costs: fp32, the reduced graph, and the reduced graph guarded.

Labels the same texts three times with one bundle in a reduced precision (`monoxkit export
--precision auto`), and compares the stores with the fp32 graph's logits: on all rows, and on those
that the guard neither learned nor was audited on.

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

from monox_kit.agreement import agreement
from monox_kit.bundle import FP32_FILE, open_folder
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.hardware import read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.onnx_model import OnnxClassifier
from monox_kit.scoring import score
from monox_kit.store import LogitStore
from monox_kit.tokenizing import Tokenizer
from monoxkit_cli.render import RichProgress

RESULT = Path(__file__).parent / "results" / "guard_fidelity.json"


def main() -> None:
    """Label three times, compare, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--guard", type=float, default=0.999)
    parser.add_argument("--guard-rows", type=int)
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
        for name, guard in (("plain", None), ("guarded", arguments.guard)):
            config = LabelConfig(
                teacher="onnx",
                model=arguments.bundle,
                corpus=corpus,
                guard=guard,
                guard_rows=arguments.guard_rows if guard else None,
                batch_tokens=1024,
            )
            started = time.perf_counter()
            summary = label_corpus(config, Path(scratch) / name, progress=progress)
            store = LogitStore.open(Path(scratch) / name, verify="full")
            problem = store.manifest.problem
            runs[name] = {**summary.to_json(), "end_to_end_s": time.perf_counter() - started}
            logits[name] = store.logits(slice(None))
        documents = list(Corpus(corpus).documents())
        reference = OnnxClassifier(folder, file=FP32_FILE)
        started = time.perf_counter()
        expected = score(reference, tokenizer, documents).logits
        fp32_s = time.perf_counter() - started
        sampled = 2 * runs["guarded"]["guard"]["guard_calibration_rows"]
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
        "fp32_s": round(fp32_s, 1),
        "runs": {
            name: {key: value for key, value in run.items() if key not in ("store", "plan")}
            for name, run in runs.items()
        },
        "recomputed_fraction": runs["guarded"]["num_recomputed_rows"] / len(texts),
        "bundle": {"precision": folder.record.precision if folder.record else None},
        "hardware": read_hardware().to_json(),
        "versions": {name: version(name) for name in ("onnxruntime", "transformers")},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
