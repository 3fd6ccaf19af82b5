"""The import stage: answers are checked and counted in a first pass, and stored in a second."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from monox_kit.corpora.corpus import AnswerColumn, Corpus, CorpusSummary
from monox_kit.corpora.languages import require_used, told_languages
from monox_kit.data import Document, LabelSet
from monox_kit.durable import new_file
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.foreign import without_credentials
from monox_kit.importing.answers import Answer, AnswerReader
from monox_kit.importing.config import LABEL_SMOOTHING, ImportConfig, ImportSummary
from monox_kit.importing.seen_ids import SeenIds
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, Silent
from monox_kit.store import ShardRange, StoreManifest, StoreWriter, store_location
from monox_kit.store.address import store_url
from monox_kit.store.filling import DocumentWithLanguage, RowWindow, ShardSink, row_windows
from monox_kit.store.format import ANSWERS_KEY, STORE_FILE
from monox_kit.store.languages import keeping_languages

_DUPLICATE = "an id that an earlier row has"
# Answers whose decisions are counted at once.
_COUNTED = 4096


def import_store(
    config: ImportConfig, store: Path | str, *, progress: Progress | None = None
) -> ImportSummary:
    """Write what a file says of every row of a corpus to the logit store `store`.

    The files are read twice: a check of every row and answer first, so that nothing is written of
    files that cannot be used. Run again after an interruption, finished shards are kept.

    Args:
        config: what is imported and how.
        store: the store's folder, or a URL whose driver puts an object only where none is; absent,
            or of an earlier run with the same files and settings.
        progress: where progress is reported.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    location = store_location(store, config.staging)
    labels = _read_labels(config)
    location.require_writable()
    rows = AnsweredRows(config, labels, progress)
    _require_own_report(config, rows.corpus, store)
    require_used(told_languages(config.rows.language), rows.corpus.files)
    # An import that is refused leaves an earlier one's report as it is.
    with nullcontext() if config.report is None else new_file(config.report) as report:
        scan = rows.scan(report)
        if scan.num_rows:
            begun = location.begun()
            manifest = _manifest(config, labels, scan, rows)
            manifest = keeping_languages(manifest, scan.languages, begun)
            if begun is not None:
                begun.require_equal(manifest, f"{location}/{STORE_FILE}")
    if not scan.num_rows:
        raise rows.unusable()
    location.begin(manifest, None)
    with location.writer(manifest) as writer:
        resumed = scan.num_rows - sum(map(len, writer.missing))
        _store_missing(writer, rows, scan, progress, resumed)
        record = writer.complete(rows=scan.num_rows - resumed, skipped_rows=dict(rows.num_skipped))
    assert record is not None  # this writer claimed all shards
    if rows.num_skipped:
        progress.note(
            f"{sum(rows.num_skipped.values()):,} rows are not in the store: "
            f"{rows.skipped_in_words()}"
        )
    return ImportSummary(
        store=str(location),
        origin=config.origin,
        answers=config.kind,
        num_rows=scan.num_rows,
        num_shards=manifest.num_shards,
        num_resumed_rows=resumed,
        num_labelled=scan.num_labelled,
        labels=rows.decisions(),
        num_skipped=dict(rows.num_skipped),
        num_votes_left_out=rows.num_votes_left_out,
        report=None if config.report is None else str(config.report),
        store_digest=record.digest,
    )


class AnsweredRows:
    """The rows of some files with answers that can be used, numbered from 0.

    Attributes:
        corpus: the files, of which a document's `answer` is an `Answer`, or what is wrong with it.
        digest: over the logits of all rows, once they have been scanned.
        num_skipped: rows that are left out, by what is wrong with them.
        num_votes_left_out: votes for no class, in rows that other votes decided.
    """

    def __init__(self, config: ImportConfig, labels: LabelSet, progress: Progress) -> None:
        """Finds the files; nothing is read yet."""
        gold = config.gold_column
        files = config.rows if gold is None else replace(config.rows, label_column=gold)
        read = AnswerReader(config, labels, files.label_names)
        self.corpus = Corpus(
            files,
            progress,
            answers=AnswerColumn(
                name=read.column,
                setting=config.answer_setting,
                read=read,
                with_gold=gold is not None,
                may_lack=config.on_unknown_label == "skip",
            ),
        )
        self.digest = ""
        self.num_skipped: Counter[str] = Counter()
        self.num_votes_left_out = 0
        self._labels, self._problem, self._progress = labels, problem_of(labels), progress
        self._has_gold = gold is not None
        self._on_duplicate = config.on_duplicate_id
        self._shard_rows = config.shard_rows
        self._seen = SeenIds()
        self._report: BinaryIO | None = None
        # Numbers of rows in the files: of those that are skipped, and of each shard's first.
        self._skipped, self._first_rows = array("Q"), array("Q")
        self._num_kept = 0
        self._digest, self._shard_digest = hashlib.sha256(), hashlib.sha256()
        self._shard_digests: list[bytes] = []
        self._uncounted: list[Answer] = []
        self._decisions = np.zeros(len(labels), np.int64)

    def scan(self, report: BinaryIO | None) -> CorpusSummary:
        """Check every row and its answer; what cannot be used is left out as the settings say.

        Args:
            report: gets a line of each row that is left out; None writes none.

        Raises:
            CorpusError: rows cannot be used; one error shows the first of each kind.
        """
        self._report = report
        scan = self.corpus.scan(
            progress=self._progress,
            labels=self._labels if self._has_gold else None,
            mark_every=self._shard_rows,
            keep=self._keep,
        )
        self._report = None
        self._count()
        if self._num_kept % self._shard_rows:
            self._end_shard()
        self.digest = self._digest.hexdigest()
        return scan

    def unusable(self) -> CorpusError:
        """The error of files of which a scan kept no row."""
        return CorpusError(
            f"{', '.join(self.corpus.files)}: no row has an answer that can be used "
            f"({self.skipped_in_words()}). Correct the column of answers or `labels`."
        )

    def windows(self, scan: CorpusSummary, missing: list[ShardRange]) -> Iterator[RowWindow]:
        """The rows of the missing shards again, each with its answer.

        Raises:
            CorpusError: the files have changed since the scan.
        """
        documents = row_windows(
            lambda shard: self._from(scan, shard),
            missing,
            scan.marks,
            scan.num_rows,
            self._changed,
        )
        digest = hashlib.sha256()
        for window in documents:
            if window.starts_shard:
                digest = hashlib.sha256()
            for document in window.documents:
                if not isinstance(document.answer, Answer):
                    raise self._changed()
                digest.update(document.answer.logits.tobytes())
            if window.ends_shard and digest.digest() != self._shard_digests[window.shard.index]:
                raise self._changed()
            yield window

    def decisions(self) -> dict[str, int]:
        """Rows by the class that their answers decide for."""
        return dict(zip(self._labels.names, self._decisions.tolist()))

    def skipped_in_words(self) -> str:
        """What is wrong with the rows that are left out, and with how many."""
        return "; ".join(f"{kind} ({count:,})" for kind, count in self.num_skipped.most_common())

    def _keep(self, document: Document) -> bool:
        """Whether a row is one of the store's; the scan asks in order."""
        answer = document.answer
        if isinstance(answer, CorpusError):
            return self._skip(document, answer)
        assert isinstance(answer, Answer)
        if self._on_duplicate != "keep" and not self._seen.add(document.id):
            error = CorpusError.of_row(
                answer.where(),
                f"id {document.id[:60]!a} is also that of an earlier row",
                "Give each row an id of its own, or choose with `on_duplicate_id` what becomes of "
                "it.",
                kind=_DUPLICATE,
                found=f"{document.id[:60]!a}",
            )
            if self._on_duplicate == "error":
                raise error
            return self._skip(document, error)
        if self._num_kept % self._shard_rows == 0:
            self._first_rows.append(document.row)
        content = answer.logits.tobytes()
        self._digest.update(content)
        self._shard_digest.update(content)
        self._num_kept += 1
        if self._num_kept % self._shard_rows == 0:
            self._end_shard()
        self.num_votes_left_out += answer.num_left_out
        self._uncounted.append(answer)
        if len(self._uncounted) == _COUNTED:
            self._count()
        return True

    def _skip(self, document: Document, error: CorpusError) -> bool:
        self.num_skipped[error.kind] += 1
        self._skipped.append(document.row)
        if self._report is not None:
            line = {"id": document.id, "where": error.where, "why": error.kind}
            line |= {"found": error.found} if error.found else {}
            self._report.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return False

    def _end_shard(self) -> None:
        self._shard_digests.append(self._shard_digest.digest())
        self._shard_digest = hashlib.sha256()

    def _count(self) -> None:
        """Count the decisions of the answers that are not counted yet."""
        if self._uncounted:
            logits = np.stack([answer.logits for answer in self._uncounted])
            self._decisions += self._problem.count(self._problem.decide(logits))
            self._uncounted.clear()

    def _from(self, scan: CorpusSummary, shard: ShardRange) -> Iterator[DocumentWithLanguage]:
        """The rows from a shard's first on, each with its language."""
        first, row = self._first_rows[shard.index], shard.start
        at = bisect_left(self._skipped, first)
        for document, language in self.corpus.with_languages(scan.marks[shard.index].place):
            if document.row < first:
                continue
            if at < len(self._skipped) and self._skipped[at] == document.row:
                at += 1
                continue
            yield replace(document, row=row), language
            row += 1

    def _changed(self) -> CorpusError:
        return CorpusError(
            f"{', '.join(self.corpus.files)}: the files changed while they were imported: their "
            "rows or answers are not those that were checked before. Put them back, or import "
            "them into a new `store`."
        )


def _read_labels(config: ImportConfig) -> LabelSet:
    """The classes, which the answers must fit.

    Raises:
        ConfigError: they do not exclude each other, and the answers do.
    """
    labels = LabelSet.read(config.labels)
    if labels.is_multi and config.kind == "logprobs":
        raise ConfigError(
            f"`logprobs_column` {config.logprobs_column}: log-probabilities of tokens exclude each "
            f"other, and the classes of {config.labels} do not. Give `probabilities_column`."
        )
    return labels


def _require_own_report(config: ImportConfig, corpus: Corpus, store: Path | str) -> None:
    """Check that the report takes no other file's place.

    Raises:
        ConfigError: it would replace a file that is read, or lie in the store.
    """
    if config.report is None:
        return
    report = Path(os.path.realpath(config.report))
    for path in (*corpus.local_files, config.labels):
        if Path(os.path.realpath(path)) == report:
            raise ConfigError(
                f"`report` {config.report}: it would replace {path}, which is read. Give another "
                "file."
            )
    if store_url(store) is None and Path(os.path.realpath(store)) in (report, *report.parents):
        raise ConfigError(
            f"`report` {config.report}: it would lie in the store {store}, which holds its own "
            "files alone. Give a file outside of it."
        )


def _store_missing(
    writer: StoreWriter,
    rows: AnsweredRows,
    scan: CorpusSummary,
    progress: Progress,
    resumed: int,
) -> None:
    """Write the shards that are not there yet."""
    labels = writer.manifest.labels
    with (
        progress.task("importing", scan.num_rows, "rows", done=resumed) as task,
        ShardSink(writer, labels, ignore_labels=False) as sink,
    ):
        for window in rows.windows(scan, writer.missing):
            logits = np.stack([document.answer.logits for document in window.documents])
            sink.add(window, logits, np.zeros(len(logits), np.bool_))
            task.advance(len(logits))


def _manifest(
    config: ImportConfig, labels: LabelSet, scan: CorpusSummary, rows: AnsweredRows
) -> StoreManifest:
    """What the import makes a store of."""
    is_label = config.kind == "label"
    return StoreManifest(
        labels=labels,
        num_rows=scan.num_rows,
        shard_rows=config.shard_rows,
        dtype=config.dtype,
        has_pairs=scan.has_pairs,
        fingerprint={
            "teacher": without_credentials(config.origin),
            "teacher_digest": None,  # no model of this machine
            "backend": "file",
            "precision": None,
            "corpus_digest": scan.digest,
            "gold_labels": "ignored" if config.gold_column is None else "kept",
            "answers": config.kind,
            "smoothing": (config.smoothing or LABEL_SMOOTHING) if is_label else None,
            "missing_mass": config.missing_mass,
            ANSWERS_KEY: rows.digest,
        },
    )
