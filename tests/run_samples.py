"""Runs of recipes as they lie on disk, with made-up results: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monox_kit.door import STAGES
from monox_kit.recipes.plan import Step, make_plan
from monox_kit.recipes.recipe import RunConfig, load_recipe

TARGETS = ("de", "fr")
Skill = Callable[[Step], float]


def evaluation(skill: float, languages: tuple[str, ...]) -> dict[str, Any]:
    """An evaluation in which the source language is 2 points better than the others."""
    found = {tag: skill + (0.02 if tag == "en" else 0.0) for tag in languages}
    average = skill if len(languages) > 1 else None
    return {
        "model": "m",
        "source_language": "en",
        "measure": "accuracy",
        "languages": {
            tag: {"num_rows": 200, "accuracy": one, "accuracy_interval": [one - 0.03, one + 0.03]}
            for tag, one in found.items()
        },
        "target_average": average,
        "target_average_interval": None if average is None else [average - 0.02, average + 0.02],
    }


def comparison(first: float, second: float) -> dict[str, Any]:
    """A comparison whose differences are equal in all languages."""
    gain = second - first
    one = {"difference": gain, "difference_interval": [gain - 0.02, gain + 0.02]}
    return {
        "languages": dict.fromkeys(("en", *TARGETS), one),
        "target_difference": gain,
        "target_difference_interval": [gain - 0.01, gain + 0.01],
    }


def training(skill: float, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "dev_accuracy": skill + 0.01,
        "dev_loss": 1.0,
        "num_steps": 7,
        "trained_s": 90.0,
        "counts": counts,
    }


def result_of(step: Step, skills: dict[str, float], skill: Skill, rows: int) -> dict[str, Any]:
    given = step.given
    if step.command.startswith("train-"):
        skills[str(step.output)] = skill(step)
        counts = {"soft_rows": 900} if given.get("method") == "kd" else {"gold_rows": rows}
        return training(skills[str(step.output)], counts)
    if step.command == "evaluate":
        targets = () if "test.en" in str(given["test"]) else TARGETS
        return evaluation(skills[given["model"]], ("en", *targets))
    if step.command == "compare":
        return comparison(skills[given["first"]], skills[given["second"]])
    return {"num_rows": 900}


def finished(
    out: Path,
    recipe: str,
    skill: Skill,
    *,
    changes: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    rows: Callable[[Step], int] = lambda step: 1000,
) -> Path:
    """A run's folder with the records of its steps.

    Args:
        out: the folder.
        recipe: which one is run.
        skill: what each trained model scores in the target languages, in [0, 1].
        changes: of the recipe.
        missing: parts of the names of steps that are not finished.
        rows: gold-labelled rows of a training step.
    """
    loaded = load_recipe(RunConfig(recipe=recipe, set=changes))
    skills: dict[str, float] = {}
    for step in make_plan(loaded, out, STAGES):
        result = result_of(step, skills, skill, rows(step))
        if not any(part in step.name for part in missing):
            record = {"settings": step.given, "inputs": None, "seconds": 61.5, "result": result}
            write(out / "steps" / f"{step.name}.json", record)
    kept = {"recipe": loaded.source.origin, "set": list(changes), "out": str(out)}
    write(out / "recipe.json", {**kept, "text": loaded.source.text})
    return out


def write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
