"""The command line's names and help pages: a contract, pinned here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from monox_kit import __version__, calls
from monoxkit_cli.app import build_app, main
from monoxkit_cli.document import page
from monoxkit_cli.stubs import page as stub

# Every command with its arguments and options. Users' scripts hold these names: add, do not rename.
SURFACE = Path(__file__).parent / "surface.json"
HEAVY = ("torch", "transformers", "onnxruntime", "numpy", "pydantic", "matplotlib", "pyarrow")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that runs something, by its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for child, value in command.commands.items():
                yield from walk(f"{name} {child}".strip(), value)
        else:
            yield name, command

    yield from walk("", typer.main.get_command(build_app()))


def options(command: Any) -> set[str]:
    """The option names of a command, both of an on/off pair, without --help."""
    return {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    } - {"--help"}


def test_commands_arguments_and_options_are_the_pinned_ones() -> None:
    found = {
        name: {
            "arguments": [
                parameter.name
                for parameter in command.params
                if parameter.param_type_name == "argument"
            ],
            "options": sorted(options(command)),
        }
        for name, command in commands()
    }
    assert found == json.loads(SURFACE.read_text(encoding="utf-8")), (
        f"The command line differs from {SURFACE.name}. Where that is meant, replace its content "
        f"with:\n{json.dumps(found, indent=2)}"
    )


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_is_documented(name: str, command: Any, capsys: Any) -> None:
    assert main([*name.split(), "--help"]) == 0
    page = capsys.readouterr().out
    text = (command.help or "").strip()
    assert text.splitlines()[-1].startswith(f"Example: monoxkit {name}"), (
        "help ends with no example"
    )
    assert "--json" in options(command)
    assert all(option.startswith("--") for option in options(command)), "a short option name"
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help text"
    for option in options(command):
        assert option in page


def test_no_line_of_the_help_page_is_cut(capsys: Any) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert listed.strip()
    assert "..." not in listed, "the first sentence of a command's docstring is too long"


def test_no_arguments_show_the_help(capsys: Any) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert alone == capsys.readouterr().out


def test_version(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"monoxkit {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from monoxkit_cli.app import main\n"
        "assert main(['--help']) == 0\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[-1] == "loaded: []"


def test_runs_as_a_module() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "monoxkit_cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == f"monoxkit {__version__}\n"


def test_the_page_of_commands_is_up_to_date() -> None:
    written = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == page(), "run: make docs"


def test_the_types_of_the_calls_are_up_to_date() -> None:
    written = Path(calls.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    made = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", "calls.pyi", "-"],
        input=stub(),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert made.stdout == written, "run: make docs"
