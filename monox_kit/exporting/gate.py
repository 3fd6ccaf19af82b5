"""The gate: whether a graph answers as PyTorch does in every language, as far as the rows can tell.

A threshold is passed where the 95 % interval of what was measured lies on its good side, failed
where it lies on the other, and not shown where it holds the threshold: then there are too few rows,
and the report says how many it would take if those seen are like all others. Each verdict stands
for itself. That a graph passes takes all of them, so that
many languages make a wrong pass no likelier; they do make it likelier that one of them fails a
graph that is just at the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

from monox_kit.errors import ModelError
from monox_kit.foreign import markdown_text
from monox_kit.results import Result

Verdict: TypeAlias = Literal["passed", "failed", "not shown"]
PASSED: Verdict = "passed"
FAILED: Verdict = "failed"
NOT_SHOWN: Verdict = "not shown"

# Findings that a message lists; the report has all of them.
TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value of some rows, and the 95 % interval of what it is for all rows like them.

    Attributes:
        value: as measured.
        low: the interval's lower end.
        high: its upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How far a graph is from PyTorch on the rows of one language or length.

    Attributes:
        num_rows: rows.
        agreement: share of them with PyTorch's label, or, of any number of labels, all of them.
            The interval is exact; see `share_interval`.
        kl: mean KL divergence of the graph's distribution from PyTorch's, in nats; for the interval
            see `mean_interval`.
        max_delta: largest absolute difference of two logits.
        num_labelled: rows with a gold label.
        drop: points of accuracy that the graph loses on these, and where a row has any number of
            labels, all must be right; None without any. The interval is paired; see
            `paired_interval`.
    """

    num_rows: int
    agreement: Measured
    kl: Measured
    max_delta: float
    num_labelled: int
    drop: Measured | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One threshold on the rows of one language, or on all rows.

    Attributes:
        threshold: its name, a field of `Gate`.
        limit: its value.
        language: None for all rows.
        num_rows: rows that it was judged by.
        verdict: of it.
        rows_needed: where it is not shown, how many rows like these it would take; None where no
            number of them would tell, because the value is the limit, and where there is no row.
    """

    threshold: str
    limit: float
    language: str | None
    num_rows: int
    verdict: Verdict
    rows_needed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport(Result):
    """What the gate found.

    Attributes:
        verdict: failed where a threshold is, else not shown where one is not, else passed.
        thresholds: what was asked for, by name.
        total: of all rows.
        languages: by language tag.
        lengths: by number of tokens, as `17-32`; nothing is asked of these.
        findings: every threshold, in every language where it is asked there.
    """

    verdict: Verdict
    thresholds: Mapping[str, float]
    total: GateResult
    languages: Mapping[str, GateResult]
    lengths: Mapping[str, GateResult]
    findings: tuple[Finding, ...]

    @classmethod
    def from_json(cls, value: Any, path: Path) -> GateReport:
        """The inverse of `to_json`.

        Args:
            value: of a record.
            path: of that record, for messages.

        Raises:
            ModelError: it has another form.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ModelError(
                f"{path}: the report of the gate is damaged at {where}: {first['msg']}. Export the "
                "model again."
            ) from error

    def cells(self) -> list[tuple[str, ...]]:
        """What a table shows, in the order of `GATE_COLUMNS`: all rows, languages, lengths."""
        return [
            _cells("all rows", self.total, self.of(None)),
            *(_cells(tag, one, self.of(tag)) for tag, one in self.languages.items()),
            *(_cells(f"{name} tokens", one, []) for name, one in self.lengths.items()),
        ]

    def markdown(self) -> str:
        """The table of a model card."""
        asked = ", ".join(shown_threshold(*each) for each in self.thresholds.items())
        lines = [
            "",
            f"Gate {asked}: **{self.verdict}**. Intervals hold at 95 %.",
            "",
            f"| {' | '.join(GATE_COLUMNS)} |",
            "|---" * len(GATE_COLUMNS) + "|",
            *(f"| {' | '.join(map(markdown_text, cells))} |" for cells in self.cells()),
        ]
        return "\n".join(lines) + "\n"

    def of(self, language: str | None) -> list[Finding]:
        """The findings of a language; None for those of all rows."""
        return [one for one in self.findings if one.language == language]

    def told(self, verdict: Verdict) -> str:
        """The findings of one verdict in words, the first few of many."""
        found = [one for one in self.findings if one.verdict == verdict]
        told = [self._sentence(one) for one in found[:TOLD]]
        more = [f"and {len(found) - TOLD} more"] if len(found) > TOLD else []
        return "; ".join([*told, *more])

    def _sentence(self, one: Finding) -> str:
        where = one.language or "all rows"
        rows = f"{one.num_rows:,} rows"
        result = self.total if one.language is None else self.languages[one.language]
        found = _MEASURES[one.threshold](result)
        if found is None:
            return f"{where}: no row has a label for {one.threshold}"
        value = shown_measure(one.threshold, found)
        asked = f"{shown_threshold(one.threshold, one.limit)} is asked for"
        needed = f", and it would take {one.rows_needed:,} rows" if one.rows_needed else ""
        return f"{where}: {NAMES[one.threshold]} {value} on {rows}, where {asked}{needed}"


# What each threshold is of.
_MEASURES: Mapping[str, Callable[[GateResult], Measured | None]] = {
    "agreement": lambda result: result.agreement,
    "worst": lambda result: result.agreement,
    "kl": lambda result: result.kl,
    "drop": lambda result: result.drop,
}
NAMES = {
    "agreement": "same label",
    "worst": "same label",
    "kl": "mean KL",
    "drop": "accuracy drop",
}
# Those that are least values; the others are largest ones.
LEAST = ("agreement", "worst")


def shown_threshold(name: str, limit: float) -> str:
    """As it was given, such as `worst=0.98`."""
    return f"{name}={limit:.15g}"


def shown_measure(threshold: str, found: Measured) -> str:
    """Such as `99.0 % (98.2 to 99.5)`; ends are rounded outwards, away from a near threshold."""
    form, scale, unit = _FORMS[threshold]
    value, low, high = (
        _rounded(end, form, scale, rounding)
        for end, rounding in (
            (found.value, ROUND_HALF_EVEN),
            (found.low, ROUND_FLOOR),
            (found.high, ROUND_CEILING),
        )
    )
    return f"{value}{unit} ({low} to {high})"


# How each is shown: its digits, the power of ten that it is multiplied with, and its unit.
_FORMS = {
    "agreement": (".1f", 2, " %"),
    "worst": (".1f", 2, " %"),
    "kl": (".1e", 0, ""),
    "drop": (".2f", 0, ""),
}


def _rounded(value: float, form: str, scale: int, rounding: str) -> str:
    with localcontext() as context:
        context.rounding = rounding
        # As decimal numbers: in floats 100 times 0.29 is less than 29.
        digits = format(Decimal(str(value)).scaleb(scale), form)
    return format(float(digits), form)  # exponents of two digits, as everywhere


# Of the table.
GATE_COLUMNS = (
    "rows of",
    "rows",
    "same label",
    "mean KL",
    "max logit difference",
    "accuracy drop in points",
    "verdict",
)


def _cells(name: str, result: GateResult, findings: Sequence[Finding]) -> tuple[str, ...]:
    verdict = whole_verdict([one.verdict for one in findings])
    told = str(verdict) if findings else "-"
    if verdict != PASSED:
        told += ": " + ", ".join(one.threshold for one in findings if one.verdict == verdict)
    if verdict == NOT_SHOWN and (needed := max(one.rows_needed or 0 for one in findings)):
        told += f" (needs {needed:,} rows)"
    return (
        name,
        f"{result.num_rows:,}",
        shown_measure("agreement", result.agreement),
        shown_measure("kl", result.kl),
        f"{result.max_delta:.1e}",
        "-" if result.drop is None else shown_measure("drop", result.drop),
        told,
    )


def whole_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several verdicts the worst."""
    return next((each for each in (FAILED, NOT_SHOWN) if each in verdicts), PASSED)
