"""Labelling shards of a store: what every worker of a run does, in this process or in another."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monox_kit.corpora.corpus import Corpus
from monox_kit.corpora.marks import MarksByIndex
from monox_kit.data import Classifier, LabelSet
from monox_kit.errors import ConfigError, ProviderError
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.labelling.windows import Window, windows
from monox_kit.models.folder import BF16, ONNX_FILE, ModelFolder, RunPrecision, open_folder
from monox_kit.models.load import load_backend, require_runnable
from monox_kit.models.onnx_backend import SessionPlan, require_bf16
from monox_kit.models.run_plan import RunPlan
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.overlap import Behind, ahead
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, ProgressTask
from monox_kit.store import RemoteWriter, ShardBuilder, StoreManifest, StoreWriter


class TeacherModel:
    """The model of a run, opened and checked; graphs are loaded when they are asked for.

    Attributes:
        folder: the model's folder.
        provider: ONNX Runtime's execution provider.
        tokenizer: with the run's cut.
    """

    def __init__(self, config: LabelConfig, progress: Progress) -> None:
        """Open the folder.

        Raises:
            ModelError: it cannot label.
            ProviderError: runtime, provider or device is not there.
        """
        self._config = config
        self.folder = open_folder(config.model, progress)
        self.provider = _provider(config, self.folder)
        require_runnable(config.teacher, self.provider, config.device)
        self.folder.require_backend(config.teacher)
        if config.guard is not None:
            self.folder.require_reference()
        if config.guard_precision == BF16:
            self._require_bf16_guard()
        max_length = self.folder.resolve_max_length(config.max_length)
        self.tokenizer = Tokenizer(self.folder.path, max_length)

    def _require_bf16_guard(self) -> None:
        """Check that the guard can compute again in bf16, and that this says something new.

        Raises:
            ConfigError: the bundle itself is run in bf16.
            ProviderError: provider or CPU has no bf16.
        """
        if self.folder.run_precision == BF16:
            raise ConfigError(
                f"--guard-precision bf16: expected a bundle in another precision, found "
                f"{self.folder.path} in bf16, which its guard computes again in fp32. Leave it out."
            )
        try:
            require_bf16(self.provider)
        except ProviderError as error:
            raise ProviderError(
                f"--guard-precision {error} A store that was begun with it is finished on machines "
                "that have it."
            ) from error

    def teacher(self, plan: RunPlan, guard: Guard | None = None) -> Teacher:
        """The teacher under a plan; guarded where there is a guard already."""
        teacher = Teacher(self.classifier(plan.session), plan.batch_tokens)
        if guard is not None:
            teacher.guard_with(guard, self.reference(plan, guard.precision))
        return teacher

    def reference(self, plan: RunPlan, precision: RunPrecision) -> Classifier:
        """The guard's fp32 graph under a plan.

        Raises:
            ProviderError: it cannot be computed in this precision here.
        """
        return self.classifier(plan.session, self.folder.reference_file, precision)

    def classifier(
        self,
        plan: SessionPlan | None,
        file: str = ONNX_FILE,
        precision: RunPrecision | None = None,
    ) -> Classifier:
        """One of the folder's graphs, or PyTorch's model; see `load_backend`."""
        config = self._config
        return load_backend(
            self.folder,
            config.teacher,
            provider=self.provider,
            plan=plan,
            file=file,
            device=config.device,
            precision=precision or config.precision,
            compiled=config.compiled,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What a worker must know to label shards of a store: plain values that can be sent.

    Attributes:
        config: the run's.
        store: the store's folder or URL.
        manifest: what the store is a store of.
        marks: what the scan found of each shard's rows, by index.
        plan: how batches are run.
        guard: which rows the fp32 graph settles, and in what precision; None without one.
    """

    config: LabelConfig
    store: Path | str
    manifest: StoreManifest
    marks: MarksByIndex
    plan: RunPlan
    guard: Guard | None


def label_shards(
    assignment: Assignment,
    writer: StoreWriter | RemoteWriter,
    *,
    corpus: Corpus,
    tokenizer: Tokenizer,
    teacher: Teacher,
    task: ProgressTask,
    totals: Totals,
) -> None:
    """Label what `writer` misses; the next window is read and the last one written meanwhile.

    Args:
        assignment: what is labelled.
        writer: has claimed the shards.
        corpus: the assignment's.
        tokenizer: the teacher's.
        teacher: scores the windows.
        task: told the rows.
        totals: counted up.
    """
    started = time.perf_counter()
    num_rows = assignment.manifest.num_rows
    stream = ahead(windows(corpus, writer.missing, assignment.marks, num_rows, tokenizer))
    sink = _ShardSink(writer, assignment.manifest.labels, assignment.config.ignore_labels)
    with closing(stream), sink, Behind() as behind:
        for window in stream:
            logits, recomputed = teacher.label(window.texts, task, totals)
            behind.do(partial(sink.add, window, logits, recomputed))
        behind.wait()
        took = time.perf_counter() - started
        totals.worker_s += took
        totals.seconds += took


class _ShardSink:
    """Puts labelled windows into shards; a shard is committed with its last window.

    Use as a context manager: left by an error, the shard at hand is given up.
    """

    def __init__(
        self, writer: StoreWriter | RemoteWriter, labels: LabelSet, ignore_labels: bool
    ) -> None:
        self._writer = writer
        self._problem = problem_of(labels)
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
            labels=self._problem.encode(window.documents, "corpus", ignore=self._ignore_labels),
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
