"""The labelling stage: check the corpus, choose how to run, label window by window, complete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.labelling.cluster import absolute, label_on_cluster, require_cluster
from monox_kit.labelling.config import LabelConfig, LabelSummary
from monox_kit.labelling.guard import Guard
from monox_kit.labelling.guarding import Guarding
from monox_kit.labelling.kept_scan import KeptScan
from monox_kit.labelling.shards import Assignment, TeacherModel, label_shards
from monox_kit.labelling.teacher import Teacher, Totals
from monox_kit.models.run_plan import RunPlan, default_plan, measured_plan
from monox_kit.models.scoring import tokenize
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.store import (
    RemoteWriter,
    ShardRange,
    StoreManifest,
    StorePlace,
    StoreWriter,
    staged_place,
    store_url,
)
from monox_kit.store.format import STORE_FILE
from monox_kit.validation import checked

# Rows that the lengths of the corpus are judged by, for the run plan.
_PLAN_ROWS = 512


def label_corpus(
    config: LabelConfig, store: Path | str, *, progress: Progress | None = None
) -> LabelSummary:
    """Write the teacher's logits of every row of a corpus, exactly once and in order, to `store`.

    The corpus is read twice: a check of every row and its digest first, so that a bad row is found
    before the teacher runs, then the labelling. The first run of a store in a folder checks; others
    take what it found while the files are unchanged. Run again, finished shards are kept.

    Args:
        config: what to label with what.
        store: the store's folder, or a URL whose driver puts an object only where none is; absent,
            or of an earlier run with the same configuration.
        progress: where progress is reported.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    config.require_consistent()
    url = store_url(store)
    named: Path | str = url or Path(store)
    if config.engine == "ray":  # its workers start in folders of their own
        named = url or Path(store).absolute()
        staging = config.staging and str(Path(config.staging).absolute())
        config = replace(config, staging=staging)
    place = staged_place(named, config.staging)
    if config.engine == "ray":
        require_cluster(config)
    place.require_writable()
    return _Run(config, named, place, progress or Silent()).label()


class _Run:
    """One labelling run: what its steps share."""

    def __init__(
        self, config: LabelConfig, store: Path | str, place: StorePlace, progress: Progress
    ) -> None:
        self._config = config
        self._store = store
        self._place = place
        self._progress = progress
        self._model = TeacherModel(config, progress)
        self._corpus = Corpus(config.corpus)
        self._kept = KeptScan(self._corpus, config.shard_rows, place, progress)
        self._totals = Totals()
        self._guarding = Guarding(config, self._model, self._totals, progress)

    def label(self) -> LabelSummary:
        """Do all of it; see `label_corpus`."""
        with ExitStack() as turn:
            return self._label(turn, *self._prepared(turn))

    def _label(
        self, turn: ExitStack, work: Assignment, teacher: Teacher | None, scan: bytes | None
    ) -> LabelSummary:
        """Label what is missing; others have their turn when the store has been begun."""
        config = self._config
        manifest = work.manifest
        shards = range(*(config.shard_range or (0, manifest.num_shards)))
        num_rows = sum(len(manifest.shard(index)) for index in shards)
        # Workers of a cluster claim each shard by themselves.
        claim = shards if config.engine == "local" else range(0)
        plan, cluster = {}, None
        with self._place.writer(manifest, claim) as writer:
            if scan is not None:
                self._kept.keep(scan)
            turn.close()
            missing = [shard for shard in writer.absent() if shard.index in shards]
            resumed = num_rows - sum(map(len, missing))
            if missing:
                plan = work.plan.to_json()
                title = f"labelling ({config.teacher})"
                with self._progress.task(title, num_rows, "rows", done=resumed) as task:
                    if config.engine == "ray":
                        cluster = self._label_on_cluster(work, missing, task)
                    else:
                        self._label_here(work, teacher, writer, task)
            if resumed:
                self._progress.note(
                    f"{resumed:,} rows of earlier runs are kept and were not read again; "
                    "`monoxkit store verify` reads every byte"
                )
            record = writer.complete(**self._totals.to_json(), plan=plan, cluster=cluster)
        self._guarding.warn_of_price()
        found = self._place.info()
        return LabelSummary(
            store=self._store,
            num_rows=found.num_rows,
            num_rows_done=found.num_rows_done,
            num_shards=found.num_shards,
            num_resumed_rows=resumed,
            labelled_s=round(self._totals.seconds, 3),
            **self._totals.rates(),
            num_repeated_rows=self._totals.repeated,
            num_recomputed_rows=found.num_recomputed,
            provider=self._model.provider if config.teacher == "onnx" else None,
            plan=plan,
            guard=self._guarding.report(work.guard),
            cluster=cluster,
            complete=record is not None,
            store_digest=found.digest,
        )

    def _prepared(self, turn: ExitStack) -> tuple[Assignment, Teacher | None, bytes | None]:
        """All that comes before there is a store: the scan, the run plan and the guard.

        The first of several runs does so in its `turn`, and the others take what it found. The
        teacher is None where no shard is to be labelled in this process; the scan's bytes are None
        where there is nothing to keep.
        """
        config, folder = self._config, self._model.folder
        labels = None if config.ignore_labels else folder.labels
        about = {
            "teacher": folder.model_digest,
            "labels": labels and labels.to_json(),
            "has_pairs": folder.record and folder.record.has_pairs,
        }
        begun = self._kept.begun(turn, about)
        is_finished = self._place.is_finished()
        summary, scan = self._kept.take(begun), None
        # As the first row, so all: a scan of hours for another model's corpus is spared.
        has_pairs = self._corpus.has_pairs if summary is None else summary.has_pairs
        folder.require_pairs(has_pairs, ", ".join(self._corpus.files))
        if summary is None:
            summary = self._corpus.scan(
                progress=self._progress,
                labels=labels,
                mark_every=config.shard_rows,
                sample_rows=0 if is_finished else self._sample_rows(is_new=begun is None),
            )
            if not is_finished:
                scan = self._kept.encode(summary, summary.sample[:_PLAN_ROWS])
        guard = None
        if begun is not None:
            # The guard that the store was begun with; other settings are refused before any work.
            guard = Guard.from_fingerprint(begun.fingerprint) if config.guard else None
            begun.require_equal(
                self._manifest(summary, guard, begun), f"{self._place}/{STORE_FILE}"
            )
        if config.shard_range is not None:
            self._manifest(summary, guard, begun).require_shards(range(*config.shard_range))
        plan = self._default_plan() if is_finished else self._plan(summary)
        learns = config.guard is not None and guard is None
        teacher = None
        if not is_finished and (config.engine == "local" or learns):
            teacher = self._model.teacher(plan, guard)
            if learns:
                guard = self._guarding.guard_new_store(teacher, plan, summary, self._place)
        work = Assignment(
            config=config,
            store=self._store,
            manifest=self._manifest(summary, guard, begun),
            marks=summary.marks,
            plan=plan,
            guard=guard,
        )
        return work, teacher, scan

    def _label_here(
        self,
        work: Assignment,
        teacher: Teacher | None,
        writer: StoreWriter | RemoteWriter,
        task: ProgressTask,
    ) -> None:
        # Only a store whose complete.json was deleted meanwhile has shards left to label here.
        teacher = teacher or self._model.teacher(work.plan, work.guard)
        label_shards(
            work,
            writer,
            corpus=self._corpus,
            tokenizer=self._model.tokenizer,
            teacher=teacher,
            task=task,
            totals=self._totals,
        )

    def _label_on_cluster(
        self, work: Assignment, missing: Sequence[ShardRange], task: ProgressTask
    ) -> dict[str, Any]:
        config = absolute(work.config, self._corpus)
        if config.teacher == "onnx":
            config = replace(config, provider=self._model.provider)  # what `auto` stands for
        run = label_on_cluster(replace(work, config=config), missing, task)
        self._totals.add(run.totals)
        return run.to_json()

    def _sample_rows(self, *, is_new: bool) -> int:
        """Rows of the scan's sample: for the run plan, and for the guard of a new store."""
        return max(_PLAN_ROWS, self._guarding.sample_rows if is_new else 0)

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
        return default_plan(self._model.provider, sessions, config.threads, config.batch_tokens)

    def _plan(self, summary: CorpusSummary) -> RunPlan:
        """What was asked for; else, for ONNX Runtime, what is fastest here."""
        plan = self._default_plan()
        if self._config.teacher == "torch" or plan.chosen_by == "asked":
            return plan
        texts = tokenize(self._model.tokenizer, summary.sample[:_PLAN_ROWS])
        mean_tokens = float(texts.encoded.lengths[texts.distinct].mean())
        return measured_plan(
            self._model.classifier,
            texts,
            provider=self._model.provider,
            model_digest=self._model.folder.model_digest,
            precision=self._model.folder.run_precision,
            max_length=self._model.tokenizer.max_length,
            corpus_tokens=int(mean_tokens * summary.num_rows),
            progress=self._progress,
        )

    def _teacher_name(self, begun: StoreManifest | None) -> Any:
        """What people know the teacher by; the digest tells teachers apart.

        A store that the same teacher began keeps its name, whatever the folder is called by now.
        """
        folder, model = self._model.folder, self._config.model
        if begun is not None and begun.fingerprint.get("teacher_digest") == folder.model_digest:
            return begun.fingerprint.get("teacher")
        return folder.path.name if Path(model).exists() else model

    def _manifest(
        self, summary: CorpusSummary, guard: Guard | None, begun: StoreManifest | None
    ) -> StoreManifest:
        """What the store is made from; a resumed run must agree with `begun` in every field."""
        config, folder = self._config, self._model.folder
        record = folder.record
        exported = record.precision if record else "fp32"
        fingerprint = {
            "teacher": self._teacher_name(begun),
            "teacher_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            "backend": config.teacher,
            "precision": exported if config.teacher == "onnx" else config.precision or "fp32",
            "provider": self._model.provider if config.teacher == "onnx" else None,
            "max_length": self._model.tokenizer.max_length,
            "corpus_digest": summary.digest,
            "gold_labels": "ignored" if config.ignore_labels else "kept",
            "guard_target": config.guard,
            "guard_rows": config.guard_rows,
        }
        if guard is not None and config.guard is not None:
            # What is asked for now, to be compared with what the store was begun with.
            asked = replace(
                guard,
                target=config.guard,
                precision=config.guard_precision,
                max_kl=config.guard_kl,
            )
            fingerprint |= {"guard_digest": folder.reference_digest, **asked.to_fingerprint()}
        return StoreManifest(
            labels=folder.labels,
            num_rows=summary.num_rows,
            shard_rows=config.shard_rows,
            dtype=config.dtype,
            has_pairs=summary.has_pairs,
            fingerprint=fingerprint,
        )
