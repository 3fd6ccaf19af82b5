"""Which candidate is kept, from speeds and agreements that are given."""

from __future__ import annotations

import pytest

from monox_kit.exporting.candidates import Candidate
from monox_kit.exporting.choice import best_of, is_hopeless, leader_of, lost_to
from monox_kit.models.agreement import Agreement


def candidate(precision: str, tokens_per_s: float, same: float, kl: float = 1e-3) -> Candidate:
    found = Agreement(num_texts=45, argmax=same, max_delta=0.1, max_logit=1.0, mean_kl=kl)
    return Candidate(
        precision=precision,
        graph="opset23",
        provider="cpu",
        agreement=found,
        tokens_per_s=tokens_per_s,
    )


@pytest.mark.parametrize(
    ("candidates", "kept"),
    [
        # As fast within a tenth: the label that one text more has decides.
        ([("int8-smooth", 1000, 0.978), ("int8", 910, 1.0)], "int8"),
        # A tenth slower and more: speed decides, both may be released.
        ([("int8-smooth", 1000, 0.978), ("int8", 890, 1.0)], "int8-smooth"),
        # All labels equal: the divergence tells which is nearer.
        ([("int8", 1000, 1.0, 4e-2), ("fp32", 950, 1.0, 1e-12)], "fp32"),
    ],
)
def test_speed_decides_and_agreement_where_speeds_are_equal(
    candidates: list[tuple[str, float, float]], kept: str
) -> None:
    assert best_of([candidate(*one) for one in candidates]).precision == kept


def test_a_candidate_is_hopeless_only_where_it_was_far_behind_in_every_round() -> None:
    rates = {"fast": [100.0, 100.0, 100.0], "slow": [50.0, 60.0], "disturbed": [20.0, 90.0]}
    assert leader_of(rates) == "fast"
    assert [name for name in rates if is_hopeless(name, rates)] == ["slow"]


def test_a_reason_never_contradicts_the_speeds_beside_it() -> None:
    best = candidate("int8", 910, 1.0)
    slower, faster = candidate("fp32", 400, 1.0), candidate("int8-smooth", 1000, 0.978)
    assert lost_to(slower, best).startswith("It is slower: 400 tokens/s against 910 of int8")
    assert "slower" not in lost_to(faster, best)
