"""What every benchmark does alike: ways take turns, medians, ratios, the machine, JSON, a plot.

The top imports the standard library alone: contenders run under interpreters that have nothing
else, and processes whose memory is measured import this module too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WARM_UP = -1  # the number of the round that is not counted
# What numbers may depend on; a result tells those that are installed.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "optimum",
    "optimum-onnx",
    "sentence-transformers",
    "openvino",
    "nncf",
    "pyarrow",
    "datasets",
    "mosaicml-streaming",
    "ray",
    "typer",
    "rich",
)
_OURS, _OTHERS, _LINE = "#0072b2", "#b9b9be", "#d55e00"
_STYLE = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9aa0",
    "axes.axisbelow": True,
    "grid.color": "#dcdce0",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
}

T = TypeVar("T")


def parser(
    script: str, doc: str | None, *, rounds: int | None = None, out: Path | None = None
) -> argparse.ArgumentParser:
    """The options that benchmarks share.

    Args:
        script: the script's `__file__`.
        doc: its docstring; the first line describes it in `--help`.
        rounds: the default of `--rounds`; None for a script without rounds, which has no `--plot`.
        out: the default of `--out`; None for `results/SCRIPT.json`.
    """
    made = argparse.ArgumentParser(
        description=(doc or "").splitlines()[0],
        allow_abbrev=False,  # a longer name may be given to a later option
    )
    if rounds is not None:
        made.add_argument("--rounds", type=positive, default=rounds, help="rounds, in turn")
        made.add_argument("--plot", action="store_true", help="draw bars beside the JSON file")
    made.add_argument("--out", type=Path, default=out or RESULTS / f"{Path(script).stem}.json")
    return made


def positive(text: str) -> int:
    """A whole number of at least 1, as an option's type.

    Raises:
        ValueError: it is none; argparse makes it a usage error.
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The names, beginning with another one in each round: being first is nobody's advantage."""
    first = number % len(names) if names else 0
    return [*names[first:], *names[:first]]


def take_turns(
    ways: Mapping[str, Callable[[int], T]], rounds: int, *, warm_up: bool = False
) -> dict[str, list[T]]:
    """What each way returns in each round.

    Args:
        ways: by name; called with the number of the round, from 0.
        rounds: how many.
        warm_up: whether each way is called once before, with `WARM_UP`, uncounted.
    """
    found: dict[str, list[T]] = {name: [] for name in ways}
    if warm_up:
        for way in ways.values():
            way(WARM_UP)
    for number in range(rounds):
        for name in in_turn(list(ways), number):
            found[name].append(ways[name](number))
            note(f"round {number + 1} of {rounds}, {name}: {found[name][-1]}")
    return found


def each_round(call: Callable[[], T]) -> Callable[[int], T]:
    """A way that is the same in every round."""
    return lambda _round: call()


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a call takes, and what it returns."""
    started_s = time.perf_counter()
    found = call()
    return time.perf_counter() - started_s, found


def seconds(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    return timed(call)[0]


def middle(values: Sequence[float], digits: int = 4) -> float:
    """The rounded median; a whole number where all values are."""
    found = median(values)
    return int(found) if all(isinstance(each, int) for each in values) else round(found, digits)


def medians(values: Mapping[str, Sequence[float]], digits: int = 4) -> dict[str, float]:
    """The median over the rounds, by way."""
    return {name: middle(each, digits) for name, each in values.items()}


def median_of_each(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By way, the median over the rounds of each figure of its runs; text as in the first run."""
    return {
        way: {
            key: value if isinstance(value, str) else middle([run[key] for run in found])
            for key, value in found[0].items()
        }
        for way, found in runs.items()
    }


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least and most of a figure."""
    return {
        name: round(of(values), digits)
        for name, of in (("median", median), ("least", min), ("most", max))
    }


def ratio(
    one: Sequence[float | None], other: Sequence[float | None], digits: int = 4
) -> dict[str, float] | None:
    """How many times the other way's figure one way's is: the spread over the rounds.

    Each ratio is of two figures of one round, so that a machine that slows down between rounds does
    not count.

    Args:
        one: a figure a round; None where a round has none, which leaves it out.
        other: likewise, of the same rounds.
        digits: of the result.

    Returns:
        None where no round has both.
    """
    pairs = [
        first / second
        for first, second in zip(one, other, strict=True)
        if first is not None and second is not None
    ]
    return spread(pairs, digits) if pairs else None


def ratios(
    values: Mapping[str, Sequence[float | None]], to: str, digits: int = 4
) -> dict[str, dict[str, float]]:
    """`ratio` of every other way to the way `to`, where they have a common round."""
    found = {name: ratio(each, values[to], digits) for name, each in values.items() if name != to}
    return {name: each for name, each in found.items() if each is not None}


def by_way(runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> dict[str, list[float]]:
    """One figure of every run, by way."""
    return {name: [run[key] for run in found] for name, found in runs.items()}


def printed(command: Sequence[str], **options: Any) -> str:
    """What a process prints to its end.

    Args:
        command: run to its end.
        options: of `subprocess.run`.

    Raises:
        CalledProcessError: it failed.
    """
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(done.stdout)


def last_line(command: Sequence[str], **options: Any) -> Any:
    """The JSON value on the last line that a process prints; arguments and errors of `printed`."""
    return json.loads(printed(command, **options).strip().splitlines()[-1])


def environment(package: Path = ROOT) -> dict[str, str]:
    """This process's environment, for one that imports a checkout's packages and this module."""
    path = os.pathsep.join(map(str, (package, package / "cli", ROOT / "benchmarks")))
    return {**os.environ, "PYTHONPATH": path}


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say.

    Not `getrusage`, whose maximum a process inherits from the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None


def versions() -> dict[str, str]:
    """Python's version and those of `PACKAGES` that this environment has."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def note(text: str) -> None:
    """Say on stderr how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


def publish(
    arguments: argparse.Namespace,
    result: Mapping[str, Any],
    *,
    bars: Mapping[str, float] | None = None,
    unit: str = "",
    hidden: Sequence[str] = (),
) -> None:
    """Write a result with the machine and the versions, print it, and draw it with `--plot`.

    Args:
        arguments: of `parser`.
        result: JSON values.
        bars: what the plot shows, by way; drawn beside the JSON file.
        unit: of the bars.
        hidden: keys that are written and not printed.
    """
    from monox_kit.hardware import read_hardware

    whole = {**result, "hardware": read_hardware().to_json(), "versions": versions()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in whole.items() if k not in hidden}, indent=1))
    if bars is not None and arguments.plot:
        save(draw_bars(bars, unit=unit), arguments.out.with_suffix(".png"))


@contextmanager
def styled() -> Iterator[None]:
    """The look of every plot, for the block."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures, equal bytes."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def draw_bars(
    values: Mapping[str, float],
    *,
    unit: str,
    lines: Mapping[str, float] | None = None,
    ours: str = "monoxkit",
) -> Figure:
    """A bar per way, the largest on top, and a vertical line per limit.

    Args:
        values: by way.
        unit: of the values.
        lines: limits by name, in the same unit.
        ours: how the names begin whose bars are coloured.
    """
    from matplotlib.figure import Figure

    lines = lines or {}
    names = sorted(values, key=lambda name: -values[name])
    with styled():
        figure = Figure(figsize=(8.0, 1.4 + 0.32 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        colors = [_OURS if name.startswith(ours) else _OTHERS for name in names]
        bars = axes.barh(range(len(names)), [values[n] for n in names], height=0.7, color=colors)
        axes.bar_label(
            bars, fmt="{:,.4g}" if max(values.values(), default=0) < 100 else "{:,.0f}", padding=4
        )
        for name, value in lines.items():
            axes.axvline(value, color=_LINE, linewidth=1.2, linestyle="--")
            axes.annotate(
                f"{name} limit",
                (value, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 2),
                textcoords="offset points",
                color=_LINE,
                rotation=30,
            )
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * max([*values.values(), *lines.values()], default=1))
        axes.grid(axis="x")
        axes.set_xlabel(unit)
        return figure
