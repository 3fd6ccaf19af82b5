"""`monoxkit store select`: chosen rows as a store to learn from, or as a file to annotate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from monox_kit.data import Document, Int64s, Label
from monox_kit.digest import digest_bytes, digest_file
from monox_kit.durable import new_file
from monox_kit.errors import ConfigError, StoreError
from monox_kit.foreign import csv_row
from monox_kit.progress import Progress, Silent
from monox_kit.results import Result
from monox_kit.store.choice import Cell, Chosen, Wanted, choose, surest
from monox_kit.store.config import STORE_FORM, SelectConfig
from monox_kit.store.folder_writer import FolderWriter
from monox_kit.store.format import ShardRange, StoreManifest, text_fields
from monox_kit.store.merge_plan import CORPUS_KEY, SELECTED_FROM_KEY, SELECTED_ROWS_KEY
from monox_kit.store.reader import LogitStore

# Rows that are read and written at once.
_BLOCK_ROWS = 1024
NO_CLASS = "(none)"


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectedLanguage:
    """What was chosen of a language.

    Attributes:
        language: its tag; `und` for rows whose language nothing tells.
        num_rows: rows that were chosen.
        labels: by class, as the logits decide, the rows that were chosen; classes without a row
            are there too.
        short: by class that offered less than its even share, the rows that it offered.
    """

    language: str
    num_rows: int
    labels: Mapping[str, int]
    short: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectReport(Result):
    """What a selection chose.

    Attributes:
        path: what was written.
        form: as what.
        store: the store that was chosen from.
        store_digest: its digest.
        by: the measure that chose.
        order: which end of it came first.
        num_rows: rows that were chosen.
        num_labelled: rows that were passed over, as they have a gold label.
        languages: in the order of their tags.
        even_share: rows that each class of a language was to have.
        digest: of the store that was written; None of a file.
        reused: whether it stood there already.
    """

    path: str
    form: str
    store: str
    store_digest: str
    by: str
    order: str
    num_rows: int
    num_labelled: int
    languages: tuple[SelectedLanguage, ...]
    even_share: int
    digest: str | None
    reused: bool


def select_store(
    config: SelectConfig, out: Path, *, progress: Progress | None = None
) -> SelectReport:
    """Write the rows of a store that are wanted to `out`: a store, or a file for annotators.

    What is chosen is a pure function of the store and the settings. A store is continued where an
    earlier run left off; a file is written whole.

    Raises:
        ConfigError: no share is given, or `out` is something else.
        StoreIncomplete: labelling has not finished.
        StoreCorrupt: a file of the store is not as its record says.
        StoreMismatch: another store stands at `out`.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    if out.resolve() == config.folder.resolve():
        raise ConfigError(f"`out` {out}: it is the store that is read. Give another one.")
    store = LogitStore.open(config.folder)
    is_store = config.form == STORE_FORM
    sure = surest(config.by)
    unsure = "highest" if sure == "lowest" else "lowest"
    wanted = Wanted(
        by=config.by,
        order=config.order or (sure if is_store else unsure),  # type: ignore[arg-type]
        per_language=config.per_language,
        per_class=config.per_class,
        diverse=config.diverse,
        unlabelled=not is_store,
    )
    chosen = choose(store, wanted, progress)
    if not len(chosen.rows):
        raise StoreError(
            f"{store.folder}: no row can be chosen: all {chosen.num_labelled:,} rows have gold "
            "labels. Select from a store of text that is not labelled by people."
        )
    if is_store:
        digest, reused = _write_store(store, chosen, wanted, out, progress)
    else:
        digest, reused = None, _write_file(store, chosen, config.form, out)
    report = SelectReport(
        path=str(out),
        form=config.form,
        store=str(store.folder),
        store_digest=store.digest,
        by=wanted.by,
        order=wanted.order,
        num_rows=len(chosen.rows),
        num_labelled=chosen.num_labelled,
        languages=_languages(store, chosen, wanted),
        even_share=wanted.even_share(store.num_classes),
        digest=digest,
        reused=reused,
    )
    _tell(report, progress)
    return report


def _languages(store: LogitStore, chosen: Chosen, wanted: Wanted) -> tuple[SelectedLanguage, ...]:
    names = store.labels.names
    found = []
    for tag in sorted({cell.language for cell in chosen.offered}):
        cells = {name: Cell(tag, index) for index, name in enumerate(names)}
        labels = {name: chosen.counts.get(cell, 0) for name, cell in cells.items()}
        if none := chosen.counts.get(Cell(tag, len(names)), 0):
            labels[NO_CLASS] = none
        least = wanted.even_share(len(names))
        offered = {name: chosen.offered.get(cell, 0) for name, cell in cells.items()}
        found.append(
            SelectedLanguage(
                language=tag,
                num_rows=sum(labels.values()),
                labels=labels,
                short={name: number for name, number in offered.items() if number < least},
            )
        )
    return tuple(found)


def _tell(report: SelectReport, progress: Progress) -> None:
    for one in report.languages:
        if one.short:
            classes = ", ".join(f"{name} ({count:,})" for name, count in one.short.items())
            progress.note(
                f"{one.language}: fewer rows than the {report.even_share:,} of an even share are "
                f"decided for {classes}"
            )
    if report.num_labelled:
        progress.note(f"{report.num_labelled:,} rows have gold labels and were passed over")


def _manifest(store: LogitStore, rows: Int64s) -> StoreManifest:
    """What the store of some rows is a store of."""
    fingerprint = dict(store.manifest.fingerprint)
    places = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    fingerprint |= {
        CORPUS_KEY: digest_bytes(f"{fingerprint.get(CORPUS_KEY)}\n{places}\n".encode()),
        SELECTED_FROM_KEY: store.digest,
        SELECTED_ROWS_KEY: places,
    }
    return replace(store.manifest, num_rows=len(rows), fingerprint=fingerprint)


def _write_store(
    store: LogitStore, chosen: Chosen, wanted: Wanted, out: Path, progress: Progress
) -> tuple[str, bool]:
    """The digest of the store of the chosen rows, and whether it was there already."""
    with FolderWriter(out, _manifest(store, chosen.rows)) as writer:
        missing = writer.missing
        with progress.task("writing", sum(map(len, missing)), "rows") as task:
            for shard in missing:
                _write_shard(store, chosen.rows[shard.start : shard.stop], writer, shard)
                task.advance(len(shard))
        record = writer.complete(
            selected_by=wanted.by,
            order=wanted.order,
            per_language=wanted.per_language,
            per_class=wanted.per_class,
            diverse=wanted.diverse,
        )
    assert record is not None  # this writer claimed all shards
    return record.digest, not missing


def _write_shard(store: LogitStore, rows: Int64s, writer: FolderWriter, shard: ShardRange) -> None:
    """One shard of chosen rows, in parts."""
    sizes = {field: store.text_bytes(field, rows) for field in text_fields(writer.manifest)}
    with writer.shard(shard, sizes) as builder:
        for start in range(0, len(rows), _BLOCK_ROWS):
            part = rows[start : start + _BLOCK_ROWS]
            gold = store.gold(part)
            store.require_gold(part, gold)
            builder.append(
                logits=store.logits(part),
                documents=_documents(store, part, builder.next_row),
                labels=gold,
                recomputed=store.recomputed(part),
            )


def _documents(store: LogitStore, rows: Int64s, first: int) -> list[Document]:
    """The documents of some rows, numbered from `first` on."""
    texts = store.texts(rows)
    pairs: Sequence[str | None] = store.text_pairs(rows) or [None] * len(texts)
    fields = zip(store.ids(rows), texts, pairs, store.languages(rows))
    return [
        Document(row=row, id=name, text=text, text_pair=pair, lang=lang)
        for row, (name, text, pair, lang) in enumerate(fields, first)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A chosen row as annotators see it."""

    document: Document
    predicted: Label
    confidence: float


def _rows(store: LogitStore, rows: Int64s) -> Iterator[_Row]:
    """The chosen rows with what the teacher says of them."""
    problem = store.manifest.problem
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS]
        logits = store.logits(part)
        decided = problem.decode(problem.decide(logits))
        documents = _documents(store, part, 0)
        for row, document, label, sure in zip(
            part.tolist(), documents, decided, problem.confidence(logits).tolist()
        ):
            assert label is not None  # logits decide for something, if only for no class
            yield _Row(
                document=replace(document, row=row), predicted=label, confidence=round(sure, 6)
            )


def _write_file(store: LogitStore, chosen: Chosen, form: str, out: Path) -> bool:
    """Whether the file stood there already; another file there is left as it is."""
    earlier = digest_file(out) if out.is_file() else None
    teacher = str(store.manifest.fingerprint.get("teacher") or "monoxkit")
    with new_file(out) as stream:
        counted = _Counted(stream)
        _FORMS[form](_rows(store, chosen.rows), teacher, counted)
        if earlier is not None and earlier != counted.digest.hexdigest():
            raise ConfigError(
                f"`out` {out}: another file stands there, and annotators may have worked on it. "
                "Give another name, or delete it."
            )
    return earlier is not None


class _Counted:
    """What is written to a file, digested on the way."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, text: str) -> None:
        """Append text."""
        content = text.encode()
        self.digest.update(content)
        self._stream.write(content)


def _values(row: _Row) -> dict[str, Any]:
    """What all forms tell of a row's document."""
    document = row.document
    pair = {} if document.text_pair is None else {"text_pair": document.text_pair}
    return {"id": document.id, "text": document.text, **pair, "lang": document.lang}


def _jsonl(rows: Iterator[_Row], teacher: str, out: _Counted) -> None:
    for row in rows:
        said = {"predicted": row.predicted, "confidence": row.confidence, "row": row.document.row}
        out.write(json.dumps({**_values(row), **said}, ensure_ascii=False) + "\n")


def _csv(rows: Iterator[_Row], teacher: str, out: _Counted) -> None:
    """A table with an empty column `label` to fill in."""
    for number, row in enumerate(rows):
        values = _values(row)
        predicted = row.predicted
        shown = predicted if isinstance(predicted, str) else json.dumps(predicted)
        values |= {"predicted": shown, "confidence": row.confidence, "label": ""}
        if number == 0:
            out.write(csv_row(values))
        out.write(csv_row(values.values()))


def _array(values: Iterator[dict[str, Any]], out: _Counted) -> None:
    """A JSON array, a value a line."""
    before = "[\n"
    for value in values:
        out.write(before + json.dumps(value, ensure_ascii=False))
        before = ",\n"
    out.write("\n]\n")


def _label_studio(rows: Iterator[_Row], teacher: str, out: _Counted) -> None:
    """Tasks with predictions.

    Source: https://labelstud.io/guide/predictions, for a `Choices` named `label` on a `Text` named
    `text`. Its export JSON-MIN puts the task's own number into `id`.
    """

    def task(row: _Row) -> dict[str, Any]:
        predicted = row.predicted
        result = {
            "from_name": "label",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": [predicted] if isinstance(predicted, str) else list(predicted)},
        }
        said = {"model_version": teacher, "score": row.confidence, "result": [result]}
        values = _values(row)
        data = {"document_id": values.pop("id"), **values, "row": row.document.row}
        return {"data": data, "predictions": [said]}

    _array(map(task, rows), out)


def _argilla(rows: Iterator[_Row], teacher: str, out: _Counted) -> None:
    """Records with suggestions for a question named `label`.

    Source: `argilla.Record.from_dict` (argilla 2), which `dataset.records.from_json` reads. An id
    is given to one record alone there, and documents of several languages share theirs.
    """

    def record(row: _Row) -> dict[str, Any]:
        predicted, values = row.predicted, _values(row)
        fields = {name: values[name] for name in ("text", "text_pair") if name in values}
        metadata = {"id": row.document.id, "row": row.document.row}
        if row.document.lang is not None:
            metadata["lang"] = row.document.lang
        value = predicted if isinstance(predicted, str) else list(predicted)
        said = {"value": value, "score": row.confidence, "agent": teacher}
        return {
            "id": f"{row.document.row}",
            "fields": fields,
            "metadata": metadata,
            "suggestions": {"label": said},
        }

    _array(map(record, rows), out)


_FORMS: Mapping[str, Callable[[Iterator[_Row], str, _Counted], None]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "label-studio": _label_studio,
    "argilla": _argilla,
}
