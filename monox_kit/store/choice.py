"""Which rows of a store are chosen: the best by a measure, with a share for language and class.

Two passes over the logits: rows are counted by language and class, which gives each of these cells
its share, then each cell keeps its best rows. The memory is that of the chosen rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monox_kit.data import UNKNOWN_LANGUAGE, Int64s, Logits
from monox_kit.errors import ConfigError
from monox_kit.problem import Bools, Floats, Problem
from monox_kit.progress import Progress
from monox_kit.store.config import Measure, Order
from monox_kit.store.contents import RowsPart, ShardContents
from monox_kit.store.diversity import farthest_first, text_vectors
from monox_kit.store.folder import StoreFolder
from monox_kit.store.reader import LogitStore

# Rows among which the different ones are looked for, for each that is chosen.
_CANDIDATES = 5
# Of a language and class; their candidates' vectors are 51 MB.
MOST_DIVERSE = 10_000
# A column of another meaning may hold a value for each row.
_MOST_LANGUAGES = 1000

_MEASURES: Mapping[Measure, Callable[[Problem, Logits], Floats]] = {
    "confidence": lambda problem, logits: problem.confidence(logits),
    "margin": lambda problem, logits: problem.lead(logits, problem.decide(logits)),
    "entropy": lambda problem, logits: problem.entropy(logits),
}


def surest(by: Measure) -> Order:
    """The end of a measure at which rows are sure."""
    return "lowest" if by == "entropy" else "highest"


class Cell(NamedTuple):
    """A language, and a class by its index; C for rows that no class is decided for."""

    language: str
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which rows are wanted.

    Attributes:
        by: the measure.
        order: whether the highest or the lowest come first.
        per_language: most rows of a language, shared evenly by its classes; None for any number.
        per_class: most rows of each class of each language; None for any number.
        diverse: whether rows are to differ from each other.
        unlabelled: whether rows with a gold label are passed over.
    """

    by: Measure
    order: Order
    per_language: int | None
    per_class: int | None
    diverse: bool
    unlabelled: bool

    def even_share(self, num_classes: int) -> int:
        """The rows that each class of a language has where none is short of them."""
        shares = [] if self.per_language is None else [max(self.per_language // num_classes, 1)]
        return min([*shares, *([] if self.per_class is None else [self.per_class])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The rows that were chosen.

    Attributes:
        rows: [N] int64, ascending.
        counts: of each cell that has rows, the chosen ones.
        offered: of each cell, the rows that it had to choose from.
        num_labelled: rows that were passed over for their gold label.
    """

    rows: Int64s
    counts: Mapping[Cell, int]
    offered: Mapping[Cell, int]
    num_labelled: int


def choose(store: LogitStore, wanted: Wanted, progress: Progress) -> Chosen:
    """The rows of a store that are wanted: a pure function of the store and of what is wanted.

    Raises:
        ConfigError: there are too many languages, or too many rows to be diverse.
        StoreCorrupt: a file is not as its record says.
    """
    offered: dict[Cell, int] = {}
    num_labelled = 0
    for found in _cells(store, wanted, progress, "counting"):
        num_labelled += found.num_labelled
        for cell, at in found.places.items():
            offered[cell] = offered.get(cell, 0) + len(at)
    shares = _shares(offered, wanted, store.num_classes)
    if wanted.diverse and max(shares.values(), default=0) > MOST_DIVERSE:
        raise ConfigError(
            f"`diverse`: a class of a language would have {max(shares.values()):,} rows, and "
            f"{MOST_DIVERSE:,} are the most that are compared with each other. Give a smaller "
            "`per_class` or `per_language`."
        )
    spare = _CANDIDATES if wanted.diverse else 1
    best = {cell: _Best(spare * share) for cell, share in shares.items() if share}
    sign = -1.0 if wanted.order == "highest" else 1.0
    for found in _cells(store, wanted, progress, "choosing"):
        values = sign * _MEASURES[wanted.by](store.manifest.problem, found.logits)
        for cell, at in found.places.items():
            if cell in best:
                best[cell].add(values[at], found.rows[at])
    chosen = {cell: kept.rows() for cell, kept in best.items()}
    if wanted.diverse:
        chosen = {cell: _spread(store, rows, shares[cell]) for cell, rows in chosen.items()}
    return Chosen(
        rows=np.sort(np.concatenate([np.zeros(0, np.int64), *chosen.values()])),
        counts={cell: len(rows) for cell, rows in chosen.items()},
        offered=offered,
        num_labelled=num_labelled,
    )


class _Part(NamedTuple):
    """Some rows of the store and in which cell each is.

    Attributes:
        rows: [n] int64.
        logits: [n, C] float32.
        places: by cell, those of its rows among the n.
        num_labelled: rows that are in none, for their gold label.
    """

    rows: Int64s
    logits: Logits
    places: Mapping[Cell, Int64s]
    num_labelled: int


def _cells(store: LogitStore, wanted: Wanted, progress: Progress, title: str) -> Iterator[_Part]:
    """The rows of the store in parts, every byte checked."""
    folder, languages = StoreFolder(store.folder), set[str]()
    with progress.task(title, len(store), "rows") as task:
        for shard in store.shards():
            contents = ShardContents(folder, shard)
            for part in contents.parts(shard.start, shard.stop):
                tags = contents.languages(part)
                found = _placed(store.manifest.problem, part, tags, wanted.unlabelled)
                languages.update(cell.language for cell in found.places)
                _require_few(languages, store)
                yield found
                task.advance(len(part.rows))


def _placed(problem: Problem, part: RowsPart, tags: list[str | None], unlabelled: bool) -> _Part:
    decided = problem.indicators(problem.decide(part.logits))
    label = np.where(decided.any(axis=1), part.logits.argmax(axis=1), problem.num_classes)
    passed: Bools = problem.are_given(part.gold) if unlabelled else np.zeros(len(tags), np.bool_)
    places: dict[Cell, list[int]] = {}
    for at, (tag, index, is_passed) in enumerate(zip(tags, label.tolist(), passed.tolist())):
        if not is_passed:
            places.setdefault(Cell(tag or UNKNOWN_LANGUAGE, index), []).append(at)
    arrays = {cell: np.array(at, np.int64) for cell, at in places.items()}
    rows = np.arange(part.rows.start, part.rows.stop, dtype=np.int64)
    return _Part(rows, part.logits, arrays, int(passed.sum()))


def _require_few(languages: set[str], store: LogitStore) -> None:
    if len(languages) > _MOST_LANGUAGES:
        raise ConfigError(
            f"{store.folder}: its rows name more than {_MOST_LANGUAGES:,} languages, such as "
            f"{ascii(min(languages))[:60]}: what was labelled as `lang_column` holds something "
            "else. Label the text again with the right column."
        )


def _shares(offered: Mapping[Cell, int], wanted: Wanted, num_classes: int) -> dict[Cell, int]:
    """How many rows each cell is to give: within a language as even as what is offered allows."""
    shares: dict[Cell, int] = {}
    for language in sorted({cell.language for cell in offered}):
        cells = [Cell(language, label) for label in range(num_classes + 1)]
        most = np.array([offered.get(cell, 0) for cell in cells], np.int64)
        if wanted.per_class is not None:
            most = np.minimum(most, wanted.per_class)
        left = int(most.sum())
        if wanted.per_language is not None:
            left = min(left, wanted.per_language)
        share = np.zeros_like(most)
        while left:  # what classes leave that are short of rows is shared by the others
            is_open = np.flatnonzero(share < most)
            each = max(left // len(is_open), 1)
            given = np.minimum(most[is_open] - share[is_open], each)
            given = np.diff(np.minimum(np.cumsum(given), left), prepend=0)
            share[is_open] += given
            left -= int(given.sum())
        shares |= {cell: int(n) for cell, n in zip(cells, share) if n}
    return shares


class _Best:
    """The rows with the least values of all that were added; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values, self._rows = np.zeros(0), np.zeros(0, np.int64)
        self._waiting: list[tuple[Floats, Int64s]] = []
        self._num_waiting = 0

    def add(self, values: Floats, rows: Int64s) -> None:
        """More rows, [n] each."""
        self._waiting.append((values, rows))
        self._num_waiting += len(rows)
        if self._num_waiting >= max(self._count, 4096):
            self._settle()

    def rows(self) -> Int64s:
        """[count] int64, or fewer where there are no more; the best first."""
        self._settle()
        return self._rows

    def _settle(self) -> None:
        values = np.concatenate([self._values, *(values for values, _ in self._waiting)])
        rows = np.concatenate([self._rows, *(rows for _, rows in self._waiting)])
        kept = np.lexsort((rows, values))[: self._count]
        self._values, self._rows = values[kept], rows[kept]
        self._waiting, self._num_waiting = [], 0


def _spread(store: LogitStore, rows: Int64s, count: int) -> Int64s:
    """Those of some rows, the best first, whose texts differ most from each other."""
    if len(rows) <= count:
        return rows
    return rows[farthest_first(text_vectors(store.texts(rows)), count)]
