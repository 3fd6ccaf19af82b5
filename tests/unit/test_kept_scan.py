"""The scan that a begun store keeps: taken for the same files and settings, else refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus, CorpusConfig, CorpusSummary
from monox_kit.corpora.marks import Marks
from monox_kit.corpora.paths import HubDataset, SourceFile, file_states
from monox_kit.digest import digest_json
from monox_kit.errors import StoreCorrupt, StoreError
from monox_kit.labelling.kept_scan import encode_scan, read_scan, scan_key
from monox_kit.store import FolderWriter, StoreManifest, begin_store, begun_manifest
from tests.store_samples import manifest, shard_arguments, write_shard
from tests.tiny_models import labelled_rows, write_jsonl

NUM_ROWS, SHARD_ROWS = 23, 4


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of pairs."""
    rows = labelled_rows(NUM_ROWS, seed=1, pairs=True)
    write_jsonl(tmp_path / "data" / "a.jsonl", rows[:10])
    write_jsonl(tmp_path / "data" / "b.jsonl", rows[10:])
    return tmp_path / "data"


def config_of(folder: Path, **changes: Any) -> CorpusConfig:
    return replace(CorpusConfig(paths=(str(folder / "*.jsonl"),)), **changes)


def key_of(config: CorpusConfig, shard_rows: int = SHARD_ROWS) -> str:
    key = scan_key(Corpus(config), shard_rows)
    assert key is not None
    return key


def keep(config: CorpusConfig, store: Path) -> tuple[CorpusSummary, StoreManifest]:
    """Scan a corpus and begin a store that keeps what was found."""
    key = key_of(config)
    summary = Corpus(config).scan(mark_every=SHARD_ROWS, sample_rows=5)
    begun = manifest(
        num_rows=summary.num_rows,
        shard_rows=SHARD_ROWS,
        has_pairs=summary.has_pairs,
        fingerprint={"corpus_digest": summary.digest},
    )
    begin_store(store, begun, encode_scan(summary, key))
    assert begun_manifest(store) == begun
    return summary, begun


def take(config: CorpusConfig, store: Path, begun: StoreManifest) -> CorpusSummary | None:
    """What a later run takes."""
    return read_scan(store / "scan", key_of(config), begun)


OTHER_FILES = "of other files, times of modification or settings than now"


def test_what_was_found_comes_back(corpus: Path, tmp_path: Path) -> None:
    summary, begun = keep(config_of(corpus), tmp_path / "s")
    found = take(config_of(corpus), tmp_path / "s", begun)
    assert found == summary
    assert list(found.marks) == list(summary.marks)
    assert len(found.sample) == 5


def test_the_scan_has_the_bytes_that_the_page_tells(corpus: Path, tmp_path: Path) -> None:
    """Put together here as docs/store-format.md tells them."""
    config = config_of(corpus)
    summary, begun = keep(config, tmp_path / "s")
    state = {"version": __version__, "shard_rows": 4, "corpus": Corpus(config).state()}
    header = {
        "key": digest_json(state),
        "num_rows": 23,
        "digest": summary.digest,
        "has_pairs": True,
        "num_labelled": summary.num_labelled,
        "label_names": list(summary.label_names or ()),
        "text_bytes": summary.text_bytes,
        "languages": list(summary.languages),
        "sample": [[d.row, d.id, d.text, d.text_pair, d.label, d.lang] for d in summary.sample],
    }
    body = b"monoxkit scan 2\n" + json.dumps(header).encode() + b"\n" + summary.marks.packed
    (tmp_path / "s" / "scan").write_bytes(body + hashlib.sha256(body).digest())
    assert take(config, tmp_path / "s", begun) == summary


def test_the_scan_of_a_store_that_was_begun_by_0_1_0_is_made_anew(
    corpus: Path, tmp_path: Path
) -> None:
    """It tells nothing of languages."""
    _, begun = keep(config_of(corpus), tmp_path / "s")
    body = b"monoxkit scan 1\n{}\n"
    (tmp_path / "s" / "scan").write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(ValueError, match="not a scan of this form"):
        take(config_of(corpus), tmp_path / "s", begun)


def test_the_files_may_lie_under_another_folder(corpus: Path, tmp_path: Path) -> None:
    summary, begun = keep(config_of(corpus), tmp_path / "s")
    shutil.copytree(corpus, tmp_path / "mounted" / "elsewhere")  # with their times
    shutil.rmtree(corpus)
    assert take(config_of(tmp_path / "mounted" / "elsewhere"), tmp_path / "s", begun) == summary


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
    with pytest.raises(ValueError, match=OTHER_FILES):
        take(config_of(corpus), tmp_path / "s", begun)


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
    with pytest.raises(ValueError, match=OTHER_FILES):
        take(config_of(corpus, **change), tmp_path / "s", begun)


def test_marks_of_another_size_or_another_version_are_no_use(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, begun = keep(config_of(corpus), tmp_path / "s")
    with pytest.raises(ValueError, match=OTHER_FILES):
        read_scan(tmp_path / "s" / "scan", key_of(config_of(corpus), shard_rows=5), begun)
    monkeypatch.setattr("monox_kit.labelling.kept_scan.__version__", "0.0.0")
    with pytest.raises(ValueError, match=OTHER_FILES):
        take(config_of(corpus), tmp_path / "s", begun)


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
        with pytest.raises(ValueError):  # of more than one kind
            take(config_of(corpus), tmp_path / "s", begun)
    path.write_bytes(whole)
    path.rename(tmp_path / "elsewhere")
    assert take(config_of(corpus), tmp_path / "s", begun) is None
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreCorrupt, match="a link"):
        take(config_of(corpus), tmp_path / "s", begun)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreCorrupt, match="a plain file"):
        take(config_of(corpus), tmp_path / "s", begun)


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
    with pytest.raises(ValueError, match="of another store"):
        take(config_of(corpus), tmp_path / "s", begun)


def test_a_complete_store_keeps_none(tmp_path: Path) -> None:
    """Neither put late, nor left by a power failure."""
    store, scan = manifest(), tmp_path / "s" / "scan"
    begin_store(tmp_path / "s", store, b"scan")
    with FolderWriter(tmp_path / "s", store) as writer:
        assert scan.read_bytes() == b"scan"
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(store, shard))
        writer.complete()
        assert not scan.exists()
    begin_store(tmp_path / "s", store, b"scan")
    assert not scan.exists()
    scan.write_bytes(b"scan")
    with FolderWriter(tmp_path / "s", store) as writer:
        writer.complete()
    assert not scan.exists()


def test_a_store_has_its_scan_before_it_has_been_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, it is a folder that the next run begins a store in."""
    replace_file = os.replace

    def until_the_manifest(source: Any, target: Any) -> None:
        if Path(target).name == "store.json":
            raise KeyboardInterrupt
        replace_file(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", until_the_manifest)
        begin_store(tmp_path / "s", manifest(), b"an earlier scan")
    assert begun_manifest(tmp_path / "s") is None
    assert (tmp_path / "s" / "scan").exists()
    begin_store(tmp_path / "s", manifest(), b"scan")
    assert begun_manifest(tmp_path / "s") == manifest()
    assert (tmp_path / "s" / "scan").read_bytes() == b"scan"


def test_the_first_to_begin_a_store_decides_what_it_is(tmp_path: Path) -> None:
    begin_store(tmp_path / "s", manifest(), None)
    assert not (tmp_path / "s" / "scan").exists()
    begin_store(tmp_path / "s", manifest(num_rows=7), None)
    assert begun_manifest(tmp_path / "s") == manifest()


def test_a_folder_where_the_scan_belongs_is_refused_before_any_work(tmp_path: Path) -> None:
    """And not removed: it is somebody's."""
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        for shard in writer.missing:
            write_shard(writer, shard, **shard_arguments(manifest(), shard))
        (tmp_path / "s" / "scan").mkdir()
        with pytest.raises(StoreError, match=r"/s/scan: .*folder"):
            writer.complete()
    with pytest.raises(StoreError, match=r"/s/scan: .*folder"):
        begin_store(tmp_path / "s", manifest(), b"scan")
    with (
        pytest.raises(StoreError, match="Move it elsewhere"),
        FolderWriter(tmp_path / "s", manifest()),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "s" / "scan").rmdir()
    with FolderWriter(tmp_path / "s", manifest()) as writer:
        assert writer.complete() is not None


def test_a_corpus_that_does_not_tell_of_changes_has_no_key() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/kept/a.jsonl", b'{"text": "alpha"}\n')
    assert scan_key(Corpus(CorpusConfig(paths=("memory://kept/a.jsonl",))), SHARD_ROWS) is None


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
    assert file_states([file, HubDataset("hub:name")]) is None


def test_marks_are_packed_and_refuse_what_is_none() -> None:
    assert (len(Marks()), Marks().packed) == (0, b"")
    with pytest.raises(ValueError, match="93 bytes, no multiple of 100"):
        Marks(bytes(93))
