"""What threads that spin cost and spare, on a quiet machine and beside busy processes.

Times a training step in PyTorch and a batch in ONNX Runtime beside none, one and two processes that
compute without end, with waiting threads that spin (`on`), that sleep (`off`), and as `auto`
chooses when the process starts. Every run is a process of its own, since OpenMP reads its settings
once; all take turns in each round. Run it with nothing else at work.

    python benchmarks/busy_machine.py --model runs/demo/kd --bundle runs/demo/kd-onnx
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import harness
from monox_kit.spinning import CHOICES, VARIABLE, settle_spinning

NEIGHBOURS = (0, 1, 2)
ROWS, TOKENS = 16, 32
_BUSY = "while True: pass"


def main() -> None:
    """Time all ways in turn, print and write the result."""
    parser = harness.parser(__file__, __doc__, rounds=3)
    parser.add_argument("--model", required=True, help="a fine-tuned model, for PyTorch")
    parser.add_argument("--bundle", required=True, help="an ONNX bundle, for ONNX Runtime")
    parser.add_argument("--steps", type=harness.positive, default=20, help="steps of each run")
    arguments = parser.parse_args()
    works = {"step in PyTorch": arguments.model, "batch in ONNX Runtime": arguments.bundle}
    ways = {
        f"{work}, {busy} busy, {spin}": partial(_run, model, busy, spin, arguments.steps)
        for (work, model), busy, spin in product(works.items(), NEIGHBOURS, CHOICES)
    }
    found = harness.take_turns(ways, arguments.rounds)
    seconds = harness.by_way(found, "seconds")
    ratios = {
        f"{work}, {busy} busy": harness.ratios(
            {spin: seconds[f"{work}, {busy} busy, {spin}"] for spin in CHOICES}, to="on"
        )
        for work, busy in product(works, NEIGHBOURS)
    }
    result = {
        "rows": ROWS,
        "tokens": TOKENS,
        "seconds": harness.medians(seconds),
        "ratios_to_on": ratios,
        "auto_chose": {
            way: [run["spin"] for run in runs] for way, runs in found.items() if "auto" in way
        },
    }
    harness.publish(arguments, result, bars=harness.medians(seconds), unit="seconds")


def _run(model: str, busy: int, spin: str, steps: int, _number: int) -> dict[str, Any]:
    """Seconds of a step in a fresh process beside `busy` others, and whether its threads spin."""
    variables = {**os.environ, VARIABLE: spin}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        variables.pop(name, None)
    command = [sys.executable, __file__, "--child", model, str(steps)]
    with _neighbours(busy):
        return dict(harness.last_line(command, env=variables))


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    """So many processes that compute for the block."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _child(model: str, steps: int) -> None:
    """Time steps as the environment says, and print what was found."""
    settle_spinning()
    from monox_kit.models.folder import open_folder  # torch, from here on

    folder = open_folder(model)
    make = _training_step if folder.backend == "torch" else _batch
    step = make(folder)
    for _ in range(2):  # the first allocates
        step()
    seconds = [harness.seconds(step) for _ in range(steps)]
    print(json.dumps({"seconds": harness.middle(seconds), "spin": os.environ[VARIABLE]}))


def _training_step(folder: Any) -> Callable[[], object]:
    """A step of AdamW over all parameters, in bfloat16 where the hardware has it."""
    import torch

    from monox_kit.hardware import has_bf16, num_threads
    from monox_kit.models.torch_backend import load_classifier

    torch.set_num_threads(num_threads())
    model: Any = load_classifier(folder).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    tokens = torch.randint(5, model.config.vocab_size, (ROWS, TOKENS))
    labels = torch.randint(0, model.config.num_labels, (ROWS,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        loss: Any = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _batch(folder: Any) -> Callable[[], object]:
    """A batch of one session on all cores."""
    import numpy as np

    from monox_kit.data import TokenBatch
    from monox_kit.models.onnx_backend import OnnxClassifier

    classifier = OnnxClassifier(folder)
    config = json.loads((Path(folder.path) / "config.json").read_text(encoding="utf-8"))
    tokens = np.random.default_rng(0).integers(5, config["vocab_size"], (ROWS, TOKENS))
    batch = TokenBatch(
        rows=np.arange(ROWS),
        input_ids=tokens,
        attention_mask=np.ones_like(tokens),
        token_type_ids=np.zeros_like(tokens),
    )
    return lambda: classifier.logits(batch)


if __name__ == "__main__":
    if "--child" in sys.argv[1:2]:
        _child(sys.argv[2], int(sys.argv[3]))
    else:
        main()
