"""The shipped recipes to their end on small releases in the real layout, with tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import OtherRun
from monoxkit_cli.app import main
from tests.task_samples import cls_files, tarred, xnli_files, zipped
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a recipe in a folder of its own with tiny models, and gives its steps."""
    models = [
        f"{name}_model={bert_encoder(tmp_path / name, seed=seed)}"
        for seed, name in enumerate(("teacher", "student"))
    ]

    def once(recipe: str, *changes: str) -> list[dict[str, Any]]:
        changes = (*models, "steps=3", "max_length=24", *changes)
        out = str(tmp_path / "run")
        capsys.readouterr()
        assert main(["run", recipe, "--out", out, "--json", "--set", *changes]) == 0
        steps: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["steps"]
        return steps

    return once


def test_xnli(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = xnli_files()
    sources = [
        str(zipped(tmp_path / f"{part}.zip", {n: c for n, c in files.items() if part in n}))
        for part in ("XNLI-1.0", "multinli_1.0")
    ]
    changes = (f"source={json.dumps(sources)}", "unlabelled=20", "bundle.min_agreement=0.5")
    steps = {step["name"]: step for step in run("xnli", *changes)}
    assert {step["state"] for step in steps.values()} == {"done"}
    assert steps["store"]["result"]["num_rows"] == 32
    languages = steps["scores-kd-seed1"]["result"]["languages"]
    assert len(languages) == 15 and all(one["num_rows"] == 12 for one in languages.values())
    kept = json.loads((tmp_path / "run" / "results" / "gain-kd-seed1.json").read_text())
    assert kept == steps["gain-kd-seed1"]["result"] and "target_difference" in kept
    assert "gain-ce-seed1" not in steps
    report = (tmp_path / "run" / "report.html").read_text()
    assert "self-training" in report and report.count("<svg") == 3
    line = ["reproduce", "table3", "--finished", "--run", str(tmp_path / "run"), "--json"]
    capsys.readouterr()
    assert main(line) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["rows"][0]) == 5 and not made["missing"]
    german = next(row for row in made["rows"] if row[0] == "de")
    share = steps["scores-kd-seed1"]["result"]["languages"]["de"]["accuracy"]
    assert german[4].startswith(f"{100 * share:.1f} [")

    again = run("xnli", *changes)
    assert {step["state"] for step in again} == {"reused"}
    assert [step["seconds"] for step in again] == [step["seconds"] for step in steps.values()]
    # One seed more takes its own steps alone.
    more = run("xnli", *changes, "seed=[1,2]", 'method=["ce"]')
    states = {step["name"]: step["state"] for step in more}
    assert {name for name, state in states.items() if state == "done"} == {
        "student-ce-seed2", "scores-ce-seed2",
    }  # fmt: skip


def test_cls(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tarred(tmp_path / "cls.tar.gz", cls_files())
    changes = (f"source={archive}", "unlabelled=20", "domain=music", 'method=["ce","kd"]')
    steps = {step["name"]: step for step in run("cls", *changes)}
    assert {step["state"] for step in steps.values()} == {"done"}
    assert set(steps["scores-music-kd-seed1"]["result"]["languages"]) == {"en", "de", "fr", "ja"}
    # Other settings under finished work are refused by name: nothing is thrown away.
    models = (f"{name}_model={tmp_path / name}" for name in ("teacher", "student"))
    line = ["run", "cls", "--out", str(tmp_path / "run"), "--set", *changes, *models]
    assert main([*line, "max_length=24", "steps=4"]) == OtherRun.exit_code
    assert (
        "step teacher-music: " in (told := capsys.readouterr().err) and "max_steps differs" in told
    )


def test_predictions_are_read_by_a_later_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert_classifier(tmp_path / "model")
    rows = write_jsonl(tmp_path / "rows.jsonl", labelled_rows(6))
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        f'''[stages.guess]
command = "predict"
model = "{model}"
input = "{rows}"
text = true
[stages.again]
command = "predict"
model = "{model}"
input = ["$guess", "$guess:text=label"]
out_format = "csv"
'''
    )
    line = ["run", str(recipe), "--out", str(tmp_path / "run"), "--json"]

    def steps(*more: str) -> list[dict[str, Any]]:
        assert main([*line, *more]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["steps"]
        return found

    assert [step["rows"] for step in steps("--dry-run")] == [{"input": 6}, {"input": None}]
    recipe.write_text(recipe.read_text().replace(', "$guess:text=label"', ""))
    assert [step["state"] for step in steps()] == ["done", "done"]
    names = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert {"guess.jsonl", "again.csv"} <= names
    planned = steps("--dry-run")
    assert [step["rows"] for step in planned] == [{"input": 6}, {"input": 6}]
    assert {step["state"] for step in planned} == {"finished"}
    assert {step["state"] for step in steps()} == {"reused"}


def test_advice_is_the_paired_lead_in_the_source_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, baseline = (
        bert_classifier(tmp_path / name, seed=seed) for seed, name in enumerate(("t", "ce"))
    )
    rows = labelled_rows(30)
    mixed = [
        {**row, "id": str(n), "lang": "de" if n % 3 == 0 else "en"} for n, row in enumerate(rows)
    ]
    test = write_jsonl(tmp_path / "dev.jsonl", mixed)

    def shown(command: str, *words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([command, *words, "--test", str(test), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    both = shown("compare", str(baseline), str(teacher))["languages"]["en"]
    advice = shown("advise", str(teacher), "--baseline", str(baseline))
    assert advice["language"] == "en" and advice["num_rows"] == both["num_rows"] == 20
    assert advice["lead"] == both["difference"]
    assert advice["lead_interval"] == both["difference_interval"]
    assert len(advice["observed"]) >= 4 and "teacher" in advice["said"]
    alone = shown("advise", str(teacher))
    assert alone["lead"] is None and alone["teacher_value"] == advice["teacher_value"]
    assert "--method ce" in alone["said"]
    assert main(["advise", str(teacher), "--test", str(test), "--source-language", "fr"]) == 3
    assert "de, en" in capsys.readouterr().err.replace("en, de", "de, en")
    assert main(["advise", str(teacher), "--baseline", str(baseline), "--test", str(test)]) == 0
    assert "+10.0" in capsys.readouterr().out


def test_reproduce_runs_the_recipe_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 12), ("dev", 6), ("test.en", 9)):
        write_jsonl(tmp_path / f"{name}.jsonl", labelled_rows(count))
    recipe = tmp_path / "encoders.toml"
    recipe.write_text(
        f"""[matrix]
seed = [1]
[matrix.encoder.one.teacher]
model = "{bert_encoder(tmp_path / "one")}"
[matrix.encoder.two.teacher]
model = "{bert_encoder(tmp_path / "two", seed=1)}"
[stages.teacher]
command = "train-teacher"
matrix = ["encoder", "seed"]
train = "{tmp_path}/train.jsonl"
dev = "{tmp_path}/dev.jsonl"
seed = "$seed"
max_steps = 2
[stages.scores]
command = "evaluate"
matrix = ["encoder", "seed"]
model = "$teacher"
test = "{tmp_path}/test.en.jsonl"
"""
    )
    run = tmp_path / "run"
    line = ["reproduce", "table1", "--recipe", str(recipe), "--run", str(run)]
    assert main([*line, "--set", "seed=[1,2]", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [row[0].split(":")[0] for row in made["rows"]] == ["encoder", "one", "two"]
    assert sorted(path.name for path in run.glob("table1.*")) == [
        f"table1.{end}" for end in ("html", "json", "md", "png", "svg", "tex")
    ]
    shares = [
        json.loads((run / "results" / f"scores-one-seed{seed}.json").read_text())["languages"]["en"]
        for seed in (1, 2)
    ]
    mean = sum(share["accuracy"] for share in shares) / 2
    assert made["rows"][1][1].startswith(f"{100 * mean:.1f} [")
    text = (run / "table1.md").read_text()
    assert main([*line[:2], "--finished", *line[4:]]) == 0  # the folder tells its recipe
    assert (run / "table1.md").read_text() == text


def test_a_step_that_fails_is_named_with_the_recipes_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert_classifier(tmp_path / "model")
    rows = write_jsonl(tmp_path / "rows.jsonl", labelled_rows(6))
    recipe = tmp_path / "one.toml"
    recipe.write_text(
        f'''[stages.scores]
command = "evaluate"
model = "{model}"
test = "{rows}"
provider = "openvino"
'''
    )
    assert main(["run", str(recipe), "--out", str(tmp_path / "run"), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["class"] == "ConfigError"
    assert error["message"].startswith("step scores: provider openvino: ")
    assert "--" not in error["message"]
