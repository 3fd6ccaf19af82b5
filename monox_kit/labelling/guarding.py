"""The guard of a run: learned before a new store is begun, reported and priced at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from monox_kit.corpora.corpus import CorpusSummary
from monox_kit.data import Classifier
from monox_kit.errors import ConfigError
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard, learn_guard
from monox_kit.labelling.shards import TeacherModel
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.models.folder import FP32, RunPrecision
from monox_kit.models.run_plan import RunPlan
from monox_kit.models.scoring import tokenize
from monox_kit.problem import problem_of
from monox_kit.progress import Progress
from monox_kit.store import StorePlace

# Rows of each half of the sample: a fiftieth of the corpus, within these.
_LEAST_ROWS, _MOST_ROWS = 200, 2_000
_FRACTION = 50
# Fewer tell nothing.
_LEAST_GIVEN_ROWS = 50


class Guarding:
    """What a labelling run does about its guard.

    Args:
        config: of the run; without `guard` nothing is learned or told.
        model: the teacher's.
        totals: of the run; the time for learning is noted there.
        progress: told what was learned.
    """

    def __init__(
        self, config: LabelConfig, model: TeacherModel, totals: Totals, progress: Progress
    ) -> None:
        self._config = config
        self._model = model
        self._totals = totals
        self._progress = progress

    @property
    def sample_rows(self) -> int:
        """Rows of the corpus that learning may want."""
        if self._config.guard is None:
            return 0
        return 2 * (self._config.guard_rows or _MOST_ROWS)

    def guard_new_store(
        self, teacher: Teacher, plan: RunPlan, summary: CorpusSummary, place: StorePlace
    ) -> Guard:
        """The guard of a new store, which the teacher follows from now on.

        Raises:
            ConfigError: the corpus is too small to learn on.
        """
        model, asked = self._model, self._config.guard_precision
        graphs = {one: model.reference(plan, one) for one in dict.fromkeys((FP32, asked))}
        learned = self._learn(teacher, graphs, summary)
        # Another writer of the same store may have begun it meanwhile, with its guard.
        begun = place.begun()
        guard = (begun and Guard.from_fingerprint(begun.fingerprint)) or learned
        reference = graphs.get(guard.precision) or model.reference(plan, guard.precision)
        teacher.guard_with(guard, reference)
        return guard

    def report(self, guard: Guard | None) -> Mapping[str, Any] | None:
        """What was learned and what it cost, as plain JSON values."""
        return None if guard is None else {**guard.to_json(), **self._totals.guard_price()}

    def warn_of_price(self) -> None:
        """Say so where the fp32 graph alone would have been faster than the guarded run."""
        took = self._totals.worker_s + self._totals.guard_learning_s
        alone = self._totals.reference_alone_s
        if alone is not None and alone < took:
            self._progress.note(
                f"guard: this run computed for {took:.0f} s, the fp32 graph alone would have "
                f"computed for about {alone:.0f}. Learning weighs less on a larger corpus; where "
                "most of it is computing again, label with an fp32 bundle."
            )

    def _learn(
        self,
        teacher: Teacher,
        graphs: Mapping[RunPrecision, Classifier],
        summary: CorpusSummary,
    ) -> Guard:
        """The guard of the corpus's sample, learned with the run's own plan.

        Args:
            teacher: has the graph that is to be trusted.
            graphs: the fp32 graph in fp32, and in what it is to compute again in.
            summary: holds the sample.
        """
        config = self._config
        assert config.guard is not None  # nothing is learned without
        rows = self._half_rows(summary)
        texts = tokenize(self._model.tokenizer, summary.sample[: 2 * rows])
        started = time.perf_counter()
        num_rows = (1 + len(graphs)) * len(texts)
        with self._progress.task("learning the guard", num_rows, "rows") as task:
            fast = teacher.sample(texts, task)
            again = {name: teacher.sample(texts, task, graph) for name, graph in graphs.items()}
        guard = learn_guard(
            fast,
            again[FP32],
            problem_of(self._model.folder.labels),
            target=config.guard,
            again=again[config.guard_precision],
            precision=config.guard_precision,
            max_kl=config.guard_kl,
        )
        self._totals.guard_learning_s = time.perf_counter() - started
        self._tell(guard, config.guard)
        return guard

    def _half_rows(self, summary: CorpusSummary) -> int:
        """Rows of each half of the sample."""
        asked = self._config.guard_rows
        rows = asked or min(_MOST_ROWS, max(_LEAST_ROWS, summary.num_rows // _FRACTION))
        available = len(summary.sample) // 2
        if rows > available and (asked is not None or available < _LEAST_GIVEN_ROWS):
            option = "--guard" if asked is None else f"--guard-rows {asked}"
            fewer = f"--guard-rows {available}, or " if available >= _LEAST_GIVEN_ROWS else ""
            raise ConfigError(
                f"{option}: expected a corpus of at least {2 * (asked or _LEAST_GIVEN_ROWS)} rows, "
                f"for two halves that audit each other, found {summary.num_rows}. Next: {fewer}"
                "label with an fp32 bundle and no guard."
            )
        return min(rows, available)

    def _tell(self, guard: Guard, target: float) -> None:
        """Say what was learned, and where it is not what was asked for."""
        self._progress.note(
            f"guard: margins under {guard.threshold:.4g} are computed again in {guard.precision}, "
            f"about {guard.estimated_recomputed:.1%} of the rows; agreement on {guard.audit_rows} "
            f"rows {guard.audit_plain_agreement:.2%} without it, {guard.audit_agreement:.2%} with; "
            f"mean KL {guard.audit_plain_mean_kl:.1e} without, {guard.audit_mean_kl:.1e} with"
        )
        if guard.audit_agreement < target:
            self._progress.note(
                f"guard: the audit on {guard.audit_rows} rows is below the {target:.2%} aimed at. "
                "Give more --guard-rows, or a graph that agrees better."
            )
        if guard.max_kl is not None and guard.audit_mean_kl > guard.max_kl:
            self._progress.note(
                f"guard: the audit's mean KL of {guard.audit_mean_kl:.1e} is above the "
                f"{guard.max_kl:.1e} aimed at. It judges half of its rows by a smaller threshold "
                "than the one that is kept: labelling comes closer."
            )
