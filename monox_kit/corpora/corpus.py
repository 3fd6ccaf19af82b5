"""A corpus: documents streamed from files, each checked, in memory that does not grow with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from monox_kit.corpora.bad_rows import BadRows
from monox_kit.corpora.checks import DocumentCheck, ReadAnswer
from monox_kit.corpora.classes import listed_counts
from monox_kit.corpora.config import CorpusConfig
from monox_kit.corpora.formats import row_source
from monox_kit.corpora.languages import language_of, require_used, told_languages
from monox_kit.corpora.marks import Marker, Marks, Place
from monox_kit.corpora.paths import SourceFile, file_states, resolve_paths, with_columns
from monox_kit.corpora.rows import Meter, Start
from monox_kit.corpora.sample import Sample
from monox_kit.data import UNKNOWN_LANGUAGE, Document, LabelSet
from monox_kit.errors import CorpusError
from monox_kit.progress import Progress, ProgressTask, Silent

__all__ = ["Corpus", "CorpusConfig", "CorpusSummary", "read_by_file", "read_labelled"]

# Distinct label names that a scan keeps. More are no classes, and would grow with the corpus.
MAX_LABEL_NAMES = 10_000
_ROWS_PER_REPORT = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSummary:
    """What one pass over a corpus found.

    Attributes:
        num_rows: documents, at least 1.
        digest: `DocumentDigest` over every row: equal for equal
            documents in equal order, whatever format or files they stand in.
        has_pairs: whether every row has a `text_pair` (otherwise none has).
        num_labelled: rows with a gold label.
        label_names: the distinct labels, sorted; None where there are more than
            `MAX_LABEL_NAMES`.
        text_bytes: UTF-8 bytes of all texts and pairs.
        languages: the distinct languages of the rows, their own or their file's, sorted, `und` for
            those that nothing tells; the first `MAX_LABEL_NAMES` where there are more.
        marks: one for each block of `mark_every` rows, the last of which may be shorter; empty
            unless asked for.
        sample: documents drawn at random, the same ones for the same corpus; empty unless asked
            for.
    """

    num_rows: int
    digest: str
    has_pairs: bool
    num_labelled: int
    label_names: tuple[str, ...] | None
    text_bytes: int
    languages: tuple[str, ...] = ()
    marks: Marks = field(default_factory=Marks)
    sample: tuple[Document, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(replace(self, marks=Marks())), "marks": list(map(asdict, self.marks))}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerColumn:
    """The column of what a teacher said of each row.

    Attributes:
        name: must exist in every file; of JSON, whose rows have keys of their own, in every row.
        setting: which setting names it, for messages.
        read: what makes a document's `answer`.
        with_gold: whether gold labels are read beside it.
        may_lack: whether a row of JSON may lack it, where others have it: its answer is None.
    """

    name: str
    setting: str
    read: ReadAnswer
    with_gold: bool
    may_lack: bool = False


class Corpus:
    """Documents from files, read anew on every pass.

    Attributes:
        config: what was asked for.
        files: every file in reading order; each can stand in `CorpusConfig.paths` by itself.
        languages: of each file's rows that name none themselves; None where nothing tells it.
    """

    def __init__(
        self,
        config: CorpusConfig,
        progress: Progress | None = None,
        *,
        needs_labels: bool = False,
        answers: AnswerColumn | None = None,
        is_translation: bool = False,
    ) -> None:
        """Find the files and their formats; nothing is read yet.

        Args:
            config: what is read and how.
            progress: told once what is guessed about a file, and what looks wrong in it.
            needs_labels: whether a row without a gold label is an error.
            answers: a teacher's answers, to be read too.
            is_translation: whether the rows are documents of another corpus in other languages: a
                row without an id is an error, and gold labels are not read.

        Raises:
            ConfigError: no path is given, one file twice, or a protocol that is not taken.
            CorpusError: a path matches nothing, is a folder or of no known format.
        """
        self.config = config
        self._progress = progress or Silent()
        self._told: set[str] = set()
        self._without_labels: dict[int, tuple[str, str]] = {}
        self._needs_labels = needs_labels
        self._read_answer = None if answers is None else answers.read
        self._resolved = resolve_paths(config.paths)
        columns, dialect = config.columns(needs_labels=needs_labels), config.dialect()
        if answers is not None:
            columns = replace(
                columns,
                answer=answers.name,
                label=columns.label if answers.with_gold else None,
                required=(*columns.required, (f"what `{answers.setting}` names", answers.name)),
                answer_may_lack=answers.may_lack,
            )
        self._is_translation = is_translation
        if is_translation:
            required = (*columns.required, ("`id_column`", columns.id))
            columns = replace(columns, label=None, label_is_sought=False, required=required)
        self._sources = [
            row_source(file, config.format, columns, dialect) for file in self._resolved
        ]
        self.files = tuple(with_columns(file.name, file.columns) for file in self._resolved)
        names = [file.name for file in self._resolved]
        told = told_languages(config.language)
        self.languages = tuple(language_of(name, told) for name in names)

    @property
    def local_files(self) -> tuple[Path, ...]:
        """Where the files of this machine lie."""
        return tuple(
            Path(file.location)
            for file in self._resolved
            if isinstance(file, SourceFile) and file.filesystem is None
        )

    @property
    def has_pairs(self) -> bool:
        """Whether the first row, and so every row, has a `text_pair`; reads that row.

        Raises:
            CorpusError: the first row is bad.
        """
        return next(self.documents()).text_pair is not None

    def state(self) -> dict[str, Any] | None:
        """What a pass over the rows depends on: equal for files that nobody has touched since.

        Returns:
            Plain JSON values: the settings but for the paths, and of each file its name, below the
            folder that holds all of them, its size and what changes with its content. None where a
            file does not tell the latter.
        """
        states = file_states(self._resolved)
        if states is None:
            return None
        settings = {key: value for key, value in asdict(self.config).items() if key != "paths"}
        return {"settings": settings, "files": states}

    def documents(self, place: Place | None = None) -> Iterator[Document]:
        """One pass over all documents, rows counted from 0 across the files.

        Args:
            place: where to begin, as `CorpusMark.place` of a scan; None for the first row.

        Raises:
            CorpusError: a file cannot be read, has no row, or has a row that cannot be used; the
                message names file and line or row.
        """
        return self._read(self._check(), self._meter(), place)

    def with_languages(self, place: Place | None = None) -> Iterator[tuple[Document, str | None]]:
        """As `documents`, each with its language: the row's own, else its file's, else None."""
        meter = self._meter()
        for document in self._read(self._check(), meter, place):
            yield document, document.lang or self.languages[meter.file]

    def scan(
        self,
        *,
        progress: Progress | None = None,
        labels: LabelSet | None = None,
        mark_every: int | None = None,
        sample_rows: int = 0,
        keep: Callable[[Document], bool] | None = None,
    ) -> CorpusSummary:
        """Read everything once and check it, so that bad input is found before heavy work.

        Args:
            progress: told the bytes read, or the rows where a file's size is not known.
            labels: every label must be one of these, and a label column that the user named must
                be in one file at least; None accepts any, and none.
            mark_every: rows of a block of `CorpusSummary.marks`.
            sample_rows: most documents of `CorpusSummary.sample`.
            keep: whether a row, which has passed all checks, is part of the corpus; the summary is
                that of those alone. A `CorpusError` of it makes a bad row. None keeps all.

        Raises:
            CorpusError: as for `documents`, or an unknown label; of several bad rows, one error
                that shows the first of each kind.
        """
        marker, sample, tally = Marker(mark_every), Sample(sample_rows), _Tally()
        meter, bad = self._meter(progress), BadRows()
        total = self._total_bytes()
        unit = "rows" if total is None else "bytes"
        with (progress or Silent()).task("checking the corpus", total, unit) as task:
            report = _ScanReport(task, by_bytes=total is not None)
            for document in self._read(self._check(labels), meter, bad=bad):
                if keep is not None and not _is_kept(document, keep, bad):
                    continue
                language = document.lang or self.languages[meter.file]
                marker.add(document, language, meter)
                tally.add(document, language)
                sample.add(document)
                if tally.num_rows % _ROWS_PER_REPORT == 0:
                    report.at(meter, tally.num_rows)
            report.at(meter, tally.num_rows)
        _require_answer_column(meter)
        if labels is not None:
            self._require_label_column(meter)
        marker.end_block()
        if tally.labels and progress is not None:
            progress.note(
                f"{tally.num_labelled:,} of {tally.num_rows:,} rows have gold labels: "
                f"{listed_counts(tally.labels)}"
            )
        return CorpusSummary(
            num_rows=tally.num_rows,
            digest=marker.digest.hexdigest(),
            has_pairs=tally.has_pairs,
            num_labelled=tally.num_labelled,
            label_names=None if tally.labels is None else tuple(sorted(tally.labels)),
            text_bytes=marker.text_bytes,
            languages=tuple(sorted(tally.languages)),
            marks=marker.marks,
            sample=sample.documents(),
        )

    def _require_label_column(self, meter: Meter) -> None:
        """Refuse a named label column that no file has: a slip would lose all labels."""
        if meter.without_labels and not meter.has_label_column:
            where, columns = meter.without_labels[min(meter.without_labels)]
            several = f" in one of {len(self.files)} files at least" if len(self.files) > 1 else ""
            raise CorpusError(
                f"{where}: expected a column {self.config.label_column!r}{several}, found columns: "
                f"{columns}. Correct `label_column`, or leave it out where no file has labels."
            )

    def _total_bytes(self) -> int | None:
        sizes = [source.size_bytes for source in self._sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _meter(self, progress: Progress | None = None) -> Meter:
        """What a pass is told by; each note is shown once, however often the files are read."""
        note = (progress or self._progress).note

        def once(message: str) -> None:
            if message not in self._told:
                self._told.add(message)
                note(message)

        return Meter(note=once, without_labels=self._without_labels)

    def _check(self, labels: LabelSet | None = None) -> DocumentCheck:
        return DocumentCheck(
            is_paired=self.config.pair == "required",
            labels=labels,
            label_names=self.config.label_names,
            is_labelled=self._needs_labels,
            read_answer=self._read_answer,
            needs_id=self._is_translation,
        )

    def _read(
        self,
        check: DocumentCheck,
        meter: Meter,
        place: Place | None = None,
        bad: BadRows | None = None,
    ) -> Iterator[Document]:
        """The documents from a place on; bad rows are left to the end where `bad` collects them."""
        place = place or Place(0, 0, Start())
        row = place.row
        report = _raised if bad is None else bad.add
        try:
            for index in range(place.file, len(self._sources)):
                first = place.first_row if index == place.file else row
                meter.begin_file(index, first, place.start if index == place.file else Start())
                for found in self._of_file(index, row, check, meter):
                    row += 1
                    if isinstance(found, CorpusError):
                        report(found)
                        continue
                    if bad is not None and bad.count:
                        bad.pass_row()
                    yield found
                if row == first:
                    raise CorpusError(
                        f"{self._sources[index].name}: expected at least one row, found an empty "
                        "file. Leave it out or write it again."
                    )
                meter.finish_file(self._sources[index].size_bytes or 0)
        except CorpusError as error:
            if bad is None:
                raise
            bad.end(error)
        if bad is not None:
            bad.end()

    def _of_file(
        self, index: int, row: int, check: DocumentCheck, meter: Meter
    ) -> Iterator[Document | CorpusError]:
        """Of each row of a file, the first of which has this position, its document or error."""
        source = self._sources[index]
        for raw in source.rows(source.columns, meter):
            if type(raw) is not tuple:
                yield raw  # type: ignore[misc]
            else:
                try:
                    document = check.document(row, raw, source)
                except CorpusError as error:
                    yield error
                else:
                    yield document
            row += 1


def read_labelled(
    config: CorpusConfig | Sequence[str],
    labels: LabelSet | None = None,
    progress: Progress | None = None,
    *,
    fill_languages: bool = False,
) -> list[Document]:
    """All documents of a corpus in memory, each with a gold label.

    Args:
        config: the corpus; or its paths alone, read with the default settings.
        labels: every label must be one of these; None accepts any.
        progress: told what is guessed about a file, and what looks wrong in it.
        fill_languages: whether a row that names no language has the one of its file. Digests of
            rows see it, so that it is nothing for what a digest must know again.

    Raises:
        ConfigError: with `fill_languages`, a language is given for a file that is not read.
        CorpusError: as for `Corpus.scan`; or a row without a label or with an unknown one.
    """
    if not isinstance(config, CorpusConfig):
        config = CorpusConfig(paths=(config,) if isinstance(config, str) else tuple(config))
    corpus = Corpus(config, progress, needs_labels=True)
    meter = corpus._meter()
    documents = corpus._read(corpus._check(labels), meter, bad=BadRows())
    if not fill_languages:
        return list(documents)
    require_used(told_languages(config.language), corpus.files)
    return [
        document if document.lang else replace(document, lang=corpus.languages[meter.file])
        for document in documents
    ]


def read_by_file(
    config: CorpusConfig, labels: LabelSet, progress: Progress | None = None
) -> Iterator[tuple[str, str | None, list[Document]]]:
    """Of each file its name, the language of rows that name none, and its gold-labelled documents.

    Rows are counted from 0 in each.

    Raises:
        ConfigError: a language is given for a file that is not read.
        CorpusError: as for `read_labelled`.
    """
    corpus = Corpus(config, progress)
    require_used(told_languages(config.language), corpus.files)
    for name, language in zip(corpus.files, corpus.languages):
        alone = replace(config, paths=(name,), language=())
        yield name, language, read_labelled(alone, labels, progress)


def _is_kept(document: Document, keep: Callable[[Document], bool], bad: BadRows) -> bool:
    try:
        return keep(document)
    except CorpusError as error:
        bad.add(error)
        return False


def _require_answer_column(meter: Meter) -> None:
    """Refuse an answer's column that all rows lack, and may lack: its name is a slip."""
    if meter.without_answer is not None and not meter.has_answer_column:
        raise meter.without_answer


def _raised(error: CorpusError) -> None:
    raise error


class _Tally:
    """Counts the rows of a scan and their gold labels.

    Attributes:
        labels: rows with each label; None once there are more than `MAX_LABEL_NAMES` of them.
        has_pairs: whether the last row is a pair: all rows are, or none.
        languages: the distinct ones of the rows, no more than `MAX_LABEL_NAMES`.
    """

    def __init__(self) -> None:
        self.num_rows = self.num_labelled = 0
        self.has_pairs = False
        self.labels: Counter[str] | None = Counter()
        self.languages: set[str] = set()

    def add(self, document: Document, language: str | None) -> None:
        """Count the next row, which is in a language."""
        self.num_rows += 1
        if len(self.languages) < MAX_LABEL_NAMES:
            self.languages.add(language or UNKNOWN_LANGUAGE)
        self.has_pairs = document.text_pair is not None
        label = document.label
        if label is None:
            return
        self.num_labelled += 1
        if self.labels is not None:
            self.labels.update((label,) if isinstance(label, str) else label)
            if len(self.labels) > MAX_LABEL_NAMES:
                self.labels = None


class _ScanReport:
    """Reports a scan by bytes, which tell the remaining time; by rows where sizes are unknown."""

    def __init__(self, task: ProgressTask, by_bytes: bool) -> None:
        self._task = task
        self._by_bytes = by_bytes
        self._done = 0

    def at(self, meter: Meter, num_rows: int) -> None:
        """Report the position that reading has come to."""
        done = meter.bytes_read if self._by_bytes else num_rows
        self._task.advance(done - self._done)
        self._task.detail(f"{num_rows:,} rows")
        self._done = done
