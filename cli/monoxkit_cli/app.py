"""The `monoxkit` command: its commands, its global options, and how every failure ends.

A command is one module with a `register(app)` function, listed in `COMMANDS`. Such a module imports
only the standard library and Typer at its top; the library and `monoxkit_cli.render` are imported
inside the command's body, so that `monoxkit --help` costs what Typer costs. The first sentence of a
command's docstring is its line on the help page: at most 55 characters.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer

from monox_kit.errors import MonoxError
from monoxkit_cli import (
    data,
    demo,
    doctor,
    evaluate,
    export,
    label,
    store,
    train_student,
    train_teacher,
)
from monoxkit_cli.options import spread

# In the order of the help page.
COMMANDS: Final = (
    demo,
    data,
    train_teacher,
    export,
    label,
    train_student,
    evaluate,
    store,
    doctor,
)

# Refusals of the disk that may also come from a library below ours, outside `monox_kit.durable`.
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_UNEXPECTED_EXIT_CODE = 1


class Stopped(BaseException):
    """A signal asked the process to end.

    Not a KeyboardInterrupt, which Typer would turn into an exit of its own without our message.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def _show_version(wanted: bool) -> None:
    if wanted:
        from monox_kit import __version__

        typer.echo(f"monoxkit {__version__}")
        raise typer.Exit


def _global_options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version.",
            callback=_show_version,
            is_eager=True,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Turn an English classifier into a fast multilingual one.

    Results go to stdout, progress and messages to stderr. Exit codes: 0 success, 1 unexpected
    error, 2 usage, 3 data, 4 store, 5 model or runtime, 6 storage, 7 quality gate, 8 cluster, 130
    and 143 stopped by a signal.

    Example: monoxkit demo
    """


def build_app() -> typer.Typer:
    """The Typer application with every command of `COMMANDS`."""
    app = typer.Typer(
        name="monoxkit",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # a usage error is one plain line, not a box that breaks it
    )
    app.callback()(_global_options)
    for module in COMMANDS:
        module.register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Every failure becomes one line on stderr and an exit code here and nowhere else.

    Args:
        arguments: what follows the program's name; None takes the process's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # The hint to rerun with --debug is followed by appending it, after the command's own options.
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    try:
        with _signals_raise():
            return _run(spread(given))
    except BaseException as error:
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exception(error)
        return _end(error)


def _run(arguments: list[str]) -> int:
    """Let Typer run; its own exits (help, usage errors) come back as their code."""
    command = typer.main.get_command(build_app())
    try:
        command.main(args=arguments, prog_name="monoxkit")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    else:
        code = 0
    sys.stdout.flush()
    return code


def _end(error: BaseException) -> int:
    """Show `error` as one line on stderr and return its exit code."""
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.signal_number if isinstance(error, Stopped) else signal.SIGINT
        _say(
            f"Stopped by {signal.Signals(number).name}. "
            "Finished work is kept; run the same command again to continue."
        )
        return 128 + number
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return _UNEXPECTED_EXIT_CODE
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        from monox_kit.durable import storage_error

        error = storage_error(error, error.filename or "output")
    if isinstance(error, MonoxError):
        _say(f"{type(error).__name__}: {error}")
        return error.exit_code
    _say(
        f"Unexpected {type(error).__name__}: {error}. "
        "Run the same command with --debug to see where it comes from."
    )
    return _UNEXPECTED_EXIT_CODE


def _say(message: str) -> None:
    """Write `message` to stderr as exactly one line."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(" ".join(message.split()) + "\n")
        sys.stderr.flush()


def _forget_stdout() -> None:
    """Point stdout at nothing: its reader has gone, and the interpreter flushes it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise `Stopped` inside the block, so that `with` blocks clean up."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise Stopped(number)

    # An ignored signal stays ignored: a shell starts background jobs, and nohup its command, so.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
