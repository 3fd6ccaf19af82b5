"""Labelling programs side by side: the same model, the same real texts, in alternating rounds."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from contenders.table import REFERENCE, ROWS
from harness import in_turn
from labelling_race.limits import MachineLimits, best_of, encoder_size, measure_limits
from labelling_race.plan import (
    OURS,
    LabelBenchmarkConfig,
    Plan,
    make_plan,
)
from labelling_race.result import LabelBenchmark, RoundResult, RowResult, ratios_of
from labelling_race.worker import ContenderError, NotInstalled, Worker
from monox_kit import __version__
from monox_kit.data import Logits
from monox_kit.digest import digest_bytes
from monox_kit.durable import make_folder, remove_folder
from monox_kit.hardware import read_hardware
from monox_kit.locks import exclusive_lock
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import open_folder
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, Silent

# Past a row's own limit: by then it has ended its pass by itself.
_GRACE_S = 120.0
_UNLIMITED_S = 1e6


@dataclass(slots=True)
class _Found:
    """What a row has shown so far."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    rounds: dict[int, RoundResult] = field(default_factory=dict)
    logits: dict[int, Logits] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    error: ContenderError | None = None


def benchmark_labelling(
    config: LabelBenchmarkConfig, work: Path, *, progress: Progress | None = None
) -> LabelBenchmark:
    """Time labelling programs on the same texts and compare their logits with fp32 PyTorch's.

    Each row is a process of its own; all stay alive and one works at a time. In every round each
    row gets the same texts, in an order of rows that rotates. What cannot run is in the result,
    with the reason.

    Args:
        config: what to compare.
        work: a folder for texts, stores and the graphs that are made once and kept.
        progress: where progress is reported.

    Raises:
        ContenderError: the fp32 reference itself cannot run.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    make_folder(work)
    with exclusive_lock(work / "benchmark.lock", work), contextlib.ExitStack() as stack:
        plan = make_plan(config, work, progress)
        stack.callback(remove_folder, plan.scratch)
        size = encoder_size(plan.folder)
        found = {name: _Found() for name in plan.rows}
        workers = _started(plan, found, stack, progress)
        limits: MachineLimits | None = None
        with progress.task("rounds", config.rounds * len(workers), "passes") as task:
            for number in range(config.rounds):
                measured = measure_limits(
                    size, threads=config.threads, budget_s=config.limit_budget_s
                )
                limits = measured if limits is None else best_of(limits, measured, size)
                others = [name for name in workers if name != REFERENCE]
                for name in (REFERENCE, *in_turn(others, number)):
                    task.detail(name)
                    if found[name].error is None:
                        _score(plan, number, name, workers[name], found[name])
                    task.advance()
                _require(found[REFERENCE])
    if limits is None:
        raise ValueError("rounds: expected at least 1")
    reference = found.pop(REFERENCE)
    allowed = limits.tokens_per_s(size)
    rows = {name: _result(plan, name, each, reference, allowed) for name, each in found.items()}
    return LabelBenchmark(
        rows=rows,
        ratios=ratios_of(rows, [name for name in rows if name.startswith(OURS)]),
        limits={**limits.to_json(), "tokens_per_s": allowed},
        model=_model_record(plan, size.ops_per_token),
        texts=_text_record(plan, reference),
        environments=_environments(config, {REFERENCE: reference, **found}),
        hardware=read_hardware(),
    )


def _require(reference: _Found) -> None:
    """Raise the error of the row that all others are compared with."""
    if reference.error is not None:
        raise reference.error


def _started(
    plan: Plan, found: Mapping[str, _Found], stack: contextlib.ExitStack, progress: Progress
) -> dict[str, Worker]:
    """The processes that are ready, by row, one after the other; the others' errors are noted."""
    workers = {}
    limit_s = plan.config.start_limit_s
    with progress.task("starting", len(plan.rows), "rows") as task:
        for name in plan.rows:
            task.detail(name)
            interpreter = plan.config.interpreters.get(name, sys.executable)
            try:
                kept = plan.kept(name)
                if kept is not None and not kept.exists():
                    # A process of its own: what quantizing takes is no part of the row's memory.
                    with Worker(asdict(plan.job(name, prepare=True)), interpreter) as preparing:
                        preparing.start(limit_s)
                worker = Worker(asdict(plan.job(name)), interpreter)
                with contextlib.ExitStack() as starting:
                    starting.enter_context(worker)
                    ready = worker.start(limit_s)
                    stack.push(starting.pop_all())
            except ContenderError as error:
                found[name].error = error
                progress.note(str(error))
            else:
                found[name].settings, found[name].versions = ready["settings"], ready["versions"]
                workers[name] = worker
            _require(found[REFERENCE])
            task.advance()
    return workers


def _score(plan: Plan, number: int, row: str, worker: Worker, found: _Found) -> None:
    """One pass of a row over its slice of a round, noted in `found`."""
    limit_s = _UNLIMITED_S if row == REFERENCE else plan.config.round_limit_s
    store = plan.scratch / f"store-{row}-{number}"
    request = {
        "texts_path": str(plan.round_path(number, row)),
        "limit_s": limit_s,
        "store": str(store),
    }
    try:
        answer = worker.score(request, limit_s + _GRACE_S)
    except ContenderError as error:
        found.error = error
        return
    finally:
        remove_folder(store)
    is_over = bool(answer["over_limit"])
    found.rounds[number] = RoundResult(
        seconds=answer["seconds"],
        num_texts=answer["texts"],
        num_tokens=(answer["tokens"] or None) if is_over else answer["tokens"],
        over_limit=is_over,
    )
    found.peak_rss_bytes = answer["peak_rss_bytes"]
    if not is_over:
        values = np.frombuffer(base64.b64decode(answer["logits"]), np.float32)
        found.logits[number] = values.reshape(-1, answer["num_classes"])


def _result(
    plan: Plan, row: str, found: _Found, reference: _Found, allowed: Mapping[str, float]
) -> RowResult:
    positions = plan.slice_of(row)
    numbers = sorted(found.logits)
    compared = None
    if numbers:
        expected = np.concatenate([reference.logits[number][positions] for number in numbers])
        logits = np.concatenate([found.logits[number] for number in numbers])
        compared = agreement(expected, logits, problem_of(plan.folder.labels))
    error = found.error
    result = RowResult(
        what=ROWS[row].what,
        state="measured"
        if error is None
        else "not installed"
        if isinstance(error, NotInstalled)
        else "failed",
        reason=None if error is None else str(error),
        settings=found.settings,
        texts_per_round=len(positions),
        rounds=found.rounds,
        peak_rss_bytes=found.peak_rss_bytes,
        agreement=compared,
    )
    rate = result.tokens_per_s
    if rate is None:
        return result
    return replace(result, limit_fractions={name: rate / most for name, most in allowed.items()})


def _model_record(plan: Plan, ops_per_token: int) -> dict[str, Any]:
    bundles = {name: open_folder(path).record for name, path in plan.bundles.items()}
    return {
        "name": plan.folder.path.name,
        "digest": plan.folder.model_digest,
        "max_length": plan.max_length,
        "ops_per_token": ops_per_token,
        "ops_formula": "2 x parameters of the layers' matrices, without attention's own products",
        "bundles": {name: record.precision if record else None for name, record in bundles.items()},
    }


def _text_record(plan: Plan, reference: _Found) -> dict[str, Any]:
    texts = [text for each in plan.rounds for text in each]
    tokens = sum(each.num_tokens or 0 for each in reference.rounds.values())
    return {
        "num_texts": len(texts),
        "num_tokens": tokens,
        "tokens_per_text": round(tokens / len(texts), 2),
        "digest": digest_bytes("\0".join(texts).encode()),
        "rounds": plan.config.rounds,
        "rows_per_round": plan.config.rows_per_round,
        "slices": dict(plan.config.slices),
        "round_limit_s": plan.config.round_limit_s,
        "warmup_rows": plan.config.warmup_rows,
        "calibration_rows": plan.config.calibration_rows,
    }


def _environments(
    config: LabelBenchmarkConfig, found: Mapping[str, _Found]
) -> list[dict[str, Any]]:
    """Versions of each interpreter, with the rows that ran under it; no path is told."""
    environments: dict[str, dict[str, Any]] = {}
    for name, each in found.items():
        if each.versions:
            interpreter = config.interpreters.get(name, sys.executable)
            versions = {"monoxkit": __version__, **each.versions}
            known = environments.setdefault(interpreter, {"rows": [], "versions": versions})
            known["rows"].append(name)
    return list(environments.values())
