"""The labelling stage: begin a store or read what was begun, label what is missing, complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monox_kit.labelling.begin import Begun, LabelJob, begin, read_begun
from monox_kit.labelling.cluster import label_on_cluster
from monox_kit.labelling.config import LabelConfig, LabelSummary
from monox_kit.labelling.totals import Totals
from monox_kit.labelling.worker import Assignment, label_shards
from monox_kit.progress import Progress, Silent
from monox_kit.store import StoreManifest, StoreWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """What this run did to the store.

    Attributes:
        totals: of the rows that it labelled.
        resumed_rows: rows of its shards that earlier runs had labelled.
        plan: how batches were run; empty where nothing was left to do.
        cluster: what Ray's workers did; None without Ray.
    """

    totals: Totals
    resumed_rows: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] | None = None


def label_corpus(
    config: LabelConfig, store: Path | str, *, progress: Progress | None = None
) -> LabelSummary:
    """Write the teacher's logits of every row of a corpus, exactly once and in order, to `store`.

    The corpus is read twice: a check of every row and its digest first, so that a bad row is found
    before the teacher runs, then the labelling. The run that begins a store in a folder checks;
    others take what it found while the files are unchanged. Run again, finished shards are kept.

    Args:
        config: what to label with what.
        store: the store's folder, or a URL whose driver puts an object only where none is; absent,
            or of an earlier run with the same configuration.
        progress: where progress is reported.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    job = LabelJob.opened(config, store, progress or Silent())
    begun = read_begun(job) or begin(job)
    shards = _own_shards(config, begun.manifest)
    # Workers of a cluster claim each shard by themselves.
    claimed = shards if config.engine == "local" else range(0)
    with job.location.writer(begun.manifest, claimed) as writer:
        done = _run_workers(job, begun, writer, shards)
        record = writer.complete(**done.totals.to_json(), plan=done.plan, cluster=done.cluster)
    return _summary(job, begun, done, is_complete=record is not None)


def _own_shards(config: LabelConfig, manifest: StoreManifest) -> range:
    """The shards that this run is to label: none where it only begins the store."""
    if config.begin:
        return range(0)
    shards = range(*(config.shard_range or (0, manifest.num_shards)))
    manifest.require_shards(shards)
    return shards


def _run_workers(job: LabelJob, begun: Begun, writer: StoreWriter, shards: range) -> _Done:
    """Label those of the run's shards that nobody has committed, here or on a cluster."""
    missing = [shard for shard in writer.absent() if shard.index in shards]
    num_rows = sum(len(begun.manifest.shard(index)) for index in shards)
    totals = Totals(guard_learning_s=begun.guard_learning_s)
    done = _Done(totals=totals, resumed_rows=num_rows - sum(map(len, missing)))
    if done.resumed_rows:
        job.progress.note(
            f"{done.resumed_rows:,} rows of earlier runs are kept and are not read again; "
            "`monoxkit store verify` reads every byte"
        )
    if not missing:
        return done
    work = Assignment(
        config=job.config,
        store=str(job.location),
        manifest=begun.manifest,
        marks=begun.scan.marks,
        plan=begun.plan or job.model.plan(begun.scan),
        guard=begun.guard,
    )
    title = f"labelling ({job.config.teacher})"
    with job.progress.task(title, num_rows, "rows", done=done.resumed_rows) as task:
        if job.config.engine == "ray":
            run = label_on_cluster(work.for_cluster(job.corpus, job.model), missing, task)
            totals.add(run.totals)
            done = replace(done, cluster=run.to_json())
        else:
            labeller = begun.labeller or job.model.labeller(work.plan, work.guard)
            label_shards(
                work,
                writer,
                corpus=job.corpus,
                tokenizer=job.model.tokenizer,
                labeller=labeller,
                task=task,
                totals=totals,
            )
    return replace(done, plan=work.plan.to_json())


def _summary(job: LabelJob, begun: Begun, done: _Done, *, is_complete: bool) -> LabelSummary:
    """What the run did, and what is in the store now; a guard that did not pay is noted."""
    found, guard, totals = job.location.info(), begun.guard, done.totals
    took, alone = totals.worker_s + totals.guard_learning_s, totals.reference_alone_s
    if alone is not None and alone < took:
        job.progress.note(
            f"guard: this run computed for {took:.0f} s, the fp32 graph alone would have computed "
            f"for about {alone:.0f}. Learning weighs less on a larger corpus; where most of it is "
            "computing again, label with an fp32 bundle."
        )
    totals.truncation.tell(job.progress, job.model.tokenizer.max_length)
    return LabelSummary(
        store=found.path,
        num_rows=found.num_rows,
        num_rows_done=found.num_rows_done,
        num_shards=found.num_shards,
        num_resumed_rows=done.resumed_rows,
        labelled_s=round(totals.seconds, 3),
        **totals.rates(),
        num_repeated_rows=totals.repeated,
        num_recomputed_rows=found.num_recomputed,
        num_truncated_rows=totals.truncated,
        num_truncated_tokens=totals.truncated_tokens,
        num_document_tokens=totals.document_tokens,
        provider=job.model.provider if job.config.teacher == "onnx" else None,
        plan=done.plan,
        guard=None if guard is None else {**guard.to_json(), **totals.guard_price()},
        cluster=done.cluster,
        complete=is_complete,
        store_digest=found.digest,
    )
