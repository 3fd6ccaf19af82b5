"""Children of a test's process: forked ones, and other programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable

FAILED = 4  # exit status of a child whose work raised


def fork(run: Callable[[], object]) -> int:
    """The id of a child that runs `run` and ends with its status, or 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside native threads
        child = os.fork()
    if child:
        return child
    status = FAILED
    try:
        status = int(run() or 0)  # type: ignore[call-overload]
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def sleep_in_a_fork() -> int:
    """A child that has every descriptor of its parent, as `multiprocessing`'s forked ones do."""
    return fork(signal.pause)


def sleep_in_a_program() -> int:
    """A child that runs another program, as `subprocess` and spawned ones do."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]).pid
