"""How a graph labels fastest here: measured on the corpus's own texts, then kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monox_kit.cache import default_cache, made_cache, read_own
from monox_kit.data import Classifier, Int64s
from monox_kit.digest import digest_json
from monox_kit.durable import write_json
from monox_kit.errors import MonoxError, StorageError
from monox_kit.hardware import read_hardware
from monox_kit.models.batching import along_lengths
from monox_kit.models.folder import RunPrecision
from monox_kit.models.graph_classifier import OPENVINO_PROVIDERS, SessionPlan
from monox_kit.models.providers import runtime_version
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS, Texts, score_texts
from monox_kit.progress import Progress
from monox_kit.results import Result
from monox_kit.spinning import may_spin

# Real tokens that every candidate scores. Several batches of the largest size, so that sessions
# which run side by side all have work.
_SAMPLE_TOKENS = 8_192
# A corpus with less than this many times the tokens of all measurements is not worth measuring.
_LEAST_SAMPLES = 50
# A candidate must win by this much over the plain default: less is noise.
_LEAST_GAIN = 1.03
# OpenVINO's streams share the weights, and none waits for the other's threads: 1 to 6 % faster on
# two cores (benchmarks/LOG.md).
_OPENVINO_STREAMS = 2
_GPU_BATCH_TOKENS = 32 * DEFAULT_BATCH_TOKENS
GPU_PROVIDERS = ("cuda", "tensorrt")
_VERSION = 2
_MAX_PLAN_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RunPlan(Result):
    """How batches are run.

    Attributes:
        session: batches at once and threads of each; None for PyTorch, which shares the cores by
            itself.
        batch_tokens: padded tokens per batch.
        chosen_by: `default`, `asked`, `measured`, or `cached` from an earlier measurement.
        tokens_per_s: real tokens per second of every candidate that was measured.
    """

    session: SessionPlan | None
    batch_tokens: int
    chosen_by: str = "default"
    tokens_per_s: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        batches = f"batches of {self.batch_tokens} tokens"
        if self.session is None:
            return batches
        return f"{self.session.sessions} x {self.session.threads} threads, {batches}"


def default_plan(
    provider: str,
    sessions: int | None = None,
    threads: int | None = None,
    batch_tokens: int | None = None,
) -> RunPlan:
    """What was asked for, and the plain default for the rest."""
    asked = any(value is not None for value in (sessions, threads, batch_tokens))
    cores = SessionPlan.default().threads
    if sessions is None:
        usual_sessions = _usual_sessions(cores, provider)
        sessions = usual_sessions if threads is None else max(1, cores // threads)
    if threads is None:
        threads = max(1, cores // sessions)
    usual = _GPU_BATCH_TOKENS if provider in GPU_PROVIDERS else DEFAULT_BATCH_TOKENS
    chosen = batch_tokens if batch_tokens is not None else usual
    return RunPlan(SessionPlan(sessions, threads), chosen, "asked" if asked else "default")


def measured_plan(
    load: Callable[[SessionPlan], Classifier],
    texts: Texts,
    *,
    provider: str,
    model_digest: str,
    precision: RunPrecision,
    max_length: int,
    corpus_tokens: int,
    progress: Progress,
    cache: Path | None = None,
) -> RunPlan:
    """The fastest plan here, measured once per model, machine and kind of text, then kept.

    First how cores are shared, at the default batch size; then the batch size for the winner.

    Args:
        load: makes the classifier of a plan.
        texts: some of the corpus; a sample along its lengths is scored.
        provider: what runs the graph, as `load` uses it.
        model_digest: of the graph.
        precision: what its float32 weights are multiplied in.
        max_length: the cut in tokens.
        corpus_tokens: estimated real tokens still to be labelled; a small corpus is not measured.
        progress: told what was chosen.
        cache: where choices are kept; None means `monox_kit.cache.default_cache()`.
    """
    usual = default_plan(provider)
    sessions = _session_candidates(SessionPlan.default().threads, provider)
    sizes = [usual.batch_tokens // 2, usual.batch_tokens * 2]
    mean_length = float(texts.document_lengths.mean())
    key = _key(model_digest, precision, provider, max_length, int(mean_length))
    folder = _plan_folder(cache, progress)
    path = folder and folder / f"{digest_json(key)}.json"
    kept = path and _read(path, key, sessions, [usual.batch_tokens, *sizes])
    if kept:
        progress.note(f"run plan: {kept} (measured by an earlier run)")
        return kept
    if corpus_tokens < _LEAST_SAMPLES * _SAMPLE_TOKENS * (len(sessions) + len(sizes)):
        return usual
    found = _measure(
        load,
        texts,
        along_lengths(texts.document_lengths, max(1, int(_SAMPLE_TOKENS / max(1.0, mean_length)))),
        sessions=sessions,
        sizes=sizes,
        usual_size=usual.batch_tokens,
        progress=progress,
    )
    if path and provider not in GPU_PROVIDERS:  # the key does not tell one GPU from another
        _keep(path, key, found, is_ours=cache is None, progress=progress)
    progress.note(f"run plan: {found} (measured here: {_shown(found.tokens_per_s)})")
    return found


def _key(
    model_digest: str, precision: RunPrecision, provider: str, max_length: int, mean_length: int
) -> dict[str, Any]:
    """What a measurement holds for."""
    hardware = read_hardware().to_json()
    return {
        "version": _VERSION,
        "model": model_digest,
        "precision": precision,
        "provider": provider,
        "runtime": runtime_version(provider),
        "hardware": {name: hardware[name] for name in ("cpu_model", "num_cores")},
        "max_length": max_length,
        # Texts of about this length: the next power of two.
        "mean_length": 1 << mean_length.bit_length(),
        # Plans of 0.1.0 were measured with threads that spin.
        **({} if may_spin() else {"spins": False}),
    }


def _measure(
    load: Callable[[SessionPlan], Classifier],
    texts: Texts,
    rows: Int64s,
    *,
    sessions: Sequence[SessionPlan],
    sizes: Sequence[int],
    usual_size: int,
    progress: Progress,
) -> RunPlan:
    rates: dict[str, float] = {}
    with progress.task("measuring run plans", len(sessions) + len(sizes), "plans") as task:

        def rate(candidate: RunPlan, classifier: Classifier) -> float:
            task.detail(str(candidate))
            # One small batch first: the first run of a session allocates.
            score_texts(classifier, texts, rows=rows[:8], batch_tokens=candidate.batch_tokens)
            started = time.perf_counter()
            scored = score_texts(classifier, texts, rows=rows, batch_tokens=candidate.batch_tokens)
            rates[str(candidate)] = scored.num_tokens / (time.perf_counter() - started)
            task.advance()
            return rates[str(candidate)]

        session = sessions[0]
        best = RunPlan(session, usual_size)
        for other in sessions:
            candidate = RunPlan(other, usual_size)
            if rate(candidate, load(other)) > _LEAST_GAIN * rates[str(best)]:
                session, best = other, candidate
        classifier = load(session)
        for size in sizes:
            candidate = RunPlan(session, size)
            if rate(candidate, classifier) > _LEAST_GAIN * rates[str(best)]:
                best = candidate
    rounded = {name: round(value, 1) for name, value in rates.items()}
    return replace(best, chosen_by="measured", tokens_per_s=rounded)


def _usual_sessions(cores: int, provider: str) -> int:
    is_even = cores % _OPENVINO_STREAMS == 0
    return _OPENVINO_STREAMS if provider in OPENVINO_PROVIDERS and is_even else 1


def _session_candidates(cores: int, provider: str) -> list[SessionPlan]:
    """Ways to share the cores, the plain default first."""
    if provider in GPU_PROVIDERS:
        return [SessionPlan(1, cores), SessionPlan(2, max(1, cores // 2))]
    # At most 4 of several threads: but for OpenVINO's streams, each has its own weights.
    counts = (_usual_sessions(cores, provider), 1, 2, min(4, cores // 4), cores)
    return [SessionPlan(n, cores // n) for n in dict.fromkeys(counts) if 1 <= n <= cores]


def _plan_folder(cache: Path | None, progress: Progress) -> Path | None:
    """Where plans are kept; None, with a note, where there is no cache that can be believed."""
    try:
        return (default_cache() if cache is None else cache) / "plans"
    except StorageError as error:
        progress.note(f"run plans are not kept: {error}")
        return None


def _keep(
    path: Path, key: Mapping[str, Any], plan: RunPlan, *, is_ours: bool, progress: Progress
) -> None:
    """Write a measured plan; a cache that cannot be written costs a note, not the run."""
    try:
        if is_ours:
            made_cache()
        write_json(path, {"key": key, "plan": plan.to_json()})
    except MonoxError as error:
        progress.note(f"the run plan is not kept: {error}")


def _read(
    path: Path, key: Mapping[str, Any], sessions: Sequence[SessionPlan], sizes: Sequence[int]
) -> RunPlan | None:
    """The kept plan; None where there is none. What was not measured here is measured anew."""
    try:
        value = json.loads(read_own(path, _MAX_PLAN_BYTES))
        plan = value["plan"]
        session = SessionPlan(**plan["session"])
        rates = {str(name): float(rate) for name, rate in plan["tokens_per_s"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    size = plan.get("batch_tokens")
    if value.get("key") != key or session not in sessions or size not in sizes:
        return None
    if len(rates) > len(sessions) * len(sizes) or not all(0 < r < math.inf for r in rates.values()):
        return None
    # The equal ones of this run: whole numbers, whatever the file has.
    return RunPlan(sessions[sessions.index(session)], int(size), "cached", rates)


def _shown(rates: Mapping[str, float]) -> str:
    return "; ".join(f"{name}: {value:,.0f} tokens/s" for name, value in rates.items())
