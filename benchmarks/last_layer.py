"""What it spares to compute the last layer for the classified token alone.

Writes a fine-tuned model as a graph twice, as PyTorch exports it and with its last layer cut as
`monoxkit export` does it, in fp32 and in reduced precisions; compares the logits, and times each
pair on the same real texts in alternating rounds.

    python benchmarks/last_layer.py --model runs/demo/teacher --corpus big.jsonl --rows 300
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.demo.race import race_classifiers
from monox_kit.export.graph import FORMS, fuse_graph, write_form
from monox_kit.export.last_layer import slice_last_layer
from monox_kit.export.quantize import Calibration, write_quantized
from monox_kit.hardware import read_hardware
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import FP32, ONNX_FILE, ModelFolder, open_folder
from monox_kit.models.onnx_backend import OnnxClassifier, runtime_version
from monox_kit.models.scoring import score_texts, tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import load_classifier
from monox_kit.problem import problem_of

RESULT = Path(__file__).parent / "results" / "last_layer.json"
WAYS = ("whole", "cut")
_CALIBRATION_ROWS = 64
# The fp32 graphs differ by the order of additions alone.
_MOST_DELTA = 1e-4


def main() -> None:
    """Write the graphs, compare and time them, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--graph", choices=FORMS, default="opset17-eager")
    parser.add_argument("--precisions", nargs="+", default=[FP32, "int8-smooth"])
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    source = open_folder(arguments.model)
    tokenizer = Tokenizer(source.path, arguments.max_length)
    corpus = Corpus(CorpusConfig(paths=(arguments.corpus,)))
    documents = list(islice(corpus.documents(), _CALIBRATION_ROWS + arguments.rows))
    documents, others = documents[_CALIBRATION_ROWS:], documents[:_CALIBRATION_ROWS]
    calibration = Calibration(tokenize(tokenizer, others), tokenizer.has_token_types)
    texts = tokenize(tokenizer, documents)
    problem = problem_of(source.resolve_labels(None))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        plain = _written(
            source, arguments.graph, Path(scratch) / FP32, calibration, arguments.max_length
        )
        for precision in arguments.precisions:
            graphs = {}
            for way in WAYS:
                folder = plain[way]
                if precision != FP32:
                    folder = Path(scratch) / precision / way
                    folder.mkdir(parents=True)
                    write_quantized(precision, plain[way], folder, calibration)
                opened = ModelFolder(
                    path=folder, name=way, config=source.config, record=source.record
                )
                graphs[way] = OnnxClassifier(opened, provider=arguments.provider)
            logits = {way: score_texts(graph, texts).logits for way, graph in graphs.items()}
            compared = agreement(logits["whole"], logits["cut"], problem)
            if precision == FP32 and compared.max_delta > _MOST_DELTA:
                raise SystemExit(f"the graphs differ by {compared.max_delta}: nothing to time")
            race = race_classifiers(graphs, tokenizer, documents, rounds=arguments.rounds)
            found[precision] = {
                "tokens_per_s": dict(race.tokens_per_s),
                "cut_to_whole": round(race.tokens_per_s["cut"] / race.tokens_per_s["whole"], 3),
                "agreement": compared.to_json(),
            }
    result = {
        "rows": len(documents),
        "max_length": arguments.max_length,
        "graph": arguments.graph,
        "provider": arguments.provider,
        "layers": source.config.get("num_hidden_layers"),
        "found": found,
        "hardware": read_hardware().to_json(),
        "versions": {name: version(name) for name in ("onnx", "torch", "transformers")},
        "runtime": runtime_version(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _written(
    source: ModelFolder, form: str, into: Path, calibration: Calibration, max_length: int
) -> dict[str, Path]:
    """The folders of both fp32 graphs."""
    model = load_classifier(source, attention=FORMS[form].attention).model
    folders = {way: into / way for way in WAYS}
    folders["whole"].mkdir(parents=True)
    write_form(model, folders["whole"], FORMS[form], token_types=calibration.has_token_types)
    shutil.copytree(folders["whole"], folders["cut"])
    if not slice_last_layer(folders["cut"], calibration.texts, max_length):
        raise SystemExit(f"{source.path}/{ONNX_FILE}: its head reads more than the first token")
    if FORMS[form].fused:
        for folder in folders.values():
            fuse_graph(model.config, folder)
    return folders


if __name__ == "__main__":
    main()
