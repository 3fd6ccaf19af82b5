"""What the gate is asked: the check rows with PyTorch's logits, and what a graph's say beside them.

N are the rows, C the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s, Logits
from monox_kit.evaluation.statistics import (
    mean_interval,
    paired_interval,
    rows_to_decide,
    share_interval,
)
from monox_kit.exporting.config import Gate
from monox_kit.exporting.gate import (
    FAILED,
    LEAST,
    NOT_SHOWN,
    PASSED,
    TOLD,
    Finding,
    GateReport,
    GateResult,
    Measured,
    Verdict,
    shown_threshold,
    whole_verdict,
)
from monox_kit.models.batching import length_buckets
from monox_kit.problem import Bools, Floats, Labels, Problem
from monox_kit.progress import Progress

# A mean KL is told by no fewer rows. Its interval is a normal one, of a deviation that one row does
# not have and a few equal texts make 0; and no interval, of Student's t neither, knows from few
# small values how large the seldom large ones are.
_FEWEST_OF_KL = 30


class _Rows(NamedTuple):
    """What every row says; see `GateResult`."""

    same: Bools
    kl: Floats
    delta: Floats
    has_label: Bools
    lost: Bools
    won: Bools

    def some(self, which: Bools | Int64s) -> _Rows:
        """Some of the rows."""
        values: list[Any] = [each[which] for each in self]
        return _Rows(*values)


@dataclass(frozen=True, slots=True)
class Judge:
    """The rows that a gate is about, and what PyTorch says of them.

    Attributes:
        gate: the thresholds.
        problem: what the logits decide.
        expected: [N, C] PyTorch's logits.
        languages: [N] language tags.
        lengths: [N] tokens.
        gold: [N] gold labels, -1 where a row has none; None where no row has one that can be used.
    """

    gate: Gate
    problem: Problem
    expected: Logits
    languages: npt.NDArray[np.str_]
    lengths: Int64s
    gold: Labels | None

    def report(self, logits: Logits, rows: Int64s | None = None) -> GateReport:
        """What the gate finds of a graph.

        Args:
            logits: [n, C] of the graph.
            rows: [n] int64, the rows that they are of; None for all of them.
        """
        rows = np.arange(len(self.expected)) if rows is None else rows
        found = self._rows(logits, rows)
        tags = self.languages[rows]
        largest = float(found.kl.max())
        spreads: dict[str | None, _Spread] = {None: _Spread(found, largest)}
        for tag in dict.fromkeys(tags.tolist()):
            spreads[tag] = _Spread(found.some(tags == tag), largest)
        findings = [
            spread.finding(name, limit, tag)
            for name, limit in self.gate.asked().items()
            for tag, spread in spreads.items()
            if (tag is None) == (name == "agreement")
        ]
        lengths = {
            name: _Spread(found.some(inside), largest).result
            for name, inside in length_buckets(self.lengths[rows]).items()
        }
        return GateReport(
            verdict=whole_verdict([one.verdict for one in findings]),
            thresholds=self.gate.asked(),
            total=spreads[None].result,
            languages={tag: one.result for tag, one in spreads.items() if tag is not None},
            lengths=lengths,
            findings=tuple(findings),
        )

    def out_of_reach(self) -> list[Finding]:
        """What no graph can be shown to keep on these rows, not one that equals PyTorch either."""
        findings = self.report(self.expected).findings
        return [one for one in findings if one.verdict != PASSED]

    def tell(self, progress: Progress) -> None:
        """Say what no graph can be shown to keep, before any is built."""
        found = self.out_of_reach()
        if found:
            needs = [_need(one) for one in found[:TOLD]]
            more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
            progress.note(
                "`gate`: these rows cannot show that any graph passes, not one that equals PyTorch "
                f"either: {'; '.join(needs)}{more}. `check_rows` is the most of each language"
            )

    def _rows(self, logits: Logits, rows: Int64s) -> _Rows:
        problem, expected = self.problem, self.expected[rows]
        wanted, decided = problem.decide(expected), problem.decide(logits)
        none = np.zeros(len(rows), np.bool_)
        has_label, before, after = none, none, none
        if self.gold is not None:
            gold = self.gold[rows]
            has_label = np.asarray(problem.are_given(gold))
            before, after = (problem.are_equal(gold, each) for each in (wanted, decided))
        return _Rows(
            same=problem.are_equal(wanted, decided),
            # Of equal distributions rounding leaves less than nothing.
            kl=np.maximum(problem.divergence(expected, logits), 0.0),
            delta=np.abs(expected.astype(np.float64) - logits).max(axis=1),
            has_label=has_label,
            lost=has_label & before & ~after,
            won=has_label & after & ~before,
        )


def _need(one: Finding) -> str:
    """What it would take to show a threshold, in words."""
    where = one.language or "all languages"
    if one.num_rows == 0:
        return f"no row of {where} has a label for {one.threshold}"
    asked = shown_threshold(one.threshold, one.limit)
    if one.rows_needed is None:
        return f"{asked} needs more rows of {where} than anybody has; there are {one.num_rows:,}"
    return f"{asked} needs {one.rows_needed:,} rows of {where}, and there are {one.num_rows:,}"


class _Spread:
    """Some rows, and what intervals more of their like would have.

    Args:
        rows: they.
        largest: KL divergence of any row that is judged with them. A few rows of a language may
            all lack what is large, so their own largest one is no scale.
    """

    def __init__(self, rows: _Rows, largest: float) -> None:
        self._num_rows, self._num_labelled = len(rows.same), int(rows.has_label.sum())
        self._same = float(rows.same.mean())
        self._kl = float(rows.kl.mean()), float(rows.kl.std()), largest
        labelled = max(self._num_labelled, 1)
        self._lost, self._won = rows.lost.sum() / labelled, rows.won.sum() / labelled
        self._max_delta = float(rows.delta.max())

    @property
    def result(self) -> GateResult:
        """What was measured on them."""
        drop = 100 * float(self._lost - self._won)
        return GateResult(
            num_rows=self._num_rows,
            agreement=self._measured("agreement", self._same),
            kl=self._measured("kl", self._kl[0]),
            max_delta=self._max_delta,
            num_labelled=self._num_labelled,
            drop=self._measured("drop", drop) if self._num_labelled else None,
        )

    def finding(self, name: str, limit: float, language: str | None) -> Finding:
        """Whether the rows keep a threshold."""
        count = self._num_labelled if name == "drop" else self._num_rows
        fewest = _FEWEST_OF_KL if name == "kl" else 1
        verdict: Verdict = NOT_SHOWN
        needed = None
        if count >= fewest:
            low, high = self._interval(name, count)
            if name in LEAST:
                verdict = PASSED if low >= limit else FAILED if high <= limit else NOT_SHOWN
            else:
                verdict = PASSED if high <= limit else FAILED if low >= limit else NOT_SHOWN
        if count and verdict == NOT_SHOWN:
            seen = max(count, fewest - 1)
            needed = rows_to_decide(lambda n: self._interval(name, n), limit, seen)
        return Finding(
            threshold=name,
            limit=limit,
            language=language,
            num_rows=count,
            verdict=verdict,
            rows_needed=needed,
        )

    def _measured(self, name: str, value: float) -> Measured:
        low, high = self._interval(name, self._num_labelled if name == "drop" else self._num_rows)
        return Measured(value=value, low=low, high=high)

    def _interval(self, name: str, count: int) -> tuple[float, float]:
        """The interval of a threshold's measure on so many rows of this kind."""
        if name in LEAST:
            return share_interval(self._same * count, count)
        if name == "kl":
            low, high = mean_interval(*self._kl, count)
            return low if count >= _FEWEST_OF_KL else 0.0, high
        low, high = paired_interval(self._lost * count, self._won * count, count)
        return 100 * low, 100 * high
