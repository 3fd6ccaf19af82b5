"""Training a student: transformers' Trainer with the teacher in the loop, and without, and ours.

Every contender is a process of its own that fine-tunes the same encoder on the same rows with the
same objective, batch size, number of steps and learning rate, scores the dev set once at its end,
and saves its model. They take turns; a round is a seed. `seconds` are those of the whole, loading
and scoring included; `step_s` are those between the ends of two optimizer steps, means over all but
the first: what a run of thousands of steps pays.

    trainer-online   Trainer in fp32; the PyTorch teacher scores every batch: what people do today
    trainer-store    Trainer in fp32; the teacher's logits are read from the store
    monoxkit-full    monoxkit in fp32, all parameters trained: what the loop alone costs
    monoxkit         monoxkit as it comes: bf16 where the machine has it, word embeddings frozen

    python benchmarks/train_throughput.py --teacher runs/teacher --store runs/store \\
        --dev runs/data/dev.jsonl --steps 40 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import (
    by_way,
    last_line,
    medians,
    parser,
    peak_bytes,
    positive,
    publish,
    ratios,
    take_turns,
)
from monox_kit.corpora.corpus import CorpusConfig, read_labelled
from monox_kit.hardware import num_threads
from monox_kit.models.batching import pad_batch
from monox_kit.models.folder import open_folder
from monox_kit.models.scoring import score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.store import LogitStore

if TYPE_CHECKING:
    from transformers import TrainingArguments

CONTENDERS = ("trainer-online", "trainer-store", "monoxkit-full", "monoxkit")
BATCH_ROWS = 16
LEARNING_RATE = 2e-4
TEMPERATURE = 0.1


def main() -> None:
    """Let the contenders take turns, print and write the result; or be one of them."""
    made = parser(__file__, __doc__, rounds=3)
    made.add_argument("--model", default="packaged:e5-small")
    made.add_argument("--teacher", required=True, help="the PyTorch folder behind the store")
    made.add_argument("--store", required=True)
    made.add_argument("--dev", required=True)
    made.add_argument("--steps", type=positive, default=40)
    made.add_argument("--max-length", type=positive, default=128)
    made.add_argument("--contender", choices=CONTENDERS, help="be this one, once")
    made.add_argument("--seed", type=int, default=1)
    arguments = made.parse_args()
    if arguments.contender:
        run = _monoxkit if arguments.contender.startswith("monoxkit") else _trainer
        with tempfile.TemporaryDirectory() as scratch:
            ends = _step_ends()
            found = run(arguments, Path(scratch))
            found["step_s"] = (ends[-1] - ends[0]) / (len(ends) - 1)
            print(json.dumps({**found, "peak_rss_bytes": peak_bytes()}))
        return
    runs = take_turns({name: partial(_in_process, name) for name in CONTENDERS}, arguments.rounds)
    times = {key: by_way(runs, key) for key in ("seconds", "step_s")}
    result = {
        "steps": arguments.steps,
        "batch_rows": BATCH_ROWS,
        "max_length": arguments.max_length,
        "model": arguments.model,
        "teacher": Path(arguments.teacher).name,
        **{key: medians(values, 3) for key, values in times.items()},
        "monoxkit_is_faster": {
            key: ratios(values, to="monoxkit", digits=2) for key, values in times.items()
        },
        **{
            key: {name: [round(one, 4) for one in each] for name, each in by_way(runs, key).items()}
            for key in ("dev_loss", "dev_accuracy")
        },
        "peak_rss_bytes": {
            name: max(each) for name, each in by_way(runs, "peak_rss_bytes").items()
        },
        "rounds": runs,
    }
    bars = medians(times["step_s"], 3)
    publish(arguments, result, bars=bars, unit="seconds a step", hidden=["rounds"])


def _in_process(name: str, round_: int) -> dict[str, Any]:
    """One contender's run, in a process whose memory is its own; a round is a seed."""
    command = [sys.executable, *sys.argv, "--contender", name, "--seed", str(1 + round_)]
    found: dict[str, Any] = last_line(command)
    return found


def _step_ends() -> list[float]:
    """Is filled with the time at the end of every optimizer step of this process."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_call: ends.append(time.perf_counter()))
    return ends


def _monoxkit(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig
    from monox_kit.training.run import train_student

    is_full = arguments.contender == "monoxkit-full"
    config = StudentConfig(
        model=arguments.model,
        method="kd",
        store=(Path(arguments.store),),
        dev=CorpusConfig(paths=(arguments.dev,)),
        objective=ObjectiveConfig(temperature=TEMPERATURE),
        loop=LoopConfig(
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_ROWS,
            max_steps=arguments.steps,
            eval_every=arguments.steps,
            checkpoint_every=10 * arguments.steps,
            max_length=arguments.max_length,
            embeddings="full" if is_full else "frozen",
            precision="fp32" if is_full else "auto",
            seed=arguments.seed,
        ),
    )
    started = time.perf_counter()
    summary = train_student(config, scratch / "student")
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "dev_loss": summary.dev_loss,
        "dev_accuracy": summary.dev_accuracy,
        "precision": summary.precision,
    }


def _trainer(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Trainer as its documentation shows it, with a loss of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer

    from monox_kit.models.torch_backend import TorchClassifier, new_classifier

    torch.set_num_threads(num_threads())
    store = LogitStore.open(arguments.store)
    dev = read_labelled(CorpusConfig(paths=(arguments.dev,)), store.labels)

    class Distiller(Trainer):
        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            targets = torch.softmax(inputs.pop("teacher_logits") / TEMPERATURE, dim=-1)
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs.logits, targets)
            return (loss, outputs) if return_outputs else loss

    started = time.perf_counter()
    folder = open_folder(arguments.model)
    tokenizer = Tokenizer(folder.path, arguments.max_length)
    model = new_classifier(folder, store.labels, arguments.seed)
    collate = _collator(arguments, store, tokenizer, model)
    rows: Any = range(len(store))
    options = _options(arguments, scratch)
    Distiller(model=model, args=options, train_dataset=rows, data_collator=collate).train()
    classifier = TorchClassifier(model, store.labels)
    logits = score(classifier, tokenizer, dev).logits.astype(np.float64)
    model.save_pretrained(str(scratch / "student"))
    seconds = time.perf_counter() - started
    assert AutoModelForSequenceClassification.from_pretrained(
        str(scratch / "student"), trust_remote_code=False
    )
    gold = np.array([store.labels.index(str(document.label), "dev") for document in dev])
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return {
        "seconds": seconds,
        "dev_loss": float(-log_probabilities[np.arange(len(gold)), gold].mean()),
        "dev_accuracy": float((logits.argmax(axis=1) == gold).mean()),
        "precision": "fp32",
    }


def _options(arguments: argparse.Namespace, scratch: Path) -> TrainingArguments:
    """The Trainer's settings: what a user would write down for such a run."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(scratch / "trainer"),
        per_device_train_batch_size=BATCH_ROWS,
        max_steps=arguments.steps,
        learning_rate=LEARNING_RATE,
        weight_decay=0.01,
        warmup_steps=round(0.1 * arguments.steps),
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="no",
        seed=arguments.seed,
    )


def _collator(
    arguments: argparse.Namespace, store: LogitStore, tokenizer: Tokenizer, model: Any
) -> Callable[[list[int]], dict[str, Any]]:
    """Rows to a batch with the teacher's logits, computed now or read from the store."""
    import torch

    from monox_kit.models.torch_backend import load_classifier, model_inputs

    def padded(of: Any, tokens: Tokenizer, texts: list[str]) -> dict[str, Any]:
        batch = pad_batch(tokens.encode(texts, None), np.arange(len(texts)), tokens.padding)
        return model_inputs(of, batch, "cpu")

    def from_store(rows: list[int]) -> dict[str, Any]:
        picked = np.asarray(rows, np.int64)
        inputs = padded(model, tokenizer, store.texts(picked))
        return {**inputs, "teacher_logits": torch.from_numpy(store.logits(picked))}

    if arguments.contender != "trainer-online":
        return from_store
    teacher_folder = open_folder(arguments.teacher)
    teacher_tokenizer = Tokenizer(teacher_folder.path, arguments.max_length)
    teacher = load_classifier(teacher_folder).model

    def online(rows: list[int]) -> dict[str, Any]:
        texts = store.texts(np.asarray(rows, np.int64))
        with torch.inference_mode():
            logits = teacher(**padded(teacher, teacher_tokenizer, texts)).logits
        return {**padded(model, tokenizer, texts), "teacher_logits": logits.clone()}

    return online


if __name__ == "__main__":
    main()
