"""What was measured, told by language and by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from monox_kit.benchmarking.contenders import Contender, parts_bytes
from monox_kit.benchmarking.process import ModelProcess
from monox_kit.benchmarking.report import (
    ContenderReport,
    Fidelity,
    Figures,
    FirstAnswer,
    Spread,
    Timing,
)
from monox_kit.benchmarking.sample import Sample
from monox_kit.data import Int64s, LabelSet, Logits
from monox_kit.evaluation.statistics import wilson
from monox_kit.models.agreement import agreement
from monox_kit.models.batching import length_buckets
from monox_kit.problem import Labels, Problem, problem_of


@dataclass
class Run:
    """A contender with what was measured of it so far.

    Attributes:
        starts: what each counted process said of its start, with `total_s`.
        logits: [N, C] of all texts.
        lengths: [N] tokens of each text.
        truncation: what the cut took from the texts, and `max_length`; None where nobody counts.
        seconds: by batch size, of each round the seconds of its batches.
        peak_bytes: the most memory so far.
    """

    contender: Contender
    process: ModelProcess = field(init=False)
    starts: list[dict[str, float]] = field(default_factory=list)
    logits: Logits = field(init=False)
    lengths: Int64s = field(init=False)
    truncation: dict[str, int] | None = None
    seconds: dict[int, list[list[float]]] = field(default_factory=dict)
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
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


@dataclass(frozen=True)
class Findings:
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
    plans: Mapping[int, Plan]
    runs: Sequence[Run]

    def report_on(self, run: Run) -> ContenderReport:
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
                name: self._figures(run, rows)
                for name, rows in length_buckets(self.lengths).items()
            },
        )

    def _figures(self, run: Run, rows: Int64s) -> Figures:
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

    def _timing(self, run: Run, size: int, rows: set[int]) -> Timing | None:
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

    def _times_as_fast(self, run: Run, size: int) -> Spread:
        pairs = zip(self.runs[0].seconds[size], run.seconds[size], strict=True)
        return Spread.of([sum(first) / sum(own) for first, own in pairs if own])

    def _fidelity(self, run: Run, rows: Int64s) -> Fidelity:
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
