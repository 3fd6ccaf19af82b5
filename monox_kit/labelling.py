"""The teacher's pass over a corpus: texts in, a logit store out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from monox_kit.bundle import Backend, ModelFolder, open_folder
from monox_kit.corpora.corpus import Corpus, CorpusConfig, CorpusSummary
from monox_kit.data import Document, LabelSet
from monox_kit.digest import RowDigest
from monox_kit.errors import CorpusError
from monox_kit.inference import DEFAULT_BATCH_TOKENS, load_backend, require_runnable, score
from monox_kit.progress import Progress, Silent
from monox_kit.store import LogitStore, ShardRange, StoreManifest, StoreWriter
from monox_kit.tokenizing import Tokenizer
from monox_kit.validation import checked


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig:
    """How a corpus is labelled.

    Attributes:
        teacher: the backend that runs the model; `torch` is the reference.
        model: an ONNX bundle for `onnx`, a PyTorch folder for `torch`.
        corpus: the texts.
        max_length: the cut in tokens; None for the bundle's own.
        shard_rows: rows of a shard, the unit of commit and of resuming, and the window within
            which texts of similar length are batched together.
        batch_tokens: padded tokens per batch; changes speed and memory, not results.
        dtype: of the stored logits.
        ignore_labels: whether gold labels in the corpus are left out of the store.
        provider: ONNX Runtime's execution provider.
        device: PyTorch's device.
    """

    teacher: Backend
    model: str
    corpus: CorpusConfig
    max_length: Annotated[int, Field(ge=4)] | None = None
    shard_rows: Annotated[int, Field(ge=1)] = 16_384
    batch_tokens: Annotated[int, Field(ge=1)] = DEFAULT_BATCH_TOKENS
    dtype: Literal["float32", "float16"] = "float32"
    ignore_labels: bool = False
    provider: str = "cpu"
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """What a labelling run did.

    Attributes:
        store: the store's folder.
        num_rows: rows of the finished store.
        num_shards: its shards.
        num_resumed_rows: rows that earlier runs had already labelled.
        labelled_s: seconds from the first batch to the last commit of this run.
        rows_per_s: rows of this run over `labelled_s`; None where it had nothing left to do.
        tokens_per_s: the same for real tokens.
        padding_fraction: padding among the tokens of this run; None where it had nothing to do.
        store_digest: the finished store's digest.
    """

    store: Path
    num_rows: int
    num_shards: int
    num_resumed_rows: int
    labelled_s: float
    rows_per_s: float | None
    tokens_per_s: float | None
    padding_fraction: float | None
    store_digest: str

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(self), "store": str(self.store)}


@dataclass(slots=True)
class _Totals:
    """Running sums of one labelling run."""

    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0


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
    progress = progress or Silent()
    require_runnable(config.teacher, config.provider, config.device)
    folder = open_folder(config.model, progress)
    folder.require_backend(config.teacher)
    labels = folder.labels
    tokenizer = Tokenizer(folder.path, folder.resolve_max_length(config.max_length))
    corpus = Corpus(config.corpus)
    summary = corpus.scan(
        progress=progress,
        labels=None if config.ignore_labels else labels,
        mark_every=config.shard_rows,
    )
    folder.require_pairs(summary.has_pairs, ", ".join(corpus.files))
    manifest = _manifest(config, folder, tokenizer.max_length, summary)
    totals = _Totals()
    with StoreWriter(store, manifest) as writer:
        missing = list(writer.missing)
        resumed = summary.num_rows - sum(shard.stop - shard.start for shard in missing)
        if missing:
            classifier = load_backend(
                folder, config.teacher, provider=config.provider, device=config.device
            )
            title = f"labelling ({config.teacher})"
            with progress.task(title, summary.num_rows, "rows", done=resumed) as task:
                for shard, documents in _shards(corpus, missing, summary):
                    started = time.perf_counter()
                    scored = score(
                        classifier,
                        tokenizer,
                        documents,
                        batch_tokens=config.batch_tokens,
                        task=task,
                    )
                    writer.write_shard(
                        shard,
                        logits=scored.logits,
                        documents=documents,
                        labels=_gold(documents, labels, config.ignore_labels),
                    )
                    totals.seconds += time.perf_counter() - started
                    totals.rows += len(documents)
                    totals.tokens += scored.num_tokens
                    totals.padded_tokens += scored.num_padded_tokens
                    task.detail(f"padding {_padding(totals):.1%}")
        writer.complete(**_run_record(totals))
    finished = LogitStore.open(store)
    seconds = totals.seconds or None
    return LabelSummary(
        store=store,
        num_rows=len(finished),
        num_shards=-(-len(finished) // config.shard_rows),
        num_resumed_rows=resumed,
        labelled_s=round(totals.seconds, 3),
        rows_per_s=round(totals.rows / seconds, 2) if seconds else None,
        tokens_per_s=round(totals.tokens / seconds, 1) if seconds else None,
        padding_fraction=round(_padding(totals), 4) if seconds else None,
        store_digest=finished.digest,
    )


def _manifest(
    config: LabelConfig, folder: ModelFolder, max_length: int, summary: CorpusSummary
) -> StoreManifest:
    """What the store is made from; a resumed run must agree in every field."""
    record = folder.record
    return StoreManifest(
        labels=folder.labels,
        num_rows=summary.num_rows,
        shard_rows=config.shard_rows,
        dtype=config.dtype,
        has_pairs=summary.has_pairs,
        fingerprint={
            # Not the path as typed: a moved run can go on. The digest tells teachers apart.
            "teacher": folder.path.name if Path(config.model).exists() else config.model,
            "teacher_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            "backend": config.teacher,
            "precision": record.precision if record else "fp32",
            "provider": config.provider if config.teacher == "onnx" else None,
            "max_length": max_length,
            "corpus_digest": summary.digest,
            "gold_labels": "ignored" if config.ignore_labels else "kept",
        },
    )


def _shards(
    corpus: Corpus, missing: Sequence[ShardRange], summary: CorpusSummary
) -> Iterator[tuple[ShardRange, list[Document]]]:
    """Every missing shard with its documents; up to its end, the corpus is as it was scanned.

    Raises:
        CorpusError: the corpus has changed since the scan; shards before the change are kept.
    """
    documents = corpus.documents()
    digest = RowDigest()
    position = 0
    for shard in missing:
        for document in islice(documents, shard.start - position):
            _add(digest, document)
        rows = list(islice(documents, shard.stop - shard.start))
        for document in rows:
            _add(digest, document)
        position = shard.stop
        is_last = shard.stop == summary.num_rows
        expected = summary.marks[shard.index].digest
        extra = next(documents, None) if is_last else None
        if extra is not None or digest.hexdigest() != expected:
            raise CorpusError(
                f"{', '.join(corpus.files)}: expected the {summary.num_rows} rows that were "
                "checked before labelling, found other content. The corpus changed while it was "
                "labelled: run again with a new --store."
            )
        yield shard, rows


def _add(digest: RowDigest, document: Document) -> None:
    digest.add(document.id, document.text, document.text_pair, document.label, document.lang)


def _gold(documents: Sequence[Document], labels: LabelSet, ignore: bool) -> Any:
    """[n] int32 class indices, -1 without a gold label."""
    names = (None if ignore else d.label for d in documents)
    indices = (-1 if name is None else labels.index(name, "corpus") for name in names)
    return np.fromiter(indices, np.int32, len(documents))


def _padding(totals: _Totals) -> float:
    return 1 - totals.tokens / totals.padded_tokens if totals.padded_tokens else 0.0


def _run_record(totals: _Totals) -> dict[str, Any]:
    return {
        "labelled_rows": totals.rows,
        "labelled_s": round(totals.seconds, 3),
        "num_tokens": totals.tokens,
        "num_padded_tokens": totals.padded_tokens,
    }
