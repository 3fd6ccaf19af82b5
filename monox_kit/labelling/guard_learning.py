"""The guard of a new store: learned on a sample of its corpus before the store is begun."""

from __future__ import annotations

import time
from typing import NamedTuple

from monox_kit.corpora.corpus import CorpusSummary
from monox_kit.errors import ConfigError
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard, learn_guard
from monox_kit.labelling.teacher import Labeller, TeacherModel
from monox_kit.models.folder import FP32
from monox_kit.models.run_plan import RunPlan
from monox_kit.models.scoring import tokenize
from monox_kit.problem import problem_of
from monox_kit.progress import Progress

# Rows of each half of the sample: a fiftieth of the corpus, within these.
_LEAST_ROWS, _MOST_ROWS = 200, 2_000
_FRACTION = 50
# Fewer tell nothing.
_LEAST_GIVEN_ROWS = 50
# From this share of the corpus on, learning costs most of what labelling in fp32 would.
_LARGE_SAMPLE = 0.5


class LearnedGuard(NamedTuple):
    """A guard, and the seconds that scoring the sample and learning took."""

    guard: Guard
    took_s: float


def guard_sample_rows(config: LabelConfig) -> int:
    """Rows of a scan's sample that learning may want; 0 without a guard."""
    return 0 if config.guard is None else 2 * (config.guard_rows or _MOST_ROWS)


def learn_on_sample(
    labeller: Labeller,
    model: TeacherModel,
    *,
    plan: RunPlan,
    scan: CorpusSummary,
    config: LabelConfig,
    progress: Progress,
) -> LearnedGuard:
    """The guard of the corpus's sample, learned with the run's own plan.

    Raises:
        ConfigError: the corpus is too small to learn on.
    """
    assert config.guard is not None  # nothing is learned without
    graphs = {
        one: model.reference(plan, one) for one in dict.fromkeys((FP32, config.guard_precision))
    }
    rows = _half_rows(scan, config)
    texts = tokenize(model.tokenizer, scan.sample[: 2 * rows])
    if 2 * rows > _LARGE_SAMPLE * scan.num_rows:
        progress.note(
            f"guard: it is learned on {2 * rows:,} of the corpus's {scan.num_rows:,} rows, which "
            "the fp32 graph scores too. So small a corpus takes less time with an fp32 bundle and "
            "no `guard`"
        )
    started = time.perf_counter()
    with progress.task("learning the guard", (1 + len(graphs)) * len(texts), "rows") as task:
        fast = labeller.sample(texts, task)
        again = {name: labeller.sample(texts, task, graph) for name, graph in graphs.items()}
    guard = learn_guard(
        fast,
        again[FP32],
        problem_of(model.folder.labels),
        target=config.guard,
        again=again[config.guard_precision],
        precision=config.guard_precision,
        max_kl=config.guard_kl,
    )
    took_s = time.perf_counter() - started
    _tell(guard, progress)
    return LearnedGuard(guard, took_s)


def _half_rows(scan: CorpusSummary, config: LabelConfig) -> int:
    """Rows of each half of the sample."""
    asked = config.guard_rows
    rows = asked or min(_MOST_ROWS, max(_LEAST_ROWS, scan.num_rows // _FRACTION))
    available = len(scan.sample) // 2
    if rows > available and (asked is not None or available < _LEAST_GIVEN_ROWS):
        option = "`guard`" if asked is None else f"`guard_rows` {asked}"
        fewer = f"`guard_rows` {available}, or " if available >= _LEAST_GIVEN_ROWS else ""
        raise ConfigError(
            f"{option}: expected a corpus of at least {2 * (asked or _LEAST_GIVEN_ROWS)} rows, "
            f"for two halves that audit each other, found {scan.num_rows}. Next: {fewer}"
            "label with an fp32 bundle and no guard."
        )
    return min(rows, available)


def _tell(guard: Guard, progress: Progress) -> None:
    again = (
        f"rows whose margin is below {guard.threshold:.4g} are computed again in "
        f"{guard.precision}, about {guard.estimated_recomputed:.1%} of all"
        if guard.estimated_recomputed > 0
        else "no row of the sample needs to be computed again"
    )
    progress.note(
        f"guard: {again}. On {guard.audit_rows} audited rows, {guard.audit_plain_agreement:.2%} "
        f"have the fp32 label without the guard and {guard.audit_agreement:.2%} with it; the mean "
        f"KL is {guard.audit_plain_mean_kl:.1e} without and {guard.audit_mean_kl:.1e} with it"
    )
    if guard.audit_agreement < guard.target:
        progress.note(
            f"guard: on the {guard.audit_rows} audited rows, fewer labels agree than the requested "
            f"{guard.target:.2%}. Give more `guard_rows`, or a graph that agrees better."
        )
    if guard.max_kl is not None and guard.audit_mean_kl > guard.max_kl:
        progress.note(
            f"guard: the audited mean KL {guard.audit_mean_kl:.1e} exceeds the requested "
            f"{guard.max_kl:.1e}. The audit uses the lower of two thresholds, so the store will be "
            "slightly better."
        )
