"""docs/answers.md, command by command, on tiny models: from answers to predictions."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from monoxkit_cli.app import main
from tests.tiny_models import bert_encoder, labelled_rows, write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "answers.md"
NAMES = ("billing", "delivery", "technical")
TOPICS = dict(zip(("games", "mail", "text"), NAMES))


def blocks(language: str) -> list[str]:
    """The page's blocks of a language, none for commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [content for kind, content in found if kind == language]


def commands() -> list[list[str]]:
    """Every command of the page in its order."""
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page names: its own five answers, and so many that a student can learn."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in blocks("json")[0].splitlines()]
    assert len(rows) == 5
    answered = [
        {"id": f"m{at}", "text": row["text"], "answer": TOPICS[row["label"]]}
        for at, row in enumerate(labelled_rows(24, seed=1))
    ]
    write_jsonl(tmp_path / "answers.jsonl", rows + answered)
    names = re.search(r'`(?P<json>\{"names".*?\})`', page)
    assert names is not None and tuple(json.loads(names["json"])["names"]) == NAMES
    (tmp_path / "labels.json").write_text(names["json"])
    for name, seed in (("dev", 2), ("test.de", 3), ("new", 4)):
        table = [f"{row['text']},{TOPICS[row['label']]}" for row in labelled_rows(9, seed=seed)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *table]) + "\n")
    bert_encoder(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result(capsys: pytest.CaptureFixture[str], line: list[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*line, "--json"]) == 0, line
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_page_of_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused, skipping, student, evaluate, export, predict = commands()
    assert main(refused) == 3
    shown = capsys.readouterr().err
    for line in (3, 4, 5):
        assert f"answers.jsonl, line {line}" in shown
    assert not (folder / "store").exists()
    done = result(capsys, skipping)
    assert (done["num_rows"], sum(done["num_skipped"].values())) == (26, 3)
    listed = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert [each["id"] for each in listed] == ["t3", "t4", "t2"]
    assert json.loads(blocks("json")[1]) == listed[0]
    student[student.index("--model") + 1] = "encoder"
    short = ["--max-steps", "3", "--batch-size", "4", "--max-length", "16"]
    assert main([*student, *short]) == 0
    assert "gpt-x, prompt 7" in (folder / "student" / "README.md").read_text()
    for line in (evaluate, export, predict):
        files = [str(each) for each in folder.glob("test.*.csv")]
        spread = [part for each in line for part in (files if "*" in each else [each])]
        assert main(["fp32" if part == "auto" else part for part in spread]) == 0
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    predicted = [json.loads(line) for line in lines]
    assert len(predicted) == 9 and {row["label"] for row in predicted} <= set(NAMES)
