"""`--label-names`: what numbers in a file and LABEL_0 in a model mean, in every command alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monoxkit_cli.app import main
from tests.tiny_models import LABELS, bert_classifier, labelled_rows, write_jsonl

NAMED = ["--label-names", *LABELS]
ROWS = labelled_rows(12, seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    bert_classifier(folder / "named", labels=LABELS)
    # The same weights and tokens: two trained tokenizers may number their tokens differently.
    for name, labels in {"unnamed": ("LABEL_0", "LABEL_1", "LABEL_2"), "numbered": "012"}.items():
        shutil.copytree(folder / "named", folder / name)
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        config["id2label"] = dict(zip("012", labels))
        config["label2id"] = {label: index for index, label in enumerate(labels)}
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    numbered = [{**row, "label": LABELS.index(str(row["label"]))} for row in ROWS]
    write_jsonl(folder / "numbers.en.jsonl", numbered)
    write_jsonl(folder / "names.en.jsonl", ROWS)
    return folder


def result(capsys: pytest.CaptureFixture[str], *line: str) -> Any:
    capsys.readouterr()
    code = main([*line, "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out)


@pytest.mark.parametrize("model", ["unnamed", "numbered", "named"])
@pytest.mark.parametrize("data", ["numbers", "names"])
def test_evaluations_are_equal_whatever_is_named(
    files: Path, model: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = result(
        capsys, "evaluate", str(files / "named"), "--test", str(files / "names.en.jsonl")
    )
    test = ["--test", str(files / f"{data}.en.jsonl"), *NAMED]
    found = result(capsys, "evaluate", str(files / model), *test)
    assert found["languages"] == plain["languages"]


def test_a_store_has_the_names(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["label", "--teacher", "torch", "--corpus", str(files / "numbers.en.jsonl")]
    stores = {}
    for model in ("unnamed", "numbered", "named"):
        store = str(tmp_path / model)
        result(capsys, *line, "--model", str(files / model), "--store", store, *NAMED)
        stores[model] = result(capsys, "store", "info", store)
        assert tuple(stores[model]["labels"]) == LABELS
        assert stores[model]["num_labelled"] == 12
        # The names are part of what the store is made from.
        again = [*line, "--model", str(files / model), "--store", store]
        assert main(again) != 0 or model == "named"
    found = [result(capsys, "store", "stats", str(tmp_path / name))["labels"] for name in stores]
    assert found[0] == found[1] == found[2]


def test_predictions_have_the_names(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["predict", str(files / "unnamed"), "--input", str(files / "numbers.en.jsonl")]
    line += ["--out", str(tmp_path / "out.jsonl")]
    found = result(capsys, *line, *NAMED)
    assert set(found["labels"]) <= {*LABELS}
    assert main(line) == 2, "other names are another run"


def test_a_bundle_has_the_names(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    line = ["export", str(files / "unnamed"), "--out", str(out)]
    line += ["--check", str(files / "numbers.en.jsonl")]
    result(capsys, *line, *NAMED)
    declared = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert declared["id2label"] == dict(zip("012", LABELS))
    assert declared["label2id"] == {name: index for index, name in enumerate(LABELS)}
    test = ["--test", str(files / "numbers.en.jsonl"), *NAMED]
    found, plain = (
        result(capsys, "evaluate", model, *test)["languages"]["en"]
        for model in (str(out), str(files / "named"))
    )
    for name in ("calibration_error", "calibration_error_interval"):  # of probabilities, not labels
        np.testing.assert_allclose(found.pop(name), plain.pop(name), atol=1e-5)
    assert found == plain
    assert result(capsys, *line, *NAMED)["reused"]
    assert main(line) == 2, "other names are another run"
    assert "--label-names" in capsys.readouterr().err


def test_names_for_files_that_are_not_given_are_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(files / "unnamed"), "--out", str(tmp_path / "out")]
    assert main([*line, *NAMED]) == 2
    error = capsys.readouterr().err
    assert f"--label-names {' '.join(LABELS)}: " in error and "--check" in error
    assert main([*line, "--delimiter", ";"]) == 2
    assert "--delimiter ;: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_goes_on_with_the_head_that_was_named(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(files / "numbers.en.jsonl")
    line = ["train-teacher", "--train", data, "--dev", data, "--out", str(tmp_path / "out")]
    line += [
        "--max-steps",
        "1",
        "--batch-size",
        "4",
        "--max-length",
        "16",
        "--learning-rate",
        "1e-9",
    ]
    assert main([*line, "--model", str(files / "unnamed")]) == 5
    result(capsys, *line, "--model", str(files / "unnamed"), *NAMED)
    test = ["--test", str(files / "names.en.jsonl"), "--max-length", "16"]
    after = result(capsys, "evaluate", str(tmp_path / "out"), *test)
    before = result(capsys, "evaluate", str(files / "named"), *test)
    assert after["languages"]["en"]["accuracy"] == before["languages"]["en"]["accuracy"]


@pytest.mark.parametrize("names", [LABELS[:2], (*LABELS, "more")])
def test_other_numbers_of_names_are_refused(
    files: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(files / "unnamed"), "--test", str(files / "names.en.jsonl")]
    assert main([*line, "--label-names", *names]) == 5
    error = capsys.readouterr().err
    assert "--label-names" in error and str(files / "unnamed") in error
