"""Ray on a machine that several users share: whose cluster is joined, and who reaches ours.

Left to itself, Ray listens on all addresses, makes its folders writable for everybody, keeps its
token readable for everybody, and takes `auto` for any cluster on the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monox_kit.durable import disk_errors

LOOPBACK = "127.0.0.1"
_TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_ADDRESS_FLAG = b"--gcs-address="


def private_folder() -> Path:
    """A folder of this user alone for what Ray writes, in `$RAY_TMPDIR` or the usual place.

    Raises:
        StorageError: the disk refused.
    """
    above = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with disk_errors(above):
        return Path(tempfile.mkdtemp(prefix="ray-", dir=above))


@contextmanager
def private_cluster(folder: Path) -> Iterator[dict[str, Any]]:
    """Prepare this process for a cluster of its own: start, use and end it in the block.

    Its token is in no file, but in the environment of its processes; a token or mode that the user
    has set is left as it is.

    Args:
        folder: of this user alone; Ray makes what it writes there writable for all.

    Yields:
        Options of `ray.init`.
    """
    variables = {_CLUSTER_VARIABLE: "0"}
    if not any(os.environ.get(name) for name in _TOKEN_VARIABLES):
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with environment(variables), _on_loopback():
        _read_token_again()
        try:
            yield {
                "include_dashboard": False,
                "_node_ip_address": LOOPBACK,
                "_temp_dir": str(folder / "r"),  # short: sockets lie below it
            }
        finally:
            with environment(dict.fromkeys(variables)):
                _read_token_again()


@contextmanager
def private_umask() -> Iterator[int]:
    """Let nobody else read the files that are made in the block, by children too.

    Only around the start of processes: the umask is that of all threads.

    Yields:
        The umask outside the block.
    """
    before = os.umask(0o077)
    try:
        yield before
    finally:
        os.umask(before)


def clusters_here(proc: Path = Path("/proc")) -> tuple[list[str], int]:
    """Whose Ray clusters this machine is part of.

    Returns:
        The addresses HOST:PORT of those of this user, sorted, and how many of Ray's processes here
        are another user's.
    """
    own, num_foreign = set(), 0
    for process in proc.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            is_own = process.stat().st_uid == os.geteuid()
        except OSError:  # it has ended, or is hidden
            continue
        if os.path.basename(arguments[0]) != b"raylet":
            continue
        if not is_own:
            num_foreign += 1
            continue
        own |= {
            argument.removeprefix(_ADDRESS_FLAG).decode("ascii", "replace")
            for argument in arguments
            if argument.startswith(_ADDRESS_FLAG)
        }
    return sorted(own), num_foreign


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for the block, and for the processes started in it; None: unset."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray take the loopback address for this machine's, as it does on other systems.

    It replaces that address by one that others reach. The variable says so to its processes; this
    one has read it, where Ray was imported before.
    """
    constants = sys.modules.get("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if before is None:
        yield
        return
    constants.ENABLE_RAY_CLUSTER = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before  # type: ignore[union-attr]


def _read_token_again() -> None:
    """Let Ray read the mode and the token anew; it keeps what it has read once."""
    native: Any = sys.modules.get("ray._raylet")
    with contextlib.suppress(AttributeError):  # older ones keep nothing
        native.Config.initialize("")
        native.AuthenticationTokenLoader.instance().reset_cache()
