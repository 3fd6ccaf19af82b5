"""Servers side by side under the same load: what each answers at every rate, and its capacity.

Each server is started by its own command in a process of its own, takes its turn alone on the
machine, and is stopped before the next one starts; in each round another one begins. All get the
same requests at the same times, made of the same texts (`monox_kit.benchmarking.load`): requests
are due at fixed or Poisson times, whatever was answered, and latencies count from those times. With
`--server-cores` and `--client-cores` server and client keep to cores of their own. A server's
memory is that of its process and all its children.

A server is NAME=COMMAND, with {port} where its port stands; NAME:PROTOCOL=COMMAND where it speaks
another protocol than `tei`.

    python benchmarks/serving_load.py --test runs/data/test.*.jsonl --server-cores 0 \
        --client-cores 1 --server "monoxkit=monoxkit serve student-onnx --port {port}" \
        --server "pipeline:hugging-face=python peer.py student --port {port}"
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from harness import each_round, parser, positive, publish, ratio, spread, take_turns
from monox_kit.benchmarking.load.config import LoadConfig, ProtocolName
from monox_kit.benchmarking.load.report import LoadReport
from monox_kit.benchmarking.load.run import load
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.foreign import publishable

START_S = 120
STOP_S = 30


@dataclass(frozen=True)
class Server:
    """A server that is compared: its name, the protocol that it speaks, and how it is started."""

    name: str
    protocol: ProtocolName
    command: str


@dataclass(frozen=True)
class Run:
    """What was measured of a server in a round."""

    report: LoadReport
    start_s: float
    memory_bytes: int

    def __str__(self) -> str:
        """What is noted of it meanwhile."""
        return f"capacity {self.report.capacity_per_s}, {self.memory_bytes >> 20} MiB"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "report": self.report.to_json(),
            "start_s": round(self.start_s, 2),
            "memory_bytes": self.memory_bytes,
        }


def server(text: str) -> Server:
    """NAME[:PROTOCOL]=COMMAND as an option's type.

    Raises:
        ValueError: it has no name, no port or an unknown protocol; argparse makes it a usage error.
    """
    about, _, command = text.partition("=")
    name, _, protocol = about.partition(":")
    known: dict[str, ProtocolName] = {each: each for each in get_args(ProtocolName)}
    if not name or "{port}" not in command or (protocol or "tei") not in known:
        raise ValueError(text)
    return Server(name, known[protocol or "tei"], command)


def main() -> None:
    """Load each server in turn, print and write the reports."""
    arguments = parsed()
    if arguments.client_cores is not None:
        os.sched_setaffinity(0, arguments.client_cores)
    servers: dict[str, Server] = {one.name: one for one in arguments.server}
    runs = take_turns(
        {name: each_round(partial(measured, one, arguments)) for name, one in servers.items()},
        arguments.rounds,
    )
    capacities = {
        name: [run.report.capacity_per_s for run in found] for name, found in runs.items()
    }
    first = next(iter(servers))
    reached = {name: [one for one in found if one] for name, found in capacities.items()}
    publish(
        arguments,
        {
            "rates": arguments.rates,
            "arrivals": arguments.arrivals,
            "p99_ms": arguments.p99_ms,
            "capacity_per_s": {
                name: spread(found) if found else None for name, found in reached.items()
            },
            "times_the_capacity": {
                name: ratio(capacities[first], found)
                for name, found in capacities.items()
                if name != first
            },
            "servers": publishable({name: one.command for name, one in servers.items()}),
            "runs": {name: [run.to_json() for run in found] for name, found in runs.items()},
        },
        bars={name: max(found, default=0.0) for name, found in reached.items()},
        unit=f"requests a second at a p99 of at most {arguments.p99_ms:g} ms",
        hidden=("runs",),
    )


def parsed() -> argparse.Namespace:
    """The options."""
    made = parser(__file__, __doc__, rounds=1)
    made.add_argument("--server", type=server, action="append", required=True)
    made.add_argument("--test", nargs="+", required=True, help="files of texts")
    made.add_argument("--rates", type=numbers, default=None, help="such as 10,20,40; else rising")
    made.add_argument("--rows", type=numbers, default=(1.0,), help="texts a request, such as 1,8")
    made.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    made.add_argument("--seconds", type=float, default=20.0, help="of each rate")
    made.add_argument("--requests", type=positive, default=10_000, help="most of each rate")
    made.add_argument("--p99-ms", type=float, default=100.0)
    made.add_argument("--server-cores", type=cores, default=None, help="such as 0,1")
    made.add_argument("--client-cores", type=cores, default=None)
    return made.parse_args()


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(float(part) for part in text.split(","))


def cores(text: str) -> set[int]:
    """Numbers of cores with commas between them."""
    return {int(part) for part in text.split(",")}


def measured(one: Server, arguments: argparse.Namespace) -> Run:
    """A server's report, with the memory and the start of its process."""
    with started(one, arguments.server_cores) as (url, process, start_s):
        report = load(
            LoadConfig(
                url=url,
                protocol=one.protocol,
                model=one.name if one.protocol == "kserve" else None,
                test=CorpusConfig(paths=tuple(arguments.test)),
                rates=arguments.rates,
                rows=tuple(int(each) for each in arguments.rows),
                arrivals=arguments.arrivals,
                seconds=arguments.seconds,
                requests=arguments.requests,
                p99_ms=arguments.p99_ms,
            )
        )
        memory = sum(resident_bytes(each) for each in family(process.pid))
    return Run(report, start_s, memory)


@contextmanager
def started(
    one: Server, server_cores: set[int] | None
) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Its address, its process, and the seconds until it answered.

    Raises:
        SystemExit: it ends, or does not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began_s = time.perf_counter()
    command = shlex.split(one.command.replace("{port}", str(port)))
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, server_cores or own)  # which the server's process inherits
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    os.sched_setaffinity(0, own)
    try:
        while not answers(url):
            if process.poll() is not None or time.perf_counter() - began_s > START_S:
                raise SystemExit(f"{one.name}: it does not answer at {url}: {one.command}")
            time.sleep(0.1)
        yield url, process, time.perf_counter() - began_s
    finally:
        stop(process)


def answers(url: str) -> bool:
    """Whether a server is ready: `/health/ready` or `/health` says so, or it has neither."""
    for path in ("/health/ready", "/health"):
        try:
            with urllib.request.urlopen(url + path, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            if error.code not in (404, 405):
                return False
        except OSError:
            return False
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all processes of its session."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text(encoding="ascii").split():
            found += family(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
