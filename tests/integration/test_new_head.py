"""A model that has another task's head is the start of a new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monox_kit.data import LabelSet
from monox_kit.errors import LabelMismatchError
from monox_kit.models.folder import open_folder
from monox_kit.models.torch_backend import new_classifier
from monoxkit_cli.app import main
from tests.tiny_models import LABELS, bert_classifier, labelled_rows, write_jsonl

OTHERS = ("red", "green", "blue", "black")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_classifier(tmp_path_factory.mktemp("model") / "m")


@pytest.mark.parametrize("names", [OTHERS, OTHERS[:3], OTHERS[:2], LABELS])
def test_the_head_is_new_and_the_encoder_is_not(model: Path, names: tuple[str, ...]) -> None:
    folder = open_folder(str(model))
    old = new_classifier(folder, LabelSet(LABELS), 1).state_dict()
    made = [new_classifier(folder, LabelSet(names), seed, new_head=True) for seed in (1, 1, 2)]
    first, again, other = (each.state_dict() for each in made)
    for name, value in first.items():
        is_head = not name.startswith("bert.")
        assert torch.equal(value, again[name])
        if is_head and name.endswith("weight"):
            assert not torch.equal(value, other[name]), "another seed, the same head"
            assert value.shape != old[name].shape or not torch.equal(value, old[name])
        elif not is_head:
            assert torch.equal(value, old[name])
    assert made[0].config.num_labels == len(names)
    assert tuple(made[0].config.id2label.values()) == names


def test_a_head_for_regression_is_left_out_too(tmp_path: Path) -> None:
    folder = bert_classifier(tmp_path / "m", labels=("a", "b"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"problem_type": "regression"}
    (folder / "config.json").write_text(json.dumps(config))
    made = new_classifier(open_folder(str(folder)), LabelSet(OTHERS), 1, new_head=True)
    assert (made.config.num_labels, made.config.problem_type) == (4, "single_label_classification")


def test_without_it_the_other_task_is_refused_by_name(model: Path) -> None:
    with pytest.raises(LabelMismatchError, match="`new_head`") as caught:
        new_classifier(open_folder(str(model)), LabelSet(OTHERS), 1)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize("command", ["train-teacher", "train-student"])
def test_both_commands_take_it(
    model: Path, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**row, "label": OTHERS[LABELS.index(str(row["label"]))]}
        for row in labelled_rows(12, seed=1)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    given = ["--train"] if command == "train-teacher" else ["--method", "ce", "--labelled"]
    line = [command, "--model", str(model), *given, str(tmp_path / "rows.jsonl")]
    line += ["--dev", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")]
    line += ["--max-steps", "2", "--batch-size", "4", "--max-length", "16"]
    assert main(line) == 5
    assert "--new-head" in capsys.readouterr().err
    assert main([*line, "--new-head"]) == 0
    record = json.loads((tmp_path / "out" / "monoxkit.json").read_text())
    assert record["labels"]["names"] == sorted(OTHERS[:3])
    assert record["provenance"]["run"]["new_head"] is True
    capsys.readouterr()
    assert main([*line, "--new-head", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"]
    assert main(line) in (2, 5), "the run without it is another one"
