"""How sure a model's answers are: temperatures and thresholds by language, kept in its record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from monox_kit.data import UNKNOWN_LANGUAGE, Logits
from monox_kit.problem import Bools, Floats

# The key of what stands in for languages that had no labels.
STAND_IN = "*"
_MOST_LANGUAGES = 10_000
# Beyond these, float32 logits overflow when they are divided, or tell nothing any more.
_LEAST, _MOST = 1e-3, 1e3

_Temperature: TypeAlias = Annotated[float, Ge(_LEAST), Le(_MOST)]
_Share: TypeAlias = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Temperatures and thresholds by language tag; `STAND_IN` is for all other languages.

    Attributes:
        temperatures: that logits are divided by: one, or one for each class where classes do not
            exclude each other.
        precision: the share of right answers that the thresholds were chosen for; None without
            thresholds.
        thresholds: confidences from which on a row is answered; None for a language where no
            threshold reached the precision. Empty where none were asked for.
    """

    temperatures: Mapping[str, Annotated[tuple[_Temperature, ...], MinLen(1)]]
    precision: _Share | None = None
    thresholds: Mapping[str, _Share | None] = field(default_factory=dict)

    def scaled(self, logits: Logits, languages: Sequence[str | None]) -> Logits:
        """[N, C] float32 logits that give calibrated probabilities.

        Decisions stay what they are: every temperature is above 0.

        Args:
            logits: [N, C], the model's own.
            languages: N tags; None where a row's language is not known.
        """
        known = {each: self.temperatures[self.known(each)] for each in set(languages)}
        temperatures = np.array([known[each] for each in languages])
        return np.asarray(logits / temperatures, np.float32)

    def abstains(self, confidences: Floats, languages: Sequence[str | None]) -> Bools:
        """[N] whether each row is one that the model does not answer.

        Args:
            confidences: [N], of calibrated logits.
            languages: N tags; None where a row's language is not known.
        """
        known = {each: self.thresholds[self.known(each)] for each in set(languages)}
        least = [known[each] for each in languages]
        return np.asarray(confidences < [np.inf if each is None else each for each in least])

    def known(self, language: str | None) -> str:
        """The key of the values that are used for a language; None where it is not known.

        It is the language's own, whatever the case (BCP 47, section 2.1.1), without its region, or
        the stand-in.
        """
        tag = language or UNKNOWN_LANGUAGE
        if tag in self.temperatures:
            return tag
        keys = {_parts(key): key for key in self.temperatures}
        parts = _parts(tag)
        found = (keys.get(parts[:length]) for length in range(len(parts), 0, -1))
        return next((key for key in found if key is not None), STAND_IN)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The calibration that a record holds.

        Raises:
            ValueError: it is none.
        """
        if value.keys() != {"temperatures", "precision", "thresholds"}:
            raise ValueError(f"keys {', '.join(sorted(map(str, value)))[:80]}")
        temperatures, thresholds = value["temperatures"], value["thresholds"]
        if not isinstance(temperatures, dict) or not 0 < len(temperatures) <= _MOST_LANGUAGES:
            raise ValueError("temperatures of no language")
        for language, each in temperatures.items():
            is_list = isinstance(each, list) and each
            if not is_list or not all(_is_number(one) and _LEAST <= one <= _MOST for one in each):
                raise ValueError(f"temperatures {str(each)[:40]} of {language[:20]!a}")
        is_same = isinstance(thresholds, dict) and thresholds.keys() in (set(), temperatures.keys())
        if STAND_IN not in temperatures or not is_same:
            raise ValueError("other languages of thresholds than of temperatures, or no stand-in")
        for each in thresholds.values():
            if each is not None and not _is_between(each, 0, 1):
                raise ValueError(f"threshold {str(each)[:40]}")
        if (value["precision"] is None) is not (not thresholds):
            raise ValueError("thresholds without a precision, or the reverse")
        if thresholds and not _is_between(value["precision"], 0, 1):
            raise ValueError(f"precision {str(value['precision'])[:40]}")
        return cls(
            temperatures={language: tuple(each) for language, each in temperatures.items()},
            precision=value["precision"],
            thresholds=thresholds,
        )


def _parts(tag: str) -> tuple[str, ...]:
    return tuple(re.split("[-_]", tag.lower()))


def _is_between(value: Any, low: float, high: float) -> bool:
    """Whether a JSON value is a number above the one and up to the other."""
    return _is_number(value) and low < value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
