"""Recipes: what a file means as a plan, what is wrong in it, and what a run keeps."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from monox_kit.door import STAGES
from monox_kit.errors import ConfigError, CorpusError, MonoxError
from monox_kit.recipes.plan import COMMANDS, make_plan
from monox_kit.recipes.recipe import RunConfig, load_recipe
from monox_kit.recipes.run import run_recipe
from monox_kit.recipes.source import shipped
from monoxkit_cli.app import build_app, main
from monoxkit_cli.derive import as_words

SMALL = """\
description = "small"

[values]
steps = 4
langs = ["de", "fr"]

[matrix]
seed = [
  1,
  2,
]
temperature = [0.1, 1]

[matrix.method.ce.student]
labelled = "$data/labelled.jsonl"
[matrix.method.kd.student]
store = "$$store"
temperature = "$temperature"

[stages.data]
command = "data debian"
languages = "$langs"

[stages.student]
command = "train-student"
matrix = ["method", "temperature", "seed"]
skip = { temperature = [1] }
model = "packaged:e5-small"
method = "$method"
dev = "$data/dev.jsonl"
seed = "$seed"
max_steps = "$steps"

[stages.gain]
command = "compare"
matrix = ["seed"]
first = "$student[method=ce,temperature=0.1]"
second = "$student[method=kd,temperature=0.1]"
test = ["$data/test.*.jsonl", "$data/dev.jsonl"]
"""


def written(tmp_path: Path, text: str = SMALL) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return path


def planned(path: Path, *changes: str) -> dict[str, dict[str, Any]]:
    """The settings of each step."""
    recipe = load_recipe(RunConfig(recipe=str(path), set=changes))
    return {step.name: dict(step.given) for step in make_plan(recipe, Path("r"), STAGES)}


def test_a_plan_has_each_combination_with_its_references(tmp_path: Path) -> None:
    plan = planned(written(tmp_path))
    assert list(plan) == [
        "data",
        *(f"student-{m}-temperature0.1-seed{s}" for m in ("ce", "kd") for s in (1, 2)),
        *(f"gain-seed{s}" for s in (1, 2)),
    ]
    assert plan["data"] == {"languages": ["de", "fr"], "out": "r/data"}
    kd = plan["student-kd-temperature0.1-seed2"]
    assert kd["seed"] == 2 and kd["temperature"] == 0.1 and kd["max_steps"] == 4
    assert kd["store"] == "$store" and kd["method"] == "kd"  # two dollars are one
    assert plan["student-ce-temperature0.1-seed1"]["labelled"] == "r/data/labelled.jsonl"
    assert plan["gain-seed2"] == {
        "first": "r/student-ce-temperature0.1-seed2",
        "second": "r/student-kd-temperature0.1-seed2",
        "test": ["r/data/test.*.jsonl", "r/data/dev.jsonl"],
    }


def test_a_list_behind_a_name_is_part_of_a_list(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL.replace('languages = "$langs"', 'languages = ["$langs", "it"]'))
    assert planned(path)["data"]["languages"] == ["de", "fr", "it"]


@pytest.mark.parametrize("name", ["results", "steps"])
def test_a_stage_has_no_name_of_the_runs_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 1, .*a folder {name} of its own"):
        planned(written(tmp_path, f'[stages.{name}]\ncommand = "data debian"\n'))


def test_an_option_that_a_change_took_away_may_be_skipped(tmp_path: Path) -> None:
    plan = planned(written(tmp_path), "temperature=[0.1]")
    assert sum(name.startswith("student-") for name in plan) == 4


def test_a_file_may_begin_with_a_mark_and_must_be_utf_8(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(SMALL.encode("utf-8-sig"))
    assert "gain-seed1" in planned(path)
    path.write_bytes(SMALL.replace("small", "kleinmütig").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"small\.toml: expected UTF-8, found"):
        planned(path)


def test_changes_are_values_axes_options_and_settings(tmp_path: Path) -> None:
    path = written(tmp_path)
    plan = planned(
        path, "seed=7", "steps=9", "langs=de", "student.max_length=32", "student.dev=my $dev.csv",
        "method.kd.student.temperature=2.5", "gain.num_resamples=500",
    )  # fmt: skip
    kd = plan["student-kd-temperature0.1-seed7"]
    assert (kd["max_steps"], kd["max_length"], kd["temperature"]) == (9, 32, 2.5)
    assert kd["dev"] == "my $dev.csv" and plan["data"]["languages"] == "de"
    assert plan["gain-seed7"]["num_resamples"] == 500 and "gain-seed1" not in plan
    with pytest.raises(ConfigError, match=r"\[stages\.gain\]: .*method=ce.* none of the steps"):
        planned(path, 'method=["kd"]')


STUDENT = '"$data/dev.jsonl"\nseed'


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("max_steps =", "max_step =", "max_step =", r"\[stages\.student\]: max_step .*max_steps"),
        ("temperature = \"", "temperatur = \"", "temperatur =", r"\[matrix\.method\.kd\.student\]: "
         r"temperatur .*closest are temperature"),
        ('command = "compare"', 'command = "comapre"', "comapre", r"comapre .*compare"),
        (STUDENT, '"$dat/dev.jsonl"\nseed', "$dat/", r"dat is no value.*data"),
        (STUDENT, '"$gain/dev.jsonl"\nseed', "$gain", r"gain is no value, axis of the stage or"),
        ('dev = "$data', 'dev = "$1data', "$1data", r"\$1data"),
        ('["method", "temp', '["methode", "temp', "methode", "methode .*method"),
        ("[values]", "[value]", "[value]", r"value is no table\. .*values"),
        ("steps = 4", "steps = 0", "[stages.student]", r"step student-ce-\S+: max_steps:"),
        ("steps = 4", 'steps = "four"', "[stages.student]", r"max_steps: expected a valid integer"),
        ("method.ce.student]", "method.ce.studnt]", "studnt", "studnt .*student"),
        ('model = "packaged:e5-small"\n', "", "[stages.student]", r"missing 1 required .*'model'"),
        ("temperature = [0.1, 1]", "temperature = []", "temperature = []", "the axis is empty"),
        ("skip = { temp", "skip = { tempo", "skip", "tempoerature"),
        ("[stages.data]\ncommand", "[stages.data]\ncomand", "[stages.data]", "expected command"),
        ('["de", "fr"]', '["de", "de"]', "[stages.data]", r"step data: languages: expected each"),
        ("[method=ce,temperature=0.1]", "[method=ce,temperature=0.1,2]", "0.1,2]",
         r"0\.1,2\] is none of the steps"),
        (STUDENT, '"$data[]/dev.jsonl"\nseed', "$data[]", r"steps data\. Write \$data\.$"),
        ("[method=ce,", "[method=ce,method=kd,", "method=ce,method=kd", r"none of the steps"),
        ('"$steps"', '"$steps[x]"', "$steps[x]", r"steps is no stage"),
        ('"$seed"', '"$seed[x]"', "$seed[x]", r"seed is no stage"),
        ('"$langs"', '"$langs/x"', "$langs/x", r"langs is no stage"),
        ("temperature = [1]", "temperature = [2]", "skip", r"2 is no option of temper.* 0\.1, 1"),
        ("[matrix.method.ce.student]", "[matrix.method]\nce = 1\n[matrix.method.no.student]",
         "ce = 1", "expected a table"),
        ("[stages.gain]", "[stages.gain-seed1]\ncommand = \"data debian\"\n[stages.gain]",
         "[stages.gain]", "two steps are named gain-seed1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_file_line_and_table(
    tmp_path: Path, old: str, new: str, line: str, told: str
) -> None:
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    number = next(n for n, each in enumerate(text.splitlines(), 1) if line in each)
    with pytest.raises(ConfigError, match=rf"small\.toml, line {number}\b.*{told}"):
        planned(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed = [", "data = [", r"the name data stands for two things"),
        ("description = ", "description ", r"this is no TOML: .*line 1"),
        ("[stages.", "[values.", r"there is no \[stages\.NAME\]"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"small\.toml: {told}"):
        planned(written(tmp_path, SMALL.replace(old, new)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sed=1", "closest are seed"),
        ("student=1", r"student\.SETTING"),
        ("steps", "expected KEY=VALUE"),
        ("steps.more=1", "steps is a value"),
        ('method=["kt"]', "kt is no option of method.*kd"),
        ("student.max_step=1", "as it is set: max_step .*max_steps"),
    ],
)
def test_wrong_changes_are_told(tmp_path: Path, change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(written(tmp_path), change)


def test_shipped_recipes_are_plans_of_commands_that_can_be_typed() -> None:
    assert shipped() == [
        "cls", "debian", "figure2", "figure3", "four_systems", "manpages", "own", "rounds",
        "table1", "translations", "xnli",
    ]  # fmt: skip
    app: Any = typer.main.get_command(build_app())
    for name in shipped():
        for step in make_plan(load_recipe(RunConfig(recipe=name)), Path("r"), STAGES):
            command = app
            for word in step.command.split():
                command = command.commands[word]
            words = as_words(step.stage, step.given)
            options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= options
            assert shlex.split(shlex.join(words)) == words
    assert all(STAGES[stage] for stage in COMMANDS.values())


def test_files_that_are_not_there_are_told_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"step teacher, train: train\.csv: "):
        run_recipe(RunConfig(recipe="own"), STAGES)
    assert not list(tmp_path.iterdir())
    assert main(["run", "owm", "--json"]) == 2
    assert "The closest are own" in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('test=["test.de.csv", "typo.csv"]', r"step \S+, test: typo\.csv: "),
        ("student.labels=no.json", r"student-\S+, labels no\.json: "),
        ('method.kd.student.store=["test.de.csv", "no"]', r"student-kd-seed1, store no: "),
    ],
)
def test_every_outside_file_of_a_list_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "dev.csv", "test.de.csv", "unlabelled.jsonl"):
        row = '{"text": "x"}\n' if name.endswith("jsonl") else "text,label\nx,a\n"
        (tmp_path / name).write_text(row)
    with pytest.raises(MonoxError, match=told):
        run_recipe(RunConfig(recipe="own", set=(change,), dry_run=True), STAGES)


def test_a_dry_run_counts_rows_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train.csv", 5), ("dev.csv", 3), ("test.de.csv", 2), ("test.fr.csv", 2)):
        lines = "".join(f"text {number},a\n" for number in range(rows))
        (tmp_path / name).write_text(f"text,label\n{lines}")
    (tmp_path / "unlabelled.jsonl").write_text('{"text": "x"}\n' * 7)
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", "own", "--dry-run", "--json"]) == 0
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["store"]["rows"] == {"corpus": 12} and steps["store"]["state"] == "to do"
    assert steps["gain-seed1"]["rows"] == {"test": 4} and steps["teacher"]["seconds"] is None
    assert steps["teacher"]["rows"] == {"train": 5, "dev": 3}
    assert main(["run", "own", "--print-commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.lstrip("(").startswith("monoxkit ") for line in lines) == len(steps)
    assert "--corpus train.csv unlabelled.jsonl --store runs/own/store" in " ".join(lines)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_printed_plan_ends_at_the_first_error_and_keeps_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """[stages.good]
command = "evaluate"
model = "packaged:e5-small"
test = "rows.csv"
[stages.bad]
command = "evaluate"
model = "packaged:none"
test = "rows.csv"
[stages.after]
command = "data debian"
"""
    (tmp_path / "rows.csv").write_text("text,label\nx,a\n")
    line = ["run", str(written(tmp_path, text)), "--out", "my run", "--print-commands"]
    assert main(line) == 0
    (tmp_path / "run.sh").write_text(capsys.readouterr().out)
    command = tmp_path / "monoxkit"
    command.write_text('#!/bin/sh\necho "{}"\necho $* >> log\n! echo $* | grep -q :none\n')
    command.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "run.sh"], env=path, check=False)
    assert done.returncode != 0
    log = (tmp_path / "log").read_text().splitlines()
    assert [each.split()[0] for each in log] == ["evaluate", "evaluate"]
    results = tmp_path / "my run" / "results"
    assert (results / "good.json").read_text() == "{}\n" and not (results / "bad.json").exists()


def test_an_empty_list_is_no_empty_word() -> None:
    stage = STAGES["data_xnli"]
    given = {"source": "a.zip", "out": "x", "translations": []}
    assert as_words(stage, given) == ["--source", "a.zip", "--out", "x"]
    with pytest.raises(ConfigError, match="`languages`"):  # left out it would be all of them
        as_words(stage, {**given, "languages": []})


def test_debians_rows_are_known_before_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "debian", "--dry-run", "--set", "labelled=50", "--json"]) == 0
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["store"]["rows"] == {"corpus": 6050}
    assert steps["scores-kd-seed1"]["rows"] == {"test": None}
