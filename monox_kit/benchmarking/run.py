"""The benchmark: every contender is compared with the reference, then timed beside the others.

Each has a process of its own, which stays while the others have theirs. All of them score the same
texts before anything is timed; then they take turns on the same batches, a part in each round, and
another one begins each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module

import numpy as np

from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.benchmarking.contenders import (
    Contender,
    contenders_of,
    reference_of,
    require_same_labels,
)
from monox_kit.benchmarking.figures import Findings, Plan, Run
from monox_kit.benchmarking.plot import save_plot
from monox_kit.benchmarking.process import ModelProcess
from monox_kit.benchmarking.report import BenchmarkReport
from monox_kit.benchmarking.sample import Sample, batches_of, read_sample
from monox_kit.data import Int64s, Logits
from monox_kit.durable import write_json
from monox_kit.hardware import installed_versions, read_hardware
from monox_kit.models.scoring import Truncation
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.spinning import may_spin

# Batches of each size that say how long a contender takes for one.
_TRIED_BATCHES = 3


def benchmark(config: BenchmarkConfig, *, progress: Progress | None = None) -> BenchmarkReport:
    """Measure models side by side, by language and by length.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    return measure(config, contenders_of(config, progress), progress=progress)


def measure(
    config: BenchmarkConfig, contenders: Sequence[Contender], *, progress: Progress | None = None
) -> BenchmarkReport:
    """Measure contenders side by side; other programs' among them."""
    progress = progress or Silent()
    if config.plot is not None:
        import_module("matplotlib")  # that it is missing is told before minutes of measuring
    may_spin()  # chosen once, for all processes
    labels = require_same_labels([one.folder for one in contenders])
    sample = read_sample(config, progress)
    for one in contenders:
        one.folder.require_pairs(sample.documents[0].text_pair is not None, "`test`")
    reference = reference_of(contenders)
    if reference is None:
        progress.note("no model computes in float32: agreement is not measured")
    runs = [Run(one) for one in contenders]
    steps = len(runs) * (config.starts + 2 + config.rounds)
    with ExitStack() as opened, progress.task("measuring", steps, "steps") as task:
        _start(runs, config, sample, opened, task)
        expected = _score(runs, config, sample, reference, task)
        _tell_truncated(runs, progress)
        plans = _plans(runs, config, sample)
        _time(runs, config, plans, task)
        progress.note(
            "timed batches of each contender: "
            + ", ".join(f"{len(plan.batches)} of {size} texts" for size, plan in plans.items())
        )
    found = Findings(labels, sample, expected, runs[0].lengths, plans, runs)
    report = BenchmarkReport(
        reference=None if reference is None else reference.name,
        contenders=tuple(found.report_on(run) for run in runs),
        settings={
            name: value
            for name, value in asdict(config).items()
            if name not in ("models", "test", "out", "plot")
        }
        | {"test": list(config.test.paths)},
        hardware=read_hardware().to_json(),
        versions=installed_versions(),
    )
    if config.out is not None:
        write_json(config.out, report.to_json())
    if config.plot is not None:
        save_plot(report, config.plot)
    return report


def in_turn(names: Sequence[Run], number: int) -> list[Run]:
    """Beginning with another one in each round: being first is nobody's advantage."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def _start(
    runs: Sequence[Run],
    config: BenchmarkConfig,
    sample: Sample,
    opened: ExitStack,
    task: ProgressTask,
) -> None:
    """Start each contender several times; the last process stays.

    The first start is not counted: it brings the files into the system's memory.
    """
    for number in range(config.starts + 1):
        for run in in_turn(runs, number):
            one = run.contender
            task.detail(f"starting {one.name}")
            process = ModelProcess(one.name, one.given(config, sample.texts()[0]), one.command)
            if number == config.starts:
                run.process = opened.enter_context(process)
            else:
                with process:
                    pass
            if number > 0:
                run.starts.append({**process.opened, "total_s": process.first_answer_s})
            task.advance()


def _score(
    runs: Sequence[Run],
    config: BenchmarkConfig,
    sample: Sample,
    reference: Contender | None,
    task: ProgressTask,
) -> Logits | None:
    """Let every contender score all texts; returns the reference's [N, C] logits."""
    expected: Logits | None = None
    for run in runs:
        task.detail(f"scoring with {run.contender.name}")
        run.logits, run.lengths, run.truncation = _read(run.process, sample)
        if run.contender == reference:
            expected = run.logits
        task.advance()
    if reference is not None and expected is None:
        given = reference.given(config, sample.texts()[0])
        with ModelProcess(reference.name, given, None) as process:
            expected, _, _ = _read(process, sample)
    return expected


def _tell_truncated(runs: Sequence[Run], progress: Progress) -> None:
    """Say of each contender how many of the texts it truncated."""
    for run in runs:
        if run.truncation is not None:
            counts = dict(run.truncation)
            max_length = counts.pop("max_length")
            rows = f"texts of {run.contender.name}"
            Truncation(**counts).tell(progress, max_length, rows)


def _read(process: ModelProcess, sample: Sample) -> tuple[Logits, Int64s, dict[str, int] | None]:
    """[N, C] logits and [N] tokens of the sample's texts, and what the cut took from them."""
    answer = process.ask("read", texts=sample.texts())
    logits, lengths = np.array(answer["logits"], np.float32), np.array(answer["lengths"], np.int64)
    return logits, lengths, answer["truncation"]


def _plans(runs: Sequence[Run], config: BenchmarkConfig, sample: Sample) -> dict[int, Plan]:
    """By size, as many batches as the slowest contender does in its time.

    The large sizes have their share first: what they leave, for want of texts, goes to the others.
    """
    generator = np.random.Generator(np.random.Philox(config.seed))
    rows, lengths = sample.rows(), runs[0].lengths
    left_s, plans = config.seconds, {}
    for number, size in enumerate(sorted(config.batches, reverse=True)):
        batches = batches_of(list(rows.values()), lengths, size, generator)
        slowest_s = max(float(np.mean(_seconds(run, batches[:_TRIED_BATCHES]))) for run in runs)
        share_s = left_s / (len(config.batches) - number)
        taken = batches[: max(int(share_s / slowest_s), len(rows))]
        plans[size] = Plan(taken, config.rounds)
        left_s = max(0.0, left_s - len(taken) * slowest_s)
    return {size: plans[size] for size in config.batches}


def _time(
    runs: Sequence[Run],
    config: BenchmarkConfig,
    plans: Mapping[int, Plan],
    task: ProgressTask,
) -> None:
    for number in range(config.rounds):
        for run in in_turn(runs, number):
            task.detail(f"timing {run.contender.name}, round {number + 1} of {config.rounds}")
            for size, plan in plans.items():
                part = plan.part(number)
                run.seconds.setdefault(size, []).append(_seconds(run, part) if part else [])
            task.advance()


def _seconds(run: Run, batches: Sequence[Int64s]) -> list[float]:
    answer = run.process.ask("time", batches=[batch.tolist() for batch in batches])
    run.peak_bytes = answer["peak_bytes"]
    seconds: list[float] = answer["seconds"]
    return seconds
