"""How a command ends: one line on stderr and the documented exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer

from monox_kit import errors
from monox_kit.durable import new_folder
from monoxkit_cli import app as application
from monoxkit_cli.app import main
from tests.store_samples import write_store

EXIT_CODES = {
    "MonoxError": 1,
    "ClusterError": 8,
    "ConfigError": 2,
    "OtherRun": 2,
    "CorpusError": 3,
    "CorpusUnreadable": 3,
    "StoreError": 4,
    "StoreIncomplete": 4,
    "StoreCorrupt": 4,
    "StoreMismatch": 4,
    "StoreNotBegun": 4,
    "StoreLocked": 4,
    "StoreLockLost": 4,
    "ModelError": 5,
    "LabelMismatchError": 5,
    "ProviderError": 5,
    "MissingExtra": 5,
    "NotFinite": 5,
    "StorageError": 6,
    "FolderBusy": 6,
    "CheckpointError": 6,
    "GateError": 7,
}


def module_of(register: Callable[[typer.Typer], None]) -> SimpleNamespace:
    """A command's module whose commands `register` adds."""
    return SimpleNamespace(
        COMMAND=SimpleNamespace(name="work", register=register, list_in=register)
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Makes the given function the body of `monoxkit work`, whose one option is --size."""

    def install(body: Callable[[], None]) -> None:
        def work(size: Annotated[int, typer.Option("--size")] = 1) -> None:
            body()

        def register(app: typer.Typer) -> None:
            app.command("work")(work)
            app.command("other")(lambda: None)

        monkeypatch.setattr(application, "COMMANDS", (module_of(register),))

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def all_errors(kind: type[errors.MonoxError]) -> Iterator[type[errors.MonoxError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_every_error_has_its_documented_exit_code() -> None:
    ours = {
        kind.__name__: kind.exit_code
        for kind in all_errors(errors.MonoxError)
        if kind.__module__ == "monox_kit.errors"
    }
    assert ours == EXIT_CODES


@pytest.mark.parametrize("name", EXIT_CODES)
def test_an_error_is_one_line_and_its_exit_code(name: str, command: Any, capsys: Any) -> None:
    command(raising(getattr(errors, name)("here: expected a,\n  found b. Do c.")))
    assert main(["work"]) == EXIT_CODES[name]
    shown = capsys.readouterr()
    assert shown.err == f"{name}: here: expected a, found b. Do c.\n"
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--debug", "work"], ["work", "--debug"]])
def test_debug_adds_the_traceback(arguments: list[str], command: Any, capsys: Any) -> None:
    command(raising(errors.CorpusError("here: expected a, found b. Do c.")))
    assert main(arguments) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.endswith("\nCorpusError: here: expected a, found b. Do c.\n")


def test_an_unexpected_error_points_to_debug(command: Any, capsys: Any) -> None:
    command(raising(KeyError("weight")))
    assert main(["work"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "KeyError: 'weight'" in shown
    assert "--debug" in shown


@pytest.mark.parametrize(
    "arguments", [["work", "--no-such"], ["no-such"], ["work", "--size", "big"], ["--no-such"]]
)
def test_usage_errors_exit_with_2(arguments: list[str], command: Any, capsys: Any) -> None:
    command(raising(AssertionError("the body must not run")))
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("ConfigError: monoxkit")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["work", "--size", "big"], ("--size", "big")),
        (["work", "--sise", "1"], ("--sise", "--size")),
        (["wrok"], ("wrok", "work")),
        (["work", "extra"], ("extra",)),
        (["work", "--size"], ("--size",)),
    ],
)
def test_a_usage_error_names_what_was_typed(
    arguments: list[str], named: tuple[str, ...], command: Any, capsys: Any
) -> None:
    command(lambda: None)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert all(text in shown for text in named), shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--check", "d.parquet", "teacher", "--out", "o"],
        ["evaluate", "--test", "d.parquet", "teacher"],
    ],
)
def test_an_option_that_took_the_argument_is_named(arguments: list[str], capsys: Any) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    name, option = arguments[:2]
    assert f"{option} takes every value" in shown and "d.parquet, teacher" in shown
    assert f"monoxkit {name} MODEL {option} d.parquet" in shown


@pytest.mark.parametrize("name", ["export", "evaluate", "store info", "store merge"])
def test_the_usage_line_shows_the_order_that_works(name: str, capsys: Any) -> None:
    assert main([*name.split(), "--help"]) == 0
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert usage.index("[OPTIONS]") > usage.index(name) + len(name) + 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["label", "--model", "m", "--corpus", "c", "--store", ""],
        ["label", "--model", "m", "--corpus", "c", "--store="],
        ["evaluate", "", "--test", "t"],
        ["evaluate", "m", "--test", "t", " "],
        ["data", "debian", "--out", "o", "--languages", ""],
    ],
)
def test_an_empty_value_is_refused(
    arguments: list[str], capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "found an empty one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXIT_CODES)
def test_json_has_the_error_on_stdout(name: str, capsys: Any, monkeypatch: Any) -> None:
    def work(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        raise getattr(errors, name)("here: found b.\nDo c.")

    def register(app: typer.Typer) -> None:
        app.command("work")(work)
        app.command("other")(lambda: None)

    monkeypatch.setattr(application, "COMMANDS", (module_of(register),))
    assert main(["work", "--json"]) == EXIT_CODES[name]
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "error": {"class": name, "message": "here: found b. Do c.", "exit_code": EXIT_CODES[name]}
    }
    assert shown.err == f"{name}: here: found b. Do c.\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["store", "info", "nowhere", "--json"], "StoreError", 4),
        (["store", "info", "--json"], "ConfigError", 2),
        (["evaluate", "m", "--json", "--test", ""], "ConfigError", 2),
    ],
)
def test_json_has_errors_of_real_commands(
    arguments: list[str], kind: str, code: int, capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    found = json.loads(capsys.readouterr().out)["error"]
    assert (found["class"], found["exit_code"]) == (kind, code)


def test_a_result_that_fails_is_one_json_value(tmp_path: Path, capsys: Any) -> None:
    folder = write_store(tmp_path / "s")
    (folder / "shards" / "000001" / "logits.npy").unlink()
    assert main(["store", "verify", str(folder), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] and found["error"]["class"] == "StoreCorrupt"


@pytest.mark.parametrize(
    "closing",
    [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "1</dev/null", "2</dev/null"],
)
def test_closed_streams_change_no_exit_code(closing: str, tmp_path: Path) -> None:
    folder = write_store(tmp_path / "s")
    for arguments, code in (([str(folder)], 0), ([str(tmp_path / "none"), "--json"], 4)):
        command = [sys.executable, "-m", "monoxkit_cli", "store", "info", *arguments]
        finished = subprocess.run(
            ["sh", "-c", f'"$@" {closing}', "sh", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == code
        assert "Unexpected" not in finished.stderr


def test_no_file_of_ours_takes_the_place_of_a_closed_stream() -> None:
    """What native libraries print would be written into it."""
    program = (
        "import os, sys\nfrom monoxkit_cli.app import main\nmain(['--version'])\n"
        "sys.exit(os.open(os.devnull, os.O_RDONLY) <= 2)"
    )
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program], check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_few_characters_gets_escapes(encoding: str, tmp_path: Path) -> None:
    folder = write_store(tmp_path / "läger-日本")
    for extra in ([], ["--json"]):
        finished = subprocess.run(
            [sys.executable, "-m", "monoxkit_cli", "store", "info", str(folder), *extra],
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            capture_output=True,
            check=False,
        )
        assert (finished.returncode, finished.stderr) == (0, b"")
        if extra:
            assert json.loads(finished.stdout.decode(encoding))["path"] == str(folder)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(errno.ENOENT, "x", "/proc/x"), "No such file"),
        (NotADirectoryError(errno.ENOTDIR, "x", b"/a/b"), "Not a directory"),
        (OSError(errno.ENAMETOOLONG, "x", "/a/" + "n" * 300), "too long"),
        (OSError(errno.ELOOP, "x", "/a/link"), "symbolic links"),
    ],
)
def test_what_the_system_refuses_is_no_unexpected_error(
    error: OSError, reason: str, command: Any, capsys: Any
) -> None:
    command(raising(error))
    assert main(["work"]) == 6
    shown = capsys.readouterr().err
    assert shown.startswith(f"StorageError: {os.fsdecode(error.filename)}: ")
    assert reason in shown


def test_a_full_disk_below_our_own_writes_is_a_storage_error(command: Any, capsys: Any) -> None:
    command(raising(OSError(errno.ENOSPC, "No space left on device", "runs/cache")))
    assert main(["work"]) == 6
    assert capsys.readouterr().err.startswith("StorageError: runs/cache: ")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cleans_up_and_says_that_work_is_kept(
    number: signal.Signals, code: int, command: Any, capsys: Any, tmp_path: Path
) -> None:
    def body() -> None:
        with new_folder(tmp_path / "result") as folder:
            (folder / "half").write_text("half")
            os.kill(os.getpid(), number)
            raise AssertionError("the signal did not arrive")

    command(body)
    # A suite that runs as a shell's background job inherits an ignored SIGINT.
    inherited = signal.signal(number, signal.default_int_handler)
    try:
        assert main(["work"]) == code
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert number.name in shown
    assert "Finished work is kept" in shown
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored(command: Any) -> None:
    command(lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main(["work"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_leaves_early_causes_no_noise() -> None:
    code = (
        "import sys, types\n"
        "from monoxkit_cli import app\n"
        "def many(): print('row\\n' * 1_000_000)\n"
        "def few(): print('row')\n"
        "def register(typer):\n"
        "    typer.command('many')(many); typer.command('few')(few)\n"
        "made = types.SimpleNamespace(name=sys.argv[1], register=register)\n"
        "app.COMMANDS = (types.SimpleNamespace(COMMAND=made),)\n"
        "sys.exit(app.main())\n"
    )
    for name in ("many", "few"):  # a write that fails, and one that fails only when flushed
        read_end, write_end = os.pipe()
        os.close(read_end)
        finished = subprocess.run(
            [sys.executable, "-c", code, name],
            env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(write_end)
        assert (finished.returncode, finished.stderr) == (1, "")


def test_a_message_of_the_parser_has_one_stop(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["data", "nope"], ["data", "debian", "--seed", "x", "--out", "y"]):
        assert main(line) == 2
        told = capsys.readouterr().err
        assert ".." not in told and ". See" in told
