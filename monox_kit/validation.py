"""Configurations checked at the edge, with messages that name the command line's option."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from monox_kit.errors import ConfigError

T = TypeVar("T")


def checked(config: T) -> T:
    """The configuration itself, once every field fits its declared type and bounds.

    Args:
        config: an instance of one of the package's `*Config` dataclasses.

    Raises:
        ConfigError: a field does not fit; the message names it as the option is typed.
    """
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}  # type: ignore[attr-defined]
    for value in values.values():
        if is_dataclass(value):  # pydantic takes an instance of a nested type as it is
            checked(value)
    adapter: TypeAdapter[Any] = TypeAdapter(type(config))
    try:
        validated = adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "options"
        expected = first["msg"].removeprefix("Input should be ")
        raise ConfigError(
            f"{option}: expected {expected}, found {first['input']!r}. Correct the option."
        ) from error
    for name, value in values.items():
        converted = getattr(validated, name)
        # The original is what runs: a value that only a conversion made fit does not fit.
        if not is_dataclass(value) and converted != value:
            raise ConfigError(
                f"--{name.replace('_', '-')}: expected {converted!r}, found {value!r}. "
                "Give a value of the option's own type."
            )
    return config
