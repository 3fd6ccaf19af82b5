"""A corpus: documents streamed from files, each checked, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from monox_kit.config import Config
from monox_kit.corpora.checks import DocumentCheck
from monox_kit.corpora.formats import FormatName, row_source
from monox_kit.corpora.marks import Marker, Marks, Place
from monox_kit.corpora.paths import file_states, lang_from_name, resolve_paths
from monox_kit.corpora.rows import Columns, Meter, Start
from monox_kit.corpora.sample import Sample
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress, ProgressTask, Silent

__all__ = [
    "MAX_LABEL_NAMES",
    "Corpus",
    "CorpusConfig",
    "CorpusSummary",
    "PairMode",
    "lang_from_name",
    "read_labelled",
]

PairMode: TypeAlias = Literal["auto", "required", "none"]

# Distinct label names that a scan keeps. More are no classes, and would grow with the corpus.
MAX_LABEL_NAMES = 10_000
_ROWS_PER_REPORT = 4096
_OPTIONAL_COLUMNS = {
    "pair_column": "text_pair",
    "label_column": "label",
    "id_column": "id",
    "lang_column": "lang",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig(Config):
    """Which files are read and how.

    Attributes:
        paths: files, globs, fsspec URLs, or hub datasets as `hub:NAME[:CONFIG][@SPLIT]` (split
            `train` by default). A path that exists as written is that file, whatever its
            characters.
        format: of all files; `auto` goes by each file's name, without .gz or .zst.
        text_column: must exist. Not used for plain text, where a line is the text.
        pair_column: second text of a pair.
        label_column: gold label: text, a whole number, true or false (1 or 0); where any number of
            classes apply, a list of these, in JSONL, Parquet and hub datasets.
        id_column: document key: text or a whole number; the row number where there is none.
        lang_column: language tag.
        pair: `auto`: all rows have a pair or none has; `required`: all have; `none`: pairs are not
            read.

    The four optional columns may be absent under their default names; under another name they must
    exist. Null and the empty string both mean "none given" in them.
    """

    paths: tuple[str, ...]
    format: FormatName = "auto"
    text_column: str = "text"
    pair_column: str = "text_pair"
    label_column: str = "label"
    id_column: str = "id"
    lang_column: str = "lang"
    pair: PairMode = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (("format", get_args(FormatName)), ("pair", get_args(PairMode))):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"--{name}: expected one of {', '.join(allowed)}, found "
                    f"{getattr(self, name)!r}. Choose one of them."
                )
        for name in ("text_column", *_OPTIONAL_COLUMNS):
            if not getattr(self, name):
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected a column name, found an empty one. "
                    "Give the column's name or leave the option out."
                )

    def columns(self) -> Columns:
        """What readers pick; named columns and the pair of `required` must exist."""
        required = []
        for name, default in _OPTIONAL_COLUMNS.items():
            column = getattr(self, name)
            is_pair = name == "pair_column"
            must_exist = column != default or (is_pair and self.pair == "required")
            if must_exist and not (is_pair and self.pair == "none"):
                required.append((f"--{name.replace('_', '-')}", column))
        return Columns(
            text=self.text_column,
            pair=None if self.pair == "none" else self.pair_column,
            label=self.label_column,
            id=self.id_column,
            lang=self.lang_column,
            required=tuple(required),
        )


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
    marks: Marks = field(default_factory=Marks)
    sample: tuple[Document, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(replace(self, marks=Marks())), "marks": list(map(asdict, self.marks))}


class Corpus:
    """Documents from files, read anew on every pass.

    Attributes:
        config: what was asked for.
        files: every file in reading order; each can stand in `CorpusConfig.paths` by itself.
    """

    def __init__(self, config: CorpusConfig) -> None:
        """Find the files and their formats; nothing is read yet.

        Raises:
            ConfigError: no path is given, or one file twice.
            CorpusError: a path matches nothing, is a folder or of no known format.
        """
        self.config = config
        self._columns = config.columns()
        self._resolved = resolve_paths(config.paths)
        self._sources = [row_source(file, config.format) for file in self._resolved]
        self.files = tuple(source.name for source in self._sources)

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
        return self._read(self._check(), Meter(), place)

    def scan(
        self,
        *,
        progress: Progress | None = None,
        labels: LabelSet | None = None,
        mark_every: int | None = None,
        sample_rows: int = 0,
    ) -> CorpusSummary:
        """Read everything once and check it, so that bad input is found before heavy work.

        Args:
            progress: told the bytes read, or the rows where a file's size is not known.
            labels: every label must be one of these; None accepts any.
            mark_every: rows of a block of `CorpusSummary.marks`.
            sample_rows: most documents of `CorpusSummary.sample`.

        Raises:
            CorpusError: as for `documents`; or an unknown label.
        """
        marker = Marker(mark_every)
        sample = Sample(sample_rows)
        meter = Meter()
        names: set[str] | None = set()
        num_rows = num_labelled = 0
        has_pairs = False
        total = self._total_bytes()
        unit = "rows" if total is None else "bytes"

        def place() -> Place:
            return Place(meter.file, meter.first_row, meter.here)

        with (progress or Silent()).task("checking the corpus", total, unit) as task:
            report = _ScanReport(task, by_bytes=total is not None)
            for document in self._read(self._check(labels), meter):
                marker.add(document, place)
                sample.add(document)
                has_pairs = document.text_pair is not None  # of all rows, or of none
                label = document.label
                if label is not None:
                    num_labelled += 1
                    if names is not None and label not in names:
                        names.update((label,) if isinstance(label, str) else label)
                        names = names if len(names) <= MAX_LABEL_NAMES else None
                num_rows += 1
                if num_rows % _ROWS_PER_REPORT == 0:
                    report.at(meter, num_rows)
            report.at(meter, num_rows)
        marker.end_block()
        return CorpusSummary(
            num_rows=num_rows,
            digest=marker.digest.hexdigest(),
            has_pairs=has_pairs,
            num_labelled=num_labelled,
            label_names=None if names is None else tuple(sorted(names)),
            text_bytes=marker.text_bytes,
            marks=marker.marks,
            sample=sample.documents(),
        )

    def _total_bytes(self) -> int | None:
        sizes = [source.size_bytes for source in self._sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _check(self, labels: LabelSet | None = None, is_labelled: bool = False) -> DocumentCheck:
        is_paired = self.config.pair == "required"
        return DocumentCheck(
            self._columns, is_paired=is_paired, labels=labels, is_labelled=is_labelled
        )

    def _read(
        self, check: DocumentCheck, meter: Meter, place: Place | None = None
    ) -> Iterator[Document]:
        place = place or Place(0, 0, Start())
        row = place.row
        for index, source in enumerate(self._sources[place.file :], place.file):
            first = place.first_row if index == place.file else row
            meter.begin_file(index, first, place.start if index == place.file else Start())
            for raw in source.rows(self._columns, meter):
                yield check.document(row, raw, source)
                row += 1
            if row == first:
                raise CorpusError(
                    f"{source.name}: expected at least one row, found an empty file. "
                    "Leave it out or write it again."
                )
            meter.finish_file(source.size_bytes or 0)


def read_labelled(
    config: CorpusConfig | Sequence[str], labels: LabelSet | None = None
) -> list[Document]:
    """All documents of a corpus in memory, each with a gold label.

    Args:
        config: the corpus; or its paths alone, read with the default settings.
        labels: every label must be one of these; None accepts any.

    Raises:
        CorpusError: as for `Corpus.documents`; or a row without a label or with an unknown one.
    """
    if not isinstance(config, CorpusConfig):
        config = CorpusConfig(paths=(config,) if isinstance(config, str) else tuple(config))
    corpus = Corpus(config)
    return list(corpus._read(corpus._check(labels, is_labelled=True), Meter()))


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
