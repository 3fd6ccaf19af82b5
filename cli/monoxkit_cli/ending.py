"""How a command ends: one line on stderr, an exit code, and with `--json` the error on stdout."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

import typer

from monox_kit.errors import ConfigError, MonoxError, StorageError
from monox_kit.extras import missing_extra
from monox_kit.foreign import cleaned, shown, shown_json, shown_lines
from monoxkit_cli.options import as_options

# Refusals of the disk that may also come from a library below ours, outside `monox_kit.durable`.
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
UNEXPECTED_EXIT_CODE: Final = 1
_AT_WORK: Final[list[str]] = []

# What Typer raises for a wrong command line; of its classes it exports this one's child alone.
USAGE_ERROR: Final[type[Any]] = typer.BadParameter.__mro__[2]


class Stopped(BaseException):
    """A signal asked the process to end.

    Not a KeyboardInterrupt, which Typer would turn into an exit of its own without our message.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class Answered(Exception):
    """A command that wrote its result and fails by it: `store verify`, `doctor`.

    Args:
        error: what it fails by; the result's JSON holds it already.
    """

    def __init__(self, error: MonoxError) -> None:
        super().__init__(str(error))
        self.error = error


def error_json(error: MonoxError) -> dict[str, Any]:
    """What `--json` shows of an error."""
    return _as_json(type(error).__name__, as_options(str(error)), error.exit_code)


def write_json(value: Any) -> None:
    """Write one JSON value to stdout, without credentials and control characters."""
    # What the terminal or the log cannot show is written as JSON's own escapes, not Python's.
    is_ascii = "utf" not in (sys.stdout.encoding or "utf-8").lower()
    text = json.dumps(cleaned(value), indent=2, ensure_ascii=is_ascii, allow_nan=False)
    sys.stdout.write(shown_json(text) + "\n")


def end(error: BaseException, *, debug: bool, as_json: bool) -> int:
    """Show `error` as one line on stderr and return the command's exit status.

    Args:
        error: what ended the command.
        debug: whether its traceback is shown too.
        as_json: whether stdout is to hold it as JSON, which `Answered` did.
    """
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return UNEXPECTED_EXIT_CODE
    if debug:
        say("".join(traceback.format_exception(error)))
    if isinstance(error, Answered):
        error, as_json = error.error, False
    name, message, code = _described(error)
    say(" ".join(f"{name}: {message}".split()) if name else message)
    if as_json:
        with contextlib.suppress(BrokenPipeError):
            write_json({"error": _as_json(name or type(error).__name__, message, code)})
            sys.stdout.flush()
    return code


def say(message: str) -> None:
    """Write `message` to stderr."""
    with contextlib.suppress(OSError):  # a closed terminal, or a reader that has gone
        sys.stderr.write(shown_lines(message).removesuffix("\n") + "\n")
        sys.stderr.flush()


def at_work(message: str | None) -> None:
    """Keep `message` until the command begins to work, which one that fails at once never does."""
    _AT_WORK[:] = [] if message is None else [message]


def begin_work() -> None:
    """Say what `at_work` kept, once."""
    while _AT_WORK:
        say(_AT_WORK.pop())


def usage_error(error: Any, given: Mapping[str, Sequence[str]]) -> ConfigError:
    """What Typer says of a wrong command line, as an error of ours.

    Args:
        error: a `USAGE_ERROR`.
        given: each option of the command line with the values that follow it.
    """
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = "monoxkit" if context is None else context.command_path
    what = error.format_message()
    help_step = f"See `{command} --help`."
    if parameter is None:
        return ConfigError(f"{command}: {_sentence(what)} {help_step}")
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        long = next((pair for pair in given.items() if pair[0] and len(pair[1]) > 1), None)
        if long is None:
            return ConfigError(f"{command}: the argument {name} is missing. {help_step}")
        option, values = long
        return ConfigError(
            f"{command}: the argument {name} is missing. {option} takes every value up to the next "
            f"option, and took {', '.join(values)}. Write {name} first: {command} {name} {option} "
            f"{values[0]}"
        )
    option = parameter.opts[0]
    values = [value for name in parameter.opts for value in given.get(name, ())]
    if not values:
        return ConfigError(f"{command}: {option} is missing. {help_step}")
    return ConfigError(f"{command}: {option} {values[-1]}: {_sentence(error.message)} {help_step}")


def _sentence(text: str) -> str:
    """What Typer says with one stop at its end, which some of its messages have."""
    return text if text.endswith(("?", ".")) else f"{text}."


def _described(error: BaseException) -> tuple[str, str, int]:
    """The error's class as it is shown (none for a signal), its message and the exit status."""
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.signal_number if isinstance(error, Stopped) else signal.SIGINT
        message = (
            f"Stopped by {signal.Signals(number).name}. "
            "Finished work is kept; run the same command again to continue."
        )
        return "", message, 128 + number
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        from monox_kit.durable import storage_error

        error = storage_error(error, error.filename or "output")
    if isinstance(error, ModuleNotFoundError):
        error = missing_extra(error) or error
    elif isinstance(error, OSError) and error.filename is not None:
        reason = os.strerror(error.errno) if error.errno else str(error)
        error = StorageError(
            f"{os.fsdecode(error.filename)}: {reason}. Check the path and its permissions."
        )
    if isinstance(error, MonoxError):
        return type(error).__name__, as_options(str(error)), error.exit_code
    message = f"{shown(error)}. Run the same command with --debug to see where it comes from."
    return f"Unexpected {type(error).__name__}", message, UNEXPECTED_EXIT_CODE


def _as_json(name: str, message: str, code: int) -> dict[str, Any]:
    return {
        "class": name.removeprefix("Unexpected "),
        "message": " ".join(message.split()),
        "exit_code": code,
    }


def _forget_stdout() -> None:
    """Point stdout at nothing: its reader has gone, and the interpreter flushes it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
