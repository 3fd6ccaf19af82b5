"""Beginning a store: the corpus is scanned, the guard learned, and the store put, without a shard.

Everything that decides the store's content is settled here. Runs that label a begun store read what
was settled and wait for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.corpora.languages import require_used, told_languages
from monox_kit.errors import StorageError, StoreCorrupt, StoreNotBegun
from monox_kit.foreign import stored_name
from monox_kit.labelling.cluster import require_cluster
from monox_kit.labelling.config import LabelConfig
from monox_kit.labelling.guard import Guard
from monox_kit.labelling.guard_learning import guard_sample_rows, learn_on_sample
from monox_kit.labelling.kept_scan import SAMPLE_ROWS, encode_scan, read_scan, scan_key
from monox_kit.labelling.teacher import Labeller, TeacherModel
from monox_kit.models.long_texts import long_field
from monox_kit.models.providers import recorded
from monox_kit.models.run_plan import RunPlan
from monox_kit.progress import Progress
from monox_kit.stage import kept_tokenization
from monox_kit.store import StoreLocation, StoreManifest, store_location
from monox_kit.store.format import STORE_FILE
from monox_kit.store.languages import keeping_languages


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelJob:
    """What is labelled with what, opened.

    Attributes:
        config: as asked for.
        location: the store's.
        corpus: its files are found.
        model: the teacher, checked; no graph is loaded.
        progress: where progress is reported.
    """

    config: LabelConfig
    location: StoreLocation
    corpus: Corpus
    model: TeacherModel
    progress: Progress

    @classmethod
    def opened(cls, config: LabelConfig, store: Path | str, progress: Progress) -> LabelJob:
        """Check all that can be checked before the corpus is read.

        Raises:
            MonoxError: by kind; see `monox_kit.errors`.
        """
        location = store_location(store, config.staging)
        if config.engine == "ray":
            require_cluster(config)
        location.require_writable()
        corpus = Corpus(config.corpus, progress)
        require_used(told_languages(config.corpus.language), corpus.files)
        return cls(
            config=config,
            location=location,
            corpus=corpus,
            model=TeacherModel(config, progress),
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """A begun store, and what this run knows of it.

    Attributes:
        manifest: what the store is a store of.
        scan: of the corpus, with a mark for each shard.
        guard: which rows the fp32 graph settles; None without one.
        plan: how batches are run, and `labeller` the graphs under it, where this run has begun the
            store; None where they are not loaded yet.
        guard_learning_s: seconds that learning the guard took this run.
    """

    manifest: StoreManifest
    scan: CorpusSummary
    guard: Guard | None = None
    plan: RunPlan | None = None
    labeller: Labeller | None = None
    guard_learning_s: float = 0.0


def read_begun(job: LabelJob) -> Begun | None:
    """The store as it was begun, if this run's settings are the same; None where nobody began it.

    The corpus is scanned where the store keeps no scan of the files as they are now.

    Raises:
        StoreNotBegun: nobody has begun it, and this run is to label a part of it.
        StoreMismatch: it was begun with other settings; names the fields and both values.
        CorpusError: a row is bad.
    """
    begun = job.location.begun()
    if begun is None and job.config.shard_range is not None:
        raise StoreNotBegun(
            f"{job.location}: `shard_range` needs a store that has been begun, and nobody has "
            "begun this one. Run the same command once with `begin` in place of `shard_range`, "
            "then start the jobs that label its parts."
        )
    if begun is None:
        return None
    scan, to_keep = _kept_scan(job, begun), None
    if scan is None:
        scan, to_keep = _scanned(job)
    job.model.folder.require_pairs(scan.has_pairs, ", ".join(job.corpus.files))
    guard = Guard.from_fingerprint(begun.fingerprint) if job.config.guard else None
    begun.require_equal(_manifest(job, scan, guard, begun), f"{job.location}/{STORE_FILE}")
    if to_keep is not None:
        job.location.begin(begun, to_keep)  # for the runs to come
    return Begun(manifest=begun, scan=scan, guard=guard)


def begin(job: LabelJob) -> Begun:
    """Scan the corpus, choose the run plan, learn the guard, and begin the store with that.

    Nothing is written before all of it has succeeded. Of two runs that do so at once, the first
    begins the store, and the other one goes on with what was begun.

    Raises:
        CorpusError: a row is bad.
        ConfigError: the corpus is too small to learn the guard on.
        StorageError: the disk or the service refused.
    """
    config, model, location = job.config, job.model, job.location
    scan, to_keep = _scanned(job)
    plan, labeller, learned = model.plan(scan), None, None
    if config.engine == "local" or config.guard is not None:
        labeller = model.labeller(plan)
    if labeller is not None and config.guard is not None:
        learned = learn_on_sample(
            labeller, model, plan=plan, scan=scan, config=config, progress=job.progress
        )
        other = location.begun()  # another run may have begun the store meanwhile, with its guard
        theirs = other and Guard.from_fingerprint(other.fingerprint)
        learned = learned._replace(guard=theirs or learned.guard)
        labeller.guard_with(learned.guard, model.reference(plan, learned.guard.precision))
    guard = learned and learned.guard
    manifest = _manifest(job, scan, guard, None)
    location.begin(manifest, to_keep)
    return Begun(
        manifest=manifest,
        scan=scan,
        guard=guard,
        plan=plan,
        labeller=labeller,
        guard_learning_s=learned.took_s if learned else 0.0,
    )


def _kept_scan(job: LabelJob, begun: StoreManifest) -> CorpusSummary | None:
    """What the run that began the store has found; None where there is nothing to go by."""
    path = job.location.scan_file
    key = None if path is None else scan_key(job.corpus, job.config.shard_rows)
    if path is None or key is None:
        return None
    try:
        found = read_scan(path, key, begun)
    except (ValueError, KeyError, TypeError, OSError, StoreCorrupt, StorageError) as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        job.progress.note(f"{path}: {reason}: the corpus is checked again")
        return None
    if found is not None:
        job.progress.note(
            f"{found.num_rows:,} rows were checked by an earlier run; their files are unchanged"
        )
    return found


def _scanned(job: LabelJob) -> tuple[CorpusSummary, bytes | None]:
    """What a scan finds, and the bytes to keep; None where they could not be believed later."""
    config, corpus, folder = job.config, job.corpus, job.model.folder
    # Of the files as they are before they are read.
    key = None if job.location.scan_file is None else scan_key(corpus, config.shard_rows)
    # As the first row, so all: a scan of hours for another model's corpus is spared.
    folder.require_pairs(corpus.has_pairs, ", ".join(corpus.files))
    scan = corpus.scan(
        progress=job.progress,
        labels=None if config.ignore_labels else folder.labels,
        mark_every=config.shard_rows,
        sample_rows=max(SAMPLE_ROWS, guard_sample_rows(config)),
    )
    return scan, None if key is None else encode_scan(scan, key)


def _manifest(
    job: LabelJob, scan: CorpusSummary, guard: Guard | None, begun: StoreManifest | None
) -> StoreManifest:
    """What this run makes a store of; one that continues `begun` must agree in every field."""
    config, model, folder = job.config, job.model, job.model.folder
    exported = folder.record.precision if folder.record else "fp32"
    fingerprint = {
        "teacher": _teacher_name(config, model, begun),
        "teacher_digest": folder.model_digest,
        "tokenizer_digest": folder.tokenizer_digest,
        "backend": config.teacher,
        "precision": exported if config.teacher == "onnx" else config.precision or "fp32",
        "provider": recorded(model.provider) if config.teacher == "onnx" else None,
        "max_length": model.tokenizer.max_length,
        **long_field(model.tokenizer.long),
        "corpus_digest": scan.digest,
        "gold_labels": "ignored" if config.ignore_labels else "kept",
        "guard_target": config.guard,
        "guard_rows": config.guard_rows,
    }
    now = model.tokenizer.fingerprint()
    if begun is not None:
        where = f"{job.location}/{STORE_FILE}"
        now = kept_tokenization(begun.fingerprint, {**fingerprint, **now}, where)
    fingerprint |= now
    if guard is not None and config.guard is not None:
        # What is asked for now, to be compared with what the store was begun with.
        asked = replace(
            guard, target=config.guard, precision=config.guard_precision, max_kl=config.guard_kl
        )
        fingerprint |= {"guard_digest": folder.reference_digest, **asked.to_fingerprint()}
    manifest = StoreManifest(
        labels=folder.labels,
        num_rows=scan.num_rows,
        shard_rows=config.shard_rows,
        dtype=config.dtype,
        has_pairs=scan.has_pairs,
        fingerprint=fingerprint,
    )
    return keeping_languages(manifest, scan.languages, begun)


def _teacher_name(config: LabelConfig, model: TeacherModel, begun: StoreManifest | None) -> Any:
    """What people know the teacher by; the digest tells teachers apart.

    A store that the same teacher began keeps its name, whatever the folder is called by now.
    """
    if begun is not None and begun.fingerprint.get("teacher_digest") == model.folder.model_digest:
        return begun.fingerprint.get("teacher")
    if Path(config.model).expanduser().exists():  # a folder of this machine, `.` included
        return stored_name(str(model.folder.path.absolute()))
    return stored_name(config.model)
