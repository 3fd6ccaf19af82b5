"""What it spares to compute the last layer for the classified token alone.

Writes a fine-tuned model as a graph twice, as PyTorch exports it and with its last layer cut as
`monoxkit export` does it, in fp32 and in reduced precisions; compares the logits, and times each
pair on the same real texts in alternating rounds.

    python benchmarks/last_layer.py --model runs/demo/teacher --corpus big.jsonl --rows 300
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import each_round, medians, parser, positive, publish, ratios, seconds, take_turns
from monox_kit.data import Classifier, Document
from monox_kit.exporting.config import FORMS
from monox_kit.exporting.graph import fuse_graph, write_form
from monox_kit.exporting.last_layer import slice_last_layer
from monox_kit.exporting.quantize import write_quantized
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import FP32, ONNX_FILE, ModelFolder, open_folder
from monox_kit.models.providers import open_graph, runtime_version
from monox_kit.models.scoring import Texts, score, score_texts, tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import load_classifier
from monox_kit.problem import problem_of
from texts import first_documents

WAYS = ("whole", "cut")
_CALIBRATION_ROWS = 64
# The fp32 graphs differ by the order of additions alone.
_MOST_DELTA = 1e-4


def main() -> None:
    """Write the graphs, compare and time them, print and write the result."""
    made = parser(__file__, __doc__, rounds=5)
    made.add_argument("--model", required=True)
    made.add_argument("--corpus", required=True)
    made.add_argument("--rows", type=positive, default=300)
    made.add_argument("--max-length", type=positive, default=256)
    made.add_argument("--graph", choices=FORMS, default="opset17-eager")
    made.add_argument("--precisions", nargs="+", default=[FP32, "int8-smooth"])
    made.add_argument("--provider", default="cpu")
    arguments = made.parse_args()
    source = open_folder(arguments.model)
    tokenizer = Tokenizer(source.path, arguments.max_length)
    documents = first_documents(arguments.corpus, _CALIBRATION_ROWS + arguments.rows)
    documents, others = documents[_CALIBRATION_ROWS:], documents[:_CALIBRATION_ROWS]
    calibration = tokenize(tokenizer, others)
    texts = tokenize(tokenizer, documents)
    problem = problem_of(source.resolve_labels(None))
    found: dict[str, Any] = {}
    bars: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        plain = _written(source, tokenizer, arguments.graph, Path(scratch) / FP32, calibration)
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
                graphs[way] = open_graph(opened, provider=arguments.provider, keep=False)
            logits = {way: score_texts(graph, texts).logits for way, graph in graphs.items()}
            compared = agreement(logits["whole"], logits["cut"], problem)
            if precision == FP32 and compared.max_delta > _MOST_DELTA:
                raise SystemExit(f"the graphs differ by {compared.max_delta}: nothing to time")
            rates = _rates(graphs, tokenizer, documents, arguments.rounds)
            bars |= {f"{precision}, {way}": rate for way, rate in medians(rates, 1).items()}
            found[precision] = {
                "tokens_per_s": medians(rates, 1),
                "cut_to_whole": ratios(rates, to="whole")["cut"],
                "agreement": compared.to_json(),
            }
    result = {
        "rows": len(documents),
        "max_length": arguments.max_length,
        "graph": arguments.graph,
        "provider": arguments.provider,
        "layers": source.config.get("num_hidden_layers"),
        "found": found,
        "runtime": runtime_version(arguments.provider),
    }
    publish(arguments, result, bars=bars, unit="tokens per second")


def _rates(
    graphs: Mapping[str, Classifier],
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    rounds: int,
) -> dict[str, list[float]]:
    """Tokens per second of each graph in each round, tokenizing included."""
    num_tokens = int(tokenize(tokenizer, documents).encoded.lengths.sum())

    def rate(graph: Classifier) -> float:
        return num_tokens / seconds(lambda: score(graph, tokenizer, documents))

    ways = {way: each_round(partial(rate, graph)) for way, graph in graphs.items()}
    return take_turns(ways, rounds, warm_up=True)


def _written(
    source: ModelFolder, tokenizer: Tokenizer, form: str, into: Path, calibration: Texts
) -> dict[str, Path]:
    """The folders of both fp32 graphs."""
    model = load_classifier(source, attention=FORMS[form].attention).model
    folders = {way: into / way for way in WAYS}
    folders["whole"].mkdir(parents=True)
    write_form(model, folders["whole"], FORMS[form], token_types=tokenizer.has_token_types)
    shutil.copytree(folders["whole"], folders["cut"])
    if not slice_last_layer(folders["cut"], calibration, tokenizer.max_length):
        raise SystemExit(f"{source.path}/{ONNX_FILE}: its head reads more than the first token")
    if FORMS[form].fused:
        for folder in folders.values():
            fuse_graph(model.config, folder)
    return folders


if __name__ == "__main__":
    main()
