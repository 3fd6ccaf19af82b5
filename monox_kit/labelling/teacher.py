"""The teacher: its model, opened and checked, and the model at work on one window of texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from monox_kit.corpora.corpus import CorpusSummary
from monox_kit.data import Classifier, Int64s, Logits
from monox_kit.errors import ConfigError, ProviderError
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard
from monox_kit.labelling.kept_scan import SAMPLE_ROWS
from monox_kit.labelling.totals import Totals
from monox_kit.models.folder import BF16, ONNX_FILE, ModelFolder, RunPrecision, open_folder
from monox_kit.models.graph_classifier import SessionPlan, require_bf16
from monox_kit.models.load import OpenModel, require_runnable
from monox_kit.models.providers import installed_like
from monox_kit.models.run_plan import RunPlan, default_plan, measured_plan
from monox_kit.models.scoring import BatchDone, Scored, Texts, score_texts, tokenize
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, ProgressTask


class TeacherModel:
    """The teacher of a run, opened and checked; graphs are loaded when they are asked for.

    Attributes:
        folder: the model's folder.
        provider: what runs its graphs, one of `PROVIDERS`.
        tokenizer: with the run's cut.
    """

    def __init__(self, config: LabelConfig, progress: Progress) -> None:
        """Open the folder.

        Raises:
            ModelError: it cannot label.
            ProviderError: runtime, provider or device is not there.
        """
        self._config = config
        self._progress = progress
        self.folder = open_folder(config.model, progress).named(config.corpus.label_names)
        self.provider = _provider(config, self.folder, progress)
        require_runnable(config.teacher, self.provider, config.device)
        self.folder.require_backend(config.teacher)
        if config.guard is not None:
            self.folder.require_reference()
        if config.guard_precision == BF16:
            self._require_bf16_guard()
        self._opened = OpenModel(
            self.folder,
            config.teacher,
            config.max_length,
            long=config.long,
            provider=self.provider,
            device=config.device,
        )
        self.tokenizer = self._opened.tokenizer

    def _require_bf16_guard(self) -> None:
        """Check that the guard can compute again in bf16, and that this says something new.

        Raises:
            ConfigError: the bundle itself is run in bf16.
            ProviderError: provider or CPU has no bf16.
        """
        if self.folder.run_precision == BF16:
            raise ConfigError(
                f"`guard_precision` bf16: expected a bundle in another precision, found "
                f"{self.folder.path} in bf16, which its guard computes again in fp32. Leave it out."
            )
        try:
            require_bf16(self.provider)
        except ProviderError as error:
            raise ProviderError(
                f"`guard_precision` {error} A store that was begun with it is finished on machines "
                "that have it."
            ) from error

    def plan(self, scan: CorpusSummary) -> RunPlan:
        """How batches are run: as asked for; else, for ONNX Runtime, what is fastest here."""
        plan = self._default_plan()
        if self._config.teacher == "torch" or plan.chosen_by == "asked":
            return plan
        texts = tokenize(self.tokenizer, scan.sample[:SAMPLE_ROWS])
        mean_tokens = float(texts.document_lengths.mean())
        return measured_plan(
            self.graph,
            texts,
            provider=self.provider,
            model_digest=self.folder.model_digest,
            precision=self.folder.run_precision,
            max_length=self.tokenizer.max_length,
            corpus_tokens=int(mean_tokens * scan.num_rows),
            progress=self._progress,
        )

    def _default_plan(self) -> RunPlan:
        """What was asked for, and the plain defaults for the rest."""
        config = self._config
        if config.teacher == "torch":
            device = config.device.partition(":")[0]
            plan = default_plan(device, batch_tokens=config.batch_tokens)
            return replace(plan, session=None)
        # A worker of a cluster has the cores that were asked for, not the whole machine.
        alone = config.engine == "ray" and config.threads is not None
        sessions = 1 if alone and config.sessions is None else config.sessions
        return default_plan(self.provider, sessions, config.threads, config.batch_tokens)

    def labeller(self, plan: RunPlan, guard: Guard | None = None) -> Labeller:
        """The model at work under a plan; guarded where there is a guard already."""
        labeller = Labeller(self.graph(plan.session), plan.batch_tokens)
        if guard is not None:
            labeller.guard_with(guard, self.reference(plan, guard.precision))
        return labeller

    def reference(self, plan: RunPlan, precision: RunPrecision) -> Classifier:
        """The guard's fp32 graph under a plan.

        Raises:
            ProviderError: it cannot be computed in this precision here.
        """
        return self.graph(plan.session, self.folder.reference_file, precision)

    def graph(
        self, plan: SessionPlan | None, file: str = ONNX_FILE, precision: RunPrecision | None = None
    ) -> Classifier:
        """One of the folder's graphs, or PyTorch's model; see `OpenModel.classifier`."""
        return self._opened.classifier(
            plan=plan,
            file=file,
            precision=precision or self._config.precision,
            compiled=self._config.compile,
        )


class Labeller:
    """Labels texts: a graph and, with a guard, the fp32 graph that settles what it may get wrong.

    Args:
        fast: the graph that scores every row.
        batch_tokens: padded tokens per batch.
    """

    def __init__(self, fast: Classifier, batch_tokens: int) -> None:
        self._fast = fast
        self._batch_tokens = batch_tokens
        self._guarded: tuple[Guard, Classifier] | None = None
        self._started_s: float | None = None

    def guard_with(self, guard: Guard, reference: Classifier) -> None:
        """From now on `reference`, the fp32 graph in the guard's precision, settles rows."""
        self._guarded = guard, reference

    def sample(self, texts: Texts, task: ProgressTask, graph: Classifier | None = None) -> Logits:
        """[N, C] logits of N documents by one graph; None for the one that scores every row."""
        scored = self._score(
            graph or self._fast, texts, on_batch=lambda done: task.advance(done.num_rows)
        )
        return scored.logits

    def label(
        self, texts: Texts, task: ProgressTask, totals: Totals
    ) -> tuple[Logits, npt.NDArray[np.bool_]]:
        """Logits [N, C] of N documents, and [N] whether the fp32 graph gave them."""
        if self._started_s is None:
            self._started_s = time.perf_counter()
        started_s = self._started_s

        def count(done: BatchDone) -> None:
            totals.rows += done.num_rows
            totals.tokens += done.num_tokens
            totals.padded_tokens += done.num_padded_tokens
            rate = totals.tokens / max(time.perf_counter() - started_s, 1e-9)
            task.detail(f"{rate:,.0f} tokens/s  padding {totals.padding:.1%}")
            task.advance(done.num_rows)

        scored = self._score(self._fast, texts, on_batch=count)
        totals.repeated += scored.num_repeated
        totals.truncated += scored.truncation.num_truncated_rows
        totals.truncated_tokens += scored.truncation.num_truncated_tokens
        totals.document_tokens += scored.truncation.num_tokens
        recomputed = np.zeros(len(texts), np.bool_)
        if self._guarded is not None:
            guard, reference = self._guarded
            recomputed = guard.distrusts(scored.logits, problem_of(self._fast.labels))
            self._settle(reference, texts, scored.logits, recomputed, totals)
        return scored.logits, recomputed

    def _settle(
        self,
        reference: Classifier,
        texts: Texts,
        logits: Logits,
        recomputed: npt.NDArray[np.bool_],
        totals: Totals,
    ) -> None:
        """Replace the logits of the rows that are not to be trusted, in full batches."""
        rows = np.flatnonzero(recomputed).astype(np.int64)
        if not len(rows):
            return
        started = time.perf_counter()
        settled = self._score(reference, texts, rows=rows)
        logits[rows] = settled.logits
        totals.recomputed += len(rows)
        totals.recomputed_tokens += settled.num_tokens
        totals.recomputing_s += time.perf_counter() - started

    def _score(
        self,
        classifier: Classifier,
        texts: Texts,
        *,
        rows: Int64s | None = None,
        on_batch: Callable[[BatchDone], None] | None = None,
    ) -> Scored:
        return score_texts(
            classifier, texts, rows=rows, batch_tokens=self._batch_tokens, on_batch=on_batch
        )


def _provider(config: LabelConfig, folder: ModelFolder, progress: Progress) -> str:
    """The provider that `auto` stands for: what the bundle was measured on."""
    if config.provider != "auto":
        return config.provider
    if config.teacher == "torch" or folder.record is None:
        return "cpu"
    measured = str(folder.record.checks.get("provider", "cpu"))
    found = installed_like(measured)
    if found != measured:
        progress.note(
            f"the bundle was measured on {measured}, which is not installed: {found}, the other "
            "way to OpenVINO, runs it"
        )
    return found
