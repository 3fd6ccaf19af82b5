"""The load: requests at times that were fixed before, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median

import numpy as np
import numpy.typing as npt

from monox_kit.benchmarking.load.config import LoadConfig
from monox_kit.benchmarking.load.connection import Answered, Connections, NoAnswer
from monox_kit.benchmarking.load.report import (
    NO_ANSWER,
    TIMED_OUT,
    WRONG_ANSWER,
    LoadReport,
    LoadStep,
    Outcome,
    capacity_of,
)
from monox_kit.benchmarking.load.requests import FORMS, Request, Texts
from monox_kit.durable import write_json
from monox_kit.errors import ConfigError
from monox_kit.foreign import publishable, shown
from monox_kit.hardware import read_hardware
from monox_kit.progress import Progress, Silent

Floats = npt.NDArray[np.float64]

_TRIED = 10  # requests one after the other, which also warm the server up
_MOST_STEPS = 16
_GROWTH = 1.5
_LEAST_RATE = 0.1


def load(config: LoadConfig, *, progress: Progress | None = None) -> LoadReport:
    """Send a server requests at rates of its own or rising ones, and measure its answers.

    Raises:
        ConfigError: the server cannot be reached, or refuses the first requests.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    report = asyncio.run(_Load(config, progress or Silent()).report())
    if config.out is not None:
        write_json(config.out, report.to_json())
    return report


class _Load:
    def __init__(self, config: LoadConfig, progress: Progress) -> None:
        self._config, self._progress = config, progress
        self._form = FORMS[config.protocol]
        self._path = self._form.path_of(config.model)
        self._texts = Texts(config, progress)
        self._generator = np.random.Generator(np.random.Philox(config.seed))

    async def report(self) -> LoadReport:
        """Try the server alone, then at each rate."""
        config = self._config
        connections = Connections(config.url, config.connections, self._headers())
        try:
            alone_s = await self._alone(connections)
            steps = []
            rates = _Rates(config.rates, alone_s)
            for rate in rates:
                step = await self._step(connections, rate)
                steps.append(step)
                rates.tell(step.is_goal_met)
        finally:
            await connections.close()
        return LoadReport(
            url=shown(config.url),
            alone_ms=round(1000 * alone_s, 3),
            p99_ms=config.p99_ms,
            capacity_per_s=capacity_of(steps),
            steps=tuple(steps),
            settings=publishable(json.loads(json.dumps(asdict(config), default=str))),
            hardware=read_hardware().to_json(),
        )

    def _headers(self) -> dict[str, str]:
        path = self._config.key_file
        if path is None:
            return {}
        try:
            key = path.read_text(encoding="utf-8").splitlines()[0].strip()
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise ConfigError(
                f"`key_file` {path}: no key can be read from it. Give a file whose first line "
                "is the key."
            ) from error
        if not key.isascii() or not key.isprintable() or not key:
            raise ConfigError(
                f"`key_file` {path}: its first line is no key: expected letters, digits and signs "
                "of ASCII. Give the server's key."
            )
        return {"Authorization": f"Bearer {key}"}

    async def _alone(self, connections: Connections) -> float:
        """The median seconds of requests that are sent one after the other."""
        seconds = []
        for request in self._texts.requests(_TRIED, self._generator):
            started_s = time.perf_counter()
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    answer = await connections.post(self._path, request.body)
            except (OSError, NoAnswer, TimeoutError) as error:
                raise ConfigError(
                    f"`url` {shown(self._config.url)}: no server answers there "
                    f"({type(error).__name__}). Start one, or give its address."
                ) from error
            if self._status(answer, request) != "200":
                raise ConfigError(
                    f"`url` {shown(self._config.url)}: POST {self._path} was answered with "
                    f"{answer.status}: {shown(answer.body[:200].decode('utf-8', 'replace'))}. "
                    "Give `protocol` and `model` as this server has them, and texts as its model "
                    "reads them."
                )
            seconds.append(time.perf_counter() - started_s)
        return median(seconds)

    async def _step(self, connections: Connections, rate: float) -> LoadStep:
        """All requests of one rate, to the last answer."""
        config = self._config
        count = max(1, min(config.requests, round(rate * config.seconds)))
        times = scheduled(count, rate, config.arrivals, self._generator)
        requests = self._texts.requests(count, self._generator)
        description = f"{rate:g} requests a second"
        with self._progress.task(description, count, "requests") as task:
            clock = time.perf_counter
            began_s = clock()
            outcomes: list[Outcome] = []
            part = max(1, count // 100)  # drawing a bar takes time that is the requests'

            async def one(request: Request, due_s: float) -> None:
                outcomes.append(await self._outcome(connections, request, due_s, began_s))
                if not len(outcomes) % part:
                    task.advance(part)

            async with asyncio.TaskGroup() as group:
                for request, due_s in zip(requests, times.tolist(), strict=True):
                    early_s = began_s + due_s - clock()
                    if early_s > 0:
                        await asyncio.sleep(early_s)
                    group.create_task(one(request, due_s))
        return LoadStep.of(
            outcomes, rate, goal_s=config.p99_ms / 1000, deadline_s=config.deadline_ms / 1000
        )

    async def _outcome(
        self, connections: Connections, request: Request, due_s: float, began_s: float
    ) -> Outcome:
        """What becomes of a request that is due at a time."""
        clock = time.perf_counter
        started_s = clock() - began_s
        retry_after_s = None
        try:
            async with asyncio.timeout(due_s + self._config.timeout_s - started_s):
                answer = await connections.post(self._path, request.body)
            status = self._status(answer, request)
            retry_after_s = _seconds(answer.headers.get("retry-after"))
        except TimeoutError:
            status = TIMED_OUT
        except (OSError, NoAnswer):
            status = NO_ANSWER
        return Outcome(request, due_s, started_s, clock() - began_s, status, retry_after_s)

    def _status(self, answer: Answered, request: Request) -> str:
        """The answer's status, or that a 200 is not of the rows that were asked for."""
        if answer.status != 200:
            return str(answer.status)
        try:
            count = self._form.count(json.loads(answer.body))
        except (ValueError, TypeError, KeyError, IndexError):
            return WRONG_ANSWER
        return "200" if count == request.num_rows else WRONG_ANSWER


class _Rates:
    """The rates of a run: those that were asked for, or rising ones until the goal is missed."""

    def __init__(self, given: Sequence[float] | None, alone_s: float) -> None:
        self._given = given
        self._next_per_s = max(_LEAST_RATE, 0.5 / alone_s)
        self._met, self._missed = 0.0, math.inf

    def __iter__(self) -> Iterator[float]:
        if self._given is not None:
            yield from self._given
            return
        for _ in range(_MOST_STEPS):
            rate = float(f"{self._next_per_s:.3g}")
            self._next_per_s = rate
            yield rate
            if self._next_per_s < _LEAST_RATE or self._missed / max(self._met, 1e-9) < _GROWTH**0.6:
                return

    def tell(self, is_met: bool) -> None:
        """Take note of whether the last rate met the goal, and choose the next one."""
        if is_met:
            self._met = max(self._met, self._next_per_s)
        else:
            self._missed = min(self._missed, self._next_per_s)
        if self._missed == math.inf:
            self._next_per_s = self._met * _GROWTH
        elif not self._met:
            self._next_per_s = self._missed / 2
        else:
            self._next_per_s = math.sqrt(self._met * self._missed)


def scheduled(count: int, rate: float, arrivals: str, generator: np.random.Generator) -> Floats:
    """[count] seconds at which requests are due, rising.

    Args:
        count: how many.
        rate: a second, on average.
        arrivals: `poisson`, of independent users: gaps are exponential; or `constant`.
        generator: draws the gaps.
    """
    if arrivals == "constant":
        return np.arange(count) / rate
    return np.cumsum(generator.exponential(1 / rate, count))


def _seconds(value: str | None) -> float | None:
    """The seconds of a `Retry-After`, which may also be a date: then None."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
