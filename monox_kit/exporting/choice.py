"""Which candidate is kept: decisions on speeds that were measured in turn, and on agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from monox_kit.exporting.candidates import Candidate

# One that is this much slower than the fastest in every round is not timed again.
_HOPELESS = 1.5
# Speeds this near to the fastest count as equal: timings of one graph differ on a shared machine.
# By how much was not measured; a tenth is a choice.
_TIE = 0.9

# Real tokens per second of each round, by the candidate's name.
Rates = Mapping[str, Sequence[float]]


def leader_of(rates: Rates) -> str:
    """The name with the highest median."""
    return max(rates, key=lambda name: median(rates[name]))


def is_hopeless(name: str, rates: Rates) -> bool:
    """Whether it cannot win any more: a single slow round is another process's doing."""
    pairs = zip(rates[name], rates[leader_of(rates)])
    return all(rate * _HOPELESS < fastest for rate, fastest in pairs)


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """Of the fastest, and those that are as fast, the one that agrees best with PyTorch."""
    fastest = max(map(speed, candidates))
    return max((one for one in candidates if speed(one) >= _TIE * fastest), key=_closeness)


def lost_to(candidate: Candidate, best: Candidate) -> str:
    """Why a candidate that agrees was not kept; both were timed in turn."""
    if speed(candidate) > speed(best):
        return f"It is hardly faster than {best.name}, which agrees better with PyTorch."
    return (
        f"It is slower: {speed(candidate):,.0f} tokens/s against {speed(best):,.0f} of "
        f"{best.name}, timed in turn."
    )


def speed(candidate: Candidate) -> float:
    """Real tokens per second; 0 where it was not timed."""
    return candidate.tokens_per_s or 0.0


def _closeness(candidate: Candidate) -> tuple[float, float]:
    """Equal labels first, then the divergence, which also tells where all labels are equal."""
    found = candidate.agreement
    return (found.argmax, -found.mean_kl) if found else (0.0, 0.0)
