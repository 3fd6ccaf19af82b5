"""Configurations: validated when they are made, and described once.

A stage is configured by a frozen dataclass that derives from `Config`. A field is a *setting*: its
name, type, default and range stand in the field, and what it means in the class's docstring. The
Python calls and the command line's options are both made from them (`monox_kit.stage_call`), so
that nothing is written twice.

Messages name a setting in backticks, such as `guard_rows`; the command line shows it as the option
that its user typed, `guard_rows`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar, cast, get_type_hints

from monox_kit.errors import ConfigError

T = TypeVar("T")


class Config:
    """The base of every configuration: a frozen, keyword-only dataclass that is checked when made.

    Attributes:
        RULES: what settings ask of each other.

    Raises:
        ConfigError: a setting does not fit its type or range, or a rule is broken; the message
            names the setting.
    """

    __slots__ = ()
    RULES: ClassVar[tuple[Rule, ...]] = ()

    def __post_init__(self) -> None:
        _require_valid(self)
        for rule in self.RULES:
            rule.check(self)

    def is_given(self, name: str) -> bool:
        """Whether a setting differs from its default."""
        default = _defaults(type(self))[name]  # type: ignore[arg-type]
        return bool(getattr(self, name) != default)


@dataclass(frozen=True, slots=True)
class Needs:
    """Settings that mean nothing without another one.

    Attributes:
        settings: their names.
        other: the one that they need.
        example: a value of that one.
    """

    settings: tuple[str, ...]
    other: str
    example: Any

    def check(self, config: Config) -> None:
        """Raise the ConfigError of the first setting that is given without the other."""
        if config.is_given(self.other):
            return
        for name in self.settings:
            if config.is_given(name):
                value = _shown(getattr(config, name))
                raise ConfigError(
                    f"`{name}` {value}: it needs `{self.other}`, which is not given. Give "
                    f"`{self.other}` {self.example}, or leave `{name}` out."
                )


@dataclass(frozen=True, slots=True)
class OnlyWith:
    """Settings that are used with some values of another one alone.

    Attributes:
        settings: their names.
        other: that other setting.
        values: its values that use them.
        of: the nested configuration that the settings are of; None for those beside `other`.
    """

    settings: tuple[str, ...]
    other: str
    values: tuple[Any, ...]
    of: str | None = None

    def check(self, config: Config) -> None:
        """Raise the ConfigError of the first setting that would be ignored."""
        found = getattr(config, self.other)
        if found in self.values:
            return
        owner: Config = config if self.of is None else getattr(config, self.of)
        for name in self.settings:
            if owner.is_given(name):
                wanted = " or ".join(map(str, self.values))
                value = _shown(getattr(owner, name))
                raise ConfigError(
                    f"`{name}` {value}: it is used with `{self.other}` {wanted} "
                    f"alone, and `{self.other}` is {found}. Leave it out, or change "
                    f"`{self.other}`."
                )


Rule: TypeAlias = Needs | OnlyWith


@dataclass(frozen=True, slots=True)
class Separated:
    """Marks a setting of several values that are written as one, such as de,fr.

    Attributes:
        by: what stands between them.
    """

    by: str = ","


@dataclass(frozen=True, slots=True)
class Opposite:
    """Marks a setting that is on by default with the name of what turns it off.

    Attributes:
        name: such as drop_fp32.
    """

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a configuration; with hyphens, its name is the option's.

    Attributes:
        name: the field's.
        type: its type, without ranges.
        default: its default; `inspect.Parameter.empty` where it must be given.
        help: the first sentence of what the docstring says.
        marks: what its type is marked with: `Separated`, `Opposite` and ranges.
        is_files: whether it names input files: one path, or several.
    """

    name: str
    type: Any
    default: Any
    help: str
    marks: tuple[Any, ...] = ()
    is_files: bool = False

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


def settings_of(config: type[Any]) -> tuple[Setting, ...]:
    """The settings of a configuration in the order of its fields."""
    return _settings_of(cast(Any, config))  # mypy takes a class for one that has no hash


@functools.cache  # a plan of many steps asks for them again and again
def _settings_of(config: type[Any]) -> tuple[Setting, ...]:
    hints = get_type_hints(config)
    marked = get_type_hints(config, include_extras=True)
    texts = attribute_texts(config)
    return tuple(
        Setting(
            name=field.name,
            type=hints[field.name],
            default=_default(field),
            help=_first_sentence(texts.get(field.name, "")),
            marks=tuple(getattr(marked[field.name], "__metadata__", ())),
        )
        for field in _fields(config)
    )


def mark_of(marks: tuple[Any, ...], kind: type[T]) -> T | None:
    """The mark of a kind among a setting's; None where it has none."""
    return next((mark for mark in marks if isinstance(mark, kind)), None)


def attribute_texts(owner: type) -> dict[str, str]:
    """What the "Attributes" sections of a class and of its bases say of each name."""
    texts: dict[str, str] = {}
    for each in reversed(owner.__mro__):
        texts |= _own_texts(inspect.cleandoc(each.__dict__.get("__doc__") or ""))
    return texts


def _own_texts(docstring: str) -> dict[str, str]:
    section = re.search(r"^Attributes:\n(?P<body>.*?)(?=^\S|\Z)", docstring, re.M | re.S)
    texts: dict[str, str] = {}
    if section is not None:
        name = ""
        for line in section["body"].splitlines():
            begins = re.match(r" {4}(?P<name>\w+): (?P<text>.*)", line)
            if begins:
                name = begins["name"]
                texts[name] = begins["text"]
            elif name and line.strip():
                texts[name] += " " + line.strip()
    return texts


def _shown(value: Any) -> str:
    """A setting's value in a message: several as a list, a nested configuration not at all."""
    if isinstance(value, Config):
        return "(given)"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _first_sentence(text: str) -> str:
    """The text up to its first full stop, with a capital: a line of help."""
    # A stop that ends a sentence: "0, 1, ... that files give" goes on.
    first = re.split(r"(?<=[^.][.])\s+", text, maxsplit=1)[0].rstrip(".;")
    return f"{first[:1].upper()}{first[1:]}." if first else ""


def _require_valid(config: Config) -> None:
    from pydantic import ValidationError

    # mypy takes the hash of a class for that of its instances.
    for name, adapter in _adapters(type(config)).items():  # type: ignore[arg-type]
        value = getattr(config, name)
        try:
            validated = adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            expected = first["msg"].removeprefix("Input should be ")
            raise ConfigError(
                f"`{name}`: expected {expected}, found {first['input']!r}. Correct it."
            ) from error
        # The original is what runs: a value that only a conversion made fit does not fit.
        if not dataclasses.is_dataclass(value) and validated != value:
            raise ConfigError(
                f"`{name}`: expected {validated!r}, found {value!r}. Give a value of its own type."
            )


@functools.cache
def _adapters(config: type[Any]) -> Mapping[str, Any]:
    """A validator for each field's type and range; a nested configuration checked itself."""
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(config, include_extras=True)
    return {
        field.name: TypeAdapter(
            hints[field.name],
            config=None
            if _holds_config(hints[field.name])
            else ConfigDict(arbitrary_types_allowed=True),
        )
        for field in _fields(config)
    }


def _holds_config(hint: Any) -> bool:
    """Whether a dataclass is in the type: pydantic takes no settings beside its own."""
    return any(dataclasses.is_dataclass(part) for part in _parts(hint))


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in getattr(hint, "__args__", ()):
        yield from _parts(part)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


@functools.cache
def _defaults(config: type[Any]) -> Mapping[str, Any]:
    return {field.name: _default(field) for field in _fields(config)}


def _fields(config: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config)
