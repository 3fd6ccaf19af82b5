"""Which stores belong together, and which rows of them a merged store takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from monox_kit.digest import digest_bytes
from monox_kit.errors import ConfigError, StoreIncomplete, StoreMismatch
from monox_kit.store.folder import StoreFolder, begun_manifest
from monox_kit.store.format import (
    ANSWERS_KEY,
    LANGUAGE_KEY,
    LEARNED_GUARD,
    STORE_FILE,
    CompleteRecord,
    ShardRange,
    StoreManifest,
)
from monox_kit.store.languages import merged_languages

CORPUS_KEY = "corpus_digest"
MERGED_KEY = "merged_from"
# Of a store of chosen rows: the digest of the store that they are of, and of their numbers there.
SELECTED_FROM_KEY = "selected_from"
SELECTED_ROWS_KEY = "selected_rows"
_SELECTED = frozenset({SELECTED_FROM_KEY, SELECTED_ROWS_KEY})
# Fields that stores of different corpora under one teacher may differ in.
_MAY_DIFFER = frozenset({"num_rows", "shard_rows", "format_version"}) | {
    f"fingerprint.{key}"
    for key in LEARNED_GUARD | _SELECTED | {CORPUS_KEY, MERGED_KEY, ANSWERS_KEY, LANGUAGE_KEY}
}


@dataclass(frozen=True, slots=True)
class Source:
    """One of the stores to merge, its records checked.

    Attributes:
        store: its folder.
        complete: its completion record, if it has one.
        digests: of the record of each of its shards, by index.
    """

    store: StoreFolder
    complete: CompleteRecord | None
    digests: Mapping[int, str]

    @classmethod
    def at(cls, path: Path) -> Source:
        """Read all records.

        Raises:
            StoreError: there is no store, or one that is damaged.
        """
        store = StoreFolder(path)
        complete, totals = store.checked_complete()
        digests = {shard.index: digest for shard, digest in totals.digests.items()}
        return cls(store, complete, digests)

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self.store.path

    @property
    def manifest(self) -> StoreManifest:
        """What the store is a store of."""
        return self.store.manifest


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows [first, stop) of a source, all in one of its shards."""

    source: Source
    shard: ShardRange
    first: int
    stop: int


class PartsOfOne:
    """Parts of one store: every shard comes from the first part that has it.

    Attributes:
        kind: how a report calls it.
        manifest: of the merged store.
    """

    kind: Literal["shards"] = "shards"

    def __init__(self, sources: Sequence[Source], shard_rows: int | None) -> None:
        """See `merge_plan`."""
        self.manifest = sources[0].manifest
        self._holders: dict[int, Source] = {}
        if shard_rows not in (None, self.manifest.shard_rows):
            raise ConfigError(
                f"`shard_rows` {shard_rows}: expected {self.manifest.shard_rows}, as the parts of "
                "one store have, found another number. Leave it out."
            )
        for source in sources:
            for index, digest in source.digests.items():
                self._require_digest(index, self._holders.setdefault(index, source), source, digest)
        missing = [at for at in range(self.manifest.num_shards) if at not in self._holders]
        if missing:
            ranges = [f"{start}:{stop}" for start, stop in _index_ranges(missing)]
            more = f" and {len(ranges) - 8} more" if len(ranges) > 8 else ""
            raise StoreIncomplete(
                f"store merge: expected each of the {self.manifest.num_shards} shards in one of "
                f"the parts, found none of {', '.join(ranges[:8])}{more}. Label them with "
                f"`shard_range` {ranges[0]}, or give the parts that hold them."
            )

    def pieces(self, shard: ShardRange) -> Iterator[Piece]:
        """Where the shard's rows come from."""
        yield Piece(self._holders[shard.index], shard, shard.start, shard.stop)

    def check(self, out: Path) -> None:
        """Check that the shards that stand in `out` are those of the parts.

        Raises:
            StoreMismatch: one differs.
        """
        if begun_manifest(out) is not None:
            merged = Source.at(out)
            for index, digest in merged.digests.items():
                self._require_digest(index, self._holders[index], merged, digest)

    def _require_digest(self, index: int, holder: Source, other: Source, digest: str) -> None:
        expected = holder.digests[index]
        if digest != expected:
            name = self.manifest.shard(index).name
            raise StoreMismatch(
                f"{other.path}/shards/{name}: expected the shard that {holder.path} holds, with "
                f"the digest {expected[:16]}..., found {digest[:16]}.... Find out which of the two "
                "was labelled as it should be, and delete the other one's shard."
            )


class OtherCorpora:
    """Finished stores of different corpora, one after the other.

    Attributes:
        kind: how a report calls it.
        manifest: of the merged store.
    """

    kind: Literal["rows"] = "rows"

    def __init__(self, sources: Sequence[Source], shard_rows: int | None) -> None:
        """See `merge_plan`."""
        corpora: dict[object, Source] = {}
        for source in sources:
            _require_other_corpus(corpora, source)
            _require_same_teacher(sources[0], source)
        self._sources = sources
        merged_from = _digest_of(_completed(source).digest for source in sources)
        first = sources[0].manifest
        fingerprints = [source.manifest.fingerprint for source in sources]
        joined = merged_languages(first, (source.manifest for source in sources))
        # `merged_from` tells of chosen rows too.
        fingerprint = {k: value for k, value in joined.fingerprint.items() if k not in _SELECTED}
        # As text, so that 1 and 1.0 differ. One guard's values are of use together alone.
        guards = {repr([each.get(key) for key in sorted(LEARNED_GUARD)]) for each in fingerprints}
        if len(guards) > 1:
            for key in LEARNED_GUARD:
                fingerprint.pop(key, None)
        fingerprint[CORPUS_KEY] = _digest_of(str(each[CORPUS_KEY]) for each in fingerprints)
        if ANSWERS_KEY in fingerprint:  # then in all: what else an import says is the same
            fingerprint[ANSWERS_KEY] = _digest_of(str(each[ANSWERS_KEY]) for each in fingerprints)
        fingerprint[MERGED_KEY] = merged_from
        self.manifest = replace(
            joined,
            num_rows=sum(source.manifest.num_rows for source in sources),
            shard_rows=first.shard_rows if shard_rows is None else shard_rows,
            fingerprint=fingerprint,
        )

    def pieces(self, shard: ShardRange) -> Iterator[Piece]:
        """Where the shard's rows come from, in order."""
        base = 0
        for source in self._sources:
            manifest = source.manifest
            first = max(shard.start - base, 0)
            stop = min(shard.stop - base, manifest.num_rows)
            while first < stop:
                theirs = manifest.shard(first // manifest.shard_rows)
                until = min(stop, theirs.stop)
                yield Piece(source, theirs, first, until)
                first = until
            base += manifest.num_rows

    def check(self, out: Path) -> None:
        """Nothing: the manifest names the parts' content by its digest."""


MergePlan = PartsOfOne | OtherCorpora


def merge_plan(parts: Sequence[Path], shard_rows: int | None) -> MergePlan:
    """How these stores become one: parts of one store where their `store.json` is the same.

    Raises:
        ConfigError: `shard_rows` does not fit.
        StoreIncomplete: a shard is in none of the parts, or one of several corpora's stores has
            not been finished.
        StoreMismatch: the parts do not belong together.
        StoreCorrupt: a record of a part is damaged.
    """
    sources = [Source.at(part) for part in parts]
    same = len({source.store.digest for source in sources}) == 1
    return (PartsOfOne if same else OtherCorpora)(sources, shard_rows)


def _require_other_corpus(corpora: dict[object, Source], source: Source) -> None:
    """Check that no earlier store is of the same corpus, and note this one's.

    Raises:
        StoreMismatch: one is, or the store does not name its corpus.
    """
    manifest = source.manifest
    corpus = manifest.fingerprint.get(CORPUS_KEY)
    if corpus is None:
        raise StoreMismatch(
            f"{source.path / STORE_FILE}: expected fingerprint.{CORPUS_KEY}, found none. "
            "Label the corpus again: stores are only joined where they name their corpora."
        )
    earlier = corpora.setdefault(corpus, source)
    if earlier is source:
        return
    differing = earlier.manifest.differences(manifest)
    if not differing:
        raise StoreMismatch(
            f"{source.path / STORE_FILE}: same corpus as {earlier.path}. Give each corpus once, or "
            "the parts of one store."
        )
    key, here, there = differing[0]
    raise StoreMismatch(
        f"{source.path / STORE_FILE}: same corpus as {earlier.path}, but {key} is {there} here and "
        f"{here} there. Stores of one corpus can be merged only if they were begun with the same "
        "settings; with `guard`, begin each with a copy of the first one's store.json."
    )


def _require_same_teacher(first: Source, source: Source) -> None:
    """Check that nothing that decides logits differs."""
    differing = [
        each for each in first.manifest.differences(source.manifest) if each[0] not in _MAY_DIFFER
    ]
    if differing:
        key, here, there = differing[0]
        others = ", ".join(f"{name} ({one}, {other})" for name, one, other in differing[1:9])
        more = f" Also different: {others}." if others else ""
        raise StoreMismatch(
            f"{source.path / STORE_FILE}: expected {key} {here} as in {first.path}, found "
            f"{there}.{more} Merge stores of one teacher under the same settings."
        )


def _completed(source: Source) -> CompleteRecord:
    """The store's completion record."""
    if source.complete is None:
        raise StoreIncomplete(
            f"{source.path}: expected a complete store, as the parts are of different corpora, "
            f"found {len(source.digests)} of {source.manifest.num_shards} shards. "
            "Run the same `monoxkit label` command again to finish it."
        )
    return source.complete


def _digest_of(digests: Iterable[str]) -> str:
    """One digest over some in their order: the SHA-256 of each with a line feed behind it."""
    return digest_bytes("".join(f"{each}\n" for each in digests).encode())


def _index_ranges(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges: first, and behind the last."""
    cuts = [at for at, (a, b) in enumerate(pairwise(indices), 1) if b != a + 1]
    edges = [0, *cuts, len(indices)]
    return [(indices[start], indices[stop - 1] + 1) for start, stop in pairwise(edges)]
