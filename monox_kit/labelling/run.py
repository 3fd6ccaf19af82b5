"""The labelling stage: check the corpus, choose how to run, label window by window, complete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monox_kit.bundle import FP32_FILE, ONNX_FILE, ModelFolder, open_folder
from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.data import Classifier, Document, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.inference import load_backend, require_runnable
from monox_kit.labelling.config import LabelConfig, LabelSummary
from monox_kit.labelling.guard import Guard, learn_guard
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.labelling.windows import Window, windows
from monox_kit.overlap import Behind, ahead
from monox_kit.progress import Progress, Silent
from monox_kit.scoring import tokenize
from monox_kit.store import LogitStore, ShardBuilder, StoreManifest, StoreWriter, begun_manifest
from monox_kit.store.format import COMPLETE_FILE, STORE_FILE
from monox_kit.tokenizing import Tokenizer
from monox_kit.tuning import RunPlan, default_plan, measured_plan
from monox_kit.validation import checked

if TYPE_CHECKING:
    from monox_kit.onnx_model import SessionPlan

# Rows of each half of the guard's sample: a fiftieth of the corpus, within these.
_GUARD_ROWS = (200, 2_000)
_GUARD_FRACTION = 50
_LEAST_GUARD_ROWS = 50
# Rows that the lengths of the corpus are judged by, for the run plan.
_PLAN_ROWS = 512


def label_corpus(
    config: LabelConfig, store: Path, *, progress: Progress | None = None
) -> LabelSummary:
    """Write the teacher's logits of every row of a corpus, exactly once and in order, to `store`.

    The corpus is read twice: a check of every row and its digest first, so that a bad row costs
    seconds and not hours, then the labelling. Run again, finished shards are kept.

    Args:
        config: what to label with what.
        store: the store's folder; absent, or of an earlier run with the same configuration.
        progress: where progress is reported.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    config.require_consistent()
    return _Run(config, store, progress or Silent()).label()


class _Run:
    """One labelling run: what its steps share."""

    def __init__(self, config: LabelConfig, store: Path, progress: Progress) -> None:
        self._config = config
        self._store = store
        self._progress = progress
        self._folder = open_folder(config.model, progress)
        self._provider = _provider(config, self._folder)
        require_runnable(config.teacher, self._provider, config.device)
        self._folder.require_backend(config.teacher)
        if config.guard is not None:
            self._folder.require_reference()
        max_length = self._folder.resolve_max_length(config.max_length)
        self._tokenizer = Tokenizer(self._folder.path, max_length)
        self._labels = self._folder.labels
        self._corpus = Corpus(config.corpus)
        self._totals = Totals()

    def label(self) -> LabelSummary:
        """Do all of it; see `label_corpus`."""
        config = self._config
        begun = begun_manifest(self._store)
        is_finished = (self._store / COMPLETE_FILE).exists()
        summary = self._corpus.scan(
            progress=self._progress,
            labels=None if config.ignore_labels else self._labels,
            mark_every=config.shard_rows,
            sample_rows=0 if is_finished else self._sample_rows(is_new=begun is None),
        )
        self._folder.require_pairs(summary.has_pairs, ", ".join(self._corpus.files))
        guard = None
        if begun is not None:
            # The guard that the store was begun with; other settings are refused before any work.
            guard = Guard.from_fingerprint(begun.fingerprint) if config.guard else None
            begun.require_equal(self._manifest(summary, guard), self._store / STORE_FILE)
        plan = None if is_finished else self._plan(summary)
        teacher = self._teacher(plan) if plan is not None else None
        if teacher is not None and config.guard is not None:
            guard = guard or self._learn(teacher, summary, config.guard)
            teacher.guard = guard
        manifest = self._manifest(summary, guard)
        summary = replace(summary, sample=())
        with StoreWriter(self._store, manifest) as writer:
            missing = writer.missing
            resumed = summary.num_rows - sum(map(len, missing))
            if missing and teacher is not None:
                stream = ahead(windows(self._corpus, missing, summary, self._tokenizer))
                with closing(stream):
                    self._label_windows(stream, teacher, writer, summary, resumed)
            ran = plan.to_json() if missing and plan is not None else {}
            record = writer.complete(**self._totals.to_json(), plan=ran)
        finished = LogitStore.open(self._store)
        return LabelSummary(
            store=self._store,
            num_rows=record.num_rows,
            num_shards=record.num_shards,
            num_resumed_rows=resumed,
            labelled_s=round(self._totals.seconds, 3),
            **self._totals.rates(),
            num_repeated_rows=self._totals.repeated,
            num_recomputed_rows=finished.info().num_recomputed,
            provider=self._provider if config.teacher == "onnx" else None,
            plan=ran,
            guard=self._guard_report(guard),
            store_digest=finished.digest,
        )

    def _label_windows(
        self,
        stream: Iterator[Window],
        teacher: Teacher,
        writer: StoreWriter,
        summary: CorpusSummary,
        resumed: int,
    ) -> None:
        """Label and write: the next window is read and the last one written meanwhile."""
        started = time.perf_counter()
        title = f"labelling ({self._config.teacher})"
        sink = _ShardSink(writer, self._labels, self._config.ignore_labels)
        with (
            self._progress.task(title, summary.num_rows, "rows", done=resumed) as task,
            sink,
            Behind() as behind,
        ):
            for window in stream:
                logits, recomputed = teacher.label(window.texts, task, self._totals)
                behind.do(partial(sink.add, window, logits, recomputed))
            behind.wait()
            self._totals.seconds = time.perf_counter() - started

    def _sample_rows(self, *, is_new: bool) -> int:
        """Rows of the scan's sample: for the run plan, and for the guard of a new store."""
        config = self._config
        if config.guard is None or not is_new:
            return _PLAN_ROWS
        return max(_PLAN_ROWS, 2 * (config.guard_rows or _GUARD_ROWS[1]))

    def _plan(self, summary: CorpusSummary) -> RunPlan:
        """What was asked for; else, for ONNX Runtime, what is fastest here."""
        config = self._config
        if config.teacher == "torch":
            device = config.device.partition(":")[0]
            plan = default_plan(device, batch_tokens=config.batch_tokens)
            return replace(plan, session=None)
        plan = default_plan(self._provider, config.sessions, config.threads, config.batch_tokens)
        if plan.chosen_by == "asked":
            return plan
        texts = tokenize(self._tokenizer, summary.sample[:_PLAN_ROWS])
        mean_tokens = float(texts.encoded.lengths[texts.distinct].mean())
        return measured_plan(
            self._classifier,
            texts,
            provider=self._provider,
            model_digest=self._folder.model_digest,
            max_length=self._tokenizer.max_length,
            corpus_tokens=int(mean_tokens * summary.num_rows),
            progress=self._progress,
        )

    def _teacher(self, plan: RunPlan) -> Teacher:
        reference = None
        if self._config.guard is not None:
            reference = self._classifier(plan.session, FP32_FILE)
        return Teacher(self._classifier(plan.session), reference, plan.batch_tokens)

    def _classifier(self, plan: SessionPlan | None, file: str = ONNX_FILE) -> Classifier:
        config = self._config
        return load_backend(
            self._folder,
            config.teacher,
            provider=self._provider,
            plan=plan,
            file=file,
            device=config.device,
            precision=config.precision or "fp32",
            compiled=config.compiled,
        )

    def _learn(self, teacher: Teacher, summary: CorpusSummary, target: float) -> Guard:
        """The guard of a new store, learned on the corpus's sample with the run's own plan.

        Raises:
            ConfigError: the corpus is too small to learn on.
        """
        least, most = _GUARD_ROWS
        asked = self._config.guard_rows
        rows = asked or min(most, max(least, summary.num_rows // _GUARD_FRACTION))
        available = len(summary.sample) // 2
        if rows > available and (asked is not None or available < _LEAST_GUARD_ROWS):
            raise ConfigError(
                f"--guard: expected a corpus of at least {2 * (asked or _LEAST_GUARD_ROWS)} rows, "
                f"for two halves that audit each other, found {summary.num_rows}. Give fewer "
                "--guard-rows, or label with an fp32 bundle and no guard."
            )
        texts = tokenize(self._tokenizer, summary.sample[: 2 * min(rows, available)])
        started = time.perf_counter()
        with self._progress.task("learning the guard", 2 * len(texts), "rows") as task:
            fast, reference = teacher.both(texts, task)
        guard = learn_guard(fast, reference, target=target)
        self._totals.guard_learning_s = time.perf_counter() - started
        self._progress.note(
            f"guard: margins under {guard.threshold:.4g} are computed again, about "
            f"{guard.estimated_recomputed:.1%} of the rows; agreement on {guard.audit_rows} "
            f"rows {guard.audit_plain_agreement:.2%} without it, {guard.audit_agreement:.2%} with"
        )
        if guard.audit_agreement < target:
            self._progress.note(
                f"guard: the audit on {guard.audit_rows} rows is below the {target:.2%} aimed at. "
                "Give more --guard-rows, or a graph that agrees better."
            )
        return guard

    def _guard_report(self, guard: Guard | None) -> Mapping[str, Any] | None:
        if guard is None:
            return None
        return {**guard.to_fingerprint(), **self._totals.guard_price()}

    def _manifest(self, summary: CorpusSummary, guard: Guard | None) -> StoreManifest:
        """What the store is made from; a resumed run must agree in every field."""
        config, folder = self._config, self._folder
        record = folder.record
        exported = record.precision if record else "fp32"
        fingerprint = {
            # Not the path as typed: a moved run can go on. The digest tells teachers apart.
            "teacher": folder.path.name if Path(config.model).exists() else config.model,
            "teacher_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            "backend": config.teacher,
            "precision": exported if config.teacher == "onnx" else config.precision or "fp32",
            "provider": self._provider if config.teacher == "onnx" else None,
            "max_length": self._tokenizer.max_length,
            "corpus_digest": summary.digest,
            "gold_labels": "ignored" if config.ignore_labels else "kept",
            "guard_target": config.guard,
            "guard_rows": config.guard_rows,
        }
        if guard is not None:
            fingerprint |= {"guard_digest": folder.reference_digest, **guard.to_fingerprint()}
            fingerprint["guard_target"] = config.guard  # the one asked for now, to be compared
        return StoreManifest(
            labels=self._labels,
            num_rows=summary.num_rows,
            shard_rows=config.shard_rows,
            dtype=config.dtype,
            has_pairs=summary.has_pairs,
            fingerprint=fingerprint,
        )


class _ShardSink:
    """Puts labelled windows into shards; a shard is committed with its last window.

    Use as a context manager: left by an error, the shard at hand is given up.
    """

    def __init__(self, writer: StoreWriter, labels: LabelSet, ignore_labels: bool) -> None:
        self._writer = writer
        self._labels = labels
        self._ignore_labels = ignore_labels
        self._open = ExitStack()
        self._builder: ShardBuilder | None = None

    def add(
        self, window: Window, logits: npt.NDArray[np.float32], recomputed: npt.NDArray[np.bool_]
    ) -> None:
        """Write one window, which follows the one before."""
        if window.starts_shard:
            self._builder = self._open.enter_context(
                self._writer.shard(window.shard, window.text_bytes)
            )
        assert self._builder is not None  # a shard's first window comes first
        self._builder.append(
            logits=logits,
            documents=window.documents,
            labels=_gold(window.documents, self._labels, self._ignore_labels),
            recomputed=recomputed,
        )
        if window.ends_shard:
            self._builder = None
            self._open.close()

    def __enter__(self) -> _ShardSink:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def _provider(config: LabelConfig, folder: ModelFolder) -> str:
    """The execution provider that `auto` stands for: what the bundle was measured on."""
    if config.provider != "auto":
        return config.provider
    if config.teacher == "torch" or folder.record is None:
        return "cpu"
    return str(folder.record.checks.get("provider", "cpu"))


def _gold(documents: Sequence[Document], labels: LabelSet, ignore: bool) -> npt.NDArray[np.int32]:
    """[n] int32 class indices, -1 without a gold label."""
    names = (None if ignore else d.label for d in documents)
    indices = (-1 if name is None else labels.index(name, "corpus") for name in names)
    return np.fromiter(indices, np.int32, len(documents))
