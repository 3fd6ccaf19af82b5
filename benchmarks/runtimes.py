"""The same graphs on ONNX Runtime, on OpenVINO's own runtime, and on OpenVINO through ONNX Runtime.

Agreement with PyTorch first, then speed. Each run is a process that opens the bundle, scores the
texts once uncounted, for the kernels of every shape, and then the same texts again, at the plan
that `monoxkit label` takes by default. A model without a head gets a random one.

    python benchmarks/runtimes.py packaged:e5-small --texts rows.jsonl --ep-python PYTHON

onnxruntime-openvino cannot be in one environment with onnxruntime: `--ep-python` is an interpreter
that has it beside the dependencies of `monoxkit`; without it that way is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import (
    ROOT,
    by_way,
    environment,
    last_line,
    medians,
    note,
    parser,
    peak_bytes,
    positive,
    publish,
    ratios,
    take_turns,
)

_OPENVINO, _EP = "openvino", "openvino-ep"
_PRECISIONS = ("fp32", "bf16", "int8-static-smooth", "int8-nncf")
_BATCH_TOKENS = 1024
_NUM_CLASSES = 20


def main() -> None:
    """Export, compare, time in turn, and write down."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("models", nargs="+", help="PyTorch folders, packaged:NAME or hub names")
    made.add_argument(
        "--texts", nargs="+", required=True, help="the first rows of these are scored"
    )
    made.add_argument("--rows", type=positive, default=300)
    made.add_argument("--max-length", type=positive, default=256)
    made.add_argument("--precisions", nargs="+", default=_PRECISIONS)
    made.add_argument("--graph", default="opset17-eager", help="form of the graphs")
    made.add_argument("--ep-python", help="an interpreter with onnxruntime-openvino")
    arguments = made.parse_args()
    ways = {"cpu": sys.executable, _OPENVINO: sys.executable}
    if arguments.ep_python:
        ways[_EP] = arguments.ep_python
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, model in enumerate(arguments.models):
            work = Path(scratch) / str(number)
            found[model] = _measure(model, work, arguments, ways)
    bars = {
        f"{model}, {precision}, {way}": rate
        for model, of_model in found.items()
        for precision, one in of_model.items()
        for way, rate in one["tokens_per_s"].items()
    }
    result = {
        name: getattr(arguments, name) for name in ("rows", "max_length", "graph", "rounds")
    } | {"batch_tokens": _BATCH_TOKENS, "found": found}
    publish(arguments, result, bars=bars, unit="tokens per second")


def _measure(model: str, work: Path, arguments: Any, ways: Mapping[str, str]) -> dict[str, Any]:
    """Agreement and speed of one model, by precision."""
    from monox_kit.errors import MonoxError
    from monox_kit.models.load import load_model
    from monox_kit.models.scoring import score
    from texts import corpus_of, first_documents

    work.mkdir()
    documents = first_documents(arguments.texts, arguments.rows)
    corpus = corpus_of([document.text for document in documents], work / "texts.jsonl")
    folder = _with_head(model, work / "model")
    opened = load_model(folder, max_length=arguments.max_length)
    expected = score(opened.classifier, opened.tokenizer, documents).logits
    found = {}
    for precision in arguments.precisions:
        note(f"{model}: exporting {precision}")
        bundle = work / precision
        try:
            _export(folder, bundle, precision, arguments)
        except MonoxError as error:
            note(f"{model}: {precision} is left out: {error}")
            continue
        names = [name for name in ways if precision != "bf16" or name != "cpu"]
        turns = {
            name: partial(_run, ways[name], name, bundle, corpus.paths[0], work) for name in names
        }
        runs = take_turns(turns, arguments.rounds)
        found[precision] = _judged(runs, expected, opened.classifier.labels, work)
    return found


def _judged(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], expected: Any, labels: Any, work: Path
) -> dict[str, Any]:
    """What is told of one precision: agreement of each way, and its figures beside the others'."""
    import numpy as np

    from monox_kit.models.agreement import agreement
    from monox_kit.problem import problem_of

    rates = by_way(runs, "tokens_per_s")
    return {
        "agreement": {
            way: agreement(expected, np.load(work / f"{way}.npy"), problem_of(labels)).to_json()
            for way in runs
        },
        "tokens_per_s": medians(rates, 1),
        "to_cpu": ratios(rates, to="cpu") if "cpu" in rates else {},
        "native_to_ep": ratios(rates, to=_EP).get(_OPENVINO) if _EP in rates else None,
        # Of every round: in the first one OpenVINO compiles, in the others it has kept the graph.
        "open_s": by_way(runs, "open_s"),
        "first_pass_s": medians(by_way(runs, "first_pass_s"), 2),
        "peak_mb": medians(by_way(runs, "peak_mb"), 0),
        "runtime": {way: found[0]["runtime"] for way, found in runs.items()},
        "plan": {way: found[0]["plan"] for way, found in runs.items()},
    }


def _with_head(model: str, out: Path) -> str:
    """The model's folder; one of a copy with a random head where it has none."""
    from monox_kit.data import LabelSet
    from monox_kit.models.folder import open_folder
    from monox_kit.models.tokenizer import Tokenizer
    from monox_kit.models.torch_backend import new_classifier

    folder = open_folder(model)
    if folder.has_head:
        return model
    labels = LabelSet(tuple(f"class {number}" for number in range(_NUM_CLASSES)))
    new_classifier(folder, labels, 1).save_pretrained(str(out))
    Tokenizer(folder.path, 256).save(out)
    return str(out)


def _export(model: str, bundle: Path, precision: str, arguments: Any) -> None:
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.exporting import ExportConfig, export_model

    config = ExportConfig(
        model=model,
        precision=precision,
        graph=arguments.graph,
        max_length=arguments.max_length,
        check=CorpusConfig(paths=tuple(arguments.texts)),
        min_agreement=0.0,
        provider=_OPENVINO,
        keep_fp32=False,
    )
    export_model(config, bundle)


def _run(python: str, provider: str, bundle: Path, corpus: str, work: Path, _: int) -> Any:
    """One process's figures; its logits lie in `work`."""
    job = {"provider": provider, "bundle": str(bundle), "corpus": corpus}
    command = [python, __file__, "--job", json.dumps({**job, "out": f"{work}/{provider}.npy"})]
    # Compiled graphs of this benchmark alone.
    cache = {"MONOXKIT_CACHE": str(work / "cache")}
    return last_line(command, env={**environment(ROOT), **cache})


def _score(job: Mapping[str, str]) -> dict[str, Any]:
    """What one way does in a process of its own."""
    import numpy as np

    from monox_kit.models.folder import open_folder
    from monox_kit.models.load import OpenModel
    from monox_kit.models.providers import runtime_version
    from monox_kit.models.run_plan import default_plan
    from monox_kit.models.scoring import score_texts, tokenize
    from texts import first_documents

    plan = default_plan(job["provider"], batch_tokens=_BATCH_TOKENS)
    started_s = time.perf_counter()
    model = OpenModel(open_folder(job["bundle"]), "onnx", provider=job["provider"])
    classifier = model.classifier(plan=plan.session)
    opened_s = time.perf_counter()
    texts = tokenize(model.tokenizer, first_documents(job["corpus"], sys.maxsize))
    passes_s = []
    for _ in range(2):
        before_s = time.perf_counter()
        scored = score_texts(classifier, texts, batch_tokens=plan.batch_tokens)
        passes_s.append(time.perf_counter() - before_s)
    np.save(job["out"], scored.logits)
    return {
        "tokens_per_s": scored.num_tokens / passes_s[-1],
        "first_pass_s": passes_s[0],
        "open_s": round(opened_s - started_s, 2),
        "peak_mb": (peak_bytes() or 0) / 1e6,
        "runtime": runtime_version(job["provider"]),
        "plan": str(plan),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(_score(json.loads(sys.argv[2]))))
    else:
        main()
