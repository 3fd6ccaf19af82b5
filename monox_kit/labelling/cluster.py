"""Labelling on a Ray cluster: shards go to workers, and again to another where one is lost.

A worker commits a shard exactly as a local run does, under the shard's own lock in the store. A
task that is repeated finds the shard committed and does nothing, so that no row is lost or doubled
whatever becomes of workers and machines.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from monox_kit.durable import remove_leftover
from monox_kit.errors import ClusterError, ConfigError, first_line
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.ray_privacy import (
    LOOPBACK,
    clusters_here,
    environment,
    private_cluster,
    private_folder,
    private_umask,
)
from monox_kit.labelling.scheduler import ClusterRun, Scheduler
from monox_kit.labelling.worker import Assignment, ShardWorker
from monox_kit.models.run_plan import GPU_PROVIDERS
from monox_kit.progress import ProgressTask
from monox_kit.store import ShardRange

if TYPE_CHECKING:
    from types import ModuleType

# Ray's name for a cluster of its own on this machine, whatever else runs here.
_OWN = "local"
# Ray's name for whatever cluster this machine is part of.
_AUTO = "auto"
_ADDRESS_VARIABLE = "RAY_ADDRESS"
_ANSWER_S = 5.0


def label_on_cluster(
    assignment: Assignment, missing: Sequence[ShardRange], task: ProgressTask
) -> ClusterRun:
    """Label the missing shards on Ray workers; returns when every one is committed.

    Args:
        assignment: what is labelled; the store has been begun. Its store, corpus and model must be
            reachable under the same paths from every machine of the cluster.
        missing: the shards to label.
        task: told the rows of every committed shard.

    Raises:
        ClusterError: Ray is not installed or not reached, has no room for a worker, or workers
            were lost over one shard again and again.
        MonoxError: what a worker met, as it met it.
    """
    ray = _require_ray()
    needs = _needs(assignment)
    with _connected(ray, assignment.config.address) as umask:
        most = _most_workers(ray, assignment.config, needs, is_own=umask is not None)
        remote = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"])(ShardWorker)
        # Sent to a machine once; marks of 600,000 shards would fill the memory of each worker.
        shared = ray.put(replace(assignment, marks={}))
        scheduler = Scheduler(ray, lambda: remote.remote(needs["CPU"], umask), most, task)
        return scheduler.run(missing, shared, assignment.marks)


def require_cluster(config: LabelConfig) -> None:
    """Check before any work that Ray is here, and that something answers at the address given.

    Ray itself would try for a quarter of an hour, and only after the corpus has been read.

    Raises:
        ConfigError: the device has a number, where Ray gives each worker a GPU of its own.
        ClusterError: Ray is not installed, or nothing answers.
    """
    if ":" in config.device:
        raise ConfigError(
            f"`device` {config.device}: with `engine` ray each worker has a GPU of its own. Give "
            "cuda, without a number."
        )
    ray = _require_ray()
    if ray.is_initialized():
        _require_same(ray, config.address)
        return
    address = _address(config.address)
    if address == _AUTO:
        _found_here()
    if address in (_OWN, _AUTO):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _needs(assignment: Assignment) -> dict[str, int]:
    """What Ray reserves for a worker, by Ray's names."""
    session = assignment.plan.session
    config = assignment.config
    is_on_gpu = config.provider in GPU_PROVIDERS or config.device.startswith("cuda")
    return {"CPU": session.sessions * session.threads if session else 1, "GPU": int(is_on_gpu)}


def _most_workers(
    ray: ModuleType, config: LabelConfig, needs: Mapping[str, int], *, is_own: bool
) -> int:
    """How many workers were asked for; else how many the cluster has room for now.

    Raises:
        ClusterError: it has none, and grows no more as far as is known.
    """
    room = ray.cluster_resources()
    fitting = min(int(room.get(name, 0) // need) for name, need in needs.items() if need)
    if fitting < 1 and (is_own or config.workers is None):
        wanted = ", ".join(f"{need} {name}" for name, need in needs.items() if need)
        found = ", ".join(f"{room.get(name, 0):g} {name}" for name, need in needs.items() if need)
        raise ClusterError(
            f"ray: expected room for a worker of {wanted}, found {found}. Give fewer `sessions` "
            "and `threads`, or `workers` where the cluster grows by itself."
        )
    return config.workers or fitting


@contextmanager
def _connected(ray: ModuleType, asked: str | None) -> Iterator[int | None]:
    """Be connected to a cluster for the block: the one at hand, else the one named, else its own.

    Yields:
        Of a cluster of its own, which ends with the block, the umask that its workers lack; None
        for one that was there.

    Raises:
        ClusterError: there is no such cluster.
    """
    if ray.is_initialized():
        _require_same(ray, asked)
        yield None
        return
    address = _address(asked)
    with redirect_stdout(cast(IO[str], _WithoutRay(sys.stdout))):
        if address == _OWN:
            with _own_cluster(ray) as umask:
                yield umask
            return
        # Ray asks for a token where it is told `auto` alone, and takes the variable's address.
        found = {_ADDRESS_VARIABLE: _found_here()} if address == _AUTO else {}
        with environment(found):
            _connect(ray, address, {})
        try:
            yield None
        finally:
            ray.shutdown()


@contextmanager
def _own_cluster(ray: ModuleType) -> Iterator[int]:
    """Have a cluster on this machine that no other user reaches, for the block.

    Yields:
        The umask that its processes would have had.

    Raises:
        ClusterError: Ray cannot start it so.
    """
    folder = private_folder()
    with private_cluster(folder) as options:
        with private_umask() as umask:
            _connect(ray, _OWN, options, folder)
        try:
            _require_loopback(ray)
            yield umask
        finally:
            ray.shutdown()
    remove_leftover(folder)


def _require_loopback(ray: ModuleType) -> None:
    """Check that Ray did as it was told, which is no promise of its makers."""
    address = ray.get_runtime_context().gcs_address
    if not address.startswith(f"{LOOPBACK}:"):
        raise ClusterError(
            f"`engine` ray: this version of Ray listens at {address}, where other machines reach "
            "it. Leave `engine` ray out, or give the `address` of a cluster that you started."
        )


def _connect(
    ray: ModuleType, address: str, options: Mapping[str, Any], logs: Path | None = None
) -> None:
    """Connect, quietly.

    Raises:
        ClusterError: Ray cannot.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    # Set here too: before `init` sets it, Ray says on stderr that its cluster asks for a token.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises whatever its parts do
        ray.shutdown()
        raise _no_cluster(address, error, logs) from error
    finally:
        # Ray puts its own in, which ends the process with the signal's number as its status.
        if in_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _address(asked: str | None) -> str:
    """The address asked for, else the environment's, else a cluster of its own.

    Ray, asked for none, would take whatever cluster was started here last.

    Raises:
        ClusterError: it is one of Ray Client, whose driver sees none of the files.
    """
    address = asked or os.environ.get(_ADDRESS_VARIABLE) or _OWN
    if "://" in address:
        raise ClusterError(
            f"`address` {address}: expected HOST:PORT of a cluster's head, or auto, found an "
            "address of Ray Client. Run the command on a machine of the cluster."
        )
    return address


def _found_here() -> str:
    """The address of this user's cluster on this machine, or the environment's.

    Raises:
        ClusterError: there is none, or there are several.
    """
    if given := os.environ.get(_ADDRESS_VARIABLE):
        return given
    own, num_foreign = clusters_here()
    if len(own) == 1:
        return own[0]
    found = ", ".join(own) if own else "none"
    if num_foreign:
        found += f" (other users have {num_foreign} processes of Ray here)"
    raise ClusterError(
        f"`address` auto: expected one Ray cluster of this user on this machine, found {found}. "
        "Give HOST:PORT of the one that you mean, or leave `address` out to use this machine alone."
    )


def _no_cluster(address: str, error: Exception, logs: Path | None = None) -> ClusterError:
    step = (
        "Start one with `ray start --head`, set RAY_AUTH_MODE=token where it asks for a token, or "
        "leave `address` out to use this machine alone"
    )
    if "AF_UNIX" in str(error):
        step = "Give Ray a folder with a shorter path in the variable RAY_TMPDIR"
    elif logs is not None:
        step = f"See the logs below {logs}, or leave `engine` ray out"
    return ClusterError(
        f"`address` {address}: expected a Ray cluster, found: {first_line(error).rstrip('.')}. "
        f"{step}."
    )


def _require_same(ray: ModuleType, asked: str | None) -> None:
    """Check that the cluster at hand is the one asked for."""
    found = ray.get_runtime_context().gcs_address
    if asked not in (None, _AUTO, found):
        raise ClusterError(
            f"`address` {asked}: expected this process to be free, found it connected to {found}. "
            "Call ray.shutdown() first, or leave the address out."
        )


class _WithoutRay:
    """Standard output without what Ray's threads print: of each lost worker, 1,000 characters.

    They do so whatever Ray was told. Results go there; the progress counts lost workers.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what any other thread gives."""
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _require_ray() -> ModuleType:
    """The `ray` module."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(
            'ray: expected it to be installed, found none. Run: pip install "monoxkit[ray]"'
        ) from error
    return ray
