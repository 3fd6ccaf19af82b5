"""What a benchmark reports: of each contender, by language and by length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured several times."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        return cls(*(round(value, 4) for value in (median(values), min(values), max(values))))


@dataclass(frozen=True, slots=True)
class Timing:
    """Batches of one size in time; from texts to logits.

    Attributes:
        num_batches: how many were timed.
        num_rows: texts in them.
        p50_ms: median of a batch.
        p95_ms: the 95th percentile; None of fewer than 20 batches, which have none.
        p99_ms: the 99th percentile; None of fewer than 100.
        rows_per_s: texts a second, all batches together.
        tokens_per_s: real tokens a second.
    """

    num_batches: int
    num_rows: int
    p50_ms: float
    p95_ms: float | None
    p99_ms: float | None
    rows_per_s: float
    tokens_per_s: float

    @classmethod
    def of(cls, seconds: Sequence[float], num_rows: int, num_tokens: int) -> Self:
        """Of the seconds of at least one batch, with their texts and tokens."""
        total = sum(seconds)
        middle, high, highest = (percentile(seconds, share) for share in (0.5, 0.95, 0.99))
        assert middle is not None
        return cls(
            num_batches=len(seconds),
            num_rows=num_rows,
            p50_ms=_ms(middle),
            p95_ms=None if high is None else _ms(high),
            p99_ms=None if highest is None else _ms(highest),
            rows_per_s=round(num_rows / total, 2),
            tokens_per_s=round(num_tokens / total, 1),
        )


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far a contender's answers are right, and the reference's.

    Attributes:
        accuracy: share of the labelled texts that are decided as their gold labels say; None where
            no text has one.
        accuracy_interval: its 95 % interval (Wilson).
        agreement: share of the texts with the reference's decision; None without a reference.
        agreement_interval: its 95 % interval (Wilson).
        mean_kl: mean Kullback-Leibler divergence from the reference's distribution, in nats.
        max_delta: largest absolute difference of two logits.
    """

    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None
    mean_kl: float | None = None
    max_delta: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A contender on some of the texts.

    Attributes:
        num_rows: texts.
        tokens_per_text: real tokens, special ones included, as its own tokenizer makes them.
        tokens_per_character: what a character costs.
        fidelity: how far its answers are right.
        timings: by the number of texts given at once; only what was timed.
    """

    num_rows: int
    tokens_per_text: float
    tokens_per_character: float
    fidelity: Fidelity
    timings: Mapping[int, Timing]


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """Fresh processes up to their first answer.

    Attributes:
        total_s: seconds from before the process was there.
        import_s: seconds of them for importing the package.
        load_s: seconds for opening and checking the model.
        answer_s: seconds for the first text.
        peak_bytes: the most memory until then; None where the system does not say.
    """

    total_s: Spread
    import_s: Spread
    load_s: Spread
    answer_s: Spread
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class ContenderReport:
    """One contender.

    Attributes:
        name: of the folder, with the runtime and the precision.
        model: as the user referred to it.
        bytes: of the folder's files by part; see `contenders.parts_bytes`.
        first_answer: how it starts.
        peak_bytes: the most memory that its process held, all texts scored and timed.
        best_batch: the number of texts given at once with which it is fastest.
        times_as_fast: by number of texts, how many times the first contender's speed it has on the
            same texts: median, least and most of the rounds.
        all: all texts.
        languages: by language.
        lengths: by bucket of tokens.
    """

    name: str
    model: str
    bytes: Mapping[str, int]
    first_answer: FirstAnswer
    peak_bytes: int | None
    best_batch: int
    times_as_fast: Mapping[int, Spread]
    all: Figures
    languages: Mapping[str, Figures]
    lengths: Mapping[str, Figures]

    @property
    def total_bytes(self) -> int:
        """The folder's size."""
        return sum(self.bytes.values())


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """Contenders side by side.

    Attributes:
        reference: what agreement is with; None where no contender computes in float32.
        contenders: in the order of the models.
        settings: of the run.
        hardware: of the machine; see `monox_kit.hardware.Hardware`.
        versions: of the packages that figures depend on.
    """

    reference: str | None
    contenders: tuple[ContenderReport, ...]
    settings: Mapping[str, Any]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        found: dict[str, Any] = _with_text_keys(asdict(self))
        return found


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed (nearest rank).

    None where there are too few values for one to lie above it.
    """
    if share > 0.5 and len(values) * (1 - share) < 1 - 1e-9:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * share - 1e-9) - 1)]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(each) for each in value]
    return value
