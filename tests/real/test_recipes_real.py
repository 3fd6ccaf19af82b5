"""The recipes of XNLI and CLS with the packaged weights: whoever has the archives changes a path.

Both run on small files in the released layout, which takes some minutes; `-m complete` runs them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monoxkit_cli.app import main
from tests.task_samples import cls_files, tarred, xnli_files, zipped

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.complete,
    pytest.mark.timeout(3600),
]


def ended(out: Path, recipe: str, capsys: Any, *changes: str) -> dict[str, Any]:
    """The steps of a recipe that has run to its end, by name."""
    small = ("steps=4", "max_length=32", "unlabelled=20", "bundle.precision=fp32")
    line = ["run", recipe, "--out", str(out), "--json", "--set", *small, *changes]
    assert main(line) == 0
    return {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}


def test_xnli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = xnli_files()
    sources = [
        str(zipped(tmp_path / f"{part}.zip", {n: c for n, c in files.items() if part in n}))
        for part in ("XNLI-1.0", "multinli_1.0")
    ]
    out = tmp_path / "run"
    steps = ended(out, "xnli", capsys, f"source={json.dumps(sources)}")
    assert {step["state"] for step in steps.values()} == {"done"}
    for method in ("ce", "self-training", "pl", "kd"):
        result = steps[f"scores-{method.replace('-', '_')}-seed1"]["result"]
        assert len(result["languages"]) == 15
        assert 0 <= result["target_average"] <= 1
    assert main(["reproduce", "table3", "--finished", "--run", str(out), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["missing"]
    assert "kd" in (out / "report.md").read_text()


def test_cls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tarred(tmp_path / "cls.tar.gz", cls_files())
    out = tmp_path / "run"
    steps = ended(out, "cls", capsys, f"source={archive}", 'method=["ce","kd"]')
    assert {step["state"] for step in steps.values()} == {"done"}
    for domain in ("books", "dvd", "music"):
        languages = steps[f"scores-{domain}-kd-seed1"]["result"]["languages"]
        assert set(languages) == {"en", "de", "fr", "ja"}
    assert main(["reproduce", "table2", "--finished", "--run", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"books en", "dvd ja", "music fr", "average"} <= {row[0] for row in rows}
