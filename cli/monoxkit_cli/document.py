"""The page `docs/cli.md`, made from the commands themselves: `python -m monoxkit_cli.document`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from monoxkit_cli.app import build_app


def page() -> str:
    """Every command with its description, options and example, as Markdown."""
    parts = [
        "# Commands\n",
        "Made by `make docs` from the commands' own help. Results go to stdout, progress to "
        "stderr; every command takes `--json`, which shows an error too: "
        '`{"error": {"class", "message", "exit_code"}}`. '
        "Options of several values take them after one name: `--test a.jsonl b.jsonl`; a command's "
        "argument stands before its options. Before a command's name: `--spin auto`, `on` or `off` "
        "says whether waiting threads spin "
        "([beside other work](operations.md#beside-other-work)).\n",
    ]
    for name, command in _commands("", typer.main.get_command(build_app())):
        description, _, example = (command.help or "").strip().rpartition("Example: ")
        arguments = " ".join(
            parameter.metavar or parameter.name.upper()
            for parameter in command.params
            if parameter.param_type_name == "argument"
        )
        parts.append(f"## monoxkit {name} {arguments}".rstrip() + "\n")
        parts.append(description.strip() + "\n")
        parts.append(f"```\n{example.strip()}\n```\n")
        parts.append("| option | default | what |\n|---|---|---|")
        parts += [_row(parameter) for parameter in command.params if _is_option(parameter)]
        parts.append("")
    return "\n".join(parts)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for child, value in command.commands.items():
            yield from _commands(f"{name} {child}".strip(), value)
    else:
        yield name, command


def _is_option(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and "--help" not in parameter.opts


def _row(parameter: Any) -> str:
    names = "/".join((*parameter.opts, *parameter.secondary_opts))
    if parameter.required:
        default = "required"
    elif parameter.is_flag:
        default = parameter.opts[0] if parameter.default else (*parameter.secondary_opts, "off")[0]
    else:
        default = "" if parameter.default in (None, ()) else str(parameter.default)
    return f"| `{names}` | {default} | {(parameter.help or '').replace('|', ',')} |"


if __name__ == "__main__":
    sys.stdout.write(page())
