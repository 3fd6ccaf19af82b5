"""The paper's four systems on one corpus: accuracy per language, over seeds, at one step budget.

Every run is a student from the same encoder with the same number of steps of the same size, and is
tested in every language without having seen a label in it. The learning rate is chosen for each
method by its dev accuracy (then loss) with the first seed, among `--learning-rates`; the dev set is
English. Then every seed is run with that rate. `self-training` has one round after the first, each
with the whole number of steps: its model is trained as long as the others, it costs twice as much.

Intervals are a bootstrap over documents, paired between systems and averaged over the seeds. Runs
that are finished are kept in `--work`, so an interrupted run goes on where it was.

    monoxkit data debian --out runs/data --labelled 2500 --unlabelled 6800 --dev 300 --test-rows 300
    monoxkit label --model runs/bundle --store runs/store \\
        --corpus runs/data/labelled.jsonl runs/data/unlabelled.jsonl
    python benchmarks/four_systems.py --data runs/data --store runs/store --teacher runs/teacher \\
        --work runs/systems --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness import note, parser, positive, publish

METHODS = ("ce", "self-training", "pl", "kd")  # the paper's order, the weakest first
BASELINE = "ce"
Run = tuple[str, float, int]  # method, learning rate, seed


def main() -> None:
    """Run what is not finished, then print and write the table; or be one run."""
    made = parser(__file__, __doc__)
    made.add_argument("--data", type=Path, required=True, help="folder of the demo's form")
    made.add_argument("--store", type=Path, required=True, nargs="+", help="of both files")
    made.add_argument("--teacher", required=True, help="tested in English")
    made.add_argument("--work", type=Path, required=True, help="results of single runs")
    made.add_argument("--model", default="packaged:e5-small")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    made.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 2e-4, 4e-4])
    made.add_argument("--steps", type=positive, default=300)
    made.add_argument("--batch-size", type=positive, default=16)
    made.add_argument("--max-length", type=positive, default=40)
    made.add_argument("--freeze-layers", type=int, default=6)
    made.add_argument(
        "--jobs", type=positive, default=1, help="runs at once, on cores of their own"
    )
    made.add_argument("--one", nargs=3, metavar=("METHOD", "RATE", "SEED"), help="one run")
    arguments = made.parse_args()
    if arguments.one:
        method, rate, seed = arguments.one
        take((method, float(rate), int(seed)), arguments)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    first = arguments.seeds[0]
    finish([(m, rate, first) for m in METHODS for rate in arguments.learning_rates], arguments)
    rates = {method: chosen_rate(method, arguments) for method in METHODS}
    finish([(m, rates[m], seed) for m in METHODS for seed in arguments.seeds[1:]], arguments)
    result = table(rates, arguments)
    shown = ("target_average", "above_baseline")
    publish(arguments, result, hidden=[key for key in result if key not in shown])


def path_of(run: Run, arguments: argparse.Namespace) -> Path:
    """Where a run's result stands once it is finished."""
    method, rate, seed = run
    return Path(arguments.work / f"{method}-{rate:g}-{seed}.json")


def read(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """A finished run's result."""
    found: dict[str, Any] = json.loads(path_of(run, arguments).read_text(encoding="utf-8"))
    return found


def finish(runs: Sequence[Run], arguments: argparse.Namespace) -> None:
    """Take the runs that are not finished, `--jobs` at once, each with its share of the cores."""
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    for run in runs:
        if not path_of(run, arguments).is_file():
            waiting.put(run)
    cores = sorted(os.sched_getaffinity(0))
    failures: list[BaseException] = []

    def work(own: list[int]) -> None:
        while not failures:
            try:
                method, rate, seed = waiting.get_nowait()
            except queue.Empty:
                return
            command = [sys.executable, *sys.argv, "--one", method, str(rate), str(seed)]
            env = {**os.environ, "SYSTEMS_CORES": ",".join(map(str, own))}
            try:
                subprocess.run(command, check=True, env=env)
            except BaseException as error:
                failures.append(error)

    threads = [
        threading.Thread(target=work, args=(cores[job :: arguments.jobs],))
        for job in range(arguments.jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def take(run: Run, arguments: argparse.Namespace) -> None:
    """Train one student, test it in every language, write the result."""
    if cores := os.environ.get("SYSTEMS_CORES"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # After the cores are set: PyTorch and the tokenizers size their threads at import.
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.training.config import LoopConfig, StudentConfig
    from monox_kit.training.run import train_student

    method, rate, seed = run
    data = arguments.data

    def corpus(name: str) -> CorpusConfig:
        return CorpusConfig(paths=(str(data / name),))

    out = arguments.work / f"{method}-{rate:g}-{seed}"
    config = StudentConfig(
        model=arguments.model,
        method=method,  # type: ignore[arg-type]  # one of METHODS
        store=() if method in ("ce", "self-training") else tuple(arguments.store),
        labelled=None if method == "kd" else corpus("labelled.jsonl"),
        unlabelled=corpus("unlabelled.jsonl") if method == "self-training" else None,
        rounds=1 if method == "self-training" else None,
        dev=corpus("dev.jsonl"),
        labels=None if method == "kd" else data / "labels.json",
        loop=LoopConfig(
            learning_rate=rate,
            head_factor=10.0,
            batch_size=arguments.batch_size,
            max_steps=arguments.steps,
            max_length=arguments.max_length,
            freeze_layers=arguments.freeze_layers,
            embeddings="frozen",
            eval_every=max(arguments.steps // 3, 1),
            seed=seed,
        ),
    )
    summary = train_student(config, out)
    result = {
        "dev_accuracy": summary.dev_accuracy,
        "dev_loss": summary.dev_loss,
        "best_step": summary.best_step,
        "steps": summary.num_steps,
        "counts": dict(summary.counts),
        "rounds": list(summary.rounds),
        "trained_s": summary.trained_s,
        **tested(str(out), arguments),
    }
    written = path_of(run, arguments).with_suffix(".tmp")
    written.write_text(json.dumps(result) + "\n", encoding="utf-8")
    written.rename(path_of(run, arguments))
    note(f"{method} {rate:g} seed {seed}: dev {summary.dev_accuracy:.3f}, {result['average']:.3f}")
    for folder in (out, *out.parent.glob(f"{out.name}.*")):
        if folder.is_dir():
            shutil.rmtree(folder)


def tested(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy per language, the target average and its resamples."""
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.evaluation import (
        EvaluateConfig,
        read_test,
        report_on,
        score_languages,
        target_average_resamples,
    )
    from monox_kit.models.load import load_model
    from monox_kit.progress import Silent

    tests = tuple(str(path) for path in sorted(arguments.data.glob("test.*.jsonl")))
    config = EvaluateConfig(model="", test=CorpusConfig(paths=tests))
    loaded = load_model(model, progress=Silent())
    labels = loaded.classifier.labels
    documents = read_test(config.test, labels)
    logits = score_languages(loaded, documents, config.batch_tokens, Silent()).logits
    report = report_on(model, labels, documents, logits, config)
    resampled = target_average_resamples(labels, documents, logits, config)
    return {
        "accuracy": {language: found.accuracy for language, found in report.languages.items()},
        "average": report.target_average,
        "resamples": [round(value, 6) for value in resampled],
    }


def chosen_rate(method: str, arguments: argparse.Namespace) -> float:
    """The rate with the best English dev result of the first seed."""

    def rank(rate: float) -> tuple[float, float]:
        found = read((method, rate, arguments.seeds[0]), arguments)
        return found["dev_accuracy"], -found["dev_loss"]

    return float(max(arguments.learning_rates, key=rank))


def table(rates: dict[str, float], arguments: argparse.Namespace) -> dict[str, Any]:
    """Means and spreads over the seeds, and how far each system is above the baseline."""
    import numpy as np

    runs = {
        method: [read((method, rates[method], seed), arguments) for seed in arguments.seeds]
        for method in METHODS
    }

    def percent(values: Sequence[float]) -> dict[str, Any]:
        shown = [round(100 * value, 2) for value in values]
        spread = round(stdev(shown), 2) if len(shown) > 1 else None
        return {"mean": round(mean(shown), 2), "sd": spread, "seeds": shown}

    resampled = {
        method: np.mean([run["resamples"] for run in found], axis=0)
        for method, found in runs.items()
    }

    def above(method: str) -> dict[str, Any]:
        gains = [a["average"] - b["average"] for a, b in zip(runs[method], runs[BASELINE])]
        bounds = np.percentile(resampled[method] - resampled[BASELINE], [2.5, 97.5])
        return {**percent(gains), "interval": [round(100 * float(bound), 2) for bound in bounds]}

    return {
        "settings": {
            "model": arguments.model,
            "teacher": Path(arguments.teacher).name,
            "steps": arguments.steps,
            "batch_size": arguments.batch_size,
            "max_length": arguments.max_length,
            "freeze_layers": arguments.freeze_layers,
            "seeds": arguments.seeds,
            "learning_rates": rates,
        },
        "rows": {
            path.name: sum(1 for _line in path.open(encoding="utf-8"))
            for path in sorted(arguments.data.glob("*.jsonl"))
        },
        "teacher": _teacher(arguments),
        "target_average": {m: percent([run["average"] for run in runs[m]]) for m in METHODS},
        "above_baseline": {m: above(m) for m in METHODS if m != BASELINE},
        "accuracy": {
            language: {m: percent([run["accuracy"][language] for run in runs[m]]) for m in METHODS}
            for language in runs[BASELINE][0]["accuracy"]
        },
        "dev_accuracy": {m: percent([run["dev_accuracy"] for run in runs[m]]) for m in METHODS},
        "selection": _selection(arguments),
        "counts": {m: runs[m][0]["counts"] for m in METHODS},
        "steps": {m: runs[m][0]["steps"] for m in METHODS},
        "self_training_rounds": [run["rounds"] for run in runs["self-training"]],
    }


def _selection(arguments: argparse.Namespace) -> dict[str, Any]:
    """By method and learning rate, what the rate was chosen by and what it gave."""
    return {
        method: {
            f"{rate:g}": {
                key: read((method, rate, arguments.seeds[0]), arguments)[key]
                for key in ("dev_accuracy", "dev_loss", "average")
            }
            for rate in arguments.learning_rates
        }
        for method in METHODS
    }


def _teacher(arguments: argparse.Namespace) -> dict[str, Any]:
    """The teacher's accuracy on the English test set."""
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.evaluation import EvaluateConfig, evaluate

    test = CorpusConfig(paths=(str(arguments.data / "test.en.jsonl"),))
    report = evaluate(EvaluateConfig(model=arguments.teacher, test=test))
    return {"en": round(100 * report.languages["en"].accuracy, 2)}


if __name__ == "__main__":
    main()
