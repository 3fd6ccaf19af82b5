"""What a server counts, in Prometheus' form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from monox_kit.data import UNKNOWN_LANGUAGE
from monox_kit.serving.contract import Answer, Reply
from monox_kit.serving.lanes import RunDone

if TYPE_CHECKING:
    from prometheus_client import Metric

    from monox_kit.serving.engine import Engine
    from monox_kit.serving.site import Site

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
# A client chooses the language, and every value costs memory: what is no tag, or one too many, is
# counted as another.
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_MOST_LANGUAGES = 100
_OTHER = "other"
_PREFIX = "monoxkit"
# Read of each engine when they are asked for.
_GAUGES: tuple[tuple[str, str, Callable[[Engine], float]], ...] = (
    ("queue_rows", "Rows that wait.", lambda engine: engine.lanes.num_waiting),
    ("queue_tokens", "Tokens that wait or run.", lambda engine: engine.lanes.tokens),
    ("predicted_wait_seconds", "Of a request that comes now.", lambda engine: engine.wait_s()),
    ("tokens_per_second", "Measured speed.", lambda engine: engine.speed.tokens_per_s),
)


class Metrics(Collector):
    """Counts of one server.

    Args:
        site: whose state stands in the gauges.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._registry = registry = CollectorRegistry()
        self._languages = {UNKNOWN_LANGUAGE}
        by_model: dict[str, Any] = {
            "labelnames": ("model",),
            "namespace": _PREFIX,
            "registry": registry,
        }
        self._requests = Counter(
            "requests",
            "Requests that have ended, by status; 499 where the client had gone.",
            ("protocol", "model", "language", "status"),
            namespace=_PREFIX,
            registry=registry,
        )
        self._rows = Counter("rows", "Answered rows.", **by_model)
        self._truncated = Counter("truncated_rows", "Answered rows that were cut.", **by_model)
        self._tokens = Counter("tokens", "Tokens that were run, without padding.", **by_model)
        self._padding = Counter("padding_tokens", "Padding that was run.", **by_model)
        self._seconds = {
            name: Histogram(f"{name}_seconds", text, buckets=_SECONDS, **by_model)
            for name, text in (
                ("request", "From a request's head to its answer."),
                ("tokenizing", "Texts of a request to tokens."),
                ("queue", "The longest wait of a request's rows for their runs."),
                ("run", "Runs."),
            )
        }
        self._batch_rows = Histogram("batch_rows", "Rows of a run.", buckets=_ROWS, **by_model)
        self._batch_tokens = Histogram(
            "batch_tokens", "Tokens of a run, padding included.", buckets=_TOKENS, **by_model
        )
        self.connections = Gauge(
            "connections", "Open connections.", namespace=_PREFIX, registry=registry
        )
        ProcessCollector(registry=registry)  # memory and processor time
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The state of the site, read when it is asked for."""
        site = self._site
        held = GaugeMetricFamily(f"{_PREFIX}_requests_held", "Requests that have a permit.")
        held.add_metric((), site.admission.held)
        ready = GaugeMetricFamily(f"{_PREFIX}_ready", "Whether the server is ready.")
        ready.add_metric((), site.is_ready)
        lag = GaugeMetricFamily(f"{_PREFIX}_event_loop_lag_seconds", "How late requests are read.")
        lag.add_metric((), site.admission.lag_s)
        yield from (held, ready, lag)
        for name, text, read in _GAUGES:
            family = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=("model",))
            for model, engine in site.engines.items():
                family.add_metric((model,), read(engine))
            yield family
        replaced = CounterMetricFamily(
            f"{_PREFIX}_sessions_replaced",
            "Times that failed sessions were replaced.",
            labels=("model",),
        )
        for model, engine in site.engines.items():
            replaced.add_metric((model,), engine.sessions.num_replaced)
        yield replaced

    def count_run(self, engine: Engine, done: RunDone) -> None:
        """Count a run."""
        model = engine.facts.name
        self._seconds["run"].labels(model).observe(done.run_s)
        self._batch_rows.labels(model).observe(len(done.rows))
        self._batch_tokens.labels(model).observe(done.padded_tokens)
        self._tokens.labels(model).inc(done.tokens)
        self._padding.labels(model).inc(done.padded_tokens - done.tokens)

    def count_answer(self, answer: Answer, seconds: float) -> None:
        """Count what was answered, and where the time went."""
        model, timings = answer.model.name, answer.timings
        self._rows.labels(model).inc(len(answer.tokens))
        self._truncated.labels(model).inc(int(answer.truncated.sum()))
        self._seconds["request"].labels(model).observe(seconds)
        self._seconds["tokenizing"].labels(model).observe(timings.tokenizing_s)
        self._seconds["queue"].labels(model).observe(timings.queue_s)

    def count_request(self, protocol: str, model: str, language: str | None, status: int) -> None:
        """Count a request that has ended."""
        self._requests.labels(protocol, model, self._language(language), str(status)).inc()

    def answered(self) -> dict[str, int]:
        """Requests that have ended, by status."""
        found: dict[str, int] = {}
        for family in self._requests.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    status = sample.labels["status"]
                    found[status] = found.get(status, 0) + int(sample.value)
        return dict(sorted(found.items()))

    def page(self) -> Reply:
        """All of it, as Prometheus reads it."""
        return Reply(
            body=generate_latest(self._registry),
            headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4},
        )

    def _language(self, given: str | None) -> str:
        """The language's own tag, of which there are not too many."""
        tag = re.split("[-_]", (given or UNKNOWN_LANGUAGE).lower())[0]
        if tag in self._languages:
            return tag
        if not _LANGUAGE.fullmatch(tag) or len(self._languages) >= _MOST_LANGUAGES:
            return _OTHER
        self._languages.add(tag)
        return tag
