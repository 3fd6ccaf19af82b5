"""Rows of predictions: computed as Arrow tables, written as JSONL, CSV or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from monox_kit.data import Document, LabelSet, Logits
from monox_kit.durable import new_file
from monox_kit.foreign import csv_row
from monox_kit.models.predict import Model, load, predictions
from monox_kit.prediction.config import OutputFormat, PredictConfig
from monox_kit.progress import Progress

# Columns with a number for each class: one object in JSONL, a column for each class elsewhere.
_BY_CLASS = ("probabilities", "logits")


def opened(config: PredictConfig, progress: Progress | None = None) -> Model:
    """The model that predicts."""
    return load(
        config.model,
        backend=config.backend,
        max_length=config.max_length,
        long=config.long,
        label_names=config.input.label_names,
        provider=config.provider,
        device=config.device,
        progress=progress,
    )


def predicted_table(
    model: Model,
    documents: Sequence[Document],
    logits: Logits,
    config: PredictConfig,
    *,
    has_pairs: bool,
) -> Any:
    """The predictions for N documents, at least one, as a `pyarrow.Table` of N rows.

    Columns: id, lang, label, probability, and of a model with thresholds abstained; then text,
    text_pair, probabilities and logits as asked. Probabilities are calibrated where the model is.

    Args:
        model: what predicted.
        documents: all single texts or all pairs.
        logits: [N, C], what the model says of them.
        config: which columns are asked for.
        has_pairs: whether the documents are pairs.
    """
    import pyarrow as pa

    languages = [document.lang for document in documents]
    calibrated = model.calibrated(logits, languages)
    abstained = model.abstentions(calibrated, languages)
    found = predictions(model.problem, calibrated)
    many = model.labels.is_multi
    columns = {
        "id": pa.array([document.id for document in documents], pa.string()),
        "lang": pa.array([document.lang for document in documents], pa.string()),
        "label": pa.array([one.label for one in found], _listed(pa.string(), many)),
        "probability": pa.array([one.probability for one in found], _listed(pa.float64(), many)),
    }
    if abstained is not None:
        columns["abstained"] = pa.array(abstained)
    if config.text:
        columns["text"] = pa.array([document.text for document in documents], pa.string())
        if has_pairs:
            columns["text_pair"] = pa.array([one.text_pair for one in documents], pa.string())
    if config.probabilities:
        values = list(model.problem.probabilities(calibrated))
        columns["probabilities"] = pa.array(values, pa.list_(pa.float64()))
    if config.logits:
        columns["logits"] = pa.array(list(logits), pa.list_(pa.float32()))
    return pa.table(columns)


def json_lines(table: Any, labels: LabelSet) -> bytes:
    """A table of predictions as JSON lines."""
    lines = []
    for row in table.to_pylist():
        for name in _BY_CLASS:
            if name in row:
                row[name] = dict(zip(labels.names, row[name]))
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


def write_tables(tables: Iterable[Any], out: Path, format: OutputFormat, labels: LabelSet) -> None:
    """Write tables of predictions, at least one, one behind the other as the file `out`.

    Raises:
        StorageError: the disk refused.
    """
    if format == "parquet":
        _write_parquet((_flat(table, labels) for table in tables), out)
        return
    with new_file(out) as stream:
        for number, table in enumerate(tables):
            if format == "jsonl":
                stream.write(json_lines(table, labels))
            else:
                stream.write(_csv_lines(_flat(table, labels), with_header=number == 0))


def _write_parquet(tables: Iterator[Any], out: Path) -> None:
    import pyarrow.parquet as pq

    first = next(tables)
    settings: dict[str, Any] = {"compression": "zstd"}
    with new_file(out) as stream, pq.ParquetWriter(stream, first.schema, **settings) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _csv_lines(table: Any, *, with_header: bool) -> bytes:
    lines = [csv_row(table.column_names)] if with_header else []
    lines.extend(
        csv_row(
            # Several labels of a row are a JSON array, which every reader of labels takes.
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell
            for cell in row.values()
        )
        for row in table.to_pylist()
    )
    return "".join(lines).encode()


def _flat(table: Any, labels: LabelSet) -> Any:
    """The table with a column for each class, such as `probabilities.pos`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in table.column_names:
        column = table[name]
        if name in _BY_CLASS:
            for index, label in enumerate(labels.names):
                columns[f"{name}.{label}"] = pc.list_element(column, index)
        else:
            columns[name] = column
    return pa.table(columns)


def _listed(kind: Any, many: bool) -> Any:
    import pyarrow as pa

    return pa.list_(kind) if many else kind
