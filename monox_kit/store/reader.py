"""Reading a logit store: random access and streaming, without loading whole arrays."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from monox_kit.data import Document, Int64s, LabelSet, Logits
from monox_kit.errors import ConfigError, StoreError, StoreIncomplete
from monox_kit.problem import Bools, Labels
from monox_kit.progress import Progress
from monox_kit.results import Result
from monox_kit.store.begun import BegunStore
from monox_kit.store.folder import StoreFolder
from monox_kit.store.format import COMPLETE_FILE, SHARDS_FOLDER, CompleteRecord, ShardRange
from monox_kit.store.mapped import MappedArrays
from monox_kit.store.record import corrupt
from monox_kit.store.rules import broken_rule
from monox_kit.store.shard import ShardTotals, repair_step
from monox_kit.store.verify import VerifyReport, verify_store

VerifyMode = Literal["open", "read", "full"]

_DOCUMENTS = 1024  # decoded at once while all are read
_LANGUAGES = 65_536  # tags read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreInfo(Result):
    """What is in a store, for people.

    Attributes:
        num_rows: rows of the finished store; `num_rows_done` of them are in finished shards.
        num_bytes: bytes of the arrays of the finished shards.
        has_languages: whether each row has a language of its own; else `fingerprint` tells that of
            all, under `language`.
        num_labelled: rows with a gold label in the finished shards.
        num_recomputed: rows in the finished shards whose logits were recomputed by the reference
            graph of the run's fidelity guard.
        digest: the store's digest; None while it is incomplete.
        summary: what the labelling run remembered; empty while it is incomplete.
    """

    path: str
    complete: bool
    num_rows: int
    num_rows_done: int
    num_shards: int
    num_shards_done: int
    num_classes: int
    labels: tuple[str, ...]
    problem_type: str
    num_labelled: int
    num_recomputed: int
    dtype: str
    has_pairs: bool
    has_languages: bool
    num_bytes: int
    digest: str | None
    fingerprint: Mapping[str, Any]
    summary: Mapping[str, Any]

    @classmethod
    def of(
        cls, store: BegunStore, complete: CompleteRecord | None, totals: ShardTotals
    ) -> StoreInfo:
        """What the records of a store, and of its finished shards, tell."""
        manifest = store.manifest
        return cls(
            path=str(store.where),
            complete=complete is not None,
            num_rows=manifest.num_rows,
            num_rows_done=totals.num_rows,
            num_shards=manifest.num_shards,
            num_shards_done=len(totals.digests),
            num_classes=manifest.num_classes,
            labels=manifest.labels.names,
            problem_type=manifest.labels.problem_type,
            num_labelled=totals.num_labelled,
            num_recomputed=totals.num_recomputed,
            dtype=manifest.dtype,
            has_pairs=manifest.has_pairs,
            has_languages=manifest.has_languages,
            num_bytes=totals.num_bytes,
            digest=complete.digest if complete else None,
            fingerprint=dict(manifest.fingerprint),
            summary=dict(complete.summary) if complete else {},
        )


class LogitStore:
    """A logit store opened for reading. Rows are positions in the corpus.

    Nothing is loaded at once: arrays are mapped when a row of theirs is asked for, and a mapped
    file's size and header are checked before any value of it is used.

    Attributes:
        folder: the store's folder.
        manifest: what the store is a store of.
    """

    def __init__(
        self,
        folder: StoreFolder,
        complete: CompleteRecord | None,
        totals: ShardTotals,
        verify: VerifyMode,
    ) -> None:
        """Used by `open`, which has checked the records of all shards in `totals`."""
        self.folder = folder.path
        self.manifest = folder.manifest
        self._folder = folder
        self._complete = complete
        self._totals = totals
        done = frozenset(shard.index for shard in totals.digests)
        self._arrays = MappedArrays(folder, done, check_digests=verify == "read")

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        verify: VerifyMode = "open",
        allow_incomplete: bool = False,
    ) -> LogitStore:
        """Open a store.

        Args:
            folder: the store's folder.
            verify: `open` checks all records and the size of every file now, `read` also each
                file's digest when it is first used, `full` all of `verify()` now.
            allow_incomplete: whether a store whose labelling has not finished may be opened; rows
                in unfinished shards are then errors when they are asked for.

        Raises:
            StoreIncomplete: labelling has not finished.
            StoreCorrupt: a file is absent or not as its record says.
            StoreError: the folder is no store, or one of a later format.
        """
        if verify not in get_args(VerifyMode):
            raise ConfigError(
                f"verify: expected open, read or full, found {verify!r}. Give one of the three."
            )
        store = StoreFolder(Path(folder))
        complete, totals = store.checked_complete() if allow_incomplete else store.finished()
        if verify == "full":
            verify_store(store.path).require_intact()
        return cls(store, complete, totals, verify)

    @property
    def labels(self) -> LabelSet:
        """What the columns of the logits mean."""
        return self.manifest.labels

    @property
    def num_classes(self) -> int:
        """C, the columns of the logits."""
        return self.manifest.num_classes

    @property
    def complete(self) -> bool:
        """Whether labelling has finished."""
        return self._complete is not None

    @property
    def digest(self) -> str:
        """The store's digest: equal for equal content and settings.

        Raises:
            StoreIncomplete: labelling has not finished.
        """
        if self._complete is None:
            raise StoreIncomplete(
                f"{self.folder}: expected a complete store for its digest, found no "
                f"{COMPLETE_FILE}. Run the same `monoxkit label` command again to finish it."
            )
        return self._complete.digest

    def __len__(self) -> int:
        """N, the rows of the finished store."""
        return self.manifest.num_rows

    def shards(self) -> list[ShardRange]:
        """The finished shards, in order."""
        return list(self._totals.digests)

    def logits(self, rows: Int64s | slice) -> Logits:
        """[n, C] float32 logits of n rows, in the order asked for, as a copy.

        Args:
            rows: [n] rows, in any order and with repeats, or a slice of the store.

        Raises:
            StoreError: a row is outside of the store or in an unfinished shard.
        """
        out = np.empty((self._arrays.count(rows), self.num_classes), np.float32)
        self._arrays.gather("logits.npy", rows, out)
        return out

    def gold(self, rows: Int64s | slice) -> Labels:
        """The gold labels of n rows, [n] int32 or, of several labels a row, [n, C] int8.

        See `problem` for their form, and `logits`. Values are as they stand in the files, which
        `require_gold` checks.
        """
        problem = self.manifest.problem
        out = np.empty(problem.label_shape(self._arrays.count(rows)), problem.label_descr)
        self._arrays.gather("labels.npy", rows, out)
        return out

    def require_gold(self, rows: Int64s, gold: Labels) -> None:
        """Check that gold labels of n rows are ones that the store may hold.

        Args:
            rows: [n] int64.
            gold: theirs, as `gold` gave them.

        Raises:
            StoreCorrupt: the file holds a label that the store has not; it names file and row.
        """
        problem = self.manifest.problem
        broken = broken_rule({"labels.npy": gold}, range(len(rows)), problem, ("labels.npy",))
        if broken is not None:
            row = int(rows[broken.at])
            shard = self._arrays.shard_of(row)
            path = self.folder / SHARDS_FOLDER / shard.name / broken.file
            found = f"{gold[broken.at]} in row {row}"
            raise corrupt(path, broken.wanted, found, repair_step(shard))

    def recomputed(self, rows: Int64s | slice) -> Bools:
        """[n] bool, whether the fidelity guard recomputed a row's logits; see `logits`."""
        out = np.empty(self._arrays.count(rows), np.bool_)
        self._arrays.gather("recomputed.npy", rows, out)
        return out

    def label(self, row: int) -> int:
        """The gold label's index, or -1 where the corpus has none; of stores with one label a row.

        Raises:
            StoreError: see `logits`; or a row has any number of labels, which `gold` gives.
            StoreCorrupt: the file holds a label that the store has not.
        """
        if self.labels.is_multi:
            raise StoreError(
                f"{self.folder}: expected a store with one label a row, found "
                f"{self.labels.problem_type}. Use gold, which gives [n, C]."
            )
        shard = self._arrays.shard_of(row)
        at = row - shard.start
        gold = self._arrays.array(shard.index, "labels.npy")[at : at + 1]
        self.require_gold(np.array([row]), gold)
        return int(gold[0])

    def texts(self, rows: Int64s | slice) -> list[str]:
        """The n texts, or premises of pairs, of n rows, in the order asked for; see `logits`."""
        return self._arrays.texts("text", rows)

    def text_pairs(self, rows: Int64s | slice) -> list[str] | None:
        """The n hypotheses of n rows; None in a store of single texts; see `logits`."""
        return self._arrays.texts("text_pair", rows) if self.manifest.has_pairs else None

    def ids(self, rows: Int64s | slice) -> list[str]:
        """The n ids in the corpus of n rows, in the order asked for; see `logits`."""
        return self._arrays.texts("ids", rows)

    def text_bytes(self, field: str, rows: Int64s) -> int:
        """The UTF-8 bytes of one of `format.text_fields` in n rows; see `logits`."""
        return self._arrays.text_bytes(field, rows)

    def languages(self, rows: Int64s | slice) -> list[str | None]:
        """The languages of n rows, None where nothing tells one; see `logits`."""
        if self.manifest.has_languages:
            return [tag or None for tag in self._arrays.texts("lang", rows)]
        return [self.manifest.language] * self._arrays.count(rows)

    def all_languages(self) -> dict[str | None, int]:
        """Every language with its rows, the most frequent first; None where nothing tells one."""
        if not self.manifest.has_languages:
            return {self.manifest.language: self._totals.num_rows}
        found: Counter[str | None] = Counter()
        for shard in self.shards():
            for start in range(shard.start, shard.stop, _LANGUAGES):
                found.update(self.languages(slice(start, min(start + _LANGUAGES, shard.stop))))
        return dict(found.most_common())

    def text(self, row: int) -> str:
        """The text, or the premise of a pair."""
        return self._arrays.text("text", row)

    def text_pair(self, row: int) -> str | None:
        """The hypothesis of a pair; None in a store of single texts."""
        return self._arrays.text("text_pair", row) if self.manifest.has_pairs else None

    def id(self, row: int) -> str:
        """The document's id in the corpus."""
        return self._arrays.text("ids", row)

    def documents(self, rows: slice = slice(None)) -> Iterator[Document]:
        """The documents in row order, one shard mapped at a time.

        Args:
            rows: a slice with step 1.
        """
        start, stop, _ = rows.indices(len(self))
        for first in range(start, stop, _DOCUMENTS):
            part = slice(first, min(first + _DOCUMENTS, stop))
            texts = self.texts(part)
            pairs: Sequence[str | None] = self.text_pairs(part) or [None] * len(texts)
            gold = self.gold(part)
            self.require_gold(np.arange(part.start, part.stop), gold)
            labels = self.manifest.problem.decode(gold)
            here = range(part.start, part.stop)
            languages = self.languages(part)
            fields = zip(here, self.ids(part), texts, pairs, labels, languages)
            for row, name, text, pair, label, lang in fields:
                yield Document(row, name, text, pair, label, lang)

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every byte and check it against its record and the format's rules."""
        return verify_store(self.folder, progress)

    def info(self) -> StoreInfo:
        """What is in the store, as its records told when it was opened."""
        return StoreInfo.of(self._folder, self._complete, self._totals)
