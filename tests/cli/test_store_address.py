"""A store is read in a folder, and written to a folder or some URLs; others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monox_kit.errors import ConfigError
from monox_kit.store import FolderWriter, LogitStore, begun_manifest, store_url
from monoxkit_cli.app import main
from tests.object_store import object_store, write_url
from tests.store_samples import manifest, tree, write_store

URLS = ("s3://bucket/store", "gs://b/x/y", "file:///data/store", "simplecache::s3://bucket/store")
READERS = {
    "stats": "store stats",
    "export": "store export --out x.parquet",
    "merge": "store merge --out x other",
    "train-student": "train-student --method kd --model M --dev d.jsonl --out out --store",
}
TAKERS = {
    # The model and the corpus are not there either: the store is looked at before them.
    "label": "label --model nowhere --corpus nowhere.jsonl --store",
    "label on ray": "label --engine ray --model nowhere --corpus nowhere.jsonl --store",
    "info": "store info",
    "verify": "store verify",
    "fetch": "store fetch --out x",
}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", READERS)
def test_a_url_is_fetched_before_it_is_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    url: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "other")
    assert main([*READERS[command].split(), url]) == 2
    scheme, _, rest = url.partition("://")
    shown = f"{scheme}://{rest.strip('/')}"
    error = capsys.readouterr().err
    assert error.startswith(f"ConfigError: {shown}: expected a store's folder, found a URL.")
    assert f"monoxkit store fetch {shown} --out DIR" in error
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("command", TAKERS)
@pytest.mark.parametrize("url", ["https://host/store", "simplecache::s3://bucket/store"])
def test_a_url_that_no_store_may_lie_at_is_refused_before_any_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    url: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*TAKERS[command].split(), url]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ConfigError: {url}: expected a store at s3://, ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "trim nowhere --corpus nowhere.jsonl --out",
        "export nowhere --out",
        "store merge a b --out",
        "store fetch s3://bucket/store --out",
    ],
)
def test_what_is_written_to_a_file_system_goes_to_no_url(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "s3://bucket/out"]) == 2
    assert "--out s3://bucket/out: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_library_refuses_urls_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (LogitStore.open, lambda url: begun_manifest(Path(url))):
        with pytest.raises(ConfigError, match="s3://bucket/store: expected a store's folder"):
            use("s3://bucket/store")
    writer = FolderWriter(Path("s3://bucket/store"), manifest())
    with pytest.raises(ConfigError, match="s3://bucket/store"), writer:
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", ["label --model nowhere --corpus nowhere.jsonl --store", "store verify"]
)
def test_staging_belongs_to_a_url(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([*command.split(), "folder", "--staging", "x"]) == 2
    error = capsys.readouterr().err
    assert "--staging x: " in error and " folder " in error


def test_a_store_at_a_url_is_checked_in_the_folder_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    with object_store():
        url = write_url(f"objects://{tmp_path}/bucket/s", tmp_path / "writing")
        assert main(["store", "verify", url, "--staging", str(tmp_path / "asked")]) == 0
        assert [path.name for path in tmp_path.glob("asked/*")] == ["monoxkit-staging"]
        assert not (tmp_path / "cache").exists()
        assert main(["store", "verify", url]) == 0
        assert [path.name for path in tmp_path.glob("cache/*")] == ["monoxkit-staging"]


def test_a_store_at_a_url_is_shown_checked_and_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    with object_store():
        url = write_url(f"objects://{tmp_path}/bucket/s", tmp_path / "staging")
        for command in ("info", "verify"):
            assert main(["store", command, url, "--json"]) == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["path"], found["complete"]) == (url, True)
        assert main(["store", "fetch", url, "--out", str(tmp_path / "out")]) == 0
        shown = capsys.readouterr().out
        assert url in shown and LogitStore.open(tmp_path / "out").digest in shown
        assert tree(tmp_path / "out") == tree(write_store(tmp_path / "local"))
        (tmp_path / "bucket" / "s" / "shards" / "000000.shard").write_bytes(b"")
        assert main(["store", "verify", url]) == 4
        assert "000000.shard: expected a shard's object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (Path("s3://bucket/a b"), "s3://bucket/a b"),
        ("s3://bucket/store/", "s3://bucket/store"),
        ("memory:///store", "memory:///store"),
        ("runs/store", None),
        ("C:/store", None),
    ],
)
def test_what_is_a_url(path: Path | str, url: str | None) -> None:
    assert store_url(path) == url


def test_a_folder_with_a_colon_in_its_name_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:").mkdir()
    assert len(LogitStore.open(write_store(Path("run:/store")))) == 11
    assert len(LogitStore.open(write_store(tmp_path / "a:" / "b"))) == 11
