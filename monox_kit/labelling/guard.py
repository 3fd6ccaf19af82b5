"""The fidelity guard: which rows a fast graph may be trusted on, and proof of it on held-out text.

Quantization moves logits a little, and changes the label where the two largest are close; of any
number of labels a row, where a logit is close to 0. On a calibration sample scored by both graphs
the guard learns how far that margin moves (`Problem.lead`); rows whose margin is less than a
threshold are computed again by the fp32 graph, in fp32 or, where that is asked for, in bf16. A mean
divergence may be asked for too: the threshold rises until that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monox_kit.data import Logits
from monox_kit.errors import ConfigError, ModelError
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import FP32, RunPrecision
from monox_kit.problem import Bools, Floats, Problem
from monox_kit.store.format import GUARD_PRECISION_KEY

_PREFIX = "guard_"
# Fields that came later, with what stores of before have, which lack them.
_LATER: Mapping[str, Any] = {GUARD_PRECISION_KEY: FP32, f"{_PREFIX}max_kl": None}
# An unbiased estimate of the flips would be too low every other time.
_SAFETY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What was learned on a sample, and what the audit on it measured.

    Attributes:
        target: fraction of rows that are to have the label in fp32, at least.
        precision: what the fp32 graph computes again in.
        max_kl: largest mean divergence of the rows from the distributions in fp32 at T = 1, in
            nats; None for any.
        threshold: rows whose margin, in logits, is less are computed again.
        calibration_rows: rows of each half of the sample; the larger of their thresholds is kept.
        estimated_agreement: with the labels in fp32, as the whole sample predicts it.
        estimated_recomputed: fraction of rows under the threshold, on the same sample.
        audit_rows: rows of both halves, each judged by the threshold of the other half.
        audit_agreement: fraction of them with the label in fp32, guarded.
        audit_plain_agreement: the same without the guard.
        audit_mean_kl: mean divergence from the distribution in fp32 at T = 1, in nats, guarded.
        audit_plain_mean_kl: the same without the guard.
        audit_recomputed: fraction of the audit rows under the threshold that judged them.
    """

    target: float
    threshold: float
    calibration_rows: int
    estimated_agreement: float
    estimated_recomputed: float
    audit_rows: int
    audit_agreement: float
    audit_plain_agreement: float
    audit_mean_kl: float
    audit_plain_mean_kl: float
    audit_recomputed: float
    precision: RunPrecision = FP32
    max_kl: float | None = None

    def distrusts(self, logits: Logits, problem: Problem) -> Bools:
        """[N] bool, which rows of [N, C] logits of the fast graph are to be computed again."""
        # Written so that what is no number, or infinite, is distrusted too.
        with np.errstate(invalid="ignore"):
            trusted = margins(logits, problem) >= self.threshold
        return np.asarray(~(trusted & np.isfinite(logits).all(axis=1)))

    def to_json(self) -> dict[str, Any]:
        """All fields by the names that they have in a fingerprint."""
        return {f"{_PREFIX}{name}": value for name, value in asdict(self).items()}

    def to_fingerprint(self) -> dict[str, Any]:
        """The fields as a store's fingerprint holds them; those of `_LATER` if they say more."""
        found = self.to_json()
        return {key: value for key, value in found.items() if _LATER.get(key, ...) != value}

    @classmethod
    def from_fingerprint(cls, fingerprint: Mapping[str, Any]) -> Guard | None:
        """The guard that a store was begun with; None where it was begun without one."""
        found = {**_LATER, **fingerprint}
        names = cls.__dataclass_fields__
        if any(f"{_PREFIX}{name}" not in found for name in names):
            return None
        return cls(**{name: found[f"{_PREFIX}{name}"] for name in names})


def learn_guard(
    fast: Logits,
    reference: Logits,
    problem: Problem,
    *,
    target: float,
    again: Logits | None = None,
    precision: RunPrecision = FP32,
    max_kl: float | None = None,
) -> Guard:
    """The guard for a fast graph.

    Each half of the rows gives a threshold, which is audited on the other half; the larger of the
    two is kept, so that the audit is a lower bound of the agreement that it gives, and as a rule an
    upper one of the mean divergence.

    Args:
        fast: [N, C] logits of the graph that is to be trusted, N at least 4.
        reference: [N, C] logits of the fp32 graph in fp32 for the same rows.
        problem: what the logits decide.
        target: fraction of rows that are to have the reference's label, at least. The threshold
            is chosen for half as many others, because it is an estimate.
        again: [N, C] logits that replace those of rows under the threshold; None for the
            reference's. They count in estimate and audit, and in `max_kl`.
        precision: what `again` was computed in.
        max_kl: mean divergence at T = 1, in nats, that the rows of each half are to have at most.
            It is a mean of what was seen, and most of it may be of few rows.

    Raises:
        ModelError: a logit is not finite.
        ConfigError: `again` alone has a larger mean divergence than `max_kl`.
    """
    again = reference if again is None else again
    _require_finite({"fast": fast, "fp32": reference, precision: again})
    margin = margins(fast, problem)
    shifts = _shifts(margin, fast, reference, problem)
    half = len(fast) // 2
    halves = (slice(None, half), slice(half, None))
    own = [_threshold(margin[rows], shifts[rows], target) for rows in halves]
    if max_kl is not None:
        of_fast, of_again = (problem.divergence(reference, each) for each in (fast, again))
        _require_within_reach(max_kl, float(of_again.mean()), precision)
        within = [_kl_threshold(margin[n], of_fast[n], of_again[n], max_kl) for n in halves]
        own = list(map(max, own, within))
    threshold = _round_up(max(own))
    trusted = margin >= threshold
    risk = np.where(trusted, _flip_risk(margin, shifts), _settled_risk(again, reference, problem))
    # Every row is judged by the threshold of the half that it is not in.
    distrusted = margin < np.repeat(own[::-1], (half, len(fast) - half))
    return Guard(
        target=target,
        precision=precision,
        max_kl=max_kl,
        threshold=threshold,
        calibration_rows=half,
        estimated_agreement=float(1 - risk.mean()),
        estimated_recomputed=float(1 - trusted.mean()),
        audit_rows=len(fast),
        **_audit(fast, again, reference, distrusted, problem),
    )


def _settled_risk(again: Logits, reference: Logits, problem: Problem) -> Floats:
    """[N] the probability that a row which is computed again still has another label."""
    margin = margins(again, problem)
    return _flip_risk(margin, _shifts(margin, again, reference, problem))


def _audit(
    fast: Logits, again: Logits, reference: Logits, distrusted: Bools, problem: Problem
) -> dict[str, float]:
    """What the reference says of all rows, with those that are distrusted replaced and without."""
    guarded = np.where(distrusted[:, None], again, fast)
    found, plain = (agreement(reference, each, problem) for each in (guarded, fast))
    return {
        "audit_agreement": found.argmax,
        "audit_plain_agreement": plain.argmax,
        "audit_mean_kl": found.mean_kl,
        "audit_plain_mean_kl": plain.mean_kl,
        "audit_recomputed": float(distrusted.mean()),
    }


def _require_finite(logits: Mapping[str, Logits]) -> None:
    """Check the logits of every graph, by its name."""
    for name, values in logits.items():
        if not np.isfinite(values).all():
            raise ModelError(
                f"`guard`: expected finite logits of the {name} graph, found others. "
                "Export the model again."
            )


def _require_within_reach(max_kl: float, alone: float, precision: RunPrecision) -> None:
    """Check that a mean divergence can be kept: what computes again has one of its own."""
    if alone > max_kl:
        raise ConfigError(
            f"`guard_kl`: expected at least {alone:.1e}, which {precision} alone has on the "
            f"sample, found {max_kl:g}. Give that, or `guard_precision` fp32."
        )


def margins(logits: Logits, problem: Problem) -> Floats:
    """[N] float64, by how much [N, C] logits lead that decide: how close a label is to another.

    The largest logit minus the second largest; of any number of labels a row, the least |logit|.
    """
    return problem.lead(logits, problem.decide(logits))


def _shifts(margin: Floats, fast: Logits, reference: Logits, problem: Problem) -> Floats:
    """[N] by how much less the graph's decision leads in the reference.

    The labels differ where that is more than the graph's own margin.
    """
    return np.asarray(margin - problem.lead(reference, problem.decide(fast)))


def _flip_risk(margin: Floats, shifts: Floats) -> Floats:
    """[N] the probability that a row of such a margin has another label in the reference.

    Every row's shift is an observation for every other row: with N rows there are N x N pairs,
    where counting the few changed labels alone would see next to nothing.
    """
    ordered = np.sort(shifts)
    return np.asarray(1 - np.searchsorted(ordered, margin, side="right") / len(ordered))


def _threshold(margin: Floats, shifts: Floats, target: float) -> float:
    """The least margin from which on at most 1 - `target` of all rows have another label.

    Both the estimate over all pairs and the rows that did change their label must allow it: the
    first assumes that a shift does not depend on the margin.
    """
    order = np.argsort(-margin, kind="stable")
    estimated = np.cumsum(_flip_risk(margin, shifts)[order])
    seen = np.cumsum((shifts > margin)[order])
    allowed = (1 - target) * len(margin) + 1e-9  # 1 - 0.9 is a little less than 0.1
    return _least_margin(margin[order], (estimated > _SAFETY * allowed) | (seen > allowed))


def _kl_threshold(margin: Floats, of_fast: Floats, of_again: Floats, max_kl: float) -> float:
    """The least margin down to which all sets of trusted rows keep the mean divergence.

    Args:
        margin: [N] of the fast graph.
        of_fast: [N] divergences where the fast graph is trusted.
        of_again: [N] those where rows are computed again.
        max_kl: in nats.
    """
    order = np.argsort(-margin, kind="stable")
    total = np.cumsum((of_fast - of_again)[order]) + of_again.sum()
    return _least_margin(margin[order], total > max_kl * len(margin))


def _least_margin(margin: Floats, is_bad: Bools) -> float:
    """The smallest of descending margins before the first that must not be trusted."""
    if not is_bad.any():
        return 0.0
    # Rows of one margin, such as equal texts, are trusted together or not at all.
    first = int(np.argmax(margin == margin[np.argmax(is_bad)]))
    return float(np.nextafter(margin[0], np.inf) if first == 0 else margin[first - 1])


def _round_up(threshold: float) -> float:
    """The threshold with four significant digits, never less than it was."""
    if threshold == 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(threshold)) - 3)
    return float(f"{np.ceil(threshold / unit) * unit:.6g}")
