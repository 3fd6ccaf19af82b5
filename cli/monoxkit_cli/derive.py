"""Commands made from stages: a stage's parameters become options, its result a table or JSON.

A command's module says what it is called, what its help page says and how its result is shown; all
else comes from the stages of `monox_kit.door`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from monox_kit.config import Opposite, Separated, mark_of
from monox_kit.errors import ConfigError
from monoxkit_cli.options import ArgumentsFirst, as_options, option_name

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.config import Setting
    from monox_kit.stage_call import Stage

JSON = "as_json"
AsJson = Annotated[bool, typer.Option("--json", help="Show the result as JSON.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command of one stage.

    Attributes:
        name: as it is typed.
        stage: the stage's name in `monox_kit.door.STAGES`.
        help: the help page's text; its first sentence stands on the page of all commands, its last
            line is an example.
        show: the tables of the stage's result.
        notes: text below the tables; none by default.
        check: raises what the result ends in, once it is shown.
        run: runs the stage instead of `Stage.run`, for a command that does more than call it; what
            it returns is shown unless it is None.
        defaults: the command's own defaults.
    """

    name: str
    stage: str
    help: str
    show: Callable[[Any], Table | list[Table]]
    notes: Callable[[Any], str] = lambda result: ""
    check: Callable[[Any], None] = lambda result: None
    run: Callable[[Stage, dict[str, Any]], Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def register(self, app: typer.Typer) -> None:
        """Add the command with all its options to `app`."""
        from monox_kit.door import STAGES

        stage = STAGES[self.stage]
        parameters = stage.parameters()

        def command(**given: Any) -> None:
            self._execute(stage, given)

        command.__name__ = self.name.replace("-", "_")
        command.__doc__ = self.help
        shown = [_option(one, stage, self.defaults) for one in parameters] + [_JSON_OPTION]
        command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in shown}
        app.command(self.name, cls=ArgumentsFirst)(command)

    def list_in(self, app: typer.Typer) -> None:
        """Add the command's line on the help page to `app`, and no more."""
        app.command(self.name, help=self.help)(nothing)

    def _execute(self, stage: Stage, given: dict[str, Any]) -> None:
        from monoxkit_cli.render import RichProgress, emit

        as_json = given.pop(JSON)
        # What was not typed has the setting's own default.
        given = {name: value for name, value in given.items() if value is not None}
        if self.run is not None:
            result = self.run(stage, given)
        else:
            result = stage.run(given, RichProgress())
        if result is not None:
            emit(
                result,
                as_json,
                lambda: self.show(result),
                notes=self.notes(result),
                check=lambda: self.check(result),
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A command with commands of its own.

    Attributes:
        name: as it is typed.
        help: the help page's text.
        commands: in the order of the help page.
        alone: what the command does without one of them, with options of its own; None shows the
            help page.
    """

    name: str
    help: str
    commands: tuple[Command, ...]
    alone: Callable[..., None] | None = None

    def register(self, app: typer.Typer) -> None:
        """Add the group with all its commands and their options to `app`."""
        is_help = self.alone is None
        group = typer.Typer(no_args_is_help=is_help, rich_markup_mode=None)
        group.callback(help=self.help, invoke_without_command=not is_help)(self.alone or nothing)
        for command in self.commands:
            command.register(group)
        app.add_typer(group, name=self.name)

    def list_in(self, app: typer.Typer) -> None:
        """Add the group's line on the help page to `app`, and no more."""
        group = typer.Typer(rich_markup_mode=None)
        group.callback(help=self.help)(nothing)
        app.add_typer(group, name=self.name)


def as_words(stage: Stage, given: Mapping[str, Any]) -> list[str]:
    """The words of a command line, behind the command's name, that give a stage these settings."""
    words: list[str] = []
    for one in stage.parameters():
        value = given.get(one.name)
        if value is None:
            continue
        opposite, separated = mark_of(one.marks, Opposite), mark_of(one.marks, Separated)
        values = [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
        if isinstance(value, bool):
            name = one.name if value or opposite is None else opposite.name
            words += [option_name(name)] if value or opposite is not None else []
            continue
        if not values and one.default:
            raise ConfigError(
                f"`{one.name}`: an empty list is not its default, and no command line can give it. "
                "Give values, or leave it out."
            )
        if separated is not None and values:
            values = [separated.by.join(values)]
        elif _is_range(one.type) and values:
            values = [":".join(values)]
        if values:
            words += values if one.name in stage.positional else [option_name(one.name), *values]
    return words


def nothing() -> None:
    """The body of what is listed, or groups others, and does not run."""


_JSON_OPTION = inspect.Parameter(
    JSON,
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=AsJson,
)


def _option(one: Setting, stage: Stage, defaults: Mapping[str, Any]) -> inspect.Parameter:
    """A parameter of a call as one of Typer's."""
    kind, parser = _typed(one)
    default = defaults.get(one.name, one.default)
    separated = mark_of(one.marks, Separated)
    if separated is not None and isinstance(default, tuple):
        # Typed as nothing, an empty default would be one empty value.
        default = separated.by.join(map(str, default)) or None
    is_argument = one.name in stage.positional
    metavar = _metavar(one, kind)
    if is_argument:
        metavar = one.name.upper() + ("..." if get_origin(kind) is list else "")
    names = {each.name for each in stage.parameters()}
    settings: dict[str, Any] = {"help": as_options(one.help, names), "metavar": metavar}
    if parser is not None:
        settings["parser"] = parser
    opposite = mark_of(one.marks, Opposite)
    name = option_name(one.name)
    if opposite is not None:
        name += f"/{option_name(opposite.name)}"
    about = typer.Argument(**settings) if is_argument else typer.Option(name, **settings)
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if default == () else default,
        annotation=Annotated[kind | None if default is None or default == () else kind, about],
    )


def _typed(one: Setting) -> tuple[Any, Callable[[str], Any] | None]:
    """The type that Typer reads a parameter as, and a reader of its own where it has none."""
    if mark_of(one.marks, Separated) is not None:
        return str, None
    kinds = [one.type] if get_origin(one.type) not in (Union, UnionType) else get_args(one.type)
    kind = next(each for each in kinds if each is not type(None))
    if get_origin(kind) is tuple:
        if _is_range(kind):
            return str, _range
        return list[_plain(get_args(kind)[0])], None  # type: ignore[misc]
    return _plain(kind), None


def _metavar(one: Setting, kind: Any) -> str | None:
    """What stands for the value on the help page."""
    choices = [part for part in _nested(one.type) if get_origin(part) is Literal]
    if choices:
        return "|".join(map(str, get_args(choices[0])))
    if one.is_files:
        return "FILE..."
    separated = mark_of(one.marks, Separated)
    if separated is not None:
        return f"A{separated.by}B{separated.by}..."
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if kind is bool:
        return None
    if _is_range(one.type):
        return "A:B"
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _nested(kind: Any) -> list[Any]:
    """A type and all types in it."""
    return [kind, *(part for one in get_args(kind) for part in _nested(one))]


def _is_range(kind: Any) -> bool:
    return any(get_args(part) == (int, int) for part in _nested(kind) if get_origin(part) is tuple)


def _plain(kind: Any) -> Any:
    """Names of a choice, paths and labels are text; the library checks them."""
    if get_origin(kind) is Literal or kind not in (int, float, bool, str):
        return str
    return kind


def _range(value: str) -> tuple[int, int]:
    """The two numbers of A:B."""
    first, colon, behind = value.partition(":")
    if not (
        colon and first.isascii() and first.isdigit() and behind.isascii() and behind.isdigit()
    ):
        raise typer.BadParameter(f"expected A:B, two whole numbers such as 0:10, found {value!r}")
    return int(first), int(behind)
