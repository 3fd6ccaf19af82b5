"""What the fidelity guard gives and costs: the reduced graph alone, and guarded in several ways.

Labels the same texts with one bundle in a reduced precision (`monoxkit export --precision auto`),
once without a guard and once with each of `--guards`, and compares the stores with the fp32 graph's
logits: on all rows, and on those that no guard learned or was audited on. What the fp32 graph takes
alone stands beside it, in fp32 and, where a guard computes in it, in bf16.

    python benchmarks/guard_fidelity.py --bundle runs/teacher-onnx --corpus big.jsonl --rows 5000
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import parser, positive, publish, timed
from monox_kit.corpora.corpus import Corpus
from monox_kit.labelling import LabelConfig
from monox_kit.labelling.guard_learning import guard_sample_rows
from monox_kit.labelling.kept_scan import SAMPLE_ROWS
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import BF16, FP32, FP32_FILE, RunPrecision, open_folder
from monox_kit.models.providers import open_graph
from monox_kit.models.scoring import score
from monox_kit.models.tokenizer import Tokenizer
from monoxkit_cli.render import RichProgress
from texts import corpus_of, first_documents, labelled

MAX_KL = 1e-3
GUARDS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"guard_precision": BF16},
    "kl": {"guard_kl": MAX_KL},
    "kl-bf16": {"guard_kl": MAX_KL, "guard_precision": BF16},
}


def main() -> None:
    """Label in every way, compare, print and write the result."""
    made = parser(__file__, __doc__)
    made.add_argument("--bundle", required=True)
    made.add_argument("--corpus", required=True)
    made.add_argument("--rows", type=positive, default=5000)
    made.add_argument("--guard", type=float, default=0.999)
    made.add_argument("--guard-rows", type=positive)
    made.add_argument("--guards", nargs="+", choices=list(GUARDS), default=["fp32", "kl"])
    arguments = made.parse_args()
    progress = RichProgress()
    folder = open_folder(arguments.bundle)
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(None))
    texts = [each.text for each in first_documents(arguments.corpus, arguments.rows)]
    with tempfile.TemporaryDirectory() as scratch:
        corpus = corpus_of(texts, Path(scratch) / "corpus.jsonl")
        runs: dict[str, Any] = {}
        logits = {}
        asked = {"guard": arguments.guard, "guard_rows": arguments.guard_rows}
        ways = {"plain": {}, **{name: {**asked, **GUARDS[name]} for name in arguments.guards}}
        for name, guard in ways.items():
            config = LabelConfig(
                teacher="onnx", model=arguments.bundle, corpus=corpus, batch_tokens=1024, **guard
            )
            label = partial(labelled, config, Path(scratch) / name, progress)
            taken_s, (summary, store, logits[name]) = timed(label)
            problem = store.manifest.problem
            runs[name] = {**summary.to_json(), "end_to_end_s": taken_s}
        documents = list(Corpus(corpus).documents())
        precisions: list[RunPrecision] = [FP32]
        precisions += [BF16] * any("bf16" in name for name in arguments.guards)
        alone_s: dict[str, float] = {}
        for precision in precisions:
            graph = open_graph(
                folder, file=FP32_FILE, provider=runs["plain"]["provider"], precision=precision
            )
            taken_s, found = timed(partial(score, graph, tokenizer, documents))
            logits[f"{precision} alone"] = found.logits
            alone_s[precision] = round(taken_s, 1)
        expected = logits[f"{FP32} alone"]
        # The ways' last configuration is guarded; all guards draw the same sample.
        unseen = _unseen(config, runs[arguments.guards[0]]["guard"], len(texts))
    result = {
        "rows": len(texts),
        "unseen_rows": int(unseen.sum()),
        "agreement": {
            name: {
                "all": agreement(expected, given, problem).to_json(),
                "unseen": agreement(expected[unseen], given[unseen], problem).to_json(),
            }
            for name, given in logits.items()
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
    }
    publish(arguments, result)


def _unseen(config: LabelConfig, guard: Mapping[str, Any], num_rows: int) -> npt.NDArray[np.bool_]:
    """[N] whether a row is none that the guard learned or was audited on."""
    # The sample that labelling drew: the same corpus and size give the same rows.
    drawn = max(SAMPLE_ROWS, guard_sample_rows(config))
    sample = Corpus(config.corpus).scan(sample_rows=drawn).sample
    unseen = np.ones(num_rows, np.bool_)
    # One half calibrates, as many rows audit.
    unseen[[each.row for each in sample[: 2 * guard["guard_calibration_rows"]]]] = False
    return unseen


if __name__ == "__main__":
    main()
