"""A recipe as a plan: each stage for each combination of its axes, resolved and checked.

Nothing is written and nothing runs here; a plan that can be made has no setting that its command
would refuse.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monox_kit.config import Config
from monox_kit.errors import ConfigError
from monox_kit.foreign import shown
from monox_kit.recipes.recipe import Option, Recipe, StageTable
from monox_kit.recipes.source import as_keys
from monox_kit.stage_call import Stage

# What a recipe may run: the command's words and its stage.
COMMANDS: Mapping[str, str] = {
    "data debian": "data_debian",
    "data manpages": "data_manpages",
    "data xnli": "data_xnli",
    "data cls": "data_cls",
    "train-teacher": "train_teacher",
    "export": "export",
    "trim": "trim",
    "label": "label",
    "store import": "import_store",
    "store merge": "merge_stores",
    "store select": "select_store",
    "train-student": "train_student",
    "predict": "predict",
    "evaluate": "evaluate",
    "compare": "compare",
}
_REFERENCE = re.compile(
    r"\$(?P<name>[A-Za-z][A-Za-z0-9_-]*)(?:\[(?P<options>[^\]]*)\])?(?P<rest>[/:].*)?", re.DOTALL
)
# Folders of the run's own, beside what the steps write.
RESULTS, STEPS = "results", "steps"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command of a plan.

    Attributes:
        name: the stage's, with the options of its axes.
        table: the stage's name in the recipe.
        command: the command's words.
        stage: what runs.
        given: its settings, where it writes among them.
        config: they, checked.
        options: by axis of its stage, its option as it stands in `name`.
        output: what it writes: a folder or a file; of a command that writes nothing, the file that
            its result is kept in.
        outside: by setting, the values that no other stage of the recipe writes.
    """

    name: str
    table: str
    command: str
    stage: Stage
    given: Mapping[str, Any]
    config: Config
    options: Mapping[str, str]
    output: Path
    outside: Mapping[str, tuple[Any, ...]]


def make_plan(recipe: Recipe, out: Path, stages: Mapping[str, Stage]) -> list[Step]:
    """Every command of a recipe, in an order in which each finds what it needs.

    Args:
        recipe: the recipe.
        out: folder of the run.
        stages: the stages by the names of their calls.

    Raises:
        ConfigError: a command or a setting is unknown or does not fit, or a reference leads
            nowhere; the message names the place in the recipe.
    """
    plan = _Plan(recipe, out, stages)
    for table in recipe.stages.values():
        axes = [
            [
                option
                for option in recipe.matrix[axis]
                if option.value not in table.skip.get(axis, ())
            ]
            for axis in table.axes
        ]
        for options in itertools.product(*axes):
            plan.add(table, dict(zip(table.axes, options)))
    return plan.steps


class _Plan:
    """The steps so far, which later ones refer to."""

    def __init__(self, recipe: Recipe, out: Path, stages: Mapping[str, Stage]) -> None:
        self.steps: list[Step] = []
        self._recipe, self._out, self._stages = recipe, out, stages
        self._by_options: dict[tuple[str, tuple[str, ...]], Step] = {}

    def add(self, table: StageTable, options: Mapping[str, Option]) -> None:
        """One more step: a stage under some options."""
        source, home = self._recipe.source, ("stages", table.name)
        source.require_known(table.command, COMMANDS, "command of recipes", *home, "command")
        stage = self._stages[COMMANDS[table.command]]
        known = sorted({one.name for one in stage.parameters()} - {stage.output})
        given: dict[str, Any] = {}
        outside: dict[str, tuple[Any, ...]] = {}
        for name, (value, place) in self._settings(table, options).items():
            source.require_known(name, known, f"setting of {table.command}", *place)
            values = value if isinstance(value, list) else [value]
            resolved = [self._resolved(one, options, place) for one in values]
            given[name] = _flat(one for one, _ in resolved) if value is values else resolved[0][0]
            outside[name] = tuple(_flat(one for one, is_ours in resolved if not is_ours))
        slugs = {axis: _slug(axis, option) for axis, option in options.items()}
        name = "-".join([table.name, *slugs.values()])
        try:
            config = stage.configured(given)
        except (ConfigError, TypeError) as error:
            reason = as_keys(error).removeprefix(f"{stage.config.__name__}.__init__() ")
            raise ConfigError(f"{source.where(*home)}, step {name}: {reason}") from error
        if stage.output is None:
            output = self._out / RESULTS / f"{name}.json"
        else:
            output = self._out / f"{name}{getattr(config, 'output_suffix', '')}"
            given[stage.output] = str(output)
        self._require_own(table, name, output)
        step = Step(
            name=name,
            table=table.name,
            command=table.command,
            stage=stage,
            given=given,
            config=config,
            options=slugs,
            output=output,
            outside=outside,
        )
        self.steps.append(step)
        self._by_options[table.name, tuple(one.name for one in options.values())] = step

    def _require_own(self, table: StageTable, name: str, output: Path) -> None:
        """Refuse the name of a step that another step or a folder of the run has."""
        if name in (RESULTS, STEPS):
            reason = f"the run has a folder {name} of its own. Give the stage another name"
        elif any(name == step.name or output == step.output for step in self.steps):
            reason = f"two steps are named {name}. Rename one"
        else:
            return
        raise ConfigError(f"{self._recipe.source.where('stages', table.name)}: {reason}.")

    def _settings(
        self, table: StageTable, options: Mapping[str, Option]
    ) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """A stage's settings with their places; those of its options go before its own."""
        found: dict[str, tuple[Any, tuple[str, ...]]] = {
            name: (value, ("stages", table.name, name)) for name, value in table.settings.items()
        }
        for axis, option in options.items():
            for name, value in option.settings.get(table.name, {}).items():
                found[name] = value, ("matrix", axis, option.name, table.name, name)
        return found

    def _resolved(
        self, value: Any, options: Mapping[str, Option], place: tuple[str, ...]
    ) -> tuple[Any, bool]:
        """A value for its references, and whether it is what another stage writes."""
        if not isinstance(value, str) or not value.startswith("$"):
            return value, False
        if value.startswith("$$"):
            return value[1:], False
        values, source = self._recipe.values, self._recipe.source
        above = dict.fromkeys(step.table for step in self.steps)
        found = _REFERENCE.fullmatch(value)
        name = found["name"] if found else value
        source.require_known(
            name, [*values, *options, *above], "value, axis of the stage or stage above it", *place
        )
        assert found is not None  # a known name has matched
        rest = found["rest"] or ""
        if name in above:
            return f"{self._step(found, options, place).output}{rest}", True
        meant = values[name] if name in values else options[name].value
        if found["options"] is not None or (rest and isinstance(meant, list | dict)):
            raise ConfigError(
                f"{source.where(*place)}: {shown(value)}: {name} is no stage, so that [...] cannot "
                f"follow, and / or : only where its value is one text. Write ${name}."
            )
        return (f"{meant}{rest}" if rest else meant), False

    def _step(
        self, found: re.Match[str], options: Mapping[str, Option], place: tuple[str, ...]
    ) -> Step:
        """The step of a stage that has the named options and, of the other axes, the same ones."""
        name, axes = found["name"], self._recipe.stages[found["name"]].axes
        parts = [] if found["options"] is None else found["options"].split(",")
        named = {axis: option for axis, _, option in (part.partition("=") for part in parts)}
        chosen = {axis: options[axis].name for axis in axes if axis in options} | named
        step = self._by_options.get((name, tuple(chosen.get(axis, "") for axis in axes)))
        if step is None or set(chosen) - set(axes) or len(named) < len(parts):
            steps = [each.name for each in self.steps if each.table == name]
            advice = f"Write ${name}."
            if axes:
                advice = (
                    "Name the option of each axis that this stage does not have: "
                    f"${name}[{','.join(f'{axis}=...' for axis in axes)}]."
                )
            raise ConfigError(
                f"{self._recipe.source.where(*place)}: {shown(found[0])} is none of the steps "
                f"{', '.join(steps)}. {advice}"
            )
        return step


def _flat(values: Iterable[Any]) -> list[Any]:
    """The values, with those of a list among them in its place."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _slug(axis: str, option: Option) -> str:
    """An option in the name of a step; of a number the axis is told too."""
    text = option.name if isinstance(option.value, str) else f"{axis}{option.name}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("._") or "empty"
