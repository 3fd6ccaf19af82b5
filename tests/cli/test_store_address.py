"""A store is a folder: URLs are refused at once, wherever a store is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from monox_kit.errors import ConfigError
from monox_kit.store import LogitStore, StoreWriter, begun_manifest
from monoxkit_cli.app import main
from tests.store_samples import manifest, write_store

URLS = ("s3://bucket/store", "gs://b/x/y", "file:///data/store", "simplecache::s3://bucket/store")
COMMANDS = {
    # The model and the corpus are not there either: the store is looked at before them.
    "label": "label --model nowhere --corpus nowhere.jsonl --store",
    "label on ray": "label --engine ray --model nowhere --corpus nowhere.jsonl --store",
    "info": "store info",
    "verify": "store verify",
    "train-student": "train-student --method kd --model M --dev d.jsonl --out out --store",
}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_is_no_store(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    url: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*COMMANDS[command].split(), url]) == 2
    scheme, _, rest = url.partition("://")
    error = capsys.readouterr().err
    assert error.startswith(f"ConfigError: {scheme}://{rest.strip('/')}: expected a store's folder")
    assert "file system with locks" in error
    assert "monoxkit store merge" in error
    assert not list(tmp_path.iterdir())


def test_the_library_refuses_urls_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (LogitStore.open, lambda url: begun_manifest(Path(url))):
        with pytest.raises(ConfigError, match="s3://bucket/store: expected a store's folder"):
            use("s3://bucket/store")
    writer = StoreWriter(Path("s3://bucket/store"), manifest())
    with pytest.raises(ConfigError, match="s3://bucket/store"), writer:
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_colon_in_its_name_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:").mkdir()
    assert len(LogitStore.open(write_store(Path("run:/store")))) == 11
    assert len(LogitStore.open(write_store(tmp_path / "a:" / "b"))) == 11
