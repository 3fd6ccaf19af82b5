"""What labelling costs beside the model: files in and a verified store out, and the bare session.

Both run the same bundle on the same batches in alternating rounds. The bare session gets batches
that are tokenized, sorted and padded before its clock starts; labelling reads, checks, tokenizes,
batches, restores the order, and writes a store that is then verified in full.

    python benchmarks/label_overhead.py --bundle runs/student-onnx --corpus big.jsonl --rows 5000
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from harness import medians, parser, positive, publish, ratios, take_turns
from monox_kit.hardware import num_threads
from monox_kit.labelling import LabelConfig
from monox_kit.models.batching import pad_batch, plan_batches
from monox_kit.models.folder import open_folder
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import tokenize
from monox_kit.models.tokenizer import Tokenizer
from monoxkit_cli.render import RichProgress
from texts import corpus_of, first_documents, labelled


def main() -> None:
    """Time both in turn, compare their logits, print and write the result."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("--bundle", required=True)
    made.add_argument("--corpus", required=True)
    made.add_argument("--rows", type=positive, default=5000)
    made.add_argument("--batch-tokens", type=positive, default=1024)
    arguments = made.parse_args()
    folder = open_folder(arguments.bundle)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(None))
    documents = first_documents(arguments.corpus, arguments.rows)
    texts = tokenize(tokenizer, documents)
    lengths = texts.encoded.lengths
    batches = [
        pad_batch(texts.encoded, rows, texts.padding)
        for rows in plan_batches(lengths, arguments.batch_tokens)
    ]
    session = OnnxClassifier(folder)
    logits = np.empty((len(lengths), len(session.labels)), np.float32)
    differing: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        config = LabelConfig(
            teacher="onnx",
            model=arguments.bundle,
            corpus=corpus_of([each.text for each in documents], Path(scratch) / "corpus.jsonl"),
            batch_tokens=arguments.batch_tokens,
            sessions=1,
            threads=num_threads(),
        )

        def bare(_round: int) -> float:
            started_s = time.perf_counter()
            for batch in batches:
                logits[batch.rows] = session.logits(batch)
            return time.perf_counter() - started_s

        def whole(round_: int) -> float:
            started_s = time.perf_counter()
            _, _, found = labelled(config, Path(scratch) / str(round_), RichProgress())
            taken_s = time.perf_counter() - started_s
            # The first round begins with the session: its logits are there.
            differing.append(int((found != logits[texts.distinct]).any(axis=1).sum()))
            return taken_s

        session.logits(batches[-1])
        seconds = take_turns({"session": bare, "labelling": whole}, arguments.rounds)
    tokens = int(lengths.sum())
    rates = {name: [tokens / taken_s for taken_s in each] for name, each in seconds.items()}
    result = {
        "rows": len(documents),
        "distinct_tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": medians(rates, 1),
        "labelling_to_session": ratios(rates, to="session")["labelling"],
        "differing_rows": sum(differing),
        "bundle": {"precision": folder.record.precision if folder.record else None},
    }
    publish(arguments, result, bars=medians(rates, 1), unit="tokens per second")


if __name__ == "__main__":
    main()
