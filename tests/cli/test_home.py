"""What commands leave in a home folder of their own: nothing that the user did not ask for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monox_kit.runtime_environment import QUIET, silence_dependencies
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl

# Runs several commands in one process, each to its end, as a shell would one after the other.
_COMMANDS = """
import sys
from monoxkit_cli.app import main
for line in sys.stdin.read().splitlines():
    code = main(line.split())
    if code:
        sys.exit(f"{line}: {code}")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_jsonl(folder / "train.jsonl", labelled_rows(12, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(9, seed=2))
    bert_classifier(folder / "model")
    bert_encoder(folder / "encoder")
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """A user's with nothing set but what a login sets, and this suite's calm threads."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "OMP_NUM_THREADS": "1",
        **more,
    }


def run(commands: list[str], variables: dict[str, str], before: str = "") -> str:
    """What the commands write to standard error, all in one process that runs `before` first."""
    done = subprocess.run(
        [sys.executable, "-c", before + _COMMANDS],
        input="\n".join(commands),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def written(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_commands_write_nothing_into_the_home_folder(files: Path, tmp_path: Path) -> None:
    steps = "--max-steps 2 --batch-size 4 --max-length 16"
    out = tmp_path / "out"
    home = tmp_path / "home"
    home.mkdir()
    run(
        [
            f"train-teacher --model {files}/encoder --train {files}/train.jsonl "
            f"--dev {files}/dev.jsonl --out {out}/teacher {steps}",
            f"export {files}/model --out {out}/bundle --check {files}/dev.jsonl",
            f"label --model {out}/bundle --corpus {files}/train.jsonl --store {out}/store",
            f"train-student --model {files}/encoder --store {out}/store --method kd "
            f"--dev {files}/dev.jsonl --out {out}/student {steps}",
            f"evaluate {out}/bundle --test {files}/dev.jsonl",
            f"evaluate {out}/student --test {files}/dev.jsonl",
            f"store info {out}/store",
            f"store verify {out}/store",
            f"store stats {out}/store",
            f"store export {out}/store --out {out}/rows.parquet",
            f"predict {out}/bundle --input {files}/dev.jsonl --out {out}/predicted.jsonl",
            "doctor",
        ],
        environment(home),
    )
    assert written(home) == []


# As for a user id without an entry among the users, which containers often run under.
_NOBODY = """
import pwd
def nobody(user):
    raise KeyError("uid not found")
pwd.getpwuid = nobody
"""


def test_commands_need_no_home_folder(files: Path, tmp_path: Path) -> None:
    variables = environment(tmp_path)
    del variables["HOME"]
    steps = "--max-steps 2 --batch-size 4 --max-length 16"
    told = run(
        [
            f"train-teacher --model {files}/encoder --train {files}/train.jsonl "
            f"--dev {files}/dev.jsonl --out {tmp_path}/teacher {steps}",
            f"export {tmp_path}/teacher --out {tmp_path}/bundle --check {files}/dev.jsonl",
            f"label --model {tmp_path}/bundle --corpus {files}/train.jsonl --store {tmp_path}/s",
            f"evaluate {tmp_path}/bundle --test {files}/dev.jsonl",
            "doctor",
        ],
        variables,
        _NOBODY,
    )
    assert "run plans are not kept: MONOXKIT_CACHE: " in told


@pytest.mark.parametrize("module", ["monox_kit.evaluation", "monox_kit.labelling"])
def test_the_library_silences_what_it_imports(tmp_path: Path, module: str) -> None:
    program = (
        f"import {module}, onnxruntime, huggingface_hub.constants as hub\n"
        "print(hub.HF_HUB_DISABLE_TELEMETRY)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr
    assert written(tmp_path) == []


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    silence_dependencies()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert {name: os.environ[name] for name in QUIET if name != "ORT_DISABLE_TELEMETRY"} == {
        name: value for name, value in QUIET.items() if name != "ORT_DISABLE_TELEMETRY"
    }
