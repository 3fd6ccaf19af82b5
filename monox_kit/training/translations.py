"""Translations of training rows: joined by id on disk, and which row is read as which of them.

A row and its translations share an id: they are one document, and the student learns the row's
target from either. Which one it reads is a pure function of seed, epoch and row: a resumed run, and
each of several processes, reads what an undisturbed one would.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document, Int64s
from monox_kit.digest import RowDigest
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.problem import Bools
from monox_kit.progress import Progress
from monox_kit.training.permutation import mixed
from monox_kit.training.rows import TrainingRows

# Memory of the database, of a sort and of a lookup, each; beyond it pages go to temporary files.
_CACHE_KIB = 64 * 1024
_BLOCK_ROWS = 4096
# Rows of one id that are compared; an id of more is none.
_MOST_EQUAL = 100

# `rows` and `texts` are the two sides of the join, `found` is what comes of it: of training row
# `at` translation `n` of `total`, in the order of the files.
_TABLES = """
CREATE TABLE rows (id TEXT NOT NULL, lang TEXT, at INTEGER NOT NULL);
CREATE TABLE texts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, lang TEXT NOT NULL, text TEXT NOT NULL, pair TEXT
);
CREATE TABLE ambiguous (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE found (
    at INTEGER NOT NULL, n INTEGER NOT NULL, total INTEGER NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (at, n)
) WITHOUT ROWID;
"""
_JOIN = """
INSERT INTO found
SELECT at, ROW_NUMBER() OVER of_row - 1, COUNT(*) OVER (PARTITION BY at), number FROM (
    SELECT rows.at AS at, texts.number AS number FROM texts JOIN rows ON rows.id = texts.id
    WHERE rows.lang IS NOT texts.lang AND rows.id NOT IN (SELECT id FROM ambiguous)
) WINDOW of_row AS (PARTITION BY at ORDER BY number)
"""
_COUNTS = {
    "translations": "SELECT COUNT(*) FROM texts",
    "translated_rows": "SELECT COUNT(*) FROM found WHERE n = 0",
    "rows_with_several_translations": "SELECT COUNT(*) FROM found WHERE n = 1",
    "translations_of_no_row": (
        "SELECT COUNT(*) FROM texts WHERE NOT EXISTS (SELECT 1 FROM rows WHERE rows.id = texts.id)"
    ),
    "translations_in_the_language_of_their_row": (
        "SELECT COUNT(*) FROM texts WHERE number NOT IN (SELECT number FROM found)"
        " AND EXISTS (SELECT 1 FROM rows WHERE rows.id = texts.id AND rows.lang = texts.lang)"
    ),
    "rows_with_an_id_of_other_texts": (
        "SELECT COUNT(*) FROM rows WHERE id IN (SELECT id FROM ambiguous)"
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationConfig:
    """Which translations a student reads, and how often.

    Attributes:
        files: the translations.
        share: of the visits of a row that has translations, those that read one.
        seed: the run's.
    """

    files: CorpusConfig
    share: float
    seed: int


class Translations:
    """Texts in other languages for some of the training rows.

    Attributes:
        digest: over the translations in their order, with their languages.
        languages: of the translations that belong to a row, with their number.
        counts: rows and translations by what became of them.
    """

    def __init__(self, config: TranslationConfig, rows: TrainingRows, progress: Progress) -> None:
        """Read the translations and join them with the rows by id.

        The join is a database in a temporary file, of which some of `_CACHE_KIB` are in memory.

        Raises:
            ConfigError: no translation belongs to a row, or the rows have no ids.
            CorpusError: a translation cannot be used, or does not name its language.
        """
        self._config, self._has_pairs = config, rows.has_pairs
        # A database without a name is SQLite's own temporary file, which no crash leaves behind.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()  # windows are read ahead by several threads
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.executescript(_TABLES)
        self._database.execute("BEGIN")
        num_keys = self._add_rows(rows)
        self.digest = self._add_texts(progress)
        self._database.execute("CREATE INDEX rows_by_id ON rows (id, lang)")
        self._find_ambiguous(rows)
        self._database.execute(_JOIN)
        self.counts = {name: self._number(query) for name, query in _COUNTS.items()}
        self.counts["rows_without_a_translation"] = len(rows) - self.counts["translated_rows"]
        query = (
            "SELECT lang, COUNT(DISTINCT number) FROM found JOIN texts USING (number)"
            " GROUP BY lang ORDER BY lang"
        )
        self.languages: Mapping[str, int] = dict(self._rows(query))
        self._database.execute("COMMIT")
        self._require_found(num_keys)
        self._tell(progress)

    @property
    def share(self) -> float:
        """Of the visits of a row that has translations, those that read one."""
        return self._config.share

    def of(self, rows: Int64s, epoch: int) -> Iterator[tuple[int, str, str]]:
        """The rows that are read as a translation in an epoch: place, text, second text.

        Args:
            rows: [B] int64 training rows.
            epoch: from 0.
        """
        is_translated, draws = drawn(rows, self._config.seed, epoch, self._config.share)
        for place in np.flatnonzero(is_translated).tolist():
            found = self._text(int(rows[place]), int(draws[place]))
            if found is not None:
                yield place, found[0], found[1] or ""

    def _text(self, row: int, draw: int) -> tuple[str, str | None] | None:
        """One of a row's translations; None where it has none."""
        with self._lock:
            first = self._database.execute(
                "SELECT total FROM found WHERE at = ? AND n = 0", (row,)
            ).fetchone()
            if first is None:
                return None
            query = "SELECT text, pair FROM found JOIN texts USING (number) WHERE at = ? AND n = ?"
            found: tuple[str, str | None] = self._database.execute(
                query, (row, draw % first[0])
            ).fetchone()
            return found

    def _add_rows(self, rows: TrainingRows) -> int:
        """Note the ids of the training rows, and return how many there are.

        Ids that are the numbers of all rows of their source are none: row 5 of one file is not
        the document of row 5 of another.
        """
        num_keys = 0
        for positions, source in rows.parts():
            is_numbered = True
            for start in range(0, len(positions), _BLOCK_ROWS):
                local = np.arange(start, min(start + _BLOCK_ROWS, len(positions)), dtype=np.int64)
                keys = source.keys(local)
                is_numbered &= all(key.id == str(key.number) for key in keys)
                self._database.executemany(
                    "INSERT INTO rows VALUES (?, ?, ?)",
                    (
                        (key.id, key.language, at)
                        for at, key in enumerate(keys, positions.start + start)
                    ),
                )
            if is_numbered:
                of_source = (positions.start, positions.stop)
                self._database.execute("DELETE FROM rows WHERE at >= ? AND at < ?", of_source)
            else:
                num_keys += len(positions)
        return num_keys

    def _add_texts(self, progress: Progress) -> str:
        """Note the translations, and return their digest."""
        files = self._config.files
        corpus = Corpus(files, progress, is_translation=True)
        digest = RowDigest()
        with progress.task("reading translations", None, "rows") as task:
            for document, language in corpus.with_languages():
                lang = self._checked(document, language, corpus)
                digest.add(document.id, document.text, document.text_pair, None, lang)
                self._database.execute(
                    "INSERT INTO texts VALUES (?, ?, ?, ?, ?)",
                    (document.row, document.id, lang, document.text, document.text_pair),
                )
                task.advance()
        return digest.hexdigest()

    def _checked(self, document: Document, language: str | None, corpus: Corpus) -> str:
        """The language of a translation that fits the rows."""
        where = (
            f"`translations` {', '.join(corpus.files)}, row {document.row} ({document.id[:60]!a})"
        )
        if language is None:
            raise CorpusError(
                f"{where}: it does not name its language. Give a lang column, `language` FILE=de, "
                "or files named like texts.de.jsonl."
            )
        if (document.text_pair is not None) != self._has_pairs:
            kinds = ("a single text", "pairs") if self._has_pairs else ("a pair", "single texts")
            raise CorpusError(
                f"{where}: it is {kinds[0]}, and the training rows are {kinds[1]}. Check the "
                "columns of both."
            )
        return language

    def _find_ambiguous(self, rows: TrainingRows) -> None:
        """Note the ids that rows of one language and of different texts share."""
        repeated = "SELECT id, lang FROM rows GROUP BY id, lang HAVING COUNT(*) > 1"
        with closing(self._database.cursor()) as cursor:
            for key, lang in cursor.execute(repeated):
                query = f"SELECT at FROM rows WHERE id = ? AND lang IS ? LIMIT {_MOST_EQUAL + 1}"
                same = self._rows(query, key, lang)
                texts, pairs, _ = rows.batch(np.array([at for (at,) in same], np.int64))
                if len(same) > _MOST_EQUAL or len(set(zip(texts, pairs or texts))) > 1:
                    self._database.execute("INSERT OR IGNORE INTO ambiguous VALUES (?)", (key,))

    def _require_found(self, num_keys: int) -> None:
        if self.languages:
            return
        files = ", ".join(self._config.files.paths)
        if not num_keys:
            raise ConfigError(
                f"`translations` {files}: the training rows have no ids but their numbers, so that "
                "no translation belongs to one. Label the text again from a file with an id "
                "column."
            )
        (example,) = self._rows("SELECT id FROM texts LIMIT 1")[0]
        (other,) = self._rows("SELECT id FROM rows LIMIT 1")[0]
        raise ConfigError(
            f"`translations` {files}: none of {self.counts['translations']:,} translations has the "
            f"id of a training row: {example[:60]!a} is one of the former, {other[:60]!a} one of "
            "the latter. Correct the ids, or `id_column`."
        )

    def _tell(self, progress: Progress) -> None:
        counts, languages = (
            self.counts,
            ", ".join(f"{n:,} {tag}" for tag, n in self.languages.items()),
        )
        progress.note(
            f"{counts['translated_rows']:,} training rows have translations ({languages}), "
            f"{counts['rows_with_several_translations']:,} of them several; "
            f"{counts['rows_without_a_translation']:,} have none"
        )
        for name, what in (
            ("translations_of_no_row", "translations have the id of no training row"),
            (
                "translations_in_the_language_of_their_row",
                "translations are in the language of their row, which is read as it is",
            ),
            (
                "rows_with_an_id_of_other_texts",
                "training rows share their id with another text in their language, and are read as "
                "they are",
            ),
        ):
            if counts[name]:
                progress.note(f"{counts[name]:,} {what}")

    def _number(self, query: str) -> int:
        return int(self._database.execute(query).fetchone()[0])

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._database.execute(query, values).fetchall()


def drawn(rows: Int64s, seed: int, epoch: int, share: float) -> tuple[Bools, np.ndarray[Any, Any]]:
    """Which rows are read as a translation in an epoch, and [B] uint64 that choose among several.

    A pure function of its arguments, each row by itself.

    Args:
        rows: [B] int64 training rows.
        seed: the run's.
        epoch: from 0.
        share: in [0, 1], of the rows.

    Source: the finalizer of SplitMix64 under keys from BLAKE2b, as in `RowPermutation`.
    """
    keys = hashlib.blake2b(f"translations {seed} {epoch}".encode(), digest_size=16).digest()
    first, second = np.frombuffer(keys, "<u8").astype(np.uint64)
    draws = mixed(mixed(rows.astype(np.uint64) ^ first))
    fractions = (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53  # as `random.random`
    return fractions < share, mixed(draws ^ second)
