"""Runs in processes of their own, killed at a moment or traced with a fault laid on a system call.

strace (`--inject`) lets a call fail, or kills the process where the call begins.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

# The calls by which a process changes a file system, on any machine, and some that look at it.
_CHANGING = (
    "open openat creat write writev pwrite64 pwritev copy_file_range sendfile truncate ftruncate "
    "fallocate mkdir mkdirat mknod mknodat rename renameat renameat2 link linkat symlink symlinkat "
    "unlink unlinkat rmdir chmod fchmod fchmodat utimensat fsync fdatasync sync_file_range "
    "fcntl"
)
_LOOKING = "read pread64 close stat lstat fstat newfstatat statx getdents64"
# Kinds of run whose calls tests count.
_COUNTED = ("writing", "putting", "saving")
_LINE = re.compile(r"(?P<name>[a-z]\w+)\(.*")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call of a traced run.

    Attributes:
        name: the call's.
        number: counts the run's calls of this name, from 1.
        line: how the trace shows it: arguments with the paths of descriptors, and the result.
    """

    name: str
    number: int
    line: str

    @property
    def changes(self) -> bool:
        """Whether it may change files, names or locks."""
        if self.name.startswith("open"):
            return "O_CREAT" in self.line
        return self.name in _CHANGING.split() and (
            self.name != "fcntl" or "F_OFD_SETLK" in self.line
        )

    def fault(self, what: str, *, onwards: bool = False) -> str:
        """strace's option for a fault on this call; `onwards` on all later ones of its name too."""
        return f"--inject={self.name}:{what}:when={self.number}{'+' * onwards}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        killed: whether SIGKILL ended it.
        exit_code: of the error that it ended with, 0 without; 1 stands for one not of ours.
        message: of the error.
        seconds: from its start to its end; see `once_exists`.
        calls: the traced calls in order; none where it was not traced.
    """

    killed: bool
    exit_code: int
    message: str
    seconds: float
    calls: Sequence[Call]


class RunServer:
    """Starts runs of one kind, one at a time; see `run_server`. Use as a context manager."""

    def __init__(self, *arguments: str) -> None:
        """Args: the kind of run, and what the script takes for it."""
        self._kind = arguments[0]
        # One thread: a forked run has no pool of its parent's.
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.run_server", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._server.stdin is not None and self._server.stdout is not None  # pipes
        self._requests, self._replies = self._server.stdin, self._server.stdout

    def __enter__(self) -> Self:
        if self._kind in _COUNTED:
            # The first run also compiles the modules that it imports late: it has more calls.
            with tempfile.TemporaryDirectory() as scratch:
                assert self.run(Path(scratch) / "first").exit_code == 0
        return self

    def __exit__(self, *error: object) -> None:
        self._requests.close()
        if error[0] is not None:
            self._server.kill()  # a run may hang
        self._replies.close()
        self._server.wait()

    def run(self, store: Path, **options: Any) -> Outcome:
        """Do a run to its end; see `start`."""
        return self.start(store, **options).outcome()

    def start(
        self,
        store: Path,
        *,
        shards: range | None = None,
        synced: bool = False,
        faults: Sequence[str] | None = None,
        kill_at: int | None = None,
    ) -> Running:
        """Begin a run.

        Args:
            store: the store's folder.
            shards: of the six, to write these alone; None for all.
            synced: whether fsync does anything.
            faults: strace's options for faults; an empty list traces, None does not.
            kill_at: of a training run: the step that it is killed before; of a recipe also a
                rename; None for none.
        """
        wanted = shards and [shards.start, shards.stop]
        request = {"store": str(store), "shards": wanted, "synced": synced, "kill_at": kill_at}
        self._requests.write(json.dumps(request).encode())  # a run is told by one read
        pid = self.reply()["pid"]
        process = os.pidfd_open(pid)
        trace = store.with_name(f"{store.name}-{pid}.trace")
        tracer = None if faults is None else _attached(pid, trace, faults)
        self._requests.write(b"!")
        return Running(self, process, trace, tracer)

    def reply(self) -> dict[str, Any]:
        """The next line of the server or of its run."""
        line = self._replies.readline()
        assert line, "the run server has ended"
        found: dict[str, Any] = json.loads(line)
        return found


class Running:
    """A run at work; ask for its outcome once."""

    def __init__(
        self, server: RunServer, process: int, trace: Path, tracer: subprocess.Popen[str] | None
    ) -> None:
        """Made by `RunServer.start`; `process` is a descriptor of the run's process."""
        self._server = server
        self._process = process
        self._trace = trace
        self._tracer = tracer
        self._started = time.perf_counter()

    def once_exists(self, path: Path) -> Self:
        """The same run, when it has made `path`; its time counts from then."""
        while not path.exists() and _is_alive(self._process):
            time.sleep(0.0005)
        self._started = time.perf_counter()
        return self

    def outcome(self, kill_after_s: float | None = None) -> Outcome:
        """Wait for the end of the run; with a time, kill it then unless it has ended."""
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        exit_code, message = 0, ""
        while "killed_by" not in (reply := self._server.reply()):
            exit_code, message = reply["exit_code"], reply["message"]
        seconds = time.perf_counter() - self._started
        calls: list[Call] = []
        if self._tracer is not None:
            self._tracer.communicate()
            calls = _calls(self._trace)
            self._trace.unlink()
        return Outcome(reply["killed_by"] == signal.SIGKILL, exit_code, message, seconds, calls)


def _is_alive(process: int) -> bool:
    """Whether the process of a descriptor has not ended, which makes the descriptor readable."""
    return not select.select([process], [], [], 0)[0]


def _attached(pid: int, trace: Path, faults: Sequence[str]) -> subprocess.Popen[str]:
    """A tracer that has begun to follow the process and all threads that it starts."""
    names = ",".join(f"?{name}" for name in f"{_CHANGING} {_LOOKING}".split())
    command = ["strace", "-f", "-y", "-s0", f"-p{pid}", f"-o{trace}", f"--trace={names}", *faults]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None  # a pipe
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.communicate()
        pytest.skip(f"strace may not trace here: {said.strip()}")
    return tracer


def _calls(trace: Path) -> list[Call]:
    """The calls in a trace."""
    counts: dict[str, int] = {}
    calls = []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if shown := _LINE.search(line):
            name = shown["name"]
            counts[name] = counts.get(name, 0) + 1
            calls.append(Call(name, counts[name], shown[0]))
    return calls
