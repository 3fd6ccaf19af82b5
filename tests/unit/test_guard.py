"""The fidelity guard: its threshold against brute force, its audit, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, ModelError
from monox_kit.labelling.guard import (
    _SAFETY,
    Guard,
    learn_guard,
    margins,
)
from monox_kit.problem import problem_of

C = 5
PROBLEM = problem_of(LabelSet(("a", "b", "c", "d", "e")))


def noisy(rows: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a reference, and of a graph that is off by normal noise."""
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(rows, C)).astype(np.float32) * 2
    fast = reference + generator.normal(size=(rows, C)).astype(np.float32) * noise
    return fast.astype(np.float32), reference


def test_a_margin_is_the_largest_logit_minus_the_second() -> None:
    logits = np.array([[3.0, 1.0, 2.5], [0.0, 0.0, -1.0]], np.float32)
    assert margins(logits, PROBLEM).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("target", [0.99, 0.999])
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_rows_that_are_trusted_keep_the_promise_on_rows_that_were_never_seen(
    target: float, noise: float
) -> None:
    guard = learn_guard(*noisy(2_000, noise), PROBLEM, target=target)
    fast, reference = noisy(100_000, noise, seed=1)
    distrusted = guard.distrusts(fast, PROBLEM)
    flipped = fast.argmax(axis=1) != reference.argmax(axis=1)
    assert (flipped & ~distrusted).mean() <= 1 - target
    assert flipped.mean() > 1 - target, "the case would pass without a guard"
    assert distrusted.mean() < 0.6
    assert guard.estimated_recomputed == pytest.approx(distrusted.mean(), abs=0.05)
    assert 1 - guard.estimated_agreement <= 1 - target


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.9, 0.99]), st.sampled_from([0.1, 1.0]))
def test_no_larger_set_of_rows_could_be_trusted(seed: int, target: float, noise: float) -> None:
    """The oracle: all thresholds by brute force over all pairs of margin and shift."""
    fast, reference = noisy(120, noise, seed)
    guard = learn_guard(fast, reference, PROBLEM, target=target)
    best = max(best_threshold(fast[half], reference[half], target) for half in HALVES)
    # The threshold is rounded up to four digits.
    assert best <= guard.threshold <= 1.001 * best


HALVES = (slice(None, 60), slice(60, None))


def best_threshold(fast: np.ndarray, reference: np.ndarray, target: float) -> float:
    margin = margins(fast, PROBLEM)
    label = fast.argmax(axis=1)
    rest = reference.astype(np.float64)
    own = rest[np.arange(60), label].copy()
    rest[np.arange(60), label] = -np.inf
    shifts = margin - (own - rest.max(axis=1))

    def allowed(threshold: float) -> bool:
        trusted = margin >= threshold
        pairs = sum((shifts > one).mean() for one in margin[trusted])
        seen = (trusted & (shifts > margin)).sum()
        return max(pairs / _SAFETY, seen) <= (1 - target) * 60 + 1e-9

    return min(t for t in (0.0, *margin, np.nextafter(margin.max(), np.inf)) if allowed(t))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, 1e-3, 1e-2]))
def test_rows_of_one_margin_are_trusted_together_or_not_at_all(
    seed: int, max_kl: float | None
) -> None:
    """Margins in steps of a half: what is trusted keeps the promise with all of its rows."""
    fast, reference = noisy(60, 0.3, seed)
    fast = np.round(2 * fast) / 2
    twice = [np.tile(each, (2, 1)) for each in (fast, reference)]
    guard = learn_guard(*twice, PROBLEM, target=0.95, max_kl=max_kl)
    trusted = ~guard.distrusts(fast, PROBLEM)
    flipped = fast.argmax(axis=1) != reference.argmax(axis=1)
    assert (trusted & flipped).mean() <= 0.05
    kl = np.where(trusted, PROBLEM.divergence(reference, fast), 0)
    assert max_kl is None or kl.mean() <= max_kl


def test_equal_graphs_need_no_second_pass() -> None:
    logits, _ = noisy(100, 0.0)
    guard = learn_guard(logits, logits, PROBLEM, target=0.999)
    assert guard.threshold == 0.0
    assert not guard.distrusts(logits, PROBLEM).any()
    assert guard.audit_agreement == guard.estimated_agreement == 1.0


def test_a_graph_that_is_no_better_than_chance_is_never_trusted() -> None:
    fast, _ = noisy(400, 0.0, seed=1)
    _, reference = noisy(400, 0.0, seed=2)
    guard = learn_guard(fast, reference, PROBLEM, target=0.999)
    assert guard.estimated_recomputed > 0.9
    assert guard.audit_agreement > 0.95 > 0.5 > guard.audit_plain_agreement


def test_every_row_is_audited_by_the_threshold_of_the_other_half() -> None:
    fast, reference = noisy(400, 0.5)
    # A heavy tail in the second half alone: its threshold is far larger.
    fast[350:360] = np.roll(reference[350:360], 1, axis=1)
    guard = learn_guard(fast, reference, PROBLEM, target=0.99)
    first = learn_guard(
        np.tile(fast[:200], (2, 1)), np.tile(reference[:200], (2, 1)), PROBLEM, target=0.99
    )
    assert guard.threshold > first.threshold
    same = fast.argmax(axis=1) == reference.argmax(axis=1)
    by_first = margins(fast[200:], PROBLEM) < first.threshold
    audited = (same[200:] | by_first).mean()
    assert audited < 0.99, "the tail is not seen by the first half"
    assert guard.audit_agreement < 1.0
    assert (same | guard.distrusts(fast, PROBLEM)).mean() >= guard.audit_agreement
    assert guard.audit_plain_agreement == pytest.approx(same.mean())
    assert guard.audit_mean_kl < guard.audit_plain_mean_kl
    assert (guard.calibration_rows, guard.audit_rows) == (200, 400)


def test_a_guard_comes_back_from_a_fingerprint_as_it_was() -> None:
    guard = learn_guard(*noisy(100, 0.5), PROBLEM, target=0.99)
    assert Guard.from_fingerprint({"teacher": "x", **guard.to_fingerprint()}) == guard
    assert Guard.from_fingerprint({"teacher": "x"}) is None


def settled(reference: np.ndarray, noise: float, seed: int = 5) -> np.ndarray:
    """Logits of the reference's graph in a coarser arithmetic."""
    generator = np.random.default_rng(seed)
    return (reference + generator.normal(size=reference.shape) * noise).astype(np.float32)


def test_what_bf16_computes_again_counts_in_estimate_and_audit_and_moves_no_threshold() -> None:
    fast, reference = noisy(2_000, 0.3)
    again = settled(reference, 0.01)
    guard = learn_guard(fast, reference, PROBLEM, target=0.99, again=again, precision="bf16")
    exact = learn_guard(fast, reference, PROBLEM, target=0.99)
    assert (guard.precision, exact.precision) == ("bf16", "fp32")
    assert guard.threshold == exact.threshold
    assert 0.99 <= guard.estimated_agreement < exact.estimated_agreement
    assert 0.99 <= guard.audit_agreement <= exact.audit_agreement
    assert guard.audit_mean_kl > exact.audit_mean_kl
    # And on rows that were never seen.
    fast, reference = noisy(100_000, 0.3, seed=1)
    again = settled(reference, 0.01, seed=6)
    given = np.where(guard.distrusts(fast, PROBLEM)[:, None], again, fast)
    assert (given.argmax(axis=1) == reference.argmax(axis=1)).mean() >= 0.99


def test_rows_computed_again_have_the_flips_of_what_computes_them() -> None:
    """The oracle: all pairs of margin and shift, by hand."""
    fast, reference = noisy(120, 0.5)
    again = settled(reference, 0.2)
    guard = learn_guard(fast, reference, PROBLEM, target=0.95, again=again, precision="bf16")
    trusted = ~guard.distrusts(fast, PROBLEM)
    flips = 0.0
    for logits, rows in ((fast, trusted), (again, ~trusted)):
        label = logits.argmax(axis=1)
        others = reference.astype(np.float64)
        own = others[np.arange(120), label].copy()
        others[np.arange(120), label] = -np.inf
        shifts = margins(logits, PROBLEM) - (own - others.max(axis=1))
        flips += sum((shifts > one).mean() for one in margins(logits, PROBLEM)[rows])
    assert (~trusted).any()
    assert guard.estimated_agreement == pytest.approx(1 - flips / 120)


def test_a_fingerprint_names_the_precision_where_it_is_not_fp32() -> None:
    fast, reference = noisy(100, 0.5)
    exact = learn_guard(fast, reference, PROBLEM, target=0.99)
    other = learn_guard(fast, reference, PROBLEM, target=0.99, again=reference, precision="bf16")
    assert "guard_precision" not in exact.to_fingerprint()  # as in stores of before
    assert other.to_fingerprint()["guard_precision"] == "bf16"
    assert Guard.from_fingerprint(other.to_fingerprint()) == other
    assert Guard.from_fingerprint({"guard_precision": "bf16"}) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1e-2, 10.0]), st.sampled_from([0.0, 0.1]))
def test_the_first_threshold_that_exceeds_a_mean_divergence_ends_the_search(
    seed: int, max_kl: float, noise: float
) -> None:
    """The oracle: all margins as thresholds, by brute force."""
    fast, reference = noisy(120, 0.3, seed)
    again = settled(reference, noise)
    margin = margins(fast, PROBLEM)
    kl = [PROBLEM.divergence(reference, each) for each in (fast, again)]

    def best(half: slice) -> float:
        never = np.nextafter(margin[half].max(), np.inf)
        least = never
        for threshold in sorted((0.0, *margin[half]), reverse=True):
            if np.where(margin[half] >= threshold, kl[0][half], kl[1][half]).mean() > max_kl:
                break
            least = threshold
        return float(least)

    if kl[1].mean() > max_kl:
        with pytest.raises(ConfigError, match="guard_kl"):
            learn_guard(fast, reference, PROBLEM, target=1e-9, again=again, max_kl=max_kl)
        return
    found = learn_guard(fast, reference, PROBLEM, target=1e-9, again=again, max_kl=max_kl)
    expected = max(map(best, HALVES))
    assert expected <= found.threshold <= 1.001 * expected


def test_a_mean_divergence_is_kept_on_rows_that_were_never_seen() -> None:
    loose = learn_guard(*noisy(2_000, 0.3), PROBLEM, target=0.9)
    close = learn_guard(*noisy(2_000, 0.3), PROBLEM, target=0.9, max_kl=5e-3)
    assert close.threshold > loose.threshold
    assert close.audit_mean_kl <= 5.5e-3 < loose.audit_mean_kl
    fast, reference = noisy(100_000, 0.3, seed=1)
    given = np.where(close.distrusts(fast, PROBLEM)[:, None], reference, fast)
    assert PROBLEM.divergence(reference, given).mean() <= 5.5e-3
    # One that is kept anyway changes nothing, and where labels ask for more they decide.
    assert learn_guard(*noisy(2_000, 0.3), PROBLEM, target=0.999, max_kl=5.0).threshold == (
        learn_guard(*noisy(2_000, 0.3), PROBLEM, target=0.999).threshold
    )
    assert Guard.from_fingerprint(close.to_fingerprint()) == close
    assert "guard_max_kl" not in loose.to_fingerprint()


@pytest.mark.parametrize("which", [0, 1])
def test_logits_that_are_not_finite_are_refused(which: int) -> None:
    logits = list(noisy(100, 0.5))
    logits[which][70, 2] = np.nan
    with pytest.raises(ModelError, match="finite logits of the"):
        learn_guard(*logits, PROBLEM, target=0.99)


def test_a_row_that_overflowed_is_computed_again() -> None:
    guard = learn_guard(*noisy(100, 0.5), PROBLEM, target=0.99)
    logits = np.full((4, C), [9.0, 0, 0, 0, 0], np.float32)
    logits[0, 1], logits[1, 0], logits[2, 4] = np.nan, np.inf, -np.inf
    assert guard.distrusts(logits, PROBLEM).tolist() == [True, True, True, False]
