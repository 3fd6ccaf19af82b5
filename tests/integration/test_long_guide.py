"""docs/long-documents.md, command by command, on tiny models."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from monox_kit.store import LogitStore
from monoxkit_cli.app import main
from tests.integration.test_long_texts import long_rows
from tests.tiny_models import bert_encoder, write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "long-documents.md"


def commands() -> list[list[str]]:
    """Every command of the page in its order."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [shlex.split(line)[1:] for line in "".join(blocks).splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page names."""
    for seed, name in enumerate(("train", "dev", "unlabelled", "test.de", "new")):
        write_jsonl(tmp_path / f"{name}.jsonl", long_rows(24, seed))
    bert_encoder(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_of_long_documents(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: list[dict[str, Any]] = []
    for line in commands():
        spread = [
            part
            for each in line
            for part in (map(str, folder.glob(each)) if "*" in each else [each])
        ]
        if spread[0].startswith("train-"):
            spread[spread.index("--model") + 1] = "encoder"
            spread[spread.index("--max-length") + 1] = "8"
            spread += ["--max-steps", "3", "--batch-size", "4"]
        capsys.readouterr()
        assert main([*spread, "--json"]) == 0, line
        results.append(json.loads(capsys.readouterr().out))
    assert LogitStore.open(folder / "store").manifest.fingerprint["long"] == "head-tail"
    assert LogitStore.open(folder / "whole").manifest.fingerprint["long"] == "windows:mean"
    scores = [each for each in results if "target_average" in each]
    assert [each["long"] for each in scores] == ["head-tail", "head", "windows:mean"]
    cut = [each["truncation"]["num_truncated_rows"] for each in scores]
    assert cut[0] == cut[1] > 0 == cut[2]
    assert (
        json.loads((folder / "student-onnx" / "monoxkit.json").read_text())["long"] == "head-tail"
    )
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 24
