"""What every test runs under: no network, no model hub, few threads, no waiting for the disk."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from monox_kit.runtime_environment import silence_dependencies

# Before any test module imports onnxruntime, transformers, torch or matplotlib, which read these
# once; children of tests have them too.
silence_dependencies()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# Where several processes share the suite, two threads of each would wait for one another.
_THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, _THREADS)
# Beside other work, threads that spin while they wait take the cores from those that compute.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["MONOXKIT_SPIN"] = "off"

# A slow example is one of a busy machine.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# Subprocesses run this checkout's code, installed or not.
_ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_ROOT), str(_ROOT / "cli"), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let sockets reach this machine alone; a test that needs more names what it lacks."""
    connect = socket.socket.connect
    resolve = socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            pytest.fail(f"network: expected none, found a connection to {address!r}.")
        connect(self, address)

    def resolve_here(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in {None, "127.0.0.1", "::1", "localhost"}:
            pytest.fail(f"network: expected none, found a look-up of {host!r}.")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    yield


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no test loses power, and those of its loss trace what is synced themselves.

    A descriptor must be open nevertheless. Processes that tests start sync as users' do.
    """
    monkeypatch.setattr(os, "fsync", os.fstat)
