"""What a server did under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from monox_kit.benchmarking.load.requests import Request
from monox_kit.benchmarking.report import percentile
from monox_kit.results import Result

ACCEPTED = "200"
REJECTED = "429"
NO_ANSWER = "no answer"  # the connection ended, or could not be made
TIMED_OUT = "timed out"
WRONG_ANSWER = "wrong answer"  # 200 with something else than an answer for each row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request; times are seconds since the step began.

    Attributes:
        request: what was sent.
        scheduled_s: when it was due; latencies count from here, so that a request that a slow
            server held up is not counted as a fast one.
        started_s: when it was sent; behind `scheduled_s` where this client was late.
        ended_s: when its answer was whole, or it was given up.
        status: of HTTP as text, or one of the words above.
        retry_after_s: what `Retry-After` asks for; None without it.
    """

    request: Request
    scheduled_s: float
    started_s: float
    ended_s: float
    status: str
    retry_after_s: float | None = None

    @property
    def latency_s(self) -> float:
        """Seconds from when it was due to its end."""
        return self.ended_s - self.scheduled_s


@dataclass(frozen=True, slots=True)
class Latencies(Result):
    """Percentiles of latencies in milliseconds; None where there are too few for one.

    Attributes:
        p50_ms: the median.
        p95_ms: the 95th percentile; it takes 20 values.
        p99_ms: the 99th percentile; it takes 100.
        most_ms: the largest.
    """

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    most_ms: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Of any number of values."""
        if not seconds:
            return cls()
        values = [percentile(seconds, share) for share in (0.5, 0.95, 0.99)]
        return cls(*(_ms(value) for value in (*values, max(seconds))))


@dataclass(frozen=True, slots=True)
class LoadFigures(Result):
    """Some of the requests of a step.

    Attributes:
        num_requests: how many were sent.
        num_rows: texts or pairs in them.
        statuses: how many ended in which status of HTTP; `no answer`, `timed out` and `wrong
            answer` stand beside them.
        goodput_per_s: answers a second (200, in time) of the step.
        goodput_rows_per_s: rows a second in them.
        accepted: latencies of the answers with 200.
        rejected: latencies of 429.
        retry_after_s: median of what the rejections ask to wait; None without one.
    """

    num_requests: int
    num_rows: int
    statuses: Mapping[str, int]
    goodput_per_s: float
    goodput_rows_per_s: float
    accepted: Latencies
    rejected: Latencies
    retry_after_s: float | None

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], seconds: float, deadline_s: float) -> Self:
        """Of requests of a step that took so many seconds."""
        counts = Counter(one.status for one in outcomes)
        good = [one for one in outcomes if one.status == ACCEPTED and one.latency_s <= deadline_s]
        asked = [one.retry_after_s for one in outcomes if one.retry_after_s is not None]
        return cls(
            num_requests=len(outcomes),
            num_rows=sum(one.request.num_rows for one in outcomes),
            statuses={status: counts[status] for status in sorted(counts)},
            goodput_per_s=round(len(good) / seconds, 3),
            goodput_rows_per_s=round(sum(one.request.num_rows for one in good) / seconds, 3),
            accepted=Latencies.of(_latencies(outcomes, ACCEPTED)),
            rejected=Latencies.of(_latencies(outcomes, REJECTED)),
            retry_after_s=median(asked) if asked else None,
        )


@dataclass(frozen=True, slots=True)
class LoadStep(Result):
    """A server at one rate.

    Attributes:
        rate_per_s: requests a second that were to be sent.
        seconds: from the first request's time to the last answer or time.
        is_goal_met: whether the 99th percentile meets the goal and 99 % of the requests were
            answered with 200. Of fewer than 100 answers the slowest has to meet it.
        lateness_p99_ms: how late this client sent requests, 99th percentile or most: where it is
            not small beside the latencies, the client was the limit.
        all: all requests.
        by_rows: by the texts of a request.
        by_length: by the characters of a text.
        by_language: by the texts' language.
    """

    rate_per_s: float
    seconds: float
    is_goal_met: bool
    lateness_p99_ms: float
    all: LoadFigures
    by_rows: Mapping[str, LoadFigures]
    by_length: Mapping[str, LoadFigures]
    by_language: Mapping[str, LoadFigures]

    @classmethod
    def of(
        cls, outcomes: Sequence[Outcome], rate: float, *, goal_s: float, deadline_s: float
    ) -> Self:
        """Of all requests of a step, at least one."""
        seconds = max(1 / rate, *(one.ended_s for one in outcomes))

        def figures(chosen: Sequence[Outcome]) -> LoadFigures:
            return LoadFigures.of(chosen, seconds, deadline_s)

        def grouped(key: Callable[[Request], Any]) -> dict[str, LoadFigures]:
            """By a key of the requests, those of short texts first."""
            found: dict[Any, list[Outcome]] = {}
            for one in sorted(outcomes, key=lambda one: one.request.characters_per_row):
                found.setdefault(key(one.request), []).append(one)
            return {str(each): figures(chosen) for each, chosen in found.items()}

        whole = figures(outcomes)
        slow = whole.accepted.p99_ms or whole.accepted.most_ms
        share = whole.statuses.get(ACCEPTED, 0) / len(outcomes)
        late = [max(0.0, one.started_s - one.scheduled_s) for one in outcomes]
        lateness = percentile(late, 0.99)
        return cls(
            rate_per_s=rate,
            seconds=round(seconds, 3),
            is_goal_met=slow is not None and slow <= 1000 * goal_s and share >= 0.99,
            lateness_p99_ms=_ms(max(late) if lateness is None else lateness) or 0.0,
            all=whole,
            by_rows=dict(sorted(grouped(lambda one: one.num_rows).items(), key=_as_number)),
            by_length=grouped(lambda one: one.length),
            by_language=dict(sorted(grouped(lambda one: one.language).items())),
        )


@dataclass(frozen=True, slots=True)
class LoadReport(Result):
    """A server at several rates.

    Attributes:
        url: its address.
        alone_ms: median latency of requests that are sent one after the other, before the load.
        p99_ms: the goal.
        capacity_per_s: the highest rate that met the goal, at which every lower one met it too;
            None where the lowest one missed it.
        steps: by rate, in the order in which they ran.
        settings: of the run.
        hardware: of the client's machine; see `monox_kit.hardware.Hardware`.
    """

    url: str
    alone_ms: float
    p99_ms: float
    capacity_per_s: float | None
    steps: tuple[LoadStep, ...]
    settings: Mapping[str, Any]
    hardware: Mapping[str, Any]


def capacity_of(steps: Sequence[LoadStep]) -> float | None:
    """The highest rate below which no step missed the goal; None where there is none."""
    missed = min((one.rate_per_s for one in steps if not one.is_goal_met), default=float("inf"))
    met = [one.rate_per_s for one in steps if one.is_goal_met and one.rate_per_s < missed]
    return max(met, default=None)


def _as_number(part: tuple[str, LoadFigures]) -> int:
    return int(part[0])


def _latencies(outcomes: Sequence[Outcome], status: str) -> list[float]:
    return [one.latency_s for one in outcomes if one.status == status]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
