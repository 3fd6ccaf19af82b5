"""A run read back from its folder: what is finished of it, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monox_kit.errors import ConfigError
from monox_kit.models.folder import RECORD_FILE, BundleRecord
from monox_kit.recipes.plan import STEPS, Step, make_plan
from monox_kit.recipes.recipe import Recipe, read_recipe
from monox_kit.recipes.run import FINISHED, RECORD, TO_DO, RunReport, step_report
from monox_kit.recipes.source import Source
from monox_kit.stage import read_record
from monox_kit.stage_call import Stage


def kept_recipe(folder: Path) -> Recipe:
    """The recipe that a run's folder was made from.

    Raises:
        ConfigError: the folder is no run's.
    """
    if not (folder / RECORD).is_file():
        raise ConfigError(
            f"`run` {folder}: there is no {RECORD} of a run. Give the folder of a run, or `recipe`."
        )
    kept = read_record(folder / RECORD)
    name = Path(kept["recipe"]).name.removesuffix(".toml")
    return read_recipe(name, Source(kept["recipe"], kept["text"]), kept["set"])


def read_run(recipe: Recipe, folder: Path, stages: Mapping[str, Stage]) -> RunReport:
    """A run as it stands in its folder, wherever that lies now: what is finished, and what is not.

    Nothing runs, and nothing is written. Results that the commands of `--print-commands` left count
    as those of a run.

    Args:
        recipe: the recipe.
        folder: of the run.
        stages: the stages by the names of their calls.

    Raises:
        ConfigError: the recipe is wrong.
    """
    kept = read_record(folder / RECORD) if (folder / RECORD).is_file() else {}
    made_in = Path(kept.get("out", folder))
    plan = make_plan(recipe, made_in, stages)
    steps = []
    for step in plan:
        found = _found(step, folder, made_in)
        state = TO_DO if found is None else FINISHED
        result, seconds = found or (None, None)
        steps.append(step_report(step, state, seconds, result=result))
    return RunReport(recipe=recipe.source.origin, out=str(folder), steps=steps)


def _found(step: Step, folder: Path, made_in: Path) -> tuple[dict[str, Any], float | None] | None:
    """A step's result and seconds, in a folder that may have been moved since."""
    record = folder / STEPS / f"{step.name}.json"
    if record.is_file():
        kept = read_record(record)
        same = kept["settings"] == step.given
        return (kept["result"], kept["seconds"]) if same else None
    output = folder / step.output.relative_to(made_in)
    if step.stage.output is None:
        return (read_record(output), None) if output.is_file() else None
    if (output / RECORD_FILE).is_file():
        summary = BundleRecord.read(output / RECORD_FILE).provenance.get("summary")
        return None if summary is None else (summary, summary.get("trained_s"))
    return None
