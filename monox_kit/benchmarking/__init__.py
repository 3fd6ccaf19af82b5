"""Measurements beside each other: classifiers on the user's texts, and whole labelling programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monox_kit.benchmarking.race import RaceResult, race_classifiers

__all__ = ["RaceResult", "race_classifiers"]


def __getattr__(name: str) -> Any:
    """The names above, imported when asked for: a contender's process needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from monox_kit.benchmarking import race

    return getattr(race, name)
