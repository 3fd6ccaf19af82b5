"""What labelling costs beside the model: files in and a verified store out, and the bare session.

Both run the same bundle on the same batches in alternating rounds. The bare session gets batches
that are tokenized, sorted and padded before its clock starts; labelling reads, checks, tokenizes,
batches, restores the order, and writes a store that is then verified in full.

    python benchmarks/label_overhead.py --bundle runs/student-onnx --corpus big.jsonl --rows 5000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.hardware import num_threads, read_hardware
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.folder import open_folder
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import LogitStore
from monoxkit_cli.render import RichProgress

RESULT = Path(__file__).parent / "results" / "label_overhead.json"


def main() -> None:
    """Time both in turn, compare their logits, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    folder = open_folder(arguments.bundle)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(None))
    source = CorpusConfig(paths=(arguments.corpus,))
    documents = list(islice(Corpus(source).documents(), arguments.rows))
    texts = tokenize(tokenizer, documents)
    lengths = texts.encoded.lengths
    batches = [
        pad_batch(texts.encoded, rows, texts.pad_id)
        for rows in plan_batches(lengths, arguments.batch_tokens)
    ]
    session = OnnxClassifier(folder)
    logits = np.empty((len(lengths), len(session.labels)), np.float32)
    seconds: dict[str, list[float]] = {"session": [], "labelling": []}
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "corpus.jsonl"
        lines = [json.dumps({"text": document.text}) + "\n" for document in documents]
        path.write_text("".join(lines), "utf-8")
        config = LabelConfig(
            teacher="onnx",
            model=arguments.bundle,
            corpus=CorpusConfig(paths=(str(path),)),
            batch_tokens=arguments.batch_tokens,
            sessions=1,
            threads=num_threads(),
        )
        session.logits(batches[-1])
        for number in range(arguments.rounds):
            started = time.perf_counter()
            for batch in batches:
                logits[batch.rows] = session.logits(batch)
            seconds["session"].append(time.perf_counter() - started)
            store = Path(scratch) / str(number)
            started = time.perf_counter()
            label_corpus(config, store, progress=RichProgress())
            found = LogitStore.open(store, verify="full").logits(slice(None))
            seconds["labelling"].append(time.perf_counter() - started)
            differing += int((found != logits[texts.distinct]).any(axis=1).sum())
    tokens = int(lengths.sum())
    result = {
        "rows": len(documents),
        "distinct_tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": {
            name: round(tokens / median(values), 1) for name, values in seconds.items()
        },
        "labelling_to_session": round(median(seconds["session"]) / median(seconds["labelling"]), 4),
        "differing_rows": differing,
        "bundle": {"precision": folder.record.precision if folder.record else None},
        "hardware": read_hardware().to_json(),
        "versions": {name: version(name) for name in ("onnxruntime", "transformers")},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
