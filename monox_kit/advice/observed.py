"""What distilling gained at which lead of the teacher, as far as it was measured.

The observations are data, in `observations.json`, so that findings can be added to them. They are
few, and whoever shows them says how many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import TypeAdapter

from monox_kit.report.scores import Estimate
from monox_kit.results import Result

# Points by which two leads may differ and still be called alike.
_ALIKE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What one method gained over the baseline, in points of accuracy.

    Attributes:
        value: on average over the target languages, and over seeds.
        interval: of 95 %, over documents; None where none was measured.
    """

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:+.1f}"
        return Estimate(self.value, *self.interval).signed


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation(Result):
    """One task on which students with and without a teacher were compared.

    Attributes:
        task: what was classified.
        teacher: its encoder.
        student: its encoder.
        labelled: gold-labelled rows.
        unlabelled: further rows that the teacher labelled.
        steps: that each student was trained for.
        seeds: students of each method.
        languages: target languages.
        lead: the teacher's accuracy less the baseline's, in the source language, in points.
        gains: by method.
        source: where it is told.
    """

    task: str
    teacher: str
    student: str
    labelled: int
    unlabelled: int
    steps: int
    seeds: int
    languages: int
    lead: float
    gains: Mapping[str, Gain]
    source: str


@cache
def observations() -> tuple[Observation, ...]:
    """Everything that was observed, the largest lead first."""
    file = resources.files("monox_kit.advice") / "observations.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["observations"]
    found = TypeAdapter(tuple[Observation, ...]).validate_python(rows)
    return tuple(sorted(found, key=lambda one: -one.lead))


def lead_of(teacher: Estimate, baseline: Estimate) -> Estimate:
    """A teacher's accuracy less a baseline's, whose errors are taken as independent.

    On the same rows they are not, so the interval is too wide; `advise` has the paired one.
    """
    value = teacher.value - baseline.value
    below = math.hypot(teacher.value - teacher.low, baseline.high - baseline.value)
    above = math.hypot(teacher.high - teacher.value, baseline.value - baseline.low)
    return Estimate(value, value - below, value + above)


def alike(lead: float) -> list[Observation]:
    """The observations at leads near one."""
    return [one for one in observations() if abs(one.lead - lead) <= _ALIKE]


def observed(lead: Estimate) -> str:
    """What is known of such a lead, in plain sentences."""
    if lead.high <= 0:
        said = "The teacher is behind: it has nothing to hand on, so expect no gain."
    elif lead.low > 0:
        said = "The teacher leads, so its labels may help."
    else:
        said = "Whether the teacher leads at all is not shown: the interval holds 0."
    near = alike(lead.value)
    if not near:
        return f"{said} Nothing was observed at a lead within {_ALIKE:g} points of this one."
    tasks = "one task" if len(near) == 1 else f"{len(near)} tasks"
    return f"{said} At leads within {_ALIKE:g} points, {tasks} gained {_gains(near)}: few to go by."


def _gains(found: Sequence[Observation]) -> str:
    """The gains of some observations, by method."""
    methods = dict.fromkeys(method for one in found for method in one.gains)
    return "; ".join(
        f"{method} {', '.join(str(one.gains[method]) for one in found if method in one.gains)}"
        for method in methods
    )
