"""Crashes, refusing disks and damaged files: a store is right, or says by name what is wrong."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.errors import MonoxError, StorageError, StoreCorrupt, StoreError
from monox_kit.store import LogitStore, StoreWriter, verify_store
from tests.store_samples import manifest, tree, write_store

SHARD = Path("shards/000001")
CUTS = [2]  # every shard in two parts


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: a killed process loses no page cache, and refusals are simulated."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store that nothing happened to."""
    return write_store(tmp_path_factory.mktemp("whole") / "s")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


# Damaged files


def test_every_flipped_bit_is_found(copy: Path) -> None:
    draw = random.Random(20)
    files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name != "lock"]
    for path in files:
        content = path.read_bytes()
        for _ in range(12):
            at = draw.randrange(len(content) * 8)
            damaged = bytearray(content)
            damaged[at // 8] ^= 1 << at % 8
            path.write_bytes(damaged)
            with pytest.raises(StoreError) as caught:
                verify_store(copy).require_intact()
            assert path.name in str(caught.value)
        path.write_bytes(content)
    assert verify_store(copy).problems == ()


def rewrite_record(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record and give it a digest that fits, as a hostile hand would."""
    from monox_kit.store.record import encode_record

    value = json.loads(path.read_text(encoding="utf-8"))
    del value["record_digest"]
    change(value)
    path.write_bytes(encode_record(value, path))


def hostile_header(path: Path) -> None:
    """Claim 4 TiB of logits."""
    content = path.read_bytes()
    claim = content[:128].replace(b"(4, 3), }      ", b"(4, 274877906944), }")[:127] + b"\n"
    path.write_bytes(claim + content[128:])


def append(path: Path, extra: bytes) -> None:
    path.write_bytes(path.read_bytes() + extra)


def link_away(path: Path) -> None:
    target = path.with_name("elsewhere")
    shutil.move(path, path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")
    assert not target.exists()


def swap(folder: Path) -> None:
    (folder / "shards/000000").rename(folder / "shards/x")
    (folder / "shards/000001").rename(folder / "shards/000000")
    (folder / "shards/x").rename(folder / "shards/000001")


def foreign_shard(folder: Path) -> None:
    """A shard of the same rows from a store of another teacher."""
    other = write_store(folder.parent / "other", manifest(fingerprint={"teacher": "other"}))
    shutil.rmtree(folder / SHARD)
    shutil.copytree(other / SHARD, folder / SHARD)


def set_in(path: str, *keys: str, to: Any) -> Callable[[Path], None]:
    """Set one value of a record, its digest made to fit."""

    def change(value: dict[str, Any]) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return lambda folder: rewrite_record(folder / path, change)


RECORD = f"{SHARD}/shard.json"
# What happens to a complete store; the file that the error names; a part of what it says.
DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "manifest lost": (lambda f: (f / "store.json").unlink(), "store.json", "found none"),
    "manifest empty": (lambda f: (f / "store.json").write_bytes(b""), "store.json", "JSON record"),
    "manifest is a folder": (
        lambda f: ((f / "store.json").unlink(), (f / "store.json").mkdir()),
        "store.json",
        "expected a plain file",
    ),
    "manifest of 10^18 shards": (
        set_in("store.json", "num_rows", to=4 * 10**18),
        "store.json",
        "at most 1000000 shards",
    ),
    "manifest with one label": (
        set_in("store.json", "labels", "names", to=["a"]),
        "store.json",
        "at least 2 distinct names",
    ),
    "manifest with text for a number": (
        set_in("store.json", "num_rows", to="11"),
        "store.json",
        "num_rows of type int",
    ),
    "manifest of another dtype": (
        set_in("store.json", "dtype", to="float16"),
        "complete.json|shard.json",
        "expected store",
    ),
    "completion of another length": (
        set_in("complete.json", "num_rows", to=12),
        "complete.json",
        "expected num_rows 11, found 12",
    ),
    "completion with another digest": (
        set_in("complete.json", "digest", to="0" * 64),
        "complete.json",
        "digest 0000",
    ),
    "completion cut short": (
        lambda f: os.truncate(f / "complete.json", 40),
        "complete.json",
        "JSON record",
    ),
    "shards lost": (lambda f: shutil.rmtree(f / "shards"), "shards", "No such file"),
    "shard lost": (lambda f: shutil.rmtree(f / SHARD), "complete.json", "no shards/000001"),
    "shard is a file": (
        lambda f: (shutil.rmtree(f / SHARD), (f / SHARD).write_bytes(b"")),
        str(SHARD),
        "expected a folder",
    ),
    "shard too many": (
        lambda f: shutil.copytree(f / SHARD, f / "shards/000003"),
        "shards",
        "'000003'",
    ),
    "something else among shards": (
        lambda f: (f / "shards/notes.txt").write_text("mine"),
        "shards",
        "'notes.txt'",
    ),
    "shards swapped": (swap, "shards/000000/shard.json", "expected index 0, found 1"),
    "shard of another store": (foreign_shard, RECORD, "expected store"),
    "shard is a link": (lambda f: link_away(f / SHARD), str(SHARD), "a link"),
    "record lost": (lambda f: (f / RECORD).unlink(), RECORD, "found none"),
    "record of too many rows": (set_in(RECORD, "stop", to=9), RECORD, "expected stop 8, found 9"),
    "record without a file": (set_in(RECORD, "files", to={}), RECORD, "difference in"),
    "record naming a path": (
        set_in(RECORD, "files", "../../../etc/passwd", to={"bytes": 1, "sha256": ""}),
        RECORD,
        "'../../../etc/passwd'",
    ),
    "record with a negative size": (
        set_in(RECORD, "files", "text.npy", "bytes", to=-1),
        RECORD,
        "at least 128 bytes of text.npy",
    ),
    "record with a huge size": (
        set_in(RECORD, "files", "text.npy", "bytes", to=2**62),
        f"{SHARD}/text.npy",
        f"expected {2**62} bytes",
    ),
    "record with more logits": (
        set_in(RECORD, "files", "logits.npy", "bytes", to=1000),
        RECORD,
        "176 bytes of logits.npy",
    ),
    "record with another digest": (
        set_in(RECORD, "files", "ids.npy", "sha256", to="0" * 64),
        "complete.json|ids.npy",
        "expected",
    ),
    "record with another count of recomputed rows": (
        set_in(RECORD, "num_recomputed", to=4),
        "complete.json|shard.json",
        "expected",
    ),
    "record without a count of recomputed rows": (
        lambda f: rewrite_record(f / RECORD, lambda value: value.pop("num_recomputed")),
        RECORD,
        "no key 'num_recomputed'",
    ),
    "recomputed lost": (
        lambda f: (f / SHARD / "recomputed.npy").unlink(),
        "recomputed.npy",
        "found none",
    ),
    "record with another count of gold labels": (
        set_in(RECORD, "num_labelled", to=4),
        "complete.json|shard.json",
        "expected",
    ),
    "logits lost": (lambda f: (f / SHARD / "logits.npy").unlink(), "logits.npy", "found none"),
    "logits cut short": (
        lambda f: os.truncate(f / SHARD / "logits.npy", 170),
        "logits.npy",
        "expected 176 bytes, found 170. The file was cut short",
    ),
    "text too long": (lambda f: append(f / SHARD / "text.npy", b"x"), "text.npy", "bytes, found"),
    "offsets empty": (
        lambda f: os.truncate(f / SHARD / "text_offsets.npy", 0),
        "text_offsets.npy",
        "found 0",
    ),
    "ids are a link": (lambda f: link_away(f / SHARD / "ids.npy"), "ids.npy", "found a link"),
    "labels are a pipe": (
        lambda f: ((f / SHARD / "labels.npy").unlink(), os.mkfifo(f / SHARD / "labels.npy")),
        "labels.npy",
        "expected a plain file",
    ),
}
# Only seen when the file's own bytes are read.
DEEP_DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "header claims 4 TiB": (
        lambda f: hostile_header(f / SHARD / "logits.npy"),
        "logits.npy",
        "the .npy header of <f4 (4, 3)",
    ),
    "header asks for pickle": (
        lambda f: (f / SHARD / "text.npy").write_bytes(
            (f / SHARD / "text.npy").read_bytes().replace(b"|u1", b"|O1")
        ),
        "text.npy",
        "the .npy header",
    ),
    "a file of zeros": (
        lambda f: (f / SHARD / "rows.npy").write_bytes(bytes(160)),
        "rows.npy",
        "the .npy header",
    ),
    "a file too many": (
        lambda f: (f / SHARD / "more.npy").write_bytes(b""),
        str(SHARD),
        "'more.npy'",
    ),
}


def expect_error(error: MonoxError, place: str, says: str) -> None:
    """The message names the file, says what is wrong and what to do next."""
    message = str(error)
    where = message.partition(": expected")[0]
    assert where.endswith(tuple(place.split("|"))), message
    assert says in message
    assert any(step in message for step in ("Delete ", "Restore ", "Move ")), message


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_when_the_store_is_opened(copy: Path, kind: str) -> None:
    damage, place, says = DAMAGE[kind]
    damage(copy)
    before = tree(copy)
    with pytest.raises(StoreCorrupt) as caught:
        LogitStore.open(copy)
    expect_error(caught.value, place, says)
    with pytest.raises(StoreCorrupt):
        verify_store(copy).require_intact()
    # A writer neither accepts it nor deletes anything.
    with pytest.raises(StoreError):
        StoreWriter(copy, manifest()).__enter__()
    assert tree(copy) == before


@pytest.mark.parametrize("kind", DEEP_DAMAGE)
def test_damage_is_named_when_everything_is_read(copy: Path, kind: str) -> None:
    damage, place, says = DEEP_DAMAGE[kind]
    damage(copy)
    with pytest.raises(StoreCorrupt) as caught:
        LogitStore.open(copy, verify="full")
    expect_error(caught.value, place, says)


@pytest.mark.parametrize("kind", [kind for kind in DEEP_DAMAGE if "header" in kind])
def test_headers_are_compared_before_any_value_is_used(copy: Path, kind: str) -> None:
    damage, place, says = DEEP_DAMAGE[kind]
    damage(copy)
    store = LogitStore.open(copy)
    with pytest.raises(StoreCorrupt) as caught:
        store.logits(slice(4, 8)) if place == "logits.npy" else store.text(5)
    expect_error(caught.value, place, says)


def forge(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change an array and every digest above it: only the format's own rules can tell."""
    import hashlib

    from monox_kit.store.format import store_digest

    path = folder / SHARD / name
    array = np.load(path)
    content = path.read_bytes()[:128] + change(array).tobytes()
    path.write_bytes(content)

    def fit(value: dict[str, Any]) -> None:
        value["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()

    rewrite_record(folder / RECORD, fit)
    records = ["store.json", *(f"shards/00000{index}/shard.json" for index in range(3))]
    digests = [json.loads((folder / one).read_bytes())["record_digest"] for one in records]
    set_in("complete.json", "digest", to=store_digest(digests[0], digests[1:]))(folder)


def put(index: Any, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("rows.npy", lambda a: a[::-1], "the rows 4 to 7 in order"),
        ("logits.npy", put((2, 0), np.nan), "others in row 6"),
        ("labels.npy", put(0, 3), "labels from -1 to 2"),
        ("labels.npy", put(0, -1), "expected num_labelled"),
        ("recomputed.npy", put(3, 2), "expected 0 or 1, found another value in row 7"),
        ("recomputed.npy", put(0, 1), "expected num_recomputed 2, found 1"),
        ("text_offsets.npy", put(1, 10_000), "ascending offsets"),
        ("text_offsets.npy", put(0, 1), "ascending offsets"),
        ("ids_offsets.npy", put(-1, 2), "ascending offsets"),
        ("text.npy", put(-1, 0xFF), "UTF-8 text in row 7, found"),
        ("text_offsets.npy", put(3, 15), "UTF-8 text in row 6, found"),
    ],
)
def test_the_rules_hold_even_under_fitting_digests(
    copy: Path, name: str, change: Callable[[Any], Any], says: str
) -> None:
    forge(copy, name, change)
    assert len(LogitStore.open(copy)) == 11
    with pytest.raises(StoreCorrupt, match=says):
        LogitStore.open(copy, verify="full")


def test_wrong_offsets_never_read_outside(copy: Path) -> None:
    forge(copy, "text_offsets.npy", put(1, 10_000))
    store = LogitStore.open(copy)
    for row in (4, 5):
        with pytest.raises(StoreCorrupt, match=rf"text in row {row}, found offsets .* into "):
            store.text(row)


def test_verify_lists_every_damaged_shard(copy: Path) -> None:
    for index in (0, 2):
        append(copy / f"shards/00000{index}/text.npy", b"x")
    report = verify_store(copy)
    assert [problem.count("text.npy") for problem in report.problems] == [1, 1]
    assert (report.num_shards, report.num_rows, report.complete) == (1, 4, True)
    with pytest.raises(StoreCorrupt, match=r"000000/text\.npy.*\(1 more problems\)"):
        report.require_intact()


def test_doing_what_the_message_says_repairs_the_store(copy: Path, whole: Path) -> None:
    os.truncate(copy / SHARD / "logits.npy", 150)
    with pytest.raises(StoreCorrupt, match=r"Delete shards/000001 \(and complete\.json"):
        StoreWriter(copy, manifest()).__enter__()
    shutil.rmtree(copy / SHARD)
    (copy / "complete.json").unlink()
    write_store(copy)
    assert tree(copy) == tree(whole)


def test_an_unreadable_file_is_a_storage_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "refused", str(path))

    store = LogitStore.open(copy)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StorageError, match=r"shard\.json: expected to read the file, found"):
        store.text(0)
