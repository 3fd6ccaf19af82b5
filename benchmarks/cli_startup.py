"""Times `monoxkit --help` beside the same of two two-command Typer apps.

One is as Typer makes it, with boxes drawn by rich; the other, like monoxkit, has plain help. All
three run in turn in fresh processes, the way that an installed console script starts, with compiled
bytecode. Prints the medians and the ratios of wall-clock and of processor time, which holds on a
busy machine, and writes them with the machine and the versions to
`benchmarks/results/cli_startup.json`. Exits with 1 where monoxkit takes more than 1.5 x the first.

    python benchmarks/cli_startup.py --rounds 31
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]

from monox_kit.hardware import read_hardware  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "cli_startup.json"
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


def start_ms(module: str, name: str, path: str) -> tuple[float, float]:
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
    return 1000 * elapsed_s, 1000 * processor_s


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
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for round_ in range(rounds + 1):
            for name, program in programs.items():
                taken = start_ms(*program)
                if round_:  # the first one compiles
                    times[name].append(taken)
    medians = {
        name: {
            "wall_ms": round(statistics.median(wall for wall, _ in taken), 1),
            "processor_ms": round(statistics.median(processor for _, processor in taken), 1),
        }
        for name, taken in times.items()
    }
    ratios = {
        name: {kind: round(medians["monoxkit"][kind] / value, 3) for kind, value in median.items()}
        for name, median in medians.items()
        if name != "monoxkit"
    }
    return {
        "rounds": rounds,
        "medians": medians,
        "monoxkit_to": ratios,
        "most_ratio": MOST_RATIO,
    }


def main() -> int:
    """Measure, print and write; 1 where the ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=31, help="processes of each kind")
    result = {
        **measure(parser.parse_args().rounds),
        "hardware": read_hardware().to_json(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("typer", "rich")},
        },
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return int(result["monoxkit_to"]["two_command_typer"]["wall_ms"] > MOST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
