"""Several processes on the CPU, started by torchrun: the loss curve of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from monox_kit.errors import StoreCorrupt
from monox_kit.training.processes import Processes
from tests.children import fork
from tests.faults.states import COMPLETE
from tests.integration.test_training_loop import events, without_dropout
from tests.tiny_models import bert_encoder, labelled_rows, write_jsonl

TORCHRUN = ["torch.distributed.run", "--nproc-per-node=2", "--local-addr=127.0.0.1"]
TORCHRUN += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "monoxkit_cli"]
# With --cpu it starts several processes through MPI alone, and without that one.
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
ACCELERATE += ["--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]
ACCELERATE += ["-m", "monoxkit_cli"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 rows: three batches of eight and one of a single row, which one process has none of."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", labelled_rows(25, seed=1))
    write_jsonl(folder / "dev.jsonl", labelled_rows(13, seed=2))
    without_dropout(bert_encoder(folder / "encoder"))
    return folder


def arguments(files: Path, out: Path, steps: int) -> list[str]:
    return (
        f"train-teacher --model {files}/encoder --train {files}/train.jsonl --dev "
        f"{files}/dev.jsonl --out {out} --max-steps {steps} --batch-size 8 --accumulate 2 "
        "--max-length 16 --learning-rate 0.001 --precision fp32 --checkpoint-every 5 --json"
    ).split()


def started(launcher: list[str], line: list[str]) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, *line],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(launcher: list[str], line: list[str]) -> dict[str, Any]:
    """The one result that the processes show."""
    process = started(launcher, line)
    out, err = process.communicate()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def _process(folder: Path, rank: int) -> None:
    """One of two that meet in `folder`: a store fails it in the second, then both go on."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=500),
    )
    processes = Processes(rank, 2, "cpu")

    def fail() -> None:
        raise StoreCorrupt("shards/000003/logits.npy: expected é")

    assert processes.together(lambda: rank) == rank
    with pytest.raises(StoreCorrupt) as caught:
        processes.together(fail if rank == 1 else lambda: None)
    (folder / f"{rank}").write_text(str(caught.value))
    assert processes.sum([1.0]) == [2.0]


def test_what_fails_one_process_is_raised_in_all(tmp_path: Path) -> None:
    children = [fork(partial(_process, tmp_path, rank)) for rank in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    message = "shards/000003/logits.npy: expected é"
    assert (tmp_path / "0").read_text() == f"process 1: {message}"
    assert (tmp_path / "1").read_text() == message


FAILING = """
import os, sys
from monox_kit.errors import StoreError
from monox_kit.training.batches import Batches
from monoxkit_cli.app import main

window = Batches.window

def failing(self, at):
    if at.epoch == 2 and os.environ["RANK"] == "1":
        raise StoreError("store: expected a row")
    return window(self, at)

Batches.window = failing
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.complete
@pytest.mark.timeout(600)
def test_an_error_of_any_process_ends_all_of_them_and_is_logged(
    files: Path, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    launcher = [*TORCHRUN[: TORCHRUN.index("-m")], str(tmp_path / "failing.py")]
    process = started(launcher, arguments(files, tmp_path / "two", 300))
    _, err = process.communicate()
    assert process.returncode != 0
    assert err.count("store: expected a row") == 2  # one line of each process
    (error,) = events(tmp_path / "two.checkpoints", "error")
    assert error["message"] == "process 1: store: expected a row"
    finished(TORCHRUN, arguments(files, tmp_path / "two", 300))
    steps = [event["step"] for event in events(tmp_path / "two", "step")]
    assert steps == list(range(1, 301))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("launcher", "steps", "options"),
    [
        pytest.param(TORCHRUN, 9, "--workers 1", id="torchrun"),
        pytest.param(TORCHRUN, 9, "--batch-tokens 64", id="torchrun-by-tokens", marks=COMPLETE),
        pytest.param(TORCHRUN, 100, "", id="torchrun-long", marks=COMPLETE),
        pytest.param(ACCELERATE, 20, "", id="accelerate", marks=COMPLETE),
    ],
)
def test_two_processes_have_the_loss_curve_of_one(
    files: Path, tmp_path: Path, launcher: list[str], steps: int, options: str
) -> None:
    one, two = (
        finished(start, arguments(files, tmp_path / name, steps) + options.split())
        for start, name in ((["monoxkit_cli"], "one"), (launcher, "two"))
    )
    curves = [events(tmp_path / name, "step") for name in ("one", "two")]
    assert len(curves[0]) == len(curves[1]) == steps
    for first, second in zip(*curves):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert (second["rows"], second["tokens"]) == (first["rows"], first["tokens"])
    for name in ("accuracy", "loss", "rows"):
        assert two["dev_sets"]["dev"][name] == pytest.approx(one["dev_sets"]["dev"][name], abs=1e-5)
    assert not (tmp_path / "two.checkpoints").exists()


@pytest.mark.complete
@pytest.mark.timeout(600)
def test_a_signal_to_the_launcher_saves_and_the_run_goes_on(files: Path, tmp_path: Path) -> None:
    line = arguments(files, tmp_path / "two", 300)
    process = started(TORCHRUN, line)
    log = tmp_path / "two.checkpoints" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode != 0 and "Stopped by SIGTERM" in err
    # All of it was saved: the log ends with the checkpoint of its last step.
    steps = [event["step"] for event in events(log.parent, "step")]
    assert events(log.parent, "checkpoint")[-1]["step"] == steps[-1] < 300
    finished(TORCHRUN, line)
    steps = [event["step"] for event in events(tmp_path / "two", "step")]
    assert steps == list(range(1, 301))
