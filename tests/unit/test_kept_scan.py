"""The scan that a store keeps: taken for the same files and settings, else made again."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig, CorpusSummary
from monox_kit.corpora.marks import Marks
from monox_kit.corpora.paths import SourceFile, file_states
from monox_kit.errors import StoreError
from monox_kit.labelling.kept_scan import KeptScan
from monox_kit.progress import Silent
from monox_kit.store import StoreManifest, StoreWriter, keep_scan, staged_place
from tests.notes import Notes
from tests.store_samples import manifest, shard_arguments
from tests.tiny_models import labelled_rows, write_jsonl

NUM_ROWS, SHARD_ROWS = 23, 4


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: what reaches it when is the subject of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of pairs."""
    rows = labelled_rows(NUM_ROWS, seed=1, pairs=True)
    write_jsonl(tmp_path / "data" / "a.jsonl", rows[:10])
    write_jsonl(tmp_path / "data" / "b.jsonl", rows[10:])
    return tmp_path / "data"


def config_of(folder: Path, **changes: Any) -> CorpusConfig:
    return replace(CorpusConfig(paths=(str(folder / "*.jsonl"),)), **changes)


def keep(config: CorpusConfig, store: Path) -> tuple[CorpusSummary, StoreManifest]:
    """Scan a corpus and begin a store that keeps what was found."""
    corpus = Corpus(config)
    kept = KeptScan(corpus, SHARD_ROWS, staged_place(store, None), Silent())
    summary = corpus.scan(mark_every=SHARD_ROWS, sample_rows=5)
    begun = manifest(
        num_rows=summary.num_rows,
        shard_rows=SHARD_ROWS,
        has_pairs=summary.has_pairs,
        fingerprint={"corpus_digest": summary.digest},
    )
    content = kept.encode(summary, summary.sample)
    assert content is not None
    with StoreWriter(store, begun, range(1)):
        kept.keep(content)
    return summary, begun


def take(
    config: CorpusConfig, store: Path, begun: StoreManifest, shard_rows: int = SHARD_ROWS
) -> tuple[CorpusSummary | None, list[str]]:
    """What a later run takes, and is told."""
    notes = Notes()
    kept = KeptScan(Corpus(config), shard_rows, staged_place(store, None), notes)
    with ExitStack() as turn:
        assert kept.begun(turn, {}) == begun
    return kept.take(begun), notes.notes


def test_what_was_found_comes_back(corpus: Path, tmp_path: Path) -> None:
    summary, begun = keep(config_of(corpus), tmp_path / "s")
    found, notes = take(config_of(corpus), tmp_path / "s", begun)
    assert found == summary
    assert list(found.marks) == list(summary.marks)
    assert len(found.sample) == 5
    assert notes == ["23 rows were checked by an earlier run; their files are unchanged"]


def test_the_files_may_lie_under_another_folder(corpus: Path, tmp_path: Path) -> None:
    summary, begun = keep(config_of(corpus), tmp_path / "s")
    shutil.copytree(corpus, tmp_path / "mounted" / "elsewhere")  # with their times
    shutil.rmtree(corpus)
    found, _ = take(config_of(tmp_path / "mounted" / "elsewhere"), tmp_path / "s", begun)
    assert found == summary


def touch(folder: Path) -> None:
    """Another time alone, by a nanosecond."""
    status = (folder / "a.jsonl").stat()
    os.utime(folder / "a.jsonl", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def lengthen(folder: Path) -> None:
    """Another size alone."""
    path = folder / "b.jsonl"
    status = path.stat()
    path.write_text(path.read_text() + "\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGED: dict[str, Callable[[Path], object]] = {
    "a file's time": touch,
    "a file's size": lengthen,
    "a file's name": lambda folder: (folder / "b.jsonl").rename(folder / "c.jsonl"),
    "another file": lambda folder: shutil.copy(folder / "a.jsonl", folder / "z.jsonl"),
    "a lost file": lambda folder: (folder / "b.jsonl").unlink(),
    "files in another order": lambda folder: [
        (folder / old).rename(folder / new)
        for old, new in (("a.jsonl", "x"), ("b.jsonl", "a.jsonl"), ("x", "b.jsonl"))
    ],
}


@pytest.mark.parametrize("kind", CHANGED)
def test_files_that_were_touched_are_scanned_again(corpus: Path, tmp_path: Path, kind: str) -> None:
    _, begun = keep(config_of(corpus), tmp_path / "s")
    CHANGED[kind](corpus)
    found, notes = take(config_of(corpus), tmp_path / "s", begun)
    assert found is None
    assert "of other files, times of modification or settings than now: the corpus" in notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "text"},
        {"text_column": "body"},
        {"pair_column": "other"},
        {"label_column": "gold"},
        {"id_column": "key"},
        {"lang_column": "language"},
        {"pair": "none"},
    ],
    ids=str,
)
def test_other_settings_are_scanned_again(
    corpus: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    _, begun = keep(config_of(corpus), tmp_path / "s")
    assert take(config_of(corpus, **change), tmp_path / "s", begun)[0] is None


def test_marks_of_another_size_or_another_version_are_no_use(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, begun = keep(config_of(corpus), tmp_path / "s")
    assert take(config_of(corpus), tmp_path / "s", begun, shard_rows=5)[0] is None
    monkeypatch.setattr("monox_kit.labelling.kept_scan.__version__", "0.0.0")
    assert take(config_of(corpus), tmp_path / "s", begun)[0] is None


def test_a_damaged_one_is_never_believed(corpus: Path, tmp_path: Path) -> None:
    """Bits flipped, the end cut off, bytes appended, and no plain file at all."""
    _, begun = keep(config_of(corpus), tmp_path / "s")
    path = tmp_path / "s" / "scan"
    whole = path.read_bytes()
    draw = random.Random(6)
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(20)] + [b"", whole + b"\0"]
    for _ in range(60):
        at = draw.randrange(len(whole))
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        found, notes = take(config_of(corpus), tmp_path / "s", begun)
        assert found is None
        assert notes[0].startswith(f"{path}: ") and "the corpus is checked again" in notes[0]
    path.write_bytes(whole)
    path.rename(tmp_path / "elsewhere")
    assert take(config_of(corpus), tmp_path / "s", begun) == (None, [])
    path.symlink_to(tmp_path / "elsewhere")
    assert take(config_of(corpus), tmp_path / "s", begun)[0] is None
    path.unlink()
    os.mkfifo(path)
    assert take(config_of(corpus), tmp_path / "s", begun)[0] is None


def test_another_stores_scan_is_not_taken(corpus: Path, tmp_path: Path) -> None:
    """Of the same files under the same times: one was changed and its time put back."""
    status = (corpus / "a.jsonl").stat()
    keep(config_of(corpus), tmp_path / "other")
    text = (corpus / "a.jsonl").read_text()
    at = text.index('"text": "') + 9
    (corpus / "a.jsonl").write_text(f"{text[:at]}Z{text[at + 1 :]}")
    os.utime(corpus / "a.jsonl", ns=(status.st_atime_ns, status.st_mtime_ns))
    _, begun = keep(config_of(corpus), tmp_path / "s")
    shutil.copy(tmp_path / "other" / "scan", tmp_path / "s" / "scan")
    found, notes = take(config_of(corpus), tmp_path / "s", begun)
    assert found is None and "of another store" in notes[0]


def test_a_complete_store_keeps_none(corpus: Path, tmp_path: Path) -> None:
    """Neither put late, nor left by a power failure."""
    store = manifest()
    with StoreWriter(tmp_path / "s", store) as writer:
        keep_scan(tmp_path / "s", b"scan")
        assert (tmp_path / "s" / "scan").read_bytes() == b"scan"
        for shard in writer.missing:
            writer.write_shard(shard, **shard_arguments(store, shard))
        writer.complete()
        assert not (tmp_path / "s" / "scan").exists()
        keep_scan(tmp_path / "s", b"scan")
        assert not (tmp_path / "s" / "scan").exists()
    (tmp_path / "s" / "scan").write_bytes(b"scan")
    with StoreWriter(tmp_path / "s", store) as writer:
        writer.complete()
    assert not (tmp_path / "s" / "scan").exists()


def test_files_that_change_during_the_wait_are_known_as_they_are_scanned(
    corpus: Path, tmp_path: Path
) -> None:
    config, store = config_of(corpus), tmp_path / "s"
    kept = KeptScan(Corpus(config), SHARD_ROWS, staged_place(store, None), Silent())
    touch(corpus)
    with ExitStack() as turn:
        assert kept.begun(turn, {}) is None
        summary = Corpus(config).scan(mark_every=SHARD_ROWS)
        content = kept.encode(summary, ())
        assert content is not None
        begun = manifest(
            num_rows=summary.num_rows,
            shard_rows=SHARD_ROWS,
            has_pairs=True,
            fingerprint={"corpus_digest": summary.digest},
        )
        with StoreWriter(store, begun, range(1)):
            kept.keep(content)
    assert take(config, store, begun)[0] is not None


def test_a_scan_that_cannot_be_kept_is_a_note(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for it, and has room again for the store."""
    notes, store = Notes(), tmp_path / "s"
    kept = KeptScan(Corpus(config_of(corpus)), SHARD_ROWS, staged_place(store, None), notes)

    def full(source: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with StoreWriter(store, manifest(), range(1)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            kept.keep(b"scan")
        assert sorted(os.listdir(store)) == ["lock", "shards", "store.json"]
    (note,) = notes.notes
    assert note.startswith(f"{store / 'scan'}: expected to write here, found: No space left")
    assert note.endswith("Until then, each run of this store checks the corpus.")


def test_a_folder_where_the_scan_belongs_is_refused_before_any_work(tmp_path: Path) -> None:
    """And not removed: it is somebody's."""
    with StoreWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            writer.write_shard(shard, **shard_arguments(manifest(), shard))
        (tmp_path / "s" / "scan").mkdir()
        with pytest.raises(StoreError, match=r"s/scan: expected no folder of this name"):
            writer.complete()
    place = staged_place(tmp_path / "s", None)
    with pytest.raises(StoreError, match=r"s/scan: expected no folder of this name"):
        place.require_writable()
    with (
        pytest.raises(StoreError, match="Move it elsewhere"),
        StoreWriter(tmp_path / "s", manifest()),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "s" / "scan").rmdir()
    with StoreWriter(tmp_path / "s", manifest()) as writer:
        assert writer.complete() is not None


def test_a_folder_that_comes_later_is_refused_too(corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    kept = KeptScan(Corpus(config_of(corpus)), SHARD_ROWS, staged_place(store, None), Silent())
    with StoreWriter(store, manifest(), range(1)):
        (store / "scan").mkdir()
        with pytest.raises(StoreError, match=r"s/scan: expected no folder of this name"):
            kept.keep(b"scan")


def test_a_finished_store_needs_no_turn(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StoreWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            writer.write_shard(shard, **shard_arguments(manifest(), shard))
        writer.complete()

    def fail(*arguments: object) -> None:
        pytest.fail("expected no turn")

    monkeypatch.setattr("monox_kit.labelling.kept_scan.beginning", fail)
    assert take(config_of(corpus), tmp_path / "s", manifest()) == (None, [])


def test_a_corpus_that_does_not_tell_of_changes_keeps_none(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/kept/a.jsonl", b'{"text": "alpha"}\n')
    corpus = Corpus(CorpusConfig(paths=("memory://kept/a.jsonl",)))
    kept = KeptScan(corpus, SHARD_ROWS, staged_place(tmp_path / "s", None), Silent())
    summary = corpus.scan(mark_every=SHARD_ROWS)
    with ExitStack() as turn:
        assert kept.begun(turn, {}) is None
    assert kept.encode(summary, ()) is None
    assert not (tmp_path / "s").exists()


class Telling:
    """A file system that tells what it is told to."""

    def __init__(self, **info: object) -> None:
        self.told = info

    def invalidate_cache(self) -> None:
        pass

    def info(self, location: str) -> dict[str, object]:
        if not self.told:
            raise PermissionError(location)
        return self.told


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({"size": 5, "ETag": '"5d41"'}, (5, '"5d41"')),
        ({"size": 5, "md5Hash": "5d41", "etag": ""}, (5, "5d41")),
        ({"size": 5, "ETag": 'W/"5d41"'}, None),
        ({"size": 5, "ETag": 'W/"5d41"', "Content-MD5": "7d79"}, (5, "7d79")),
        ({"size": None, "ETag": '"5d41"'}, None),
        ({"size": 5, "mtime": 1.5}, None),
        ({}, None),
    ],
    ids=str,
)
def test_what_another_file_system_tells(info: dict[str, Any], state: object) -> None:
    file = SourceFile("s3://b/a.jsonl", "b/a.jsonl", 5, Telling(**info))
    assert file.state() == state
    expected = None if state is None else [("s3://b/a.jsonl", *file.state())]  # type: ignore[misc]
    assert file_states([file]) == expected
    assert file_states([file, "hub:name"]) is None


def test_marks_are_packed_and_refuse_what_is_none() -> None:
    assert (len(Marks()), Marks().packed) == (0, b"")
    with pytest.raises(ValueError, match="93 bytes, no multiple of 92"):
        Marks(bytes(93))
