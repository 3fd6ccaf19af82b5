"""Which reader reads which file. A new format is one function and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

from monox_kit.corpora.delimited import read_csv, read_tsv
from monox_kit.corpora.hub import read_hub
from monox_kit.corpora.jsonl import read_jsonl
from monox_kit.corpora.parquet import read_parquet
from monox_kit.corpora.paths import HubDataset, SourceFile
from monox_kit.corpora.plain import read_plain
from monox_kit.corpora.rows import Columns, Dialect, Meter, ReadRow, RowSource
from monox_kit.errors import CorpusError

FormatName: TypeAlias = Literal["auto", "jsonl", "csv", "tsv", "parquet", "text"]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
        suffixes: endings of file names, in lower case.
        unit: what positions count: `line` (from 1) or `row` (from 0).
        read: the raw rows of a file, in order, in bounded memory.
    """

    suffixes: tuple[str, ...]
    unit: str
    read: Callable[[SourceFile, Columns, Meter], Iterator[ReadRow]]


FORMATS: dict[str, Format] = {
    "jsonl": Format((".jsonl", ".ndjson", ".json"), "line", read_jsonl),
    "csv": Format((".csv",), "line", read_csv),
    "tsv": Format((".tsv", ".tab"), "line", read_tsv),
    "parquet": Format((".parquet", ".pq"), "row", read_parquet),
    "text": Format((".txt", ".text"), "line", read_plain),
}


def row_source(
    file: SourceFile | HubDataset, format_name: str, columns: Columns, dialect: Dialect
) -> RowSource:
    """The rows of a resolved path.

    Args:
        file: a file, or a hub dataset.
        format_name: a key of `FORMATS`, or `auto` to go by the file's name without a compression
            suffix. Hub datasets have no format.
        columns: what is read, but for the file's own columns.
        dialect: how the characters of its format are read.

    Raises:
        CorpusError: the name tells no format.
    """
    columns = columns.renamed(file.columns)
    if isinstance(file, HubDataset):
        return RowSource(
            name=file.name,
            size_bytes=None,
            unit="row",
            columns=columns,
            rows=partial(read_hub, file.name),
        )
    chosen = _by_name(file) if format_name == "auto" else FORMATS[format_name]
    return RowSource(
        name=file.name,
        size_bytes=file.size_bytes,
        unit=chosen.unit,
        columns=columns,
        rows=partial(chosen.read, replace(file, dialect=dialect)),
    )


def _by_name(file: SourceFile) -> Format:
    for known in FORMATS.values():
        if file.bare_name.endswith(known.suffixes):
            return known
    suffixes = ", ".join(suffix for known in FORMATS.values() for suffix in known.suffixes)
    raise CorpusError(
        f"{file.name}: expected a name that ends in one of {suffixes} (then .gz or .zst where it "
        f"is compressed), found {file.bare_name!r}. Rename it or use `format`."
    )
