"""Damaged files: whatever is wrong with a store is said by name, early and in little memory."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import resource
import shutil
import stat
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import MonoxError, StorageError, StoreCorrupt, StoreError
from monox_kit.store import FolderWriter, LogitStore, contents, verify_store
from tests.faults.damage import (
    RECORD,
    SHARD,
    Damage,
    append,
    at,
    fit_records,
    forge,
    link,
    lose,
    resize,
    set_in,
)
from tests.faults.damage_kinds import FORGED, HEADERS, OPENED, READ
from tests.store_samples import logits, manifest, tree, write_store

KINDS = {**OPENED, **READ, **FORGED}
MIB = 1 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store that nothing happened to."""
    return write_store(tmp_path_factory.mktemp("whole") / "s")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


def entries(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything below a folder that is no folder, by path: changed by any write to it."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            status = os.lstat(os.path.join(parent, name))
            if not stat.S_ISDIR(status.st_mode):
                key = os.path.relpath(os.path.join(parent, name), folder)
                found[key] = status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns
    return found


def expect_error(error: MonoxError, damage: Damage) -> None:
    """The message names the file, says what is wrong and what to do next."""
    message = str(error)
    assert message.partition(": expected")[0].endswith(tuple(damage.place.split("|"))), message
    assert damage.says in message
    assert any(step in message for step in ("Delete ", "Restore ", "Move ", "Upgrade ")), message


@pytest.mark.parametrize("kind", OPENED)
def test_damage_is_named_when_the_store_is_opened(copy: Path, kind: str) -> None:
    damage = OPENED[kind]
    damage.act(copy)
    before = entries(copy.parent)
    with pytest.raises(damage.error) as caught:
        LogitStore.open(copy)
    expect_error(caught.value, damage)
    with pytest.raises(StoreError):
        verify_store(copy).require_intact()
    # A writer neither accepts it nor deletes anything.
    with pytest.raises(StoreError):
        FolderWriter(copy, manifest()).__enter__()
    assert entries(copy.parent) == before


@pytest.mark.parametrize("kind", READ)
def test_damage_is_named_when_everything_is_read(copy: Path, kind: str) -> None:
    damage = READ[kind]
    damage.act(copy)
    with pytest.raises(StoreCorrupt) as caught:
        LogitStore.open(copy, verify="full")
    expect_error(caught.value, damage)


@pytest.mark.parametrize("kind", [kind for kind in HEADERS if HEADERS[kind].place != "rows.npy"])
def test_headers_are_compared_before_any_value_is_used(copy: Path, kind: str) -> None:
    damage = HEADERS[kind]
    damage.act(copy)
    tracemalloc.start()
    try:
        store = LogitStore.open(copy)
        with pytest.raises(StoreCorrupt) as caught:
            store.logits(slice(4, 8)) if damage.place == "logits.npy" else store.text(5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expect_error(caught.value, damage)
    assert peak < MIB


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("rows_at_once", [1, 3, 4096])
def test_the_rules_hold_even_under_fitting_digests(
    copy: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows_at_once: int
) -> None:
    monkeypatch.setattr(contents, "_PART_ROWS", rows_at_once)
    damage = FORGED[kind]
    damage.act(copy)
    assert len(LogitStore.open(copy)) == 11
    with pytest.raises(StoreCorrupt) as caught:
        LogitStore.open(copy, verify="full")
    expect_error(caught.value, damage)


def outcome(copy: Path) -> str:
    """What reading every byte of a store says about it, the place of the copy left out."""
    try:
        LogitStore.open(copy, verify="full")
    except MonoxError as error:
        return str(error).replace(str(copy), "")
    return "nothing"


@pytest.mark.complete
def test_damage_is_told_apart(whole: Path, tmp_path: Path) -> None:
    """Kinds share a message where the reason is the same: any header but the one expected, say."""
    told: dict[str, str] = {}
    for number, (kind, damage) in enumerate(KINDS.items()):
        copy = Path(shutil.copytree(whole, tmp_path / str(number) / "s"))
        damage.act(copy)
        told[kind] = outcome(copy)
    assert len(KINDS) >= 120
    assert len(set(told.values())) >= 90


# Links


def levels() -> list[str]:
    """Every file and folder below a store."""
    arrays = ["logits", "rows", "labels", "recomputed"]
    arrays += [f"{field}{end}" for field in ("ids", "text") for end in ("", "_offsets")]
    files = [f"{SHARD}/{name}.npy" for name in arrays]
    return ["store.json", "complete.json", "shards", SHARD, RECORD, *files]


@pytest.mark.parametrize("path", levels())
@pytest.mark.parametrize("is_complete", [True, False])
def test_no_link_is_followed(copy: Path, path: str, is_complete: bool) -> None:
    """The link leads to what the store is to hold: only that it leaves the store is wrong."""
    if not is_complete:
        lose("shards/000002")(copy)
        if path != "complete.json":
            lose("complete.json")(copy)
    (copy / "shards" / ".tmp-000001-abcdefgh").mkdir()
    (copy / "shards" / ".tmp-000001-abcdefgh" / "logits.npy").write_text("somebody's")
    link(path)(copy)
    before = entries(copy.parent)
    if path == "shards":  # what lies elsewhere is not cleaned up either
        with pytest.raises(StoreCorrupt, match="found a link"):
            FolderWriter(copy, manifest()).__enter__()
        assert entries(copy.parent) == before
    for use in (
        lambda: LogitStore.open(copy, allow_incomplete=True),
        lambda: verify_store(copy).require_intact(),
        lambda: FolderWriter(copy, manifest()).__enter__(),
    ):
        with pytest.raises(StoreCorrupt, match=rf"{path}: expected a .*found a link"):
            use()
    assert (copy.parent / "elsewhere").exists()


def test_a_link_within_the_store_is_none_of_its_files(copy: Path) -> None:
    lose(f"{SHARD}/ids.npy")(copy)
    (copy / SHARD / "ids.npy").symlink_to("../000000/ids.npy")
    with pytest.raises(StoreCorrupt, match=r"ids\.npy: .*link"):
        LogitStore.open(copy)


@pytest.mark.parametrize("kind", ["link", "link to nothing", "folder", "pipe"])
def test_the_lock_is_a_plain_file_of_the_store(copy: Path, kind: str) -> None:
    lock, outside = copy / "lock", copy.parent / "outside"
    lock.unlink()
    if "link" in kind:
        lock.symlink_to(outside)
    if kind == "link":
        outside.write_text("somebody's")
    if kind == "folder":
        lock.mkdir()
    if kind == "pipe":
        os.mkfifo(lock)
    before = entries(copy.parent)
    with pytest.raises(StoreError, match=r"/lock: "):
        FolderWriter(copy, manifest()).__enter__()
    assert entries(copy.parent) == before
    assert len(LogitStore.open(copy)) == 11  # readers need no lock


def test_the_store_itself_may_be_reached_by_a_link(copy: Path) -> None:
    (copy.parent / "link").symlink_to(copy)
    assert len(LogitStore.open(copy.parent / "link", verify="full")) == 11
    with FolderWriter(copy.parent / "link", manifest()) as writer:
        assert writer.missing == []


# Flipped bits, and values that a hostile hand chose


def flips(folder: Path, num_flips: int) -> Iterator[tuple[Path, int]]:
    """Files and bits in them: half in any file alike, half in any byte of the store alike."""
    draw = random.Random(20)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    sizes = [path.stat().st_size for path in files]
    for number in range(num_flips):
        (path,) = draw.choices(files, sizes if number % 2 else None)
        yield path, draw.randrange(path.stat().st_size * 8)


@pytest.mark.parametrize("num_flips", [100, pytest.param(2000, marks=pytest.mark.complete)])
def test_every_flipped_bit_is_found(tmp_path: Path, num_flips: int) -> None:
    store = write_store(tmp_path / "s", manifest(has_pairs=True))
    found = 0
    for path, bit in flips(store, num_flips):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError) as caught:
            LogitStore.open(store, verify="full")
        assert path.name in str(caught.value), (path, bit)
        found += 1
        path.write_bytes(content)
    assert found == num_flips
    assert verify_store(store).problems == ()


HOSTILE = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1e308,
    "",
    "../x",
    "\0",
    [],
    [[]],
    {},
    {"": {}},
)


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value of a record."""
    if keys:
        yield keys
    inside = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else inside:
        yield from leaves(inner, (*keys, key))


@pytest.mark.parametrize("share", [0.03, pytest.param(1, marks=pytest.mark.complete)])
def test_hostile_values_are_named_or_harmless(whole: Path, tmp_path: Path, share: float) -> None:
    """Whatever a record says, under digests that fit: no other error, and no other logits."""
    draw = random.Random(21)
    for path in ("store.json", "complete.json", RECORD):
        names = leaves(json.loads((whole / path).read_bytes()))
        for keys, value in itertools.product(names, HOSTILE):
            if keys == ("record_digest",) or draw.random() > share:
                continue
            copy = Path(shutil.copytree(whole, tmp_path / "s"))
            set_in(path, *keys, to=value)(copy)
            if path != "complete.json":
                fit_records(copy)
            try:
                store = LogitStore.open(copy, verify="full")
                assert (store.logits(slice(None)) == logits(np.arange(11))).all(), (keys, value)
            except StoreError as error:
                assert ".json" in str(error) or ".npy" in str(error), (keys, value)
            shutil.rmtree(copy)


# Limits


def cost(copy: Path) -> tuple[float, int]:
    """Processor seconds, and bytes of memory, of a full look at a store in a process of its own.

    The process may map 64 MiB more than it has when it begins, whatever for.
    """
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside native threads
        child = os.fork()
    if child == 0:
        try:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + 64 * MIB,) * 2)
            before, started = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                time.process_time(),
            )
            told = outcome(copy)
            seconds = time.process_time() - started
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(theirs, json.dumps([told != "nothing", seconds, grown * 1024]).encode())
        finally:
            os._exit(0)  # a MemoryError is seen by the empty pipe
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    assert answer, "found no answer within 64 MiB"
    is_refused, seconds, num_bytes = json.loads(answer)
    assert is_refused
    return seconds, num_bytes


@pytest.mark.complete
def test_damage_is_named_within_half_a_second_and_64_mib(whole: Path, tmp_path: Path) -> None:
    """The two limits that docs/operations.md promises; of three tries, so that others may work."""
    assert outcome(whole) == "nothing"  # loads the libraries of a full look, which are not measured
    for number, (kind, damage) in enumerate(KINDS.items()):
        copy = Path(shutil.copytree(whole, tmp_path / str(number) / "s"))
        damage.act(copy)
        tries = [cost(copy) for _ in range(3)]
        seconds, num_bytes = (min(values) for values in zip(*tries, strict=True))
        assert seconds < 0.5 and num_bytes < 64 * MIB, kind


# What else is done about damage


def test_wrong_offsets_never_read_outside(copy: Path) -> None:
    FORGED["an offset too high"].act(copy)
    store = LogitStore.open(copy)
    for row in (4, 5):
        with pytest.raises(StoreCorrupt, match=rf"text in row {row}, found offsets .* into "):
            store.text(row)
        for rows in (slice(0, 11), np.array([0, row])):
            # The first wrong row is named; where row 5 alone is asked for, that is it.
            named = row if isinstance(rows, np.ndarray) else 4
            with pytest.raises(StoreCorrupt, match=rf"text in row {named}, found offsets .* into "):
                store.texts(rows)


def test_a_label_that_the_store_has_not_is_named_when_it_is_used(copy: Path) -> None:
    forge("labels.npy", at(1, 3))(copy)
    with pytest.raises(StoreCorrupt, match=r"labels\.npy: expected labels .* found 3 in row 5\."):
        list(LogitStore.open(copy).documents())


def test_verify_lists_every_damaged_shard(copy: Path) -> None:
    for index in (0, 2):
        append(f"shards/00000{index}/text.npy", b"x")(copy)
    report = verify_store(copy)
    assert [problem.count("text.npy") for problem in report.problems] == [1, 1]
    assert (report.num_shards, report.num_rows, report.complete) == (1, 4, False)
    with pytest.raises(StoreCorrupt, match=r"000000/text\.npy.*\(1 more problems\)"):
        report.require_intact()


def test_verify_lists_records_that_seem_of_a_later_version_too(copy: Path) -> None:
    for kind in ("completion of a later version", "record of a later version", "a file too many"):
        KINDS[kind].act(copy)
    append("shards/000002/ids.npy", b"x")(copy)
    named = [problem.partition(": expected")[0] for problem in verify_store(copy).problems]
    assert named == [
        f"{copy}/{path}" for path in ("complete.json", RECORD, "shards/000002/ids.npy")
    ]


def test_doing_what_the_message_says_repairs_the_store(copy: Path, whole: Path) -> None:
    resize(f"{SHARD}/logits.npy", 150)(copy)
    with pytest.raises(StoreCorrupt, match=r"Delete shards/000001 \(and complete\.json"):
        FolderWriter(copy, manifest()).__enter__()
    lose(SHARD)(copy)
    lose("complete.json")(copy)
    write_store(copy)
    assert tree(copy) == tree(whole)


def test_an_unreadable_file_is_a_storage_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "refused", str(path))

    store = LogitStore.open(copy)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="000000: "):
        store.text(0)
