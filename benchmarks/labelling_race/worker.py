"""A contender's process, seen from the benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from monox_kit.durable import scratch_file
from monox_kit.errors import ModelError

SCRIPT = Path(__file__).parent.parent / "contenders" / "process.py"
# No network, whatever the libraries' defaults; `monox_kit.runtime_environment` does the rest.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}
_END_S = 10.0
_LOG_BYTES = 2000


class ContenderError(ModelError):
    """A program did not do its part; the message names its row."""


class NotInstalled(ContenderError):
    """The interpreter lacks a package of the row."""


class Worker:
    """One contender; use as a context manager, leaving it ends the process.

    Args:
        job: the fields of `contenders.contract.Job`.
        interpreter: the Python to run it under.
    """

    def __init__(self, job: Mapping[str, Any], interpreter: str) -> None:
        self._row, self._job, self._interpreter = job["row"], job, interpreter
        self._stack = contextlib.ExitStack()
        self._unread = b""

    def __enter__(self) -> Self:
        try:
            self._log: BinaryIO = self._stack.enter_context(scratch_file())
            self._process = self._started()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self, limit_s: float) -> dict[str, Any]:
        """Send the job; what the process answers once it is ready.

        Raises:
            NotInstalled: a package is missing.
            ContenderError: it failed, ended, or was not ready in `limit_s`.
        """
        return self._ask(self._job, limit_s)

    def score(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Send a request; the answer `scored`.

        Raises:
            ContenderError: the process failed, ended, or did not answer in `limit_s`.
        """
        return self._ask(request, limit_s)

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                [self._interpreter, str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **ENVIRONMENT},
            )
        except OSError as error:
            raise ContenderError(
                f"benchmark row {self._row}: expected a Python interpreter at "
                f"{self._interpreter}, found: {error.strerror}. Check --python."
            ) from error
        self._stack.callback(_end, process)
        return process

    def _ask(self, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        stdin = self._process.stdin
        if stdin is not None:
            # A process that has ended is told of below, with its reason.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(message).encode() + b"\n")
                stdin.flush()
        for line in self._lines(limit_s):
            if line.startswith(b'{"answer"'):
                return self._checked(json.loads(line))
        code = self._process.wait()
        raise ContenderError(
            f"benchmark row {self._row}: expected an answer, found that its process ended with "
            f"{code}. Its last words: {self._last_words()}"
        )

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["answer"] == "missing":
            raise NotInstalled(
                f"benchmark row {self._row}: expected its packages, found: {answer['reason']}. "
                f"Give an interpreter that has them: --python {self._row}=PATH."
            )
        if answer["answer"] == "failed":
            raise ContenderError(
                f"benchmark row {self._row}: expected it to run, found: {answer['reason']}"
            )
        return answer

    def _lines(self, limit_s: float) -> Iterator[bytes]:
        """Lines of the process's output, until it ends."""
        stdout = self._process.stdout
        if stdout is None:
            return
        deadline_s = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                line, found, rest = self._unread.partition(b"\n")
                if found:
                    self._unread = rest
                    yield line
                    continue
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    self._process.kill()
                    raise ContenderError(
                        f"benchmark row {self._row}: expected an answer within {limit_s:g} s, "
                        "found none. Its process was ended; give it fewer texts or a longer limit."
                    )
                block = os.read(stdout.fileno(), 1 << 20)
                if not block:
                    return
                self._unread += block

    def _last_words(self) -> str:
        """The end of what the process wrote to stderr, on one line."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the process's input, which ends it; kill it where it does not."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
