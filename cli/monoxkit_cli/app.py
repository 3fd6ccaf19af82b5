"""The `monoxkit` command: its commands, its global options, and how every failure ends.

A command is one module with a `COMMAND`, listed in `COMMANDS`. Such a module imports only the
standard library and Typer at its top; the library is imported where a command is registered with
its options, which only the command that runs is, so that `monoxkit --help` costs what Typer costs.
The first sentence of a command's help is its line on the help page: at most 55 characters.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer

from monox_kit.errors import ConfigError
from monoxkit_cli import (
    advise,
    benchmark,
    calibrate,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    export,
    label,
    predict,
    reproduce,
    run,
    serve,
    store,
    train_student,
    train_teacher,
    trim,
)
from monoxkit_cli.ending import USAGE_ERROR, Stopped, at_work, end, say, usage_error
from monoxkit_cli.options import require_values, spread, values_given

# In the order of the help page.
COMMANDS: Final = (
    demo,
    data,
    run,
    reproduce,
    train_teacher,
    advise,
    export,
    label,
    train_student,
    trim,
    calibrate,
    evaluate,
    compare,
    predict,
    serve,
    benchmark,
    store,
    doctor,
)

_STDERR: Final = 2  # the last of the standard descriptors
# Commands that compute nothing with threads.
_WITHOUT_MODEL: Final = frozenset({"data", "store", "doctor"})


def _show_version(wanted: bool) -> None:
    if wanted:
        from monox_kit import __version__

        typer.echo(f"monoxkit {__version__}")
        raise typer.Exit


def _global_options(
    context: typer.Context,
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
    spin: Annotated[
        str | None,
        typer.Option(
            "--spin",
            help="Whether waiting threads spin: auto (not beside other work), on or off.",
        ),
    ] = None,
) -> None:
    """Turn an English classifier into a fast multilingual one.

    Results go to stdout, progress and messages to stderr. Exit codes: 0 success, 1 unexpected
    error, 2 usage, 3 data, 4 store, 5 model or runtime, 6 storage, 7 quality gate, 8 cluster, 129,
    130 and 143 stopped by a signal.

    Example: monoxkit demo
    """
    if context.invoked_subcommand not in _WITHOUT_MODEL and "--help" not in (context.obj or ()):
        _settle_spinning(spin)


def _settle_spinning(asked: str | None) -> None:
    """Choose before torch is imported, which the command does, whether threads spin."""
    from monox_kit.spinning import settle_spinning

    told = settle_spinning(asked)
    if told is not None and os.environ.get("RANK", "0") == "0":  # one of several processes says it
        at_work(told)


def build_app(only: Sequence[str] | None = None) -> typer.Typer:
    """The Typer application with every command of `COMMANDS`.

    Args:
        only: the words of a command line: a command that is not among them has its line on the
            help page, and no options; None for all commands whole.
    """
    app = typer.Typer(
        name="monoxkit",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # a usage error is one plain line, not a box that breaks it
    )
    app.callback()(_global_options)
    for module in COMMANDS:
        if only is not None and module.COMMAND.name not in only:
            module.COMMAND.list_in(app)
        else:
            module.COMMAND.register(app)
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
    _open_streams()
    try:
        with _signals_raise():
            return _run(given)
    except BaseException as error:
        return end(error, debug=debug, as_json="--json" in given)
    finally:
        at_work(None)


def _run(given: list[str]) -> int:
    """Let Typer run; its own exits (help, version) come back as their code."""
    require_values(given)
    command = typer.main.get_command(build_app(given))
    try:
        code = command.main(
            args=spread(given, _several(command, given)),
            prog_name="monoxkit",
            standalone_mode=False,
            obj=given,
        )
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: its help is the answer
            say(error.format_message())
            return ConfigError.exit_code
        raise usage_error(error, values_given(given)) from error
    except SystemExit as gone:  # the reader of stdout, which Typer ends by
        code = gone.code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _several(command: Any, arguments: Sequence[str]) -> set[str]:
    """The options of the command that is called which take several values after one name."""
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    return {name for each in command.params if each.multiple for name in each.opts}


def _open_streams() -> None:
    """Let stdout and stderr take whatever is written, wherever they lead.

    A closed one is absent in Python, one that was opened for reading takes nothing, and one in a
    small encoding refuses what it cannot show.
    """
    # The number of a closed one would go to the next file that is opened: a model's, or a store's,
    # into which native libraries would then write their messages.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or not _takes_text(stream):
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (the process's own)
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _takes_text(stream: TextIO) -> bool:
    """Whether the stream's descriptor may be written to; one without a descriptor may."""
    try:
        flags = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL)
    except (OSError, ValueError):
        return True
    return flags & os.O_ACCMODE != os.O_RDONLY


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP raise `Stopped` in the block, so that `with` cleans up."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise Stopped(number)

    # An ignored signal stays ignored: a shell starts background jobs, and nohup its command, so.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
