"""A table or figure of the paper as it was reproduced, before it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from monox_kit.errors import ConfigError
from monox_kit.recipes.results import Results
from monox_kit.report.blocks import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the paper calls the systems.
PAPER_NAMES: Mapping[str, str] = {
    "ce": "MBERT",
    "self-training": "MBERT-ST",
    "pl": "MONOX-PL",
    "kd": "MONOX-KD",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What is made.

    Attributes:
        title: of the page.
        said: what was found, in plain sentences.
        tables: the numbers; the first is the item itself.
        caption: of its plot.
        draw: draws it.
        values: all of it as plain JSON values.
        notes: how to read it.
    """

    title: str
    said: Sequence[str]
    tables: Sequence[Table]
    caption: str
    draw: Callable[[], Figure]
    values: Mapping[str, Any]
    notes: Sequence[str] = ()


@cache
def published() -> Mapping[str, Any]:
    """The paper's own numbers, those that are known for certain: accuracy in percent."""
    file = resources.files("monox_kit.paper") / "published.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def named(method: str) -> str:
    """A method with its name in the paper, such as `kd (MONOX-KD)`."""
    first = method.split(" ", 1)[0]
    return f"{method} ({PAPER_NAMES[first]})" if first in PAPER_NAMES else method


def nothing_finished(results: Results, wanted: str) -> ConfigError:
    """The error of an item for which too little is finished."""
    return ConfigError(
        f"`run`: there is no result of {wanted}; not finished are {listed(results.missing)}. Run "
        "the recipe, or give one that has such steps."
    )


def listed(steps: Sequence[str], most: int = 10) -> str:
    """The names of some steps, the first of many."""
    more = f" and {len(steps) - most} more" if len(steps) > most else ""
    return f"{len(steps)} steps: {', '.join(steps[:most])}{more}" if steps else "no steps"
