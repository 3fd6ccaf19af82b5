"""A recipe as it stands in its file: values, a matrix, and stages with their settings.

`docs/recipes.md` describes the form. What is wrong in a file is told by file, line and table.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from monox_kit.config import Config
from monox_kit.errors import ConfigError
from monox_kit.foreign import shown
from monox_kit.recipes.presets import PRESETS
from monox_kit.recipes.source import Source, closest, find_recipe

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_HOMES = ("values", "matrix", "stages")
_TABLES = {"description": str, **dict.fromkeys((*_HOMES, "presets"), dict)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(Config):
    """Which recipe is run, and how.

    Attributes:
        recipe: a recipe's file, or the name of one that comes along, such as debian, cls or own.
        set: changes of the recipe, such as seed=[1,2], student.max_steps=600 or source=a.zip. The
            value is TOML, or else text.
        preset: name of changes that go before those of `set`: paper, for the paper's
            configuration, or one of the recipe's own.
        out: folder of the run [default: the recipe's name, below runs].
        dry_run: show the plan, with what is finished and how many rows each stage reads, and run
            nothing.
        print_commands: show the plan as commands for a shell, and run nothing.
    """

    recipe: Annotated[str, MinLen(1)]
    set: tuple[str, ...] = ()
    preset: str | None = None
    out: Path | None = None
    dry_run: bool = False
    print_commands: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One place on an axis of the matrix.

    Attributes:
        name: part of the names of what is written.
        value: what `$AXIS` stands for.
        settings: by stage, what the option sets there.
    """

    name: str
    value: Any
    settings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StageTable:
    """One stage of a recipe.

    Attributes:
        name: of the table.
        command: the command that it runs.
        axes: axes of the matrix: the stage runs once for each combination of their options.
        skip: by axis, the options that it does not run for.
        settings: the command's settings, in which references are not resolved yet.
    """

    name: str
    command: str
    axes: tuple[str, ...]
    skip: Mapping[str, Sequence[Any]]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe with its changes.

    Attributes:
        name: of its file.
        source: its file, for messages.
        values: by name, what `$NAME` stands for.
        matrix: the axes with their options.
        stages: in their order.
        changes: that were made of its file, as `--set` takes them.
    """

    name: str
    source: Source
    values: Mapping[str, Any]
    matrix: Mapping[str, Sequence[Option]]
    stages: Mapping[str, StageTable]
    changes: Sequence[str] = ()


def load_recipe(config: RunConfig) -> Recipe:
    """The recipe that is asked for, its form checked.

    Raises:
        ConfigError: there is none, or its form is wrong.
    """
    return read_recipe(*find_recipe(config.recipe), config.set, config.preset)


def read_recipe(
    name: str, source: Source, given: Sequence[str], preset: str | None = None
) -> Recipe:
    """The recipe in a text, with changes, its form checked.

    Raises:
        ConfigError: its form is wrong.
    """
    try:
        raw = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source.origin}: this is no TOML: {error}. Correct it.") from error
    for key, value in raw.items():
        source.require_known(key, _TABLES, "table", key)
        if not isinstance(value, _TABLES[key]):
            raise ConfigError(f"{source.where(key)}: expected {_TABLES[key].__name__} in {key}.")
    listed = {axis: _options(value) for axis, value in raw.get("matrix", {}).items()}
    changes = (*_preset(raw, preset, source), *given)
    for change in changes:
        _change(raw, change, source)
    values, matrix, tables = (raw.get(key, {}) for key in _HOMES)
    names = [*values, *matrix, *tables]
    for each in names:
        if not _NAME.fullmatch(each) or names.count(each) > 1:
            raise ConfigError(
                f"{source.origin}: the name {shown(each)} stands for two things, or is none. Names "
                "of values, axes and stages are distinct, of letters, digits, - and _."
            )
    if not tables:
        raise ConfigError(f"{source.origin}: there is no [stages.NAME] in it. Add the first stage.")
    recipe = Recipe(
        name=name,
        source=source,
        values=values,
        matrix={axis: _options(value) for axis, value in matrix.items()},
        stages={each: _stage(each, table, source) for each, table in tables.items()},
        changes=changes,
    )
    _require_axes(recipe, listed)
    return recipe


def _preset(raw: Mapping[str, Any], preset: str | None, source: Source) -> Iterator[str]:
    """A preset as changes: what holds for every stage of a command, then the recipe's own."""
    if preset is None:
        return
    own, general = raw.get("presets", {}), PRESETS.get(preset, {})
    source.require_known(preset, {**PRESETS, **own}, "preset", "presets")
    for name, table in raw.get("stages", {}).items():
        if isinstance(table, dict) and table.get("command") in general:
            yield from _as_changes(general[table["command"]], name)
    yield from _as_changes(own.get(preset, {}))


def _as_changes(table: Any, *parents: str) -> Iterator[str]:
    """A preset's keys, in tables too, as `--set` takes them: JSON's plain values are TOML's."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _as_changes(value, *parents, key)
    else:
        yield f"{'.'.join(parents)}={json.dumps(table, ensure_ascii=False)}"


def _change(raw: dict[str, Any], change: str, source: Source) -> None:
    """Set one key as the user wants it: `NAME=VALUE` or `STAGE.SETTING=VALUE`."""
    key, is_given, text = change.partition("=")
    *parents, last = key.strip().split(".")
    first = (*parents, last)[0]
    home = next((name for name in _HOMES if first in raw.get(name, {})), None)
    if not is_given or home is None or (home == "stages" and not parents):
        known = [*raw.get("values", {}), *raw.get("matrix", {})]
        known += [f"{stage}.SETTING" for stage in raw.get("stages", {})]
        raise ConfigError(f"`set` {change}: expected KEY=VALUE. {closest(key, known)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = raw[home]
    for part in parents:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"`set` {change}: {part} is a value. Give it whole.")
    there = table.get(last)
    if home == "matrix" and not parents and isinstance(there, dict):  # some of the named options
        wanted = value if isinstance(value, list) else [value]
        for name in wanted:
            source.require_known(name, there, f"option of {last}", "matrix", last)
        value = {name: there[name] for name in wanted}
    table[last] = value


def _options(value: Any) -> list[Option]:
    """The options of an axis: values in a list, or tables by name."""
    if isinstance(value, dict):
        return [Option(name, name, settings) for name, settings in value.items()]
    return [Option(str(each), each, {}) for each in (value if isinstance(value, list) else [value])]


def _stage(name: str, table: Any, source: Source) -> StageTable:
    """One stage's table."""
    settings = dict(table) if isinstance(table, dict) else {}
    command, axes = settings.pop("command", None), settings.pop("matrix", [])
    skip = settings.pop("skip", {})
    fits = isinstance(command, str) and isinstance(axes, list) and isinstance(skip, dict)
    if not fits or not all(isinstance(each, list) for each in skip.values()):
        raise ConfigError(
            f'{source.where("stages", name)}: expected command = "...", and where they are needed '
            "matrix = [...] with the names of axes and skip = { AXIS = [...] } with the options "
            "that are left out. Correct them."
        )
    return StageTable(name, command, tuple(axes), skip, settings)


def _require_axes(recipe: Recipe, listed: Mapping[str, Sequence[Option]]) -> None:
    """Check that stages name axes and options that there are, and options stages that have them.

    Args:
        recipe: the recipe.
        listed: the axes as the file has them: a change may have taken away what a stage skips.
    """
    require_known = recipe.source.require_known
    for axis, options in recipe.matrix.items():
        if not options:
            where = recipe.source.where("matrix", axis)
            raise ConfigError(f"{where}: the axis is empty. Give options.")
    for stage in recipe.stages.values():
        for axis in stage.axes:
            require_known(axis, recipe.matrix, "axis", "stages", stage.name, "matrix")
        for axis, skipped in stage.skip.items():
            place = ("stages", stage.name, "skip")
            require_known(axis, stage.axes, "axis of the stage", *place)
            known = [each.value for each in (*listed[axis], *recipe.matrix[axis])]
            for value in skipped:
                require_known(value, known, f"option of {axis}", *place)
    for axis, options in recipe.matrix.items():
        having = [each.name for each in recipe.stages.values() if axis in each.axes]
        for option in options:
            _require_table(option.settings, recipe.source, "matrix", axis, option.name)
            for name, settings in option.settings.items():
                require_known(
                    name, having, f"stage with the axis {axis}", "matrix", axis, option.name, name
                )
                _require_table(settings, recipe.source, "matrix", axis, option.name, name)


def _require_table(value: Any, source: Source, *place: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{source.where(*place)}: expected a table of settings. Write one.")
