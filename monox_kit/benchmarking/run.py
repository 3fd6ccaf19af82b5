"""The benchmark: every contender is compared with the reference, then timed beside the others.

Each has a process of its own, which stays while the others have theirs. All of them score the same
texts before anything is timed; then they take turns on the same batches, a part in each round, and
another one begins each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.benchmarking.contenders import (
    Contender,
    contenders_of,
    parts_bytes,
    reference_of,
    require_same_labels,
)
from monox_kit.benchmarking.plot import save_plot
from monox_kit.benchmarking.process import ModelProcess
from monox_kit.benchmarking.report import (
    BenchmarkReport,
    ContenderReport,
    Fidelity,
    Figures,
    FirstAnswer,
    Spread,
    Timing,
)
from monox_kit.benchmarking.sample import Sample, batches_of, buckets_of, read_sample
from monox_kit.benchmarking.versions import installed_versions
from monox_kit.data import Int64s, LabelSet, Logits
from monox_kit.durable import write_json
from monox_kit.evaluation.statistics import wilson
from monox_kit.hardware import read_hardware
from monox_kit.models.agreement import agreement
from monox_kit.problem import Labels, Problem, problem_of
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
    may_spin()  # chosen once, for all processes
    labels = require_same_labels([one.folder for one in contenders])
    sample = read_sample(config, progress)
    for one in contenders:
        one.folder.require_pairs(sample.documents[0].text_pair is not None, "`test`")
    reference = reference_of(contenders)
    if reference is None:
        progress.note("no model computes in float32: agreement is not measured")
    runs = [_Run(one) for one in contenders]
    steps = len(runs) * (config.starts + 2 + config.rounds)
    with ExitStack() as opened, progress.task("measuring", steps, "steps") as task:
        _start(runs, config, sample, opened, task)
        expected = _score(runs, config, sample, reference, task)
        plans = _plans(runs, config, sample)
        _time(runs, config, plans, task)
        progress.note(
            "timed batches of each contender: "
            + ", ".join(f"{len(plan.batches)} of {size} texts" for size, plan in plans.items())
        )
    found = _Found(labels, sample, expected, runs[0].lengths, plans, runs)
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


@dataclass
class _Run:
    """A contender with what was measured of it so far; only `_Run.process` changes hands.

    Attributes:
        starts: what each counted process said of its start, with `total_s`.
        logits: [N, C] of all texts.
        lengths: [N] tokens of each text.
        seconds: by batch size, of each round the seconds of its batches.
        peak_bytes: the most memory so far.
    """

    contender: Contender
    process: ModelProcess = field(init=False)
    starts: list[dict[str, float]] = field(default_factory=list)
    logits: Logits = field(init=False)
    lengths: Int64s = field(init=False)
    seconds: dict[int, list[list[float]]] = field(default_factory=dict)
    peak_bytes: int | None = None


@dataclass(frozen=True)
class _Plan:
    """The batches of one size, all of them timed once by each contender.

    Attributes:
        batches: positions of texts.
        rounds: how many times the contenders take turns.
    """

    batches: list[Int64s]
    rounds: int

    def part(self, number: int) -> list[Int64s]:
        """The batches of a round."""
        return self.batches[number :: self.rounds]


def in_turn(names: Sequence[_Run], number: int) -> list[_Run]:
    """Beginning with another one in each round: being first is nobody's advantage."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def _start(
    runs: Sequence[_Run],
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
    runs: Sequence[_Run],
    config: BenchmarkConfig,
    sample: Sample,
    reference: Contender | None,
    task: ProgressTask,
) -> Logits | None:
    """Let every contender score all texts; returns the reference's [N, C] logits."""
    expected: Logits | None = None
    for run in runs:
        task.detail(f"scoring with {run.contender.name}")
        run.logits, run.lengths = _read(run.process, sample)
        if run.contender == reference:
            expected = run.logits
        task.advance()
    if reference is not None and expected is None:
        given = reference.given(config, sample.texts()[0])
        with ModelProcess(reference.name, given, None) as process:
            expected, _ = _read(process, sample)
    return expected


def _read(process: ModelProcess, sample: Sample) -> tuple[Logits, Int64s]:
    answer = process.ask("read", texts=sample.texts())
    return np.array(answer["logits"], np.float32), np.array(answer["lengths"], np.int64)


def _plans(runs: Sequence[_Run], config: BenchmarkConfig, sample: Sample) -> dict[int, _Plan]:
    """By size, as many batches as the slowest contender does in its time."""
    generator = np.random.Generator(np.random.Philox(config.seed))
    rows, lengths = sample.rows(), runs[0].lengths
    plans = {}
    for size in config.batches:
        batches = batches_of(list(rows.values()), lengths, size, generator)
        slowest = max(float(np.mean(_seconds(run, batches[:_TRIED_BATCHES]))) for run in runs)
        wanted = int(config.seconds / len(config.batches) / slowest)
        plans[size] = _Plan(batches[: max(wanted, len(rows))], config.rounds)
    return plans


def _time(
    runs: Sequence[_Run],
    config: BenchmarkConfig,
    plans: Mapping[int, _Plan],
    task: ProgressTask,
) -> None:
    for number in range(config.rounds):
        for run in in_turn(runs, number):
            task.detail(f"timing {run.contender.name}, round {number + 1} of {config.rounds}")
            for size, plan in plans.items():
                part = plan.part(number)
                run.seconds.setdefault(size, []).append(_seconds(run, part) if part else [])
            task.advance()


def _seconds(run: _Run, batches: Sequence[Int64s]) -> list[float]:
    answer = run.process.ask("time", batches=[batch.tolist() for batch in batches])
    run.peak_bytes = answer["peak_bytes"]
    seconds: list[float] = answer["seconds"]
    return seconds


@dataclass(frozen=True)
class _Found:
    """Everything that was measured, to be told by language and by length.

    Attributes:
        labels: what the columns of the logits mean.
        sample: the texts.
        expected: [N, C] the reference's logits; None without one.
        lengths: [N] tokens of each text as the first contender counts them, for the buckets.
        plans: what was timed, by size.
        runs: the contenders; the first one is what speed is compared with.
    """

    labels: LabelSet
    sample: Sample
    expected: Logits | None
    lengths: Int64s
    plans: Mapping[int, _Plan]
    runs: Sequence[_Run]

    def report_on(self, run: _Run) -> ContenderReport:
        """One contender's report."""
        everything = np.arange(len(self.lengths))
        whole = self._figures(run, everything)
        speeds = {size: timing.rows_per_s for size, timing in whole.timings.items()}
        return ContenderReport(
            name=run.contender.name,
            model=run.contender.folder.name,
            bytes=parts_bytes(run.contender),
            first_answer=_first_answer(run.starts),
            peak_bytes=run.peak_bytes,
            best_batch=max(speeds, key=lambda size: speeds[size]),
            times_as_fast={size: self._times_as_fast(run, size) for size in self.plans},
            all=whole,
            languages={tag: self._figures(run, rows) for tag, rows in self.sample.rows().items()},
            lengths={
                name: self._figures(run, rows) for name, rows in buckets_of(self.lengths).items()
            },
        )

    def _figures(self, run: _Run, rows: Int64s) -> Figures:
        num_tokens = int(run.lengths[rows].sum())
        return Figures(
            num_rows=len(rows),
            tokens_per_text=round(num_tokens / len(rows), 2),
            tokens_per_character=round(
                num_tokens / int(self.sample.num_characters()[rows].sum()), 4
            ),
            fidelity=self._fidelity(run, rows),
            timings={
                size: timing
                for size in self.plans
                if (timing := self._timing(run, size, set(rows.tolist()))) is not None
            },
        )

    def _timing(self, run: _Run, size: int, rows: set[int]) -> Timing | None:
        """Of the batches whose longest text, their last one, is among the rows."""
        seconds: list[float] = []
        texts: list[int] = []
        for number, taken in enumerate(run.seconds[size]):
            for batch, each in zip(self.plans[size].part(number), taken, strict=True):
                if int(batch[-1]) in rows:
                    seconds.append(each)
                    texts += batch.tolist()
        if not seconds:
            return None
        return Timing.of(seconds, len(texts), int(run.lengths[texts].sum()))

    def _times_as_fast(self, run: _Run, size: int) -> Spread:
        pairs = zip(self.runs[0].seconds[size], run.seconds[size], strict=True)
        return Spread.of([sum(first) / sum(own) for first, own in pairs if own])

    def _fidelity(self, run: _Run, rows: Int64s) -> Fidelity:
        problem = problem_of(self.labels)
        found = Fidelity()
        gold = problem.encode([self.sample.documents[row] for row in rows], "`test`")
        labelled = rows[problem.are_given(gold)]
        if len(labelled):
            right = _num_right(problem, gold[problem.are_given(gold)], run.logits[labelled])
            found = replace(
                found,
                accuracy=right / len(labelled),
                accuracy_interval=wilson(right, len(labelled)),
            )
        if self.expected is None:
            return found
        compared = agreement(self.expected[rows], run.logits[rows], problem)
        return replace(
            found,
            agreement=compared.argmax,
            agreement_interval=wilson(round(compared.argmax * len(rows)), len(rows)),
            mean_kl=compared.mean_kl,
            max_delta=compared.max_delta,
        )


def _num_right(problem: Problem, gold: Labels, logits: npt.NDArray[np.float32]) -> int:
    return int(problem.are_equal(gold, problem.decide(logits)).sum())


def _first_answer(starts: Sequence[Mapping[str, float]]) -> FirstAnswer:
    peaks = [start["peak_bytes"] for start in starts if start["peak_bytes"] is not None]
    total_s, import_s, load_s, answer_s = (
        Spread.of([start[name] for start in starts])
        for name in ("total_s", "import_s", "load_s", "answer_s")
    )
    return FirstAnswer(total_s, import_s, load_s, answer_s, int(max(peaks)) if peaks else None)
