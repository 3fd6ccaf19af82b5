"""All that a server holds: models by name, permits, keys, counts; and how models are swapped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import monox_kit
from monox_kit.errors import MonoxError
from monox_kit.models.folder import open_folder
from monox_kit.progress import Progress, Silent
from monox_kit.serving.admission import Admission
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.contract import Kind, Refused, ServerFacts
from monox_kit.serving.engine import Engine, identity_of
from monox_kit.serving.keys import Keys
from monox_kit.serving.metrics import Metrics


class Site:
    """The state of a server.

    Attributes:
        config: of the server.
        engines: by the names that models are served under; the first answers where none is named.
        admission: who is let in.
        keys: of clients; None where everybody is let in.
        metrics: what was counted.
        is_ending: whether it was asked to end; it is not ready then.
    """

    def __init__(self, config: ServeConfig, progress: Progress | None = None) -> None:
        """Open every bundle.

        Raises:
            ConfigError: the keys cannot be used.
            ModelError: a bundle cannot be used here, or its self test fails.
            ProviderError: the provider is not there.
        """
        self.config = config
        self._progress = progress or Silent()
        self.keys = None if config.keys is None else Keys(config.keys)
        self.admission = Admission(config.max_requests, config.max_wait_s)
        self.is_ending = False
        self.engines: dict[str, Engine] = {}
        self.metrics = Metrics(self)
        self._watch: asyncio.Future[None] | None = None
        self._swapping = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        for name, reference in config.references.items():
            self.engines[name] = self._opened(name, reference)

    def _opened(self, name: str, reference: str) -> Engine:
        return Engine(
            name,
            reference,
            self.config,
            on_run=self.metrics.count_run,
            on_fault=self.tell,
            progress=self._progress,
        )

    def tell(self, sentence: str) -> None:
        """Say something to the operator."""
        self._progress.note(sentence)

    @property
    def is_ready(self) -> bool:
        """Whether it takes questions for all of its models."""
        is_sound = all(engine.sessions.are_sound for engine in self.engines.values())
        return bool(self.engines) and is_sound and not self.is_ending

    @property
    def facts(self) -> ServerFacts:
        """What clients may know."""
        config = self.config
        return ServerFacts(
            version=monox_kit.__version__,
            is_ready=self.is_ready,
            models={name: engine.facts for name, engine in self.engines.items()},
            max_rows=config.max_rows,
            max_characters=config.max_characters,
            max_body_bytes=config.max_body_bytes,
            max_batch_tokens=config.batch_tokens,
            max_concurrent_requests=config.max_requests,
            truncates=config.truncate,
        )

    def engine(self, name: str | None) -> Engine:
        """The engine of a model; the first one where no model is named.

        Raises:
            Refused: there is no such model.
        """
        found = next(iter(self.engines.values())) if name is None else self.engines.get(name)
        if found is None:
            raise Refused(Kind.NOT_FOUND, "There is no model of that name on this server.")
        return found

    def require_place(self) -> None:
        """Check cheaply, before a request is read, that some model would let it in.

        Raises:
            Refused: none would.
        """
        self.admission.require(min(engine.wait_s() for engine in self.engines.values()))

    def require_key(self, headers: Mapping[str, str]) -> None:
        """Check a request's key where keys are asked for.

        Raises:
            Refused: it has none.
        """
        if self.keys is not None:
            self.keys.require(headers)

    def start(self) -> None:
        """Begin to answer."""
        for engine in self.engines.values():
            engine.start()
        self._watch = asyncio.ensure_future(self.admission.watch())

    async def swap(self, name: str) -> bool:
        """Put what stands in a model's folder now in its place; requests meanwhile are answered.

        Returns:
            Whether the bundle is another one; else nothing was done.

        Raises:
            MonoxError: it cannot be used: the one that is served stays.
            Refused: there is no such model.
        """
        async with self._swapping:
            old = self.engine(name)
            if old.sessions.are_sound and await asyncio.to_thread(self._is_as_served, old):
                return False
            new = await asyncio.to_thread(partial(self._opened, name, old.reference))
            new.start()
            self.engines[name] = new
            # It answers what it was asked; nobody waits for that.
            task = asyncio.create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.tell(f"{name}: {new.facts.version} is served in place of {old.facts.version}.")
        return True

    def _is_as_served(self, engine: Engine) -> bool:
        return identity_of(open_folder(engine.reference)) == engine.identity

    def begin_reload(self) -> None:
        """Reload beside what is answered meanwhile."""
        task = asyncio.ensure_future(self.reload())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def reload(self) -> None:
        """Read the keys again and swap the bundles that changed; what cannot be used is told."""
        try:
            if self.keys is not None:
                self.keys.reload()
                self.tell(f"keys: {len(self.keys)} are in use now.")
        except MonoxError as error:
            self.tell(f"The keys in use stay: {error}")
        for name in list(self.engines):
            try:
                if not await self.swap(name):
                    self.tell(f"{name}: the bundle is the one that is served.")
            except MonoxError as error:
                self.tell(f"{name}: the bundle that is served stays: {error}")

    async def close(self) -> None:
        """Answer what was asked and let go of all models."""
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*self._closing, *(each.close() for each in self.engines.values()))
