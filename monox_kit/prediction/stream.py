"""Predicting a stream: a line in, a line out, as soon as it is there."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import IO

from monox_kit.corpora.checks import DocumentCheck
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.rows import RowSource
from monox_kit.data import Document
from monox_kit.errors import ConfigError, CorpusError, first_line
from monox_kit.models.scoring import Truncation
from monox_kit.prediction.config import PredictConfig
from monox_kit.prediction.rows import json_lines, opened, predicted_table
from monox_kit.progress import Progress, Silent

_NAME = "standard input"
# Bytes of a read: what is there already is predicted together, and nothing is waited for.
_READ_BYTES = 1 << 16
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
# Rows of files that are predicted together.
_WINDOW_ROWS = 1024


def predict_stream(
    config: PredictConfig,
    lines: IO[bytes] | None,
    out: IO[bytes],
    *,
    progress: Progress | None = None,
) -> int:
    """Predict rows as they come and write one JSON line for each, in their order.

    Args:
        config: what is predicted with what. Of a stream, `input.format` says what a line is: a
            JSON object (`jsonl`) or a text (`text`, `auto`), and `input.paths` is not read.
        lines: unbuffered, such as the standard input: what one read gives is predicted together.
            None for the files of `config.input`.
        out: where the lines go, flushed after every read.
        progress: told at the end how many rows were truncated.

    Returns:
        The number of rows.

    Raises:
        ConfigError: a stream of another format was asked for.
        CorpusError: a row cannot be used; the rows before it have been answered.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    of_stream = lines is None or config.input.format in ("auto", "text", "jsonl")
    if not of_stream or config.out_format not in (None, "jsonl"):
        raise ConfigError(
            f"`format` {config.input.format}, `out_format` {config.out_format}: a stream takes "
            "text or jsonl and gives jsonl. Give files for the other formats."
        )
    progress = progress or Silent()
    model = opened(config, progress)
    truncation = Truncation()
    try:
        for documents in _windows(config.input) if lines is None else _reads(config.input, lines):
            has_pairs = documents[0].text_pair is not None
            scored = model.score(documents, batch_tokens=config.batch_tokens)
            table = predicted_table(model, documents, scored.logits, config, has_pairs=has_pairs)
            out.write(json_lines(table, model.labels))
            out.flush()
            truncation += scored.truncation
    finally:  # a service ends by a signal, or by a bad row
        truncation.tell(progress, model.loaded.tokenizer.max_length)
    return truncation.num_rows


def _windows(config: CorpusConfig) -> Iterator[list[Document]]:
    """The documents of files, in lists."""
    found = Corpus(config).with_languages()
    documents = (replace(document, lang=language) for document, language in found)
    while window := list(islice(documents, _WINDOW_ROWS)):
        yield window


def _reads(config: CorpusConfig, lines: IO[bytes]) -> Iterator[list[Document]]:
    """The documents of a stream, in lists of what each read gave; a bad line ends the last one."""
    source = _StreamSource(config)
    chunks: Iterator[bytes] = iter(partial(lines.read, _READ_BYTES), b"")
    encoding = config.dialect().encoding
    if encoding is not None:
        chunks = _transcoded(chunks, encoding)
    row, rest = 0, b""
    for chunk in chain(chunks, [b""]):
        *whole, rest = (rest + chunk).split(b"\n")
        if not chunk and rest:
            whole.append(rest)
        documents: list[Document] = []
        failed: CorpusError | None = None
        for line in whole:
            try:
                documents.append(source.document(row, line))
            except CorpusError as error:
                failed = error
                break
            row += 1
        if documents:
            yield documents
        if failed is not None:
            raise failed


def _transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Chunks of another encoding in UTF-8, none of them empty.

    Raises:
        CorpusError: bytes are not of the encoding; the lines before them have been given.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    num_lines = 0
    for chunk in chain(chunks, [b""]):
        decoded: list[str] = []
        failed: UnicodeError | None = None
        try:
            # Piece by piece, so that a bad line costs none of those before it.
            pieces = _LINES.findall(chunk) or [b""]
            decoded.extend(decoder.decode(piece, final=not chunk) for piece in pieces)
        except UnicodeError as error:
            failed = error
        text = "".join(decoded)
        num_lines += text.count("\n")
        if text:
            yield text.encode()
        if failed is not None:
            raise CorpusError(
                f"{_NAME}, line {num_lines + 1}: expected {encoding}, found: {first_line(failed)}. "
                "Give the stream's own encoding with `encoding`, or convert it to UTF-8."
            ) from failed


class _StreamSource:
    """The documents of a stream's lines, held to the rules of files."""

    def __init__(self, config: CorpusConfig) -> None:
        self._columns = config.columns()
        self._is_json = config.format == "jsonl"
        self._check = DocumentCheck(is_paired=config.pair == "required")
        self._source = RowSource(
            name=_NAME,
            size_bytes=None,
            unit="line",
            columns=self._columns,
            rows=lambda columns, meter: iter(()),  # a stream is read once, by its reader
        )

    def document(self, row: int, line: bytes) -> Document:
        """The document in the line of a row; lines count from 1."""
        where = self._source.where(row + 1)
        try:
            text = line.decode().removesuffix("\r")
            value = json.loads(text) if self._is_json else {self._columns.text: text}
        except (ValueError, RecursionError) as error:
            wanted = "a JSON object" if self._is_json else "a text"
            raise CorpusError(
                f"{where}: expected {wanted} in UTF-8, found: {first_line(error)}. Correct it."
            ) from error
        if not isinstance(value, dict):
            raise CorpusError(
                f"{where}: expected a JSON object, found {type(value).__name__}. Write one object "
                "a line, or give the format text."
            )
        self._columns.check(value.keys(), where)
        found, pair, _, key, lang, _ = map(value.get, self._columns.fields)
        raw = (row + 1, found, pair, None, key, lang, None)
        return self._check.document(row, raw, self._source)
