"""Creating, resuming and completing a store."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import (
    StorageError,
    StoreCorrupt,
    StoreError,
    StoreIncomplete,
    StoreLocked,
    StoreLockLost,
)
from monox_kit.store import FolderWriter, LogitStore, ShardRange, builder
from monox_kit.store.folder import StoreFolder
from monox_kit.store.shard import ShardRecord
from tests.store_samples import (
    manifest,
    shard_arguments,
    text_bytes,
    tree,
    write_shard,
    write_store,
)


def test_missing_shards_are_the_corpus_in_order(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.missing == [ShardRange(0, 0, 4), ShardRange(1, 4, 8), ShardRange(2, 8, 11)]
        write_shard(writer, writer.missing[1], **shard_arguments(manifest(), writer.missing[1]))
        assert [shard.index for shard in writer.missing] == [0, 2]
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert [shard.index for shard in writer.missing] == [0, 2]


def test_a_complete_store_has_nothing_missing_and_stays_as_it_is(tmp_path: Path) -> None:
    before = tree(write_store(tmp_path / "s"))
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.missing == []
        again = writer.complete(command="another run")
    assert again.summary == {"command": "label"}
    assert tree(tmp_path / "s") == before


def test_completing_needs_every_shard(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        shard = writer.missing[0]
        write_shard(writer, shard, **shard_arguments(manifest(), shard))
        with pytest.raises(StoreIncomplete, match="found 4 of 11 rows"):
            writer.complete()
    assert not (tmp_path / "s" / "complete.json").exists()


def test_completing_reads_the_shards_as_they_lie_on_disk(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        (tmp_path / "s" / "shards" / "000001" / "text.npy").unlink()
        with pytest.raises(StoreCorrupt, match=r"000001/text\.npy: .*none"):
            writer.complete()
    assert not (tmp_path / "s" / "complete.json").exists()


def test_a_summary_that_is_no_json_completes_nothing(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        with pytest.raises(StoreError, match="plain JSON values"):
            writer.complete(folder=tmp_path)
    assert not (tmp_path / "s" / "complete.json").exists()


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Replace one argument of `write_shard` by a changed one."""
    return lambda arguments: {**arguments, name: change(arguments[name])}


def set_at(index: Any, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[index] = value
        return array

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a row too few": (
        edit("logits", lambda a: a[:-1]),
        r"logits float32 \(4, 3\), found.*\(3, 3\)",
    ),
    "a class too many": (edit("logits", lambda a: a[:, [0, 1, 2, 0]]), r"found float32 \(4, 4\)"),
    "double logits": (edit("logits", lambda a: a.astype("f8")), "found float64"),
    "NaN": (edit("logits", set_at((2, 1), np.nan)), "row 6, found nan in class 1"),
    "infinity": (edit("logits", set_at((0, 0), -np.inf)), "row 4, found -inf in class 0"),
    "beyond float16": (
        edit("logits", set_at((1, 2), 7e4)),
        r"row 5, found 7000.*dtype float32",
    ),
    "a document too few": (
        edit("documents", lambda a: a[:-1]),
        r"expected logits .*\(3, 3\)",
    ),
    "documents reversed": (edit("documents", lambda a: a[::-1]), "document of row 4, found row 7"),
    "a document twice": (edit("documents", lambda a: [a[0], *a[:3]]), "row 5, found row 4"),
    "a pair": (
        edit("documents", lambda a: [*a[:3], replace(a[3], text_pair="")]),
        "expected a single text in row 7 .*found a pair",
    ),
    "half a surrogate": (
        edit("documents", lambda a: [a[0], replace(a[1], text="ab\udc80"), *a[2:]]),
        "row 5: expected text that UTF-8 can hold, .*character 2",
    ),
    "labels as int64": (edit("labels", lambda a: a.astype(np.int64)), "found int64"),
    "a label too few": (edit("labels", lambda a: a[:-1]), r"int32 \(4,\), found int32 \(3,\)"),
    "recomputed as bytes": (edit("recomputed", lambda a: a.astype("u1")), "bool .*found uint8"),
    "a recomputed too few": (
        edit("recomputed", lambda a: a[1:]),
        r"expected recomputed bool \(4,\), found bool \(3,\)",
    ),
    "no such class": (edit("labels", set_at(3, 3)), "from -1 to 2 in row 7, found 3"),
    "below -1": (edit("labels", set_at(0, -2)), "row 4, found -2"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_shard_that_does_not_fit_is_refused_whole(tmp_path: Path, kind: str) -> None:
    store = manifest(dtype="float16")
    change, message = BAD[kind]
    with FolderWriter(tmp_path / "s", store) as writer:
        before = tree(tmp_path / "s")
        shard = writer.missing[1]
        with pytest.raises(StoreError, match=message):
            write_shard(writer, shard, **change(shard_arguments(store, shard)))
        assert tree(tmp_path / "s") == before
        assert shard in writer.missing
        write_shard(writer, shard, **shard_arguments(store, shard))


def test_rows_of_equal_texts_stay_as_many_and_in_order(tmp_path: Path) -> None:
    """Nothing is keyed by content."""
    store = manifest(num_rows=4)
    with FolderWriter(tmp_path / "s", store) as writer:
        arguments = shard_arguments(store, writer.missing[0])
        arguments["documents"] = [replace(one, text="same") for one in arguments["documents"]]
        write_shard(writer, writer.missing[0], **arguments)
        writer.complete()
    found = LogitStore.open(tmp_path / "s", verify="full")
    assert list(found.documents()) == arguments["documents"]
    np.testing.assert_array_equal(found.logits(slice(None)), arguments["logits"])


def test_a_single_text_is_refused_in_a_store_of_pairs(tmp_path: Path) -> None:
    store = manifest(has_pairs=True)
    with FolderWriter(tmp_path / "s", store) as writer:
        shard = writer.missing[0]
        with pytest.raises(StoreError, match=r"pair.* row 0 .*single"):
            write_shard(writer, shard, **shard_arguments(manifest(), shard))


@pytest.mark.parametrize("shard", [ShardRange(0, 0, 4), ShardRange(1, 0, 4), ShardRange(3, 12, 16)])
def test_only_missing_shards_are_written(tmp_path: Path, shard: ShardRange) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        first = writer.missing[0]
        write_shard(writer, first, **shard_arguments(manifest(), first))
        with pytest.raises(StoreError, match="the 2 missing shards"):
            write_shard(writer, shard, **shard_arguments(manifest(), shard))


def test_nothing_works_without_the_lock(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "s", manifest())
    assert not (tmp_path / "s").exists()
    with writer:
        shard = writer.missing[0]
    for call in (
        lambda: writer.missing,
        lambda: write_shard(writer, shard, **shard_arguments(manifest(), shard)),
        writer.complete,
    ):
        with pytest.raises(StoreError, match="with statement"):
            call()


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    code = (
        "import sys; from pathlib import Path; from monox_kit.store import FolderWriter\n"
        "from tests.store_samples import manifest\n"
        "with FolderWriter(Path(sys.argv[1]), manifest()):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout and owner.stdout.readline() == b"locked\n"
        with pytest.raises(StoreLocked, match=r"/s/?: "):
            FolderWriter(tmp_path / "s", manifest()).__enter__()
        assert len(LogitStore.open(tmp_path / "s")) == 11  # readers need no lock
        owner.kill()
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.missing == []


@contextmanager
def nothing_beside(folder: Path) -> Iterator[None]:
    (folder / "lock").unlink()
    yield


@contextmanager
def another_writer(folder: Path) -> Iterator[None]:
    """It gets the same shards, since the lock that holds them is no longer there."""
    (folder / "lock").unlink()
    with FolderWriter(folder, manifest()) as writer:
        yield
        assert len(writer.missing) == 3  # nobody has committed one of its own


@contextmanager
def another_writer_that_commits(folder: Path) -> Iterator[None]:
    (folder / "lock").unlink()
    write_store(folder)
    yield


@pytest.mark.parametrize("beside", [nothing_beside, another_writer, another_writer_that_commits])
def test_a_writer_whose_lock_was_removed_commits_nothing(
    tmp_path: Path, beside: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """The other one also removes what this one has half-built."""
    folder = tmp_path / "s"
    with FolderWriter(folder, manifest()) as writer:
        shard = writer.missing[0]
        arguments = shard_arguments(manifest(), shard)
        context = writer.shard(shard, text_bytes(arguments["documents"]))
        context.__enter__().append(**arguments)
        with beside(folder):
            others = tree(folder / "shards") if (folder / "complete.json").exists() else {}
            with pytest.raises(StoreLockLost, match=r"/s/lock: "):
                context.__exit__(None, None, None)
            assert shard in writer.missing
            with pytest.raises(StoreLockLost):
                write_shard(writer, shard, **arguments)
            with pytest.raises(StoreLockLost):
                writer.copy_shard(shard, b"{}", [("logits.npy", b"")])
            assert tree(folder / "shards") == others
            assert not list((folder / "shards").glob(".tmp-*"))


def test_a_writer_whose_lock_goes_while_a_shard_is_read_back_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back = builder._read_back

    def remove_lock(*arguments: Any) -> None:
        (tmp_path / "s" / "lock").unlink()
        read_back(*arguments)

    monkeypatch.setattr(builder, "_read_back", remove_lock)
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        shard = writer.missing[0]
        with pytest.raises(StoreLockLost):
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
    assert list((tmp_path / "s" / "shards").iterdir()) == []


def test_what_another_commits_right_before_the_rename_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the lock, which cannot be one step with the rename."""
    folder, read_back = tmp_path / "s", builder._read_back

    def lose(*arguments: Any) -> None:
        monkeypatch.undo()
        read_back(*arguments)
        (folder / "lock").unlink()
        write_store(folder)
        others.update(tree(folder))

    others: dict[str, bytes] = {}
    monkeypatch.setattr(builder, "_read_back", lose)
    with FolderWriter(folder, manifest()) as writer:
        shard = writer.missing[0]
        arguments = {**shard_arguments(manifest(), shard)}
        arguments["logits"] = arguments["logits"] + 1
        with pytest.raises(StoreLockLost):
            write_shard(writer, shard, **arguments)
    assert tree(folder) == others
    assert len(list((folder / "shards").iterdir())) == 3


@pytest.mark.parametrize("error", [OSError(28, "of another file"), StorageError("of another")])
def test_an_error_of_the_block_stays_where_the_lock_goes_too(
    tmp_path: Path, error: Exception
) -> None:
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        shard = writer.missing[0]
        sizes = text_bytes(shard_arguments(manifest(), shard)["documents"])
        with pytest.raises(type(error)) as caught, writer.shard(shard, sizes):
            (tmp_path / "s" / "lock").unlink()
            raise error
    assert caught.value is error


@pytest.mark.parametrize("is_reading", [False, True])
def test_a_writer_whose_lock_was_removed_completes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reading: bool
) -> None:
    """Before it has the turn to do so, and while it reads the records."""
    lock = tmp_path / "s" / "lock"
    read_shard = StoreFolder.read_shard

    def remove_lock(self: StoreFolder, shard: ShardRange) -> ShardRecord:
        lock.unlink(missing_ok=True)
        return read_shard(self, shard)

    with FolderWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        if is_reading:
            monkeypatch.setattr(StoreFolder, "read_shard", remove_lock)
        else:
            lock.unlink()
        with pytest.raises(StoreLockLost):
            writer.complete()
    assert not (tmp_path / "s" / "complete.json").exists()
    monkeypatch.undo()
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.complete() is not None


def test_writers_of_different_shards_work_side_by_side(tmp_path: Path) -> None:
    """Each claims exactly its own shards and removes nothing of the other's."""
    write_store(tmp_path / "whole")
    folder = tmp_path / "s"
    with FolderWriter(folder, manifest(), range(1, 3)) as second:
        shard = second.missing[0]
        arguments = shard_arguments(manifest(), shard)
        with second.shard(shard, text_bytes(arguments["documents"])) as builder:
            for claimed in (range(2, 3), range(1, 2), range(2), None):
                with pytest.raises(StoreLocked, match=r"/s: .*shards"):
                    FolderWriter(folder, manifest(), claimed).__enter__()
            with FolderWriter(folder, manifest(), range(1)) as first:
                write_shard(
                    first, first.missing[0], **shard_arguments(manifest(), first.missing[0])
                )
                assert first.missing == []
                assert first.complete() is None
            assert len(list((folder / "shards").glob(".tmp-000001-*"))) == 1
            assert not (folder / "complete.json").exists()
            builder.append(**arguments)
        write_shard(second, second.missing[0], **shard_arguments(manifest(), second.missing[0]))
        assert second.complete(command="label") is not None
    assert tree(folder) == tree(tmp_path / "whole")


def test_leaving_completes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FolderWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        raise ZeroDivisionError
    assert not (tmp_path / "s" / "complete.json").exists()


def test_a_shard_folder_without_its_record_is_no_finished_shard(tmp_path: Path) -> None:
    (write_store(tmp_path / "s") / "complete.json").unlink()
    (tmp_path / "s" / "shards" / "000001" / "shard.json").unlink()
    with pytest.raises(StoreCorrupt, match=r"000001/shard\.json: .*none"):
        FolderWriter(tmp_path / "s", manifest()).__enter__()


def test_a_failed_start_gives_the_lock_back(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    with pytest.raises(StoreError):
        FolderWriter(tmp_path / "s", manifest(num_rows=12)).__enter__()
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.missing == []


def test_foreign_folders_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".tmp-mine").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(StoreError, match=r"'notes\.txt'"):
        FolderWriter(tmp_path, manifest()).__enter__()
    assert tree(tmp_path) == before
    with pytest.raises(StoreError, match=r"/notes\.txt: .*file"):
        FolderWriter(tmp_path / "notes.txt", manifest()).__enter__()


def test_shards_without_a_manifest_are_not_begun_anew(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    (tmp_path / "s" / "store.json").unlink()
    before = tree(tmp_path)
    with pytest.raises(StoreCorrupt, match=r"/s/store\.json: .*none"):
        FolderWriter(tmp_path / "s", manifest()).__enter__()
    assert tree(tmp_path) == before


def test_only_temporary_leftovers_are_removed(tmp_path: Path) -> None:
    clean = tree(write_store(tmp_path / "s"))
    half = tmp_path / "s" / "shards" / ".tmp-000001-abcd_123"
    half.mkdir()
    (half / "logits.npy").write_bytes(b"half")
    (tmp_path / "s" / ".tmp-y").write_bytes(b"half a manifest")
    (tmp_path / "s" / "notes.txt").write_text("mine")
    with FolderWriter(tmp_path / "s", manifest()):
        pass
    assert tree(tmp_path / "s") == {**clean, "notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["text.npy", "recomputed.npy", "shard.json"])
def test_a_disk_that_gives_back_other_bytes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from monox_kit.store import builder as module

    @contextmanager
    def lossy(path: Path) -> Iterator[io.BytesIO]:
        stream = io.BytesIO()
        yield stream
        content = stream.getvalue()
        if path.name == name:
            content = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(content)

    monkeypatch.setattr(module, "new_member", lossy)
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        shard = writer.missing[0]
        with pytest.raises(StorageError, match=f"{name}: "):
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        assert list((tmp_path / "s" / "shards").iterdir()) == []
        assert shard in writer.missing
