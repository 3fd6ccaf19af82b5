"""Other programs' folders are opened here, and ours by other programs, with the same answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import pipeline

import monox_kit as mk
from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.run import export_model
from monox_kit.models.folder import open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import load_classifier, save_classifier
from monoxkit_cli.app import main
from tests.integration.older_environment import run_older
from tests.tiny_models import LABELS, balanced_classifier, labelled_rows, write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "bundle-format.md"
MAX_LENGTH = 24


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return labelled_rows(30)


@pytest.fixture(scope="module")
def saved(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch classifier as monoxkit saves one."""
    source = balanced_classifier(tmp_path_factory.mktemp("source") / "model", rows)
    folder = tmp_path_factory.mktemp("saved")
    model = load_classifier(open_folder(str(source))).model
    save_classifier(model, Tokenizer(source, MAX_LENGTH), folder)
    return folder


def texts_of(rows: list[dict[str, str]]) -> list[str]:
    return [row["text"] for row in rows]


def test_transformers_pipeline_reads_the_pytorch_form(
    saved: Path, rows: list[dict[str, str]]
) -> None:
    classify = pipeline("text-classification", model=str(saved), top_k=None)
    expected = mk.load(str(saved), max_length=MAX_LENGTH).probabilities(texts_of(rows))
    assert {LABELS[column] for column in expected.argmax(axis=1)} == set(LABELS)
    for found, row in zip(classify(texts_of(rows), truncation=True), expected, strict=True):
        scores = {one["label"]: one["score"] for one in found}
        np.testing.assert_allclose([scores[name] for name in LABELS], row, atol=1e-5)


def test_the_lines_of_the_docs_give_the_bundles_logits(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(model=str(saved), max_length=8)
    export_model(config, tmp_path / "student-onnx")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), found)
    model = mk.load("student-onnx", check=True)
    expected = model.logits(re.findall(r'encode_batch\(\["(.*?)", "(.*?)"\]\)', code)[0])
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    assert found["labels"] == [LABELS[column] for column in expected.argmax(axis=1)]
    assert max(len(row.ids) for row in found["rows"]) == 8  # the longer text is cut


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_optimum_cli_is_labelled_with_predicted_with_and_evaluated(
    saved: Path, rows: list[dict[str, str]], older_python: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(saved, tmp_path / "source")
    bundle = tmp_path / "optimum-onnx"
    run_older(older_python, [
        "-m", "optimum.commands.optimum_cli", "export", "onnx", "--model",
        str(tmp_path / "source"), "--task", "text-classification", str(bundle),
    ])  # fmt: skip
    names = {path.name for path in bundle.iterdir()}
    assert {"config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"} <= names
    assert "monoxkit.json" not in names
    data = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    expected = mk.load(str(saved)).logits(texts_of(rows))
    store, out = str(tmp_path / "store"), tmp_path / "out.jsonl"
    assert main(["label", "--model", str(bundle), "--corpus", data, "--store", store]) == 0
    np.testing.assert_allclose(mk.LogitStore.open(store).logits(slice(None)), expected, atol=1e-4)
    assert main(["predict", str(bundle), "--input", data, "--out", str(out)]) == 0
    labels = [json.loads(line)["label"] for line in out.read_text().splitlines()]
    assert labels == [LABELS[column] for column in expected.argmax(axis=1)]
    capsys.readouterr()
    assert main(["evaluate", str(bundle), "--test", data, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    right = np.mean([one == row["label"] for one, row in zip(labels, rows)])
    assert report["languages"]["en"]["accuracy"] == pytest.approx(right)
