"""A contender at work in a process of its own, as the run sees it; `worker` is the other side."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import monox_kit
from monox_kit import errors
from monox_kit.errors import ModelError, MonoxError

WORKER = (sys.executable, "-m", "monox_kit.benchmarking.worker")
_PATIENCE_S = 10.0


class ModelProcess:
    """A process that opens a model when it is entered, and ends with the block.

    Attributes:
        opened: what it answered: seconds of each part until the first answer, and memory.
        first_answer_s: seconds from before the process was there to its first answer.

    Args:
        name: of the contender, for messages.
        given: what `worker.Worker.open` takes.
        command: the program; None for `WORKER`.
    """

    def __init__(
        self, name: str, given: Mapping[str, Any], command: tuple[str, ...] | None
    ) -> None:
        self._name, self._given, self._command = name, given, command or WORKER
        self.opened: dict[str, Any] = {}
        self.first_answer_s = 0.0

    def __enter__(self) -> Self:
        began = time.perf_counter()
        connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints goes beside our own messages
            )
        self._connection = connection
        self._stream = connection.makefile("rwb")
        try:
            self.opened = self.ask("open", **self._given)
        except BaseException:
            self.__exit__()
            raise
        self.first_answer_s = time.perf_counter() - began
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # what was not taken any more
            self._stream.close()
        self._connection.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str, **given: Any) -> dict[str, Any]:
        """What the process answers.

        Raises:
            MonoxError: of the class that the worker met; ModelError where the process ended.
        """
        try:
            self._stream.write(json.dumps({**given, "command": command}).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError:  # it is gone
            line = b""
        if not line:
            status = self._process.wait()
            raise ModelError(
                f"{self._name}: the process of this model ended with status {status} while it was "
                "measured. Look at its messages above; -9 is what the system does when memory runs "
                "out."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"], ModelError)
            assert issubclass(kind, MonoxError)
            raise kind(f"{self._name}: {answer['message']}")
        return answer


def _environment() -> dict[str, str]:
    """This process's environment, with the package that it runs itself."""
    own = str(Path(monox_kit.__file__).parent.parent)
    paths = [own, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
