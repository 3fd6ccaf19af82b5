"""The largest difference between the logits that `--teacher onnx` and `--teacher torch` store.

Labels the same real texts with the same fine-tuned model through both backends, in float32, and
compares the two stores row by row. Needs a finished demo: `monoxkit demo` (or `make demo`).

    python benchmarks/backend_parity.py --run runs/demo --rows 2000 --max-length 256
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from harness import parser, positive, publish
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig
from monox_kit.models.agreement import agreement
from monox_kit.models.tokenizer import Tokenizer
from monoxkit_cli.render import RichProgress
from texts import corpus_of, first_documents, labelled

TOLERANCE = 1e-4


def main() -> None:
    """Measure, print and write the result; exit with 1 where the tolerance is broken."""
    made = parser(__file__, __doc__)
    made.add_argument("--run", type=Path, default=Path("runs/demo"))
    made.add_argument("--rows", type=positive, default=2000)
    made.add_argument("--max-length", type=positive, default=256)
    arguments = made.parse_args()
    model = str(arguments.run / "teacher")
    source = str(arguments.run / "data" / "unlabelled.jsonl")
    texts = [document.text for document in first_documents(source, arguments.rows)]
    # Every length: a quarter of the texts is cut to a prefix, 1 word, 2 words and so on.
    texts = [
        " ".join(text.split()[: 1 + row // 4 % 200]) if row % 4 == 0 else text
        for row, text in enumerate(texts)
    ]
    progress = RichProgress()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpus = corpus_of(texts, folder / "corpus.jsonl")
        export = ExportConfig(model=model, max_length=arguments.max_length)
        export_model(export, folder / "bundle", progress=progress)
        logits = {}
        for backend, reference in (("torch", model), ("onnx", str(folder / "bundle"))):
            config = LabelConfig(
                teacher=backend,  # type: ignore[arg-type]
                model=reference,
                corpus=corpus,
                max_length=arguments.max_length,
            )
            _, store, logits[backend] = labelled(config, folder / backend, progress)
        lengths = Tokenizer(folder / "bundle", arguments.max_length).encode(texts).lengths
    found = agreement(logits["torch"], logits["onnx"], store.manifest.problem)
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
    }
    publish(arguments, result)
    if found.max_delta > TOLERANCE:
        raise SystemExit(f"expected at most {TOLERANCE}, found {found.max_delta}")


if __name__ == "__main__":
    main()
