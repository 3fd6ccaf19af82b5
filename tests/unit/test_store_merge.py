"""Merged stores: equal to what labelling at once gives, or refused by name with both values."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import (
    ConfigError,
    StorageError,
    StoreCorrupt,
    StoreError,
    StoreIncomplete,
    StoreLocked,
    StoreMismatch,
)
from monox_kit.labelling.guard import Guard
from monox_kit.store import (
    FolderWriter,
    LogitStore,
    StoreManifest,
    contents,
    merge_stores,
)
from monox_kit.store.format import LEARNED_GUARD
from tests.store_samples import (
    FINGERPRINT,
    document,
    manifest,
    shard_arguments,
    tree,
    write_shard,
    write_store,
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows at once that shards are copied in several parts."""
    monkeypatch.setattr(contents, "_PART_ROWS", 3)


def write_part(folder: Path, shards: Sequence[int], store: StoreManifest | None = None) -> Path:
    """A store that holds some shards and is not complete."""
    store = store or manifest()
    with FolderWriter(folder, store) as writer:
        for shard in writer.missing:
            if shard.index in shards:
                write_shard(writer, shard, **shard_arguments(store, shard))
    return folder


def corpus(name: str, **changes: Any) -> StoreManifest:
    """The manifest of a store of another corpus; `guard_x=1` and the like go to the fingerprint."""
    known = {field.name for field in fields(StoreManifest)}
    extra = {key: value for key, value in changes.items() if key not in known}
    plain = {key: value for key, value in changes.items() if key in known}
    return manifest(fingerprint={**FINGERPRINT, "corpus_digest": name, **extra}, **plain)


def content(store: LogitStore) -> list[Any]:
    """Everything that a store holds of each row but the row's number."""
    rows = slice(None)
    return [
        (each.id, each.text, each.text_pair, logits.tolist(), gold, recomputed)
        for each, logits, gold, recomputed in zip(
            store.documents(),
            store.logits(rows),
            store.gold(rows).tolist(),
            store.recomputed(rows).tolist(),
            strict=True,
        )
    ]


def sha256_of_lines(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


# Parts of one store


@pytest.mark.parametrize("has_pairs", [False, True])
@pytest.mark.parametrize(
    "split", [((0,), (1, 2)), ((1,), (0, 2)), ((2, 1), (1, 0)), ((0, 1, 2), ())]
)
def test_parts_become_the_store_of_one_run(
    tmp_path: Path, split: Sequence[Sequence[int]], has_pairs: bool
) -> None:
    store = manifest(has_pairs=has_pairs)
    whole = write_store(tmp_path / "whole", store)
    folders = [write_part(tmp_path / f"p{at}", part, store) for at, part in enumerate(split)]
    before = [tree(folder) for folder in folders]
    report = merge_stores(folders, tmp_path / "out")
    merged, expected = tree(tmp_path / "out"), tree(whole)
    # They differ in what the runs remember of themselves, and in nothing else.
    assert merged.pop("complete.json") != expected.pop("complete.json")
    assert merged == expected
    assert LogitStore.open(tmp_path / "out", verify="full").digest == LogitStore.open(whole).digest
    assert report.store_digest == LogitStore.open(whole).digest
    assert (report.kind, report.num_rows, report.num_shards) == ("shards", 11, 3)
    assert [tree(folder) for folder in folders] == before


def test_finished_copies_become_the_same_store(tmp_path: Path) -> None:
    whole = write_store(tmp_path / "whole")
    part = write_part(tmp_path / "part", [2])
    report = merge_stores([part, whole], tmp_path / "out")
    assert report.store_digest == LogitStore.open(whole).digest


def test_missing_shards_are_named(tmp_path: Path) -> None:
    store = manifest(num_rows=40)
    one = write_part(tmp_path / "a", [0, 4], store)
    two = write_part(tmp_path / "b", [4, 7, 9], store)
    wanted = r"10 shards .* none of 1:4, 5:7, 8:9\. Label them with `shard_range` 1:4"
    with pytest.raises(StoreIncomplete, match=wanted):
        merge_stores([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_that_two_parts_hold_differently_is_named(tmp_path: Path) -> None:
    one, two = write_part(tmp_path / "a", [0, 1]), tmp_path / "b"
    with FolderWriter(two, manifest()) as writer:
        for shard in writer.missing[1:]:
            arguments = shard_arguments(manifest(), shard)
            arguments["logits"] = arguments["logits"] + np.float32(0.25)
            write_shard(writer, shard, **arguments)
    with pytest.raises(StoreMismatch, match=r"/b/shards/000001: .*/a "):
        merge_stores([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_that_stands_in_the_output_must_be_that_of_the_parts(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out", manifest()) as writer:
        arguments = shard_arguments(manifest(), writer.missing[1])
        arguments["recomputed"][0] ^= True
        write_shard(writer, writer.missing[1], **arguments)
    before = tree(tmp_path / "out")
    folders = [write_part(tmp_path / "a", [0, 1]), write_part(tmp_path / "b", [2])]
    with pytest.raises(StoreMismatch, match=r"/out/shards/000001: .*/a"):
        merge_stores(folders, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_parts_of_one_store_keep_its_shards(tmp_path: Path) -> None:
    folders = [write_part(tmp_path / "a", [0, 1]), write_part(tmp_path / "b", [2])]
    with pytest.raises(ConfigError, match="`shard_rows` 5: expected 4"):
        merge_stores(folders, tmp_path / "out", shard_rows=5)
    assert merge_stores(folders, tmp_path / "out", shard_rows=4).num_shards == 3


def test_parts_begun_with_other_guards_are_refused(tmp_path: Path) -> None:
    one = write_part(tmp_path / "a", [0], corpus("one", guard_threshold=0.25))
    two = write_part(tmp_path / "b", [1, 2], corpus("one", guard_threshold=0.5))
    wanted = r"same corpus as .*/a, but .*guard_threshold is 0\.5 here and 0\.25 there.*copy"
    with pytest.raises(StoreMismatch, match=wanted):
        merge_stores([one, two], tmp_path / "out")


# Stores of different corpora


@pytest.mark.parametrize("has_pairs", [False, True])
@pytest.mark.parametrize("shard_rows", [None, 1, 3, 6, 100])
def test_rows_follow_each_other_renumbered(
    tmp_path: Path, shard_rows: int | None, has_pairs: bool
) -> None:
    stores = [
        corpus("one", has_pairs=has_pairs),
        corpus("two", has_pairs=has_pairs, num_rows=5, shard_rows=2),
        corpus("three", has_pairs=has_pairs, num_rows=1, shard_rows=9),
    ]
    folders = [write_store(tmp_path / f"s{at}", store) for at, store in enumerate(stores)]
    report = merge_stores(folders, tmp_path / "out", shard_rows=shard_rows)
    merged = LogitStore.open(tmp_path / "out", verify="full")
    expected = [row for folder in folders for row in content(LogitStore.open(folder))]
    assert content(merged) == expected
    assert len(expected) == 17
    assert merged.manifest.shard_rows == (shard_rows or 4)
    assert (report.kind, report.num_rows, report.store_digest) == ("rows", 17, merged.digest)
    digests = [LogitStore.open(folder).digest for folder in folders]
    assert merged.manifest.fingerprint == {
        **FINGERPRINT,
        "corpus_digest": sha256_of_lines(["one", "two", "three"]),
        "merged_from": sha256_of_lines(digests),
    }


def test_float16_comes_out_as_it_went_in(tmp_path: Path) -> None:
    stores = [corpus(name, dtype="float16") for name in ("one", "two")]
    folders = [write_store(tmp_path / f"s{at}", store) for at, store in enumerate(stores)]
    merge_stores(folders, tmp_path / "out", shard_rows=11)
    for index, folder in enumerate(folders):
        logits = b"".join(
            (path / "logits.npy").read_bytes()[128:]
            for path in sorted((folder / "shards").iterdir())
        )
        merged = tmp_path / "out" / "shards" / f"{index:06d}" / "logits.npy"
        assert merged.read_bytes()[128:] == logits


def test_the_order_of_the_parts_is_part_of_the_store(tmp_path: Path) -> None:
    folders = [write_store(tmp_path / name, corpus(name)) for name in ("one", "two")]
    first = merge_stores(folders, tmp_path / "a")
    second = merge_stores(folders[::-1], tmp_path / "b")
    assert first.store_digest != second.store_digest


def test_merged_stores_can_be_merged(tmp_path: Path) -> None:
    folders = [write_store(tmp_path / name, corpus(name)) for name in ("one", "two", "three")]
    merge_stores(folders[:2], tmp_path / "a")
    merge_stores([tmp_path / "a", folders[2]], tmp_path / "b")
    expected = [row for folder in folders for row in content(LogitStore.open(folder))]
    assert content(LogitStore.open(tmp_path / "b", verify="full")) == expected


def test_the_guards_learned_values_may_differ(tmp_path: Path) -> None:
    shared = {"guard_target": 0.999, "guard_rows": None, "guard_digest": "ab"}
    learned = dict.fromkeys(sorted(LEARNED_GUARD), 0.5)
    other = {**learned, "guard_threshold": 0.75, "guard_audit_rows": 400}
    folders = [
        write_store(tmp_path / "one", corpus("one", **shared, **learned)),
        write_store(tmp_path / "two", corpus("two", **shared, **other)),
    ]
    write_store(tmp_path / "same", corpus("three", **shared, **learned))
    merge_stores(folders, tmp_path / "out")
    found = LogitStore.open(tmp_path / "out").manifest.fingerprint
    kept = {key for key in found if key.startswith("guard_")}
    assert kept == {*shared}
    merge_stores([folders[0], tmp_path / "same"], tmp_path / "equal")
    assert LogitStore.open(tmp_path / "equal").manifest.fingerprint.items() >= learned.items()


def test_what_the_guard_learns_is_what_may_differ() -> None:
    # Which rows are fp32 can only be told where all parts were computed again in the same.
    settings = {"guard_target", "guard_precision", "guard_max_kl"}
    assert {f"guard_{field.name}" for field in fields(Guard)} - settings == LEARNED_GUARD


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the type": ({"dtype": "float16"}, "dtype 'float32' as in .*/one, found 'float16'"),
    "pairs": ({"has_pairs": True}, "has_pairs False as in .*/one, found True"),
    "the teacher": ({"teacher_digest": "77"}, "teacher_digest '5d41' as in .*/one, found '77'"),
    "the cut": ({"max_length": 64}, "max_length 128 as in .*/one, found 64"),
    "the cut's type": ({"max_length": 128.0}, r"max_length 128 as in .*/one, found 128\.0"),
    "the precision": ({"precision": "int8"}, "precision 'fp32' as in .*/one, found 'int8'"),
    "the guard's aim": ({"guard_target": 0.99}, r"guard_target nothing as in .*/one, found 0\.99"),
    "the guard's graph": ({"guard_digest": "b"}, "guard_digest nothing as in .*, found 'b'"),
    "gold labels": ({"gold_labels": "ignored"}, "gold_labels nothing as in .*, found 'ignored'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_stores_under_other_settings_are_refused(tmp_path: Path, kind: str) -> None:
    changes, message = REFUSED[kind]
    folders = [
        write_store(tmp_path / "one", corpus("one")),
        write_store(tmp_path / "two", corpus("two", **changes)),
    ]
    with pytest.raises(StoreMismatch, match=message):
        merge_stores(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_labels_are_refused(tmp_path: Path) -> None:
    from monox_kit.data import LabelSet

    labels = LabelSet(("games", "sound", "science"))
    folders = [
        write_store(tmp_path / "one", corpus("one")),
        write_store(tmp_path / "two", corpus("two", labels=labels)),
    ]
    with pytest.raises(StoreMismatch, match=r"labels\[1\] 'science' as in .*/one, found 'sound'"):
        merge_stores(folders, tmp_path / "out")


def test_the_same_corpus_twice_is_refused(tmp_path: Path) -> None:
    folders = [
        write_store(tmp_path / "one", corpus("one")),
        write_store(tmp_path / "two", corpus("two")),
        write_store(tmp_path / "again", corpus("one", shard_rows=5)),
    ]
    wanted = r"again/store\.json: same corpus as .*/one, but shard_rows is .* here and 4 there"
    with pytest.raises(StoreMismatch, match=wanted):
        merge_stores(folders, tmp_path / "out")


def test_a_store_that_names_no_corpus_is_refused(tmp_path: Path) -> None:
    unnamed = {key: value for key, value in FINGERPRINT.items() if key != "corpus_digest"}
    folders = [
        write_store(tmp_path / "one", corpus("one")),
        write_store(tmp_path / "two", manifest(fingerprint=unnamed)),
    ]
    with pytest.raises(StoreMismatch, match=r"expected fingerprint\.corpus_digest, found none"):
        merge_stores(folders, tmp_path / "out")


def test_stores_of_several_corpora_must_be_finished(tmp_path: Path) -> None:
    folders = [
        write_store(tmp_path / "one", corpus("one")),
        write_part(tmp_path / "two", [0, 1], corpus("two")),
    ]
    with pytest.raises(StoreIncomplete, match=r"/two: .*2 of 3"):
        merge_stores(folders, tmp_path / "out")


# Either way


def two_stores(folder: Path, kind: str) -> list[Path]:
    """What a merge of the kind takes: 3 shards out, of 11 or 16 rows."""
    if kind == "shards":
        return [write_part(folder / "a", [0, 1]), write_part(folder / "b", [2])]
    second = corpus("two", num_rows=5, shard_rows=3)
    return [write_store(folder / "a", corpus("one")), write_store(folder / "b", second)]


@pytest.mark.parametrize("kind", ["shards", "rows"])
def test_merging_again_changes_nothing(tmp_path: Path, kind: str) -> None:
    folders = two_stores(tmp_path, kind)
    first = merge_stores(folders, tmp_path / "out")
    before = tree(tmp_path / "out")
    again = merge_stores(folders, tmp_path / "out")
    assert (first.num_resumed_rows, again.num_resumed_rows) == (0, first.num_rows)
    assert again.store_digest == first.store_digest
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("kind", ["shards", "rows"])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_merge_that_was_cut_off_continues(
    tmp_path: Path, kind: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = two_stores(tmp_path, kind)
    merge_stores(folders, tmp_path / "whole")
    opened = []
    shard = FolderWriter.shard

    def failing(self: FolderWriter, *arguments: Any) -> Any:
        opened.append(arguments)
        if len(opened) > stop:
            raise StorageError("no space")
        return shard(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FolderWriter, "shard", failing)
        with pytest.raises(StorageError, match="no space"):
            merge_stores(folders, tmp_path / "out")
    with pytest.raises(StoreIncomplete):
        LogitStore.open(tmp_path / "out")
    report = merge_stores(folders, tmp_path / "out")
    assert report.num_resumed_rows == [0, 4, 8][stop]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["shards", "rows"])
@pytest.mark.parametrize("name", ["logits", "rows", "labels", "recomputed", "text", "ids_offsets"])
def test_a_changed_byte_of_a_part_is_found(tmp_path: Path, kind: str, name: str) -> None:
    folders = two_stores(tmp_path, kind)
    path = folders[0] / "shards" / "000001" / f"{name}.npy"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    wanted = rf"a/shards/000001/{name}\.npy: expected SHA-256"
    with pytest.raises(StoreCorrupt, match=wanted):
        merge_stores(folders, tmp_path / "out")
    with pytest.raises(StoreIncomplete):
        LogitStore.open(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == ["000000"]


def test_another_merge_is_not_continued(tmp_path: Path) -> None:
    folders = [write_store(tmp_path / name, corpus(name)) for name in ("one", "two", "three")]
    merge_stores(folders[:2], tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(StoreMismatch, match=r"/out/store\.json: .*`out`"):
        merge_stores([folders[0], folders[2]], tmp_path / "out")
    with pytest.raises(StoreMismatch, match="corpus_digest"):
        merge_stores([folders[1], folders[0]], tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_parts_with_the_same_corpora_but_other_content_are_another_merge(tmp_path: Path) -> None:
    one = write_store(tmp_path / "one", corpus("one"))
    two = write_store(tmp_path / "two", corpus("two"))
    merge_stores([one, two], tmp_path / "out")
    shutil.rmtree(two)
    with FolderWriter(two, corpus("two")) as writer:
        for shard in writer.missing:
            arguments = shard_arguments(corpus("two"), shard)
            arguments["logits"] = arguments["logits"] + np.float32(1)
            write_shard(writer, shard, **arguments)
        writer.complete()
    with pytest.raises(StoreMismatch, match=r"\(fingerprint\.merged_from\) was"):
        merge_stores([one, two], tmp_path / "out")


@pytest.mark.parametrize("kind", ["shards", "rows"])
def test_a_part_is_no_output(tmp_path: Path, kind: str) -> None:
    folders = two_stores(tmp_path, kind)
    with pytest.raises(ConfigError, match=r"`out` .*: it is one of the parts"):
        merge_stores(folders, tmp_path / "x" / ".." / "b")


def test_one_part_is_no_merge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2 parts, found 1"):
        merge_stores([write_store(tmp_path / "a")], tmp_path / "out")


def test_a_folder_that_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/b: .*nothing"):
        merge_stores([write_store(tmp_path / "a"), tmp_path / "b"], tmp_path / "out")


def test_two_merges_do_not_write_the_same_store(tmp_path: Path) -> None:
    folders = two_stores(tmp_path, "shards")
    with FolderWriter(tmp_path / "out", manifest()), pytest.raises(StoreLocked):
        merge_stores(folders, tmp_path / "out")


def test_what_a_part_holds_follows_the_format_too(tmp_path: Path) -> None:
    """A part whose digests are right and whose values are not, as no writer of ours makes them."""
    from monox_kit.store.builder import ShardBuilder

    folders = two_stores(tmp_path, "rows")
    shutil.rmtree(folders[0])
    finish = ShardBuilder.finish

    def miscounting(self: ShardBuilder) -> Any:
        self.num_labelled += 1
        return finish(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardBuilder, "finish", miscounting)
        write_store(folders[0], corpus("one"))
    with pytest.raises(StoreCorrupt, match=r"a/shards/000000/shard\.json: expected num_labelled 2"):
        merge_stores(folders, tmp_path / "out")


def test_shards_of_many_parts_are_cut_at_any_row(tmp_path: Path) -> None:
    sizes, numbers = [7, 1, 12, 3, 20, 2], np.random.default_rng(3)
    folders = [
        write_store(
            tmp_path / f"s{at}",
            corpus(str(at), num_rows=size, shard_rows=int(numbers.integers(1, 6))),
        )
        for at, size in enumerate(sizes)
    ]
    for shard_rows in (1, 2, 5, 8, 44, 45, 46):
        out = tmp_path / f"out{shard_rows}"
        merge_stores(folders, out, shard_rows=shard_rows)
        merged = LogitStore.open(out, verify="full")
        starts = np.cumsum([0, *sizes]).tolist()
        for start, stop in pairwise(starts):
            ids = [merged.id(row) for row in range(start, stop)]
            assert ids == [document(row).id for row in range(stop - start)]
