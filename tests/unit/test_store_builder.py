"""Writing a shard part by part: what is refused, and that memory does not grow with the shard."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.data import Document
from monox_kit.errors import StoreError
from monox_kit.store import FolderWriter, LogitStore, ShardBuilder, ShardRange
from tests.store_samples import (
    build_shard,
    manifest,
    part,
    shard_arguments,
    text_bytes,
    tree,
    write_shard,
    write_store,
)

SHARD = ShardRange(1, 4, 8)


@pytest.mark.parametrize("has_pairs", [False, True])
@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3], [0, 2, 2]])
def test_parts_give_the_store_of_whole_shards(
    tmp_path: Path, has_pairs: bool, cuts: list[int]
) -> None:
    store = manifest(has_pairs=has_pairs)
    write_store(tmp_path / "whole", store)
    write_store(tmp_path / "parts", store, cuts=cuts)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_a_shard_is_missing_until_its_block_ends(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        arguments = shard_arguments(manifest(), SHARD)
        with writer.shard(SHARD, text_bytes(arguments["documents"])) as builder:
            assert (builder.shard, builder.next_row) == (SHARD, 4)
            builder.append(**part(arguments, 0, 3))
            assert builder.next_row == 7
            builder.append(**part(arguments, 3, 4))
            assert SHARD in writer.missing
        assert SHARD not in writer.missing
        assert [path.name for path in (tmp_path / "s/shards").iterdir()] == ["000001"]


def test_no_row_counts_as_recomputed_unless_told(tmp_path: Path) -> None:
    arguments = shard_arguments(manifest(num_rows=3), ShardRange(0, 0, 3))
    del arguments["recomputed"]
    with FolderWriter(tmp_path / "s", manifest(num_rows=3)) as writer:
        write_shard(writer, writer.missing[0], **arguments)
        writer.complete()
    store = LogitStore.open(tmp_path / "s", verify="full")
    assert store.recomputed(slice(None)).tolist() == [False] * 3
    assert store.info().num_recomputed == 0


def changed(name: str, value: Any) -> dict[str, Any]:
    """What `append` takes for rows 6 and 7, one argument changed."""
    return {**part(shard_arguments(manifest(), SHARD), 2, 4), name: value}


DOCUMENTS = shard_arguments(manifest(), SHARD)["documents"]
# The second part of two, and what is said about it.
BAD_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "logits of one row": (changed("logits", np.zeros((1, 3), "f4")), r"float32 \(2, 3\), found"),
    "NaN": (changed("logits", np.full((2, 3), np.nan, "f4")), "row 6, found nan in class 0"),
    "labels of one row": (changed("labels", np.zeros(1, "i4")), r"int32 \(2,\), found"),
    "no such class": (changed("labels", np.array([0, 9], "i4")), "row 7, found 9"),
    "recomputed as numbers": (changed("recomputed", np.zeros(2)), "recomputed bool .*found float"),
    "the first part again": (part(shard_arguments(manifest(), SHARD), 0, 2), "row 6, found row 4"),
    "a pair": (
        changed("documents", [DOCUMENTS[2], replace(DOCUMENTS[3], text_pair="")]),
        "expected a single text in row 7",
    ),
    "half a surrogate": (
        changed("documents", [DOCUMENTS[2], replace(DOCUMENTS[3], text="\udc80")]),
        "row 7: expected text that UTF-8 can hold",
    ),
}


@pytest.mark.parametrize("kind", BAD_PARTS)
def test_a_part_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    arguments, message = BAD_PARTS[kind]
    right = shard_arguments(manifest(), SHARD)
    folder = tmp_path / "s"
    with FolderWriter(folder, manifest()) as writer:
        with (
            pytest.raises(StoreError, match=message),
            writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder,
        ):
            builder.append(**part(right, 0, 2))
            builder.append(**arguments)
        assert list((folder / "shards").iterdir()) == []
        with writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder:
            builder.append(**part(right, 0, 2))
            with pytest.raises(StoreError, match=message):
                builder.append(**arguments)
            builder.append(**part(right, 2, 4))
    assert tree(write_store(folder)) == tree(write_store(tmp_path / "whole"))


@pytest.mark.parametrize(("num_rows", "found"), [(0, 0), (1, 1), (3, 3)])
def test_too_few_rows_commit_nothing(tmp_path: Path, num_rows: int, found: int) -> None:
    arguments = part(shard_arguments(manifest(), SHARD), 0, num_rows)
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        with (
            pytest.raises(
                StoreError, match=f"000001: expected the 4 rows 4 to 7, found {found}\\."
            ),
            writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder,
        ):
            if num_rows:
                builder.append(**arguments)
        assert list((tmp_path / "s/shards").iterdir()) == []
        assert SHARD in writer.missing


def test_too_many_rows_commit_nothing(tmp_path: Path) -> None:
    more = shard_arguments(manifest(), ShardRange(1, 4, 9))
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        with (
            pytest.raises(StoreError, match="expected the 4 rows 4 to 7, found 5 with this part"),
            writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder,
        ):
            builder.append(**part(more, 0, 3))
            builder.append(**part(more, 3, 5))
        assert list((tmp_path / "s/shards").iterdir()) == []
        assert SHARD in writer.missing


@pytest.mark.parametrize("field", ["ids", "text", "text_pair"])
@pytest.mark.parametrize("difference", [-1, 1, 1000])
def test_other_bytes_than_announced_commit_nothing(
    tmp_path: Path, field: str, difference: int
) -> None:
    store = manifest(has_pairs=True)
    arguments = shard_arguments(store, SHARD)
    right = text_bytes(arguments["documents"])
    wrong = {**right, field: right[field] + difference}
    with FolderWriter(tmp_path / "s", store) as writer:
        message = f"000001: expected {wrong[field]} bytes of {field} .*found {right[field]}\\."
        with (
            pytest.raises(StoreError, match=message),
            writer.shard(SHARD, wrong) as builder,
        ):
            for start in (0, 2):
                builder.append(**part(arguments, start, start + 2))
        assert list((tmp_path / "s/shards").iterdir()) == []
        assert SHARD in writer.missing
        build_shard(writer, SHARD, [2])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "bytes of ids, text, found those of nothing"),
        ({"text": 20}, "bytes of ids, text, found those of text"),
        ({"ids": 20, "text": 20, "text_pair": 0}, "found those of ids, text, text_pair"),
        ({"ids": 20, "text": -1}, "number of bytes of text, found -1"),
        ({"ids": 2**63, "text": 20}, "number of bytes of ids, found 9223372036854775808"),
    ],
)
def test_the_bytes_of_each_text_field_must_be_announced(
    tmp_path: Path, sizes: Mapping[str, int], message: str
) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        with pytest.raises(StoreError, match=message), writer.shard(SHARD, sizes):
            pass
        assert list((tmp_path / "s/shards").iterdir()) == []


def test_two_shards_can_be_built_side_by_side(tmp_path: Path) -> None:
    write_store(tmp_path / "whole")
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        first, second, third = writer.missing
        one, two = (shard_arguments(manifest(), shard) for shard in (first, second))
        with (
            writer.shard(first, text_bytes(one["documents"])) as a,
            writer.shard(second, text_bytes(two["documents"])) as b,
        ):
            for start in (0, 2):
                a.append(**part(one, start, start + 2))
                b.append(**part(two, start, start + 2))
        build_shard(writer, third, [1])
        writer.complete(command="label")
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_a_shard_built_twice_at_once_is_kept_once(tmp_path: Path) -> None:
    arguments = shard_arguments(manifest(), SHARD)
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        with (
            pytest.raises(StoreError, match="the 2 missing shards"),
            writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder,
        ):
            write_shard(writer, SHARD, **arguments)
            builder.append(**arguments)
        assert SHARD not in writer.missing
        assert [path.name for path in (tmp_path / "s/shards").iterdir()] == ["000001"]


def test_nothing_is_committed_without_the_lock(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "s", manifest())
    with writer:
        context = writer.shard(SHARD, text_bytes(DOCUMENTS))
        context.__enter__().append(**shard_arguments(manifest(), SHARD))
    with pytest.raises(StoreError, match="to hold the store's shards, found none"):
        context.__exit__(None, None, None)
    assert list((tmp_path / "s/shards").iterdir()) == []


def test_a_finished_builder_takes_nothing(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        with writer.shard(SHARD, text_bytes(DOCUMENTS)) as builder:
            builder.append(**shard_arguments(manifest(), SHARD))
        with pytest.raises(StoreError, match="found a shard whose block has ended"):
            builder.append(**part(shard_arguments(manifest(), SHARD), 0, 0))


def append_rows(builder: ShardBuilder, num_rows: int) -> None:
    """Append rows of 1,000 bytes of text and 3 logits each."""
    start = builder.next_row
    builder.append(
        logits=np.zeros((num_rows, 3), np.float32),
        documents=[
            Document(row=row, id=f"{row:08d}", text=f"{row:08d}" * 125)
            for row in range(start, start + num_rows)
        ],
        labels=np.zeros(num_rows, np.int32),
        recomputed=np.zeros(num_rows, np.bool_),
    )


def peak_bytes(folder: Path, num_parts: int, part_rows: int = 200) -> int:
    """The most bytes that Python and numpy held at once while a store of one shard was written."""
    num_rows = num_parts * part_rows
    store = manifest(num_rows=num_rows, shard_rows=num_rows)
    with FolderWriter(folder, store) as writer:
        tracemalloc.start()
        try:
            sizes = {"ids": 8 * num_rows, "text": 1000 * num_rows}
            with writer.shard(writer.missing[0], sizes) as builder:
                for _ in range(num_parts):
                    append_rows(builder, part_rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    small = peak_bytes(tmp_path / "small", 2)
    large = peak_bytes(tmp_path / "large", 40)  # 8 MB of text
    assert (tmp_path / "large/shards/000000/text.npy").stat().st_size > 8_000_000
    assert large < 1.2 * small < 2_000_000
