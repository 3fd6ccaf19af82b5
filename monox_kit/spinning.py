"""Whether threads that wait for work spin, chosen by what other processes take of the cores.

A thread of OpenMP (PyTorch) or of ONNX Runtime that has nothing to do spins for a while before it
sleeps: on a quiet machine the next operator then begins sooner, on a busy one the cores are taken
from threads that compute. A bfloat16 step of the packaged E5 on 2 cores takes 0.37 s spinning and
0.47 s sleeping on a quiet machine, 1.9 s and 0.7 s beside one busy process
(`benchmarks/busy_machine.py`).

The choice is kept in the environment, where OpenMP, ONNX Runtime's sessions and child processes
find it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from monox_kit.errors import ConfigError
from monox_kit.hardware import num_threads

VARIABLE: Final = "MONOXKIT_SPIN"
CHOICES: Final = ("auto", "on", "off")
# What OpenMP's own libraries read once, when they are loaded with torch.
_POLICY: Final = "OMP_WAIT_POLICY"
_OPENMP: Final = (_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SAMPLE_S = 0.1
# The least of so many samples counts: a program that starts beside us is no neighbour.
_NUM_SAMPLES = 3
# Less than this of a core is what any machine does beside its work.
_BUSY_CORES = 0.25


def settle_spinning(asked: str | None = None, *, threads: int | None = None) -> str | None:
    """Choose for this process and its children; OpenMP takes notice where torch is not imported.

    What the user has set for OpenMP itself stays, and ONNX Runtime follows it.

    Args:
        asked: one of `CHOICES`; None takes `$MONOXKIT_SPIN`, else `auto`.
        threads: that compute here; None for as many as this process has cores.

    Returns:
        A line that tells the user why threads sleep; None where nothing was changed by itself.

    Raises:
        ConfigError: another value.
    """
    asked = asked or os.environ.get(VARIABLE) or "auto"
    if asked not in CHOICES:
        raise ConfigError(
            f"--spin or {VARIABLE}: expected {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, found "
            f"{asked!r}."
        )
    told = None
    if asked == "auto":
        asked, told = _chosen(threads or num_threads())
    os.environ[VARIABLE] = asked
    if asked == "off" and not any(name in os.environ for name in _OPENMP):
        os.environ[_POLICY] = "PASSIVE"
    return told


def may_spin() -> bool:
    """Whether threads of a session may spin; chosen now where no command has chosen."""
    if os.environ.get(VARIABLE) not in ("on", "off"):
        settle_spinning()
    return os.environ[VARIABLE] == "on"


def _chosen(threads: int) -> tuple[str, str | None]:
    """`on` or `off`, and a line for the user where others' work decided."""
    policy = os.environ.get(_POLICY, "").upper()
    if policy in ("ACTIVE", "PASSIVE"):
        return ("on" if policy == "ACTIVE" else "off"), None
    cores = os.sched_getaffinity(0)
    if threads == 1:  # nobody waits for another
        return "on", None
    busy = 0.0
    for _ in range(_NUM_SAMPLES):
        sample = _sample(cores)
        if sample is None or sample <= len(cores) - threads + _BUSY_CORES:
            return "on", None
        busy = min(busy, sample) if busy else sample
    return "off", (
        f"Other processes take {busy:.1f} of {len(cores)} cores: threads that wait for work sleep "
        "instead of spinning. --spin on lets them spin."
    )


def _sample(cores: Collection[int], path: Path = Path("/proc/stat")) -> float | None:
    """How many of the cores others take now; None where the system does not say."""
    try:
        before, own = path.read_text(encoding="ascii"), time.process_time()
        time.sleep(_SAMPLE_S)
        after = path.read_text(encoding="ascii")
    except OSError:
        return None
    busy = busy_cores(before, after, cores)
    return None if busy is None else busy - (time.process_time() - own) / _SAMPLE_S


def busy_cores(before: str, after: str, cores: Collection[int]) -> float | None:
    """How many of the cores were at work between two readings of `/proc/stat`.

    What the machine below a virtual one took (`steal`) counts as work. None where the readings do
    not tell of each of the cores.

    Source: proc(5): per core the ticks of user, nice, system, idle, iowait, irq, softirq, steal.
    """
    busy = 0.0
    first, last = _ticks(before), _ticks(after)
    for core in cores:
        if core not in first or core not in last:
            return None
        passed = [now - then for then, now in zip(first[core], last[core])]
        total = sum(passed)
        if total <= 0:
            return None
        busy += 1 - (passed[3] + passed[4]) / total
    return busy


def _ticks(text: str) -> dict[int, list[int]]:
    """The first eight counters of each core."""
    ticks = {}
    for line in text.splitlines():
        name, *counters = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and len(counters) >= 8:
            ticks[int(name[3:])] = [int(counter) for counter in counters[:8]]
    return ticks
