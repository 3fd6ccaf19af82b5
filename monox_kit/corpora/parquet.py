"""Parquet: batches of the needed columns alone, as many rows at once as memory is meant for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from monox_kit.corpora.blocks import read_blocks
from monox_kit.corpora.class_numbers import named, names_in_schema
from monox_kit.corpora.detection import refuse_other_content
from monox_kit.corpora.parquet_pages import column_pages
from monox_kit.corpora.paths import SourceFile, one_line
from monox_kit.corpora.rows import MAX_LABELS, Columns, Meter, ReadRow, Start, package
from monox_kit.durable import scratch_file
from monox_kit.errors import CorpusError, CorpusUnreadable, MonoxError

# Rows decoded at once: 1,024 texts of 10 KB are 10 MB. 8,192 measured no faster.
_BATCH_ROWS = 1024
# What they may take, unpacked, where texts are longer: a value may be as long as a dictionary.
_BATCH_BYTES = 64 << 20
# The pages that are unpacked at the same time, one and a dictionary for each column.
_MOST_PAGE_BYTES = 256 << 20
# Elements of a row group's lists: a row's may be in any number of pages, each of a few bytes.
_MOST_ELEMENTS = 10_000_000
_BUFFER_BYTES = 1 << 20
# A Parquet file is packed inside: what packs it again saves little, except in a bomb.
_MOST_UNPACKED_TIMES = 64
_LEAST_UNPACKED_BYTES = 16 << 20


def read_parquet(file: SourceFile, columns: Columns, meter: Meter) -> Iterator[ReadRow]:
    """The rows of a Parquet file, counted from 0.

    Where `datasets` described the label column with class names, they are the labels, and -1 is
    none. Parquet is read from its end, so that one that is compressed as a whole (`.parquet.gz`) is
    decompressed to an unnamed scratch file first, up to 64 times its size.

    Raises:
        CorpusUnreadable: the file is not Parquet, cut or damaged, or cannot be opened or read.
        CorpusError: a needed column is missing, or a page takes more memory than is meant for it.
        StorageError: no space for the scratch file.
    """
    pq = package("pyarrow.parquet", file.name, "Parquet input", "pyarrow")
    with _seekable(file) as stream:
        row = meter.start.row
        try:
            _require_parquet(stream, file.name)
            # Without these two the column chunks of a whole row group are held in memory.
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            schema = parquet.schema_arrow
            columns.check(schema.names, file.name, meter)
            names = [column for column in columns.names if column in schema.names]
            if lists := _text_lists(parquet, columns):  # their elements as numbers
                parquet = pq.ParquetFile(
                    stream, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=lists
                )
            classes, answers = (
                names_in_schema(schema.metadata, column, file.name)
                for column in (columns.label, columns.answer)
            )
            for group, before in _groups_from(parquet.metadata, row):
                surplus = before
                batches = parquet.iter_batches(
                    batch_size=_batch_rows(parquet, stream, group, names, file.name),
                    columns=names,
                    row_groups=[group],
                )
                for whole in batches:
                    batch = whole.slice(min(surplus, whole.num_rows))
                    surplus -= whole.num_rows - batch.num_rows
                    meter.here = Start(row)
                    yield from _rows(batch, row, columns, (classes, answers), file.name)
                    row += batch.num_rows
                    if file.size_bytes is not None:
                        meter.file_bytes = file.size_bytes * row // parquet.metadata.num_rows
        except MonoxError:
            raise
        # Arrow has errors of its own, for remote files those of the file system come through it.
        except Exception as error:
            where = f"{file.name}, row {row} or later" if row else file.name
            raise CorpusUnreadable(
                f"{where}: expected a readable Parquet file, found: "
                f"{one_line(error)}. Check the file, or write or fetch it again."
            ) from error


def _require_parquet(stream: BinaryIO, name: str) -> None:
    """Check that a file does not begin as one of another kind that can be named."""
    head = stream.read(256)
    stream.seek(0)
    if not head.startswith(b"PAR1"):
        refuse_other_content(head, name)


def _groups_from(metadata: Any, row: int) -> Iterator[tuple[int, int]]:
    """The row groups that hold this row and all after it, each with its rows before that row."""
    first = 0
    for group in range(metadata.num_row_groups):
        num_rows = metadata.row_group(group).num_rows
        if row < first + num_rows:
            yield group, max(row - first, 0)
        first += num_rows


def _batch_rows(parquet: Any, stream: BinaryIO, group: int, names: Sequence[str], name: str) -> int:
    """Rows of a row group that may be decoded at once."""
    metadata = parquet.metadata.row_group(group)
    row_bytes = page_bytes = 0.0
    for index in range(metadata.num_columns):
        chunk = metadata.column(index)
        path = chunk.path_in_schema
        if not any(path == column or path.startswith(f"{column}.") for column in names):
            continue
        is_list = path not in names
        if is_list and chunk.num_values > _MOST_ELEMENTS:
            raise CorpusError(
                f"{name}: row group {group} has {chunk.num_values:,} elements in the lists of "
                f"column {path!r}. Write the file with row groups of fewer rows."
            )
        largest = dictionary = widest = 0.0
        for page in column_pages(stream, chunk):
            if page.is_dictionary:
                dictionary = max(dictionary, page.num_bytes)
            else:
                largest = max(largest, page.num_bytes)
                widest = max(widest, page.num_bytes / max(page.num_values, 1))
        page_bytes += largest + dictionary
        per_row = chunk.num_values / max(metadata.num_rows, 1)
        row_bytes += max(widest, dictionary) * max(per_row, 1)
    if page_bytes > _MOST_PAGE_BYTES:
        raise CorpusError(
            f"{name}: row group {group} has pages of {page_bytes / 2**20:,.0f} MiB in the columns "
            f"{', '.join(names)}, where {_MOST_PAGE_BYTES >> 20} MiB are the most. Write the file "
            "with smaller pages (pyarrow: write_batch_size) or as JSONL."
        )
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))


@contextlib.contextmanager
def _seekable(file: SourceFile) -> Iterator[BinaryIO]:
    """A stream over the decompressed file that can be read from its end."""
    with contextlib.ExitStack() as stack:
        if file.compression:
            stream = stack.enter_context(scratch_file())
            most = max(_MOST_UNPACKED_TIMES * (file.size_bytes or 0), _LEAST_UNPACKED_BYTES)
            for block in read_blocks(file, Meter()):
                if stream.tell() + len(block) > most:
                    raise CorpusError(
                        f"{file.name}: it unpacks to more than {most >> 20} MiB, "
                        f"{_MOST_UNPACKED_TIMES} times its size. Unpack it yourself if it is "
                        "trusted, and give the Parquet file."
                    )
                stream.write(block)
            stream.seek(0)
        else:
            try:
                stream = stack.enter_context(file.open())
            except Exception as error:
                raise file.unreadable(error) from error
        yield stream


def _rows(
    batch: Any,
    first: int,
    columns: Columns,
    classes: tuple[Sequence[str], Sequence[str]],
    name: str,
) -> Iterator[ReadRow]:
    """The rows of one batch, the first of which has this position in the file.

    Numbers of classes become names: those of labels, and those of answers.
    """
    values = [
        _values(batch.column(column), column, first, name)
        if column is not None and column in batch.schema.names
        else [None] * batch.num_rows
        for column in columns.fields
    ]
    rows = zip(range(first, first + batch.num_rows), *values)
    if not any(classes):
        yield from rows
        return
    of_labels, of_answers = classes
    for row, text, pair, label, key, lang, answer in rows:
        try:
            where = f"{name}, row {row}"
            names = named(label, of_labels, where), named(answer, of_answers, where)
            yield row, text, pair, names[0], key, lang, names[1]
        except CorpusError as error:
            yield error


def _text_lists(parquet: Any, columns: Columns) -> list[str]:
    """The paths of texts in lists of labels, and in an answer that is a list of texts."""
    leaves = (parquet.schema.column(index) for index in range(len(parquet.schema)))
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    return [
        path
        for path in texts
        if (columns.label and path.startswith(f"{columns.label}."))
        # Not the names of classes in maps and objects.
        or path in (f"{columns.answer}.list.element", f"{columns.answer}.list.item")
    ]


def _values(array: Any, column: str, first: int, name: str) -> list[Any]:
    if hasattr(array, "value_lengths") and not hasattr(array, "items"):  # no map
        return _lists(array, column, first, name)
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        for row, scalar in enumerate(array, first):
            try:
                scalar.as_py()
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{name}, row {row}: expected UTF-8 in column {column!r}, found byte "
                    f"0x{error.object[error.start]:02x} at byte offset {error.start} of the value. "
                    "Convert the text to UTF-8."
                ) from None
        raise
    return values


def _lists(array: Any, column: str, first: int, name: str) -> list[Any]:
    """The values of lists; equal texts in them are one, however often a dictionary names them."""
    lengths = array.value_lengths().to_pylist()
    for row, length in enumerate(lengths, first):
        if length is not None and length > MAX_LABELS:
            raise CorpusError.of_row(
                f"{name}, row {row}",
                f"a list of {length:,} in column {column!r}, where {MAX_LABELS:,} are the most",
                "Correct the row.",
                kind="a list that is too long",
            )
    elements = array.flatten()
    if hasattr(elements, "dictionary"):
        names = elements.dictionary.to_pylist()
        flat = [None if each is None else names[each] for each in elements.indices.to_pylist()]
    else:
        flat = elements.to_pylist()
    values, at = [], 0
    for length in lengths:
        values.append(None if length is None else flat[at : at + length])
        at += length or 0
    return values
