"""What the labelling benchmark found: numbers per row, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from harness import draw_bars, ratio, save
from labelling_race.plan import OURS
from monox_kit.durable import make_folder, write_json
from monox_kit.hardware import Hardware
from monox_kit.models.agreement import Agreement

NAME = "label_throughput"
State = Literal["measured", "not installed", "failed"]


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One row's pass over one slice of the corpus.

    Attributes:
        seconds: of the pass.
        num_texts: texts that it finished.
        num_tokens: real tokens of them; None where a pass over its limit does not know.
        over_limit: whether the time was over before the texts were.
    """

    seconds: float
    num_texts: int
    num_tokens: int | None
    over_limit: bool

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens per second; None where they are not known or there are none."""
        return self.num_tokens / self.seconds if self.num_tokens else None


@dataclass(frozen=True, slots=True)
class RowResult:
    """Everything about one row.

    Attributes:
        what: the program and how it is used.
        state: whether it was measured.
        reason: why it was not; None where it was. A row that failed later has rounds besides.
        settings: what it runs with, its choices of the warm-up among it.
        texts_per_round: texts of its slice of every round.
        rounds: by the number of the round, from 0.
        peak_rss_bytes: the most memory its process held, loading included.
        agreement: with the reference, over the rounds that it finished.
        limit_fractions: its median rate as a fraction of each of the machine's limits.
    """

    what: str
    state: State
    reason: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    texts_per_round: int = 0
    rounds: Mapping[int, RoundResult] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    agreement: Agreement | None = None
    limit_fractions: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens per second of the median round."""
        rates = [found.tokens_per_s for found in self.rounds.values()]
        known = [rate for rate in rates if rate is not None]
        return float(median(known)) if known else None

    @property
    def texts_per_s(self) -> float | None:
        """Texts per second of the median round."""
        rates = [found.num_texts / found.seconds for found in self.rounds.values()]
        return float(median(rates)) if rates else None

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values, its medians included."""
        return {
            **asdict(self),
            "rounds": [
                {"round": number, **asdict(found), "tokens_per_s": found.tokens_per_s}
                for number, found in sorted(self.rounds.items())
            ],
            "tokens_per_s": self.tokens_per_s,
            "texts_per_s": self.texts_per_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBenchmark:
    """The rows of one run, beside each other.

    Attributes:
        rows: by name, in the order they were asked for.
        ratios: how many times as fast our row is as another, in tokens per second: median, least
            and most over the rounds of both.
        limits: the machine's own, in operations and in tokens per second.
        model: the model's name, digest and size, and the bundles' precisions.
        texts: their number and real tokens, and how they were used.
        environments: versions of packages, with the rows that they belong to.
        hardware: the machine.
    """

    rows: Mapping[str, RowResult]
    ratios: Mapping[str, Mapping[str, Mapping[str, float]]]
    limits: Mapping[str, Any]
    model: Mapping[str, Any]
    texts: Mapping[str, Any]
    environments: Sequence[Mapping[str, Any]]
    hardware: Hardware

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "rows": {name: row.to_json() for name, row in self.rows.items()},
            "ratios": {name: dict(found) for name, found in self.ratios.items()},
            "limits": dict(self.limits),
            "model": dict(self.model),
            "texts": dict(self.texts),
            "environments": [dict(each) for each in self.environments],
            "hardware": self.hardware.to_json(),
        }


def ratios_of(
    rows: Mapping[str, RowResult], ours: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Each of our rows against every other row; rows without a common round are left out."""
    last = max((number for row in rows.values() for number in row.rounds), default=-1)
    rates = {
        name: [
            row.rounds[number].tokens_per_s if number in row.rounds else None
            for number in range(last + 1)
        ]
        for name, row in rows.items()
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in ours:
        for other, theirs in rates.items():
            compared = ratio(rates[name], theirs)
            if other != name and compared is not None:
                found.setdefault(name, {})[other] = compared
    return found


def write_label_benchmark(result: LabelBenchmark, out: Path) -> list[Path]:
    """Write `label_throughput.json` and `label_throughput.png` into `out`.

    Returns:
        The paths of the two files, in that order.

    Raises:
        ConfigError: a folder stands at one of the paths, or a file at `out`.
        StorageError: the disk refused.
    """
    paths = [out / f"{NAME}.json", out / f"{NAME}.png"]
    write_json(paths[0], result.to_json())
    measured = {
        name: row.tokens_per_s for name, row in result.rows.items() if row.tokens_per_s is not None
    }
    limits = result.limits.get("tokens_per_s", {})
    make_folder(out)
    save(draw_bars(measured, unit="real tokens per second", lines=limits, ours=OURS), paths[1])
    return paths
