"""What `monoxkit store` shows of a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monoxkit_cli.app import main
from tests.store_samples import write_store


def test_info_counts_gold_labels_and_recomputed_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_store(tmp_path / "s"))
    assert main(["store", "info", folder]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    shown = {line[0]: line[-1].strip() for line in lines}
    assert shown["rows with a gold label"] == "7"
    assert shown["rows recomputed by the guard"] == "3"
    assert main(["store", "info", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_labelled"], found["num_recomputed"]) == (7, 3)
