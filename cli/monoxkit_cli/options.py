"""What command lines consist of: options, their values, and the names that settings have there."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

from typer.core import TyperCommand


class ArgumentsFirst(TyperCommand):
    """A command whose usage line shows its arguments before its options, as `spread` needs them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]


def option_name(setting: str) -> str:
    """The option of a setting: --guard-rows of guard_rows."""
    return f"--{setting.replace('_', '-')}"


def as_options(message: str, settings: Container[str] | None = None) -> str:
    """A message of the library, which names settings in backticks, with --options instead.

    Args:
        message: what the library says.
        settings: the names that are settings; None takes every word in backticks for one.
    """

    def option(found: re.Match[str]) -> str:
        is_setting = settings is None or found[1] in settings
        return option_name(found[1]) if is_setting else found[1]

    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", option, message)


def spread(arguments: Sequence[str], several: Container[str]) -> list[str]:
    """The arguments with `--test a b` written as `--test a --test b`.

    What follows an option of several values up to the next option belongs to it, so a command's
    positional argument stands before its options.

    Args:
        arguments: a command line.
        several: the options that take several values; Click knows only repeated ones.
    """
    out: list[str] = []
    for option, values in _by_option(arguments):
        if option in several and values:
            out += [part for value in values for part in (option, value)]
        else:
            out += [*filter(None, [option]), *values]
    return out


def values_given(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Each option with all the values that follow it."""
    found: dict[str, list[str]] = {}
    for option, values in _by_option(arguments):
        name, has_value, value = option.partition("=")
        found.setdefault(name, []).extend([value, *values] if has_value else values)
    return found


def require_values(arguments: Sequence[str]) -> None:
    """Check that no argument and no option's value is empty, as an unset variable of a shell is.

    An empty path would be the current folder, an empty list of names the default.

    Raises:
        ConfigError: one is.
    """
    for option, values in values_given(arguments).items():
        if not all(value.strip() for value in values):
            from monox_kit.errors import ConfigError

            raise ConfigError(
                f"{option or 'argument'}: expected a value, found an empty one. Check the variable "
                "that it is from, or leave it out."
            )


def _by_option(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with what follows it up to the next; what stands before the first has none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for argument in arguments:
        if argument.startswith("--"):
            found.append((argument, []))
        else:
            found[-1][1].append(argument)
    return found
