"""The examples run, on tiny models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.tiny_models import LABELS, bert_encoder, labelled_rows, write_jsonl

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_way_and_a_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    write_jsonl(data / "labelled.jsonl", labelled_rows(24, seed=1))
    unlabelled = [{"text": row["text"]} for row in labelled_rows(30, seed=2)]
    write_jsonl(data / "unlabelled.jsonl", unlabelled)
    write_jsonl(data / "dev.jsonl", labelled_rows(12, seed=3))
    for language in ("de", "ja"):
        rows = [{**row, "lang": language} for row in labelled_rows(9, seed=4)]
        write_jsonl(data / f"test.{language}.jsonl", rows)
    encoder = str(bert_encoder(tmp_path / "encoder"))
    example("whole_way").main(data, tmp_path / "out", steps=3, encoders=(encoder, encoder))
    shown = capsys.readouterr().out
    assert "de: " in shown and "ja: " in shown and "of 9" in shown
    example("predict").main(str(tmp_path / "out" / "student-onnx"), ["alpha game", "beta mail"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.split()[0] in LABELS for line in lines)


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"predict", "whole_way"}
