"""The largest difference between the logits that `--teacher onnx` and `--teacher torch` store.

Labels the same real texts with the same fine-tuned model through both backends, in float32, and
compares the two stores row by row. Needs a finished demo: `monoxkit demo` (or `make demo`).

    python benchmarks/backend_parity.py --run runs/demo --rows 2000 --max-length 256
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.export import ExportConfig, export_model
from monox_kit.hardware import read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.agreement import agreement
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import LogitStore
from monoxkit_cli.render import RichProgress

RESULT = Path(__file__).parent / "results" / "backend_parity.json"
TOLERANCE = 1e-4


def main() -> None:
    """Measure, print and write the result; exit with 1 where the tolerance is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    model = str(arguments.run / "teacher")
    source = CorpusConfig(paths=(str(arguments.run / "data" / "unlabelled.jsonl"),))
    texts = [document.text for document in islice(Corpus(source).documents(), arguments.rows)]
    # Every length: a quarter of the texts is cut to a prefix, 1 word, 2 words and so on.
    texts = [
        " ".join(text.split()[: 1 + row // 4 % 200]) if row % 4 == 0 else text
        for row, text in enumerate(texts)
    ]
    progress = RichProgress()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = (json.dumps({"text": text}) for text in texts)
        (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        export = ExportConfig(model=model, max_length=arguments.max_length)
        export_model(export, folder / "bundle", progress=progress)
        stores = {}
        for backend, reference in (("torch", model), ("onnx", str(folder / "bundle"))):
            config = LabelConfig(
                teacher=backend,  # type: ignore[arg-type]
                model=reference,
                corpus=CorpusConfig(paths=(str(folder / "corpus.jsonl"),)),
                max_length=arguments.max_length,
            )
            label_corpus(config, folder / backend, progress=progress)
            store = LogitStore.open(folder / backend, verify="full")
            stores[backend] = store.logits(slice(None))
        lengths = Tokenizer(folder / "bundle", arguments.max_length).encode(texts).lengths
    found = agreement(stores["torch"], stores["onnx"], store.manifest.problem)
    result = {
        "texts": len(texts),
        "tokens": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
            "distinct_lengths": len(np.unique(lengths)),
        },
        **found.to_json(),
        "tolerance": TOLERANCE,
        "hardware": read_hardware().to_json(),
        "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime")},
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if found.max_delta > TOLERANCE:
        raise SystemExit(f"expected at most {TOLERANCE}, found {found.max_delta}")


if __name__ == "__main__":
    main()
