"""A recipe that is killed and run again ends as an undisturbed one, and does no step twice."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monox_kit.digest import digest_bytes, digest_file
from tests.faults.runs import RunServer
from tests.faults.states import COMPLETE
from tests.tiny_models import bert_encoder, labelled_rows, write_jsonl

RECIPE = """\
[values]
files = "{files}"

[matrix.method.ce.student]
labelled = "$files/train.jsonl"
[matrix.method.kd.student]
store = "$store"

[stages.teacher]
command = "train-teacher"
model = "$files/encoder"
train = "$files/train.jsonl"
dev = "$files/dev.jsonl"
max_steps = 4
checkpoint_every = 2

[stages.store]
command = "label"
model = "$teacher"
teacher = "torch"
corpus = "$files/train.jsonl"
shard_rows = 8

[stages.student]
command = "train-student"
matrix = ["method"]
model = "$files/encoder"
method = "$method"
dev = "$files/dev.jsonl"
max_steps = 4
checkpoint_every = 2

[stages.scores]
command = "evaluate"
matrix = ["method"]
model = "$student"
test = "$files/test.de.jsonl"

[stages.gain]
command = "compare"
first = "$student[method=ce]"
second = "$student[method=kd]"
test = "$files/test.de.jsonl"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunServer]:
    folder = tmp_path_factory.mktemp("files")
    bert_encoder(folder / "encoder")
    for name, count, seed in (("train", 24, 1), ("dev", 9, 2), ("test.de", 12, 3)):
        write_jsonl(folder / f"{name}.jsonl", labelled_rows(count, seed=seed))
    recipe = folder / "small.toml"
    recipe.write_text(RECIPE.format(files=folder))
    with RunServer("recipe", str(recipe)) as server:
        yield server


@pytest.fixture(scope="module")
def whole(server: RunServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing happened to leaves."""
    out = tmp_path_factory.mktemp("whole") / "run"
    outcome = server.run(out)
    assert outcome.exit_code == 0, outcome.message
    return out


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.with_name(f"{out.name}.json").read_text())
    return found


def products(out: Path) -> list[Path]:
    """The files that steps have put in place: weights, logits, and the records of what is done."""
    found = [*out.glob("[!.]*/model.safetensors"), *out.glob("store/shards/[!.]*/logits.npy")]
    return sorted([*found, *out.glob("store/complete.json"), *out.glob("steps/*.json")])


def digests(out: Path) -> dict[str, str]:
    """Of weights and logits, and of results, which name models by their folder."""
    found = {}
    for path in out.glob("results/*.json"):
        text = path.read_bytes().replace(str(out).encode(), b"OUT")
        found[path.name] = digest_bytes(text)
    binary = (path for path in products(out) if path.suffix != ".json")
    return found | {str(path.relative_to(out)): digest_file(path) for path in binary}


def test_a_whole_run_does_each_step_once(whole: Path) -> None:
    steps = report(whole)["steps"]
    assert {step["state"] for step in steps} == {"done"}
    assert [step["name"] for step in steps] == [
        *("teacher", "store", "student-ce", "student-kd", "scores-ce", "scores-kd", "gain")
    ]
    assert report(whole)["events"] > 40


@pytest.mark.parametrize(
    "number", [pytest.param(4, id="sampled"), pytest.param(20, id="twenty", marks=COMPLETE)]
)
def test_kills_anywhere_change_no_bit_and_repeat_no_step(
    server: RunServer, whole: Path, tmp_path: Path, number: int
) -> None:
    expected, events = digests(whole), report(whole)["events"]
    # One place in each stretch of the run, so that every kind of step is met.
    draw = random.Random(17)
    points = [
        draw.randrange(n * events // number, (n + 1) * events // number) for n in range(number)
    ]
    for at in points:
        out = tmp_path / f"killed-{at}"
        assert server.run(out, kill_at=at).killed
        kept = {path: path.stat().st_mtime_ns for path in products(out)}
        records = [path.stem for path in kept if path.parent.name == "steps"]
        outcome = server.run(out)
        assert outcome.exit_code == 0, f"{outcome.message}, killed at {at}"
        assert digests(out) == expected, f"killed at {at}"
        assert {path: path.stat().st_mtime_ns for path in kept} == kept, f"killed at {at}"
        states = {step["name"]: step["state"] for step in report(out)["steps"]}
        assert all(states[name] == "reused" for name in records), f"killed at {at}"
        shutil.rmtree(out)
