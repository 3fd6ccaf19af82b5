"""Times `monoxkit --help` beside the same of two two-command Typer apps.

One is as Typer makes it, with boxes drawn by rich; the other, like monoxkit, has plain help. All
three run in turn in fresh processes, the way that an installed console script starts, with compiled
bytecode. Prints the medians and the ratios of wall-clock and of processor time, which holds on a
busy machine, and writes them with the machine and the versions to
`benchmarks/results/cli_startup.json`. Exits with 1 where monoxkit takes more than 1.5 x the first.

    python benchmarks/cli_startup.py --rounds 31
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import ROOT, by_way, each_round, median_of_each, parser, publish, ratio, take_turns

MOST_RATIO = 1.5

TWO_COMMANDS = '''
import typer

app = typer.Typer({options})


@app.command()
def train(model: str, epochs: int = 3) -> None:
    """Train a model."""


@app.command()
def label(model: str, threads: int = 2) -> None:
    """Label a corpus."""
'''
START = "import sys; from {module} import {name}; sys.argv[0] = {name!r}; sys.exit({name}())"


def start_ms(module: str, name: str, path: str) -> dict[str, float]:
    """Wall-clock and processor milliseconds of a fresh process that shows `module.name`'s help."""
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    code = START.format(module=module, name=name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    elapsed_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if b"Usage" not in finished.stdout:
        raise RuntimeError(f"{module}: expected a help page, found {finished.stdout[:200]!r}.")
    processor_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_ms": 1000 * elapsed_s, "processor_ms": 1000 * processor_s}


def measure(rounds: int) -> dict[str, Any]:
    """Median milliseconds of each program, and monoxkit's ratios to the other two."""
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("boxed", ""), ("plain", "rich_markup_mode=None")):
            text = TWO_COMMANDS.format(options=options)
            (Path(folder) / f"two_commands_{name}.py").write_text(text, encoding="utf-8")
        programs = {
            "monoxkit": (
                "monoxkit_cli.app",
                "main",
                os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
            ),
            "two_command_typer": ("two_commands_boxed", "app", folder),
            "two_command_typer_plain_help": ("two_commands_plain", "app", folder),
        }
        ways = {name: each_round(partial(start_ms, *program)) for name, program in programs.items()}
        runs = take_turns(ways, rounds, warm_up=True)  # the first start compiles
    times = {kind: by_way(runs, kind) for kind in ("wall_ms", "processor_ms")}
    return {
        "rounds": rounds,
        "medians": median_of_each(runs),
        "monoxkit_to": {
            name: {kind: ratio(found["monoxkit"], found[name]) for kind, found in times.items()}
            for name in programs
            if name != "monoxkit"
        },
        "most_ratio": MOST_RATIO,
    }


def main() -> int:
    """Measure, print and write; 1 where the ratio is above the limit."""
    arguments = parser(__file__, __doc__, rounds=31).parse_args()
    result = measure(arguments.rounds)
    bars = {name: found["wall_ms"] for name, found in result["medians"].items()}
    publish(arguments, result, bars=bars, unit="milliseconds to show the help")
    return int(result["monoxkit_to"]["two_command_typer"]["wall_ms"]["median"] > MOST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
