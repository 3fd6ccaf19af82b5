"""The serve stage: bundles behind an address, until a signal ends it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

import uvicorn

from monox_kit.errors import ConfigError
from monox_kit.progress import Progress, Silent
from monox_kit.serving.app import build_app
from monox_kit.serving.browsers import guarded
from monox_kit.serving.config import ServeConfig, ServeSummary
from monox_kit.serving.connections import connections_of
from monox_kit.serving.site import Site

# What is left of the time to end in: threads are joined, connections closed.
_RESERVE_S = 0.5
# Open files beside connections: a model's, the interpreter's, the event loop's.
_OTHER_FILES = 256


def serve(config: ServeConfig, *, progress: Progress | None = None) -> ServeSummary:
    """Serve bundles until SIGTERM or SIGINT; SIGHUP reads keys and bundles again.

    The address is listened on once every bundle has passed its self test.

    Args:
        config: what is served with what limits.
        progress: where the address, swaps and faults are told.

    Raises:
        ConfigError: the address cannot be listened on, or the keys cannot be used.
        ModelError: a bundle cannot be used here, or its self test fails.
        ProviderError: the provider is not there.
    """
    progress = progress or Silent()
    # Requests are tokenized side by side; each on all cores would get in the sessions' way.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _allow_files(config.max_connections + _OTHER_FILES, progress)
    listener = _bound(config)
    with listener:
        address = _address(listener)
        site = Site(config, progress)
        server = _Server(site, address)
        server.run(sockets=[listener])
    return ServeSummary(
        address=address,
        models={name: engine.facts.digest for name, engine in site.engines.items()},
        answered=site.metrics.answered(),
        ended_by=server.ended_by,
    )


class _Server(uvicorn.Server):
    """uvicorn, ended in two steps: no longer ready, and then no longer there.

    Attributes:
        ended_by: the signal.
    """

    def __init__(self, site: Site, address: str) -> None:
        config = site.config
        left_s = config.shutdown_s - config.drain_s - _RESERVE_S
        super().__init__(
            uvicorn.Config(
                guarded(build_app(site), config),
                http=connections_of(
                    config.max_connections,
                    config.sender_timeout_s,
                    site.metrics.connections.set,
                ),
                loop="uvloop",
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,  # longer than load balancers' 60 s: they close, not we
                # uvicorn's type is int; it gives the number to `asyncio.wait_for`.
                timeout_graceful_shutdown=left_s,  # type: ignore[arg-type]
            )
        )
        self._site, self._address = site, address
        self._ends_s = float("inf")
        self._reloads = False
        self.ended_by: Literal["SIGTERM", "SIGINT"] = "SIGTERM"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        try:
            for each in sockets or ():
                each.listen(self.config.backlog)  # uvloop does not tell that it cannot
        except OSError as error:  # another server bound the address too, and listened first
            raise _unusable(self._site.config, error) from error
        await super().startup(sockets)
        for name, engine in self._site.engines.items():
            facts = engine.facts
            self._site.tell(
                f"{name}: {facts.precision or 'unknown precision'} on {facts.runtime} "
                f"({facts.provider}), {len(facts.labels)} labels, up to {facts.max_length} tokens, "
                f"about {engine.speed.tokens_per_s:,.0f} tokens/s"
            )
        self._site.tell(f"serving {', '.join(self._site.engines)} at {self._address}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: at once where the user typed it, behind the drain on SIGTERM."""
        if self._site.is_ending:
            self._ends_s = 0.0
            return
        is_typed = sig == signal.SIGINT
        self.ended_by = "SIGINT" if is_typed else "SIGTERM"
        self._site.is_ending = True
        self._ends_s = time.monotonic() + (0.0 if is_typed else self._site.config.drain_s)

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether to reload or to end."""
        if self._reloads:
            self._reloads = False
            self._site.begin_reload()
        self.should_exit = time.monotonic() >= self._ends_s
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGHUP too, beside the signals that end the server."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def reload(number: int, frame: FrameType | None) -> None:
            self._reloads = True

        before = signal.signal(signal.SIGHUP, reload)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(signal.SIGHUP, before)


def _allow_files(wanted: int, progress: Progress) -> None:
    """Raise the number of files that this process may have open, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (resource.RLIM_INFINITY, hard) or soft >= wanted:
        allowed = wanted if soft == resource.RLIM_INFINITY else soft
    else:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        progress.note(
            f"This process may have {allowed} files open, and `max_connections` needs {wanted}: "
            "clients beyond that wait unanswered. Raise the limit, or lower `max_connections`."
        )


def _bound(config: ServeConfig) -> socket.socket:
    """A socket that has the address and does not listen yet: clients are refused until it does."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise _unusable(config, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unusable(config, error) from error
    return listener


def _unusable(config: ServeConfig, error: OSError) -> ConfigError:
    return ConfigError(
        f"`host` {config.host}, `port` {config.port}: the address cannot be used: "
        f"{error.strerror or error}. Give another, or end what uses it."
    )


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
