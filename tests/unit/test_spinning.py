"""Whether waiting threads spin: by the load of the machine, by the user, and who takes notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monox_kit import spinning
from monox_kit.errors import ConfigError
from monox_kit.models import onnx_backend
from monox_kit.spinning import busy_cores, may_spin, settle_spinning
from monoxkit_cli.app import main
from tests.tiny_models import bert_classifier, labelled_rows, write_jsonl

# Two cores: ticks of user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
BEFORE = "cpu  0\ncpu0 100 0 50 1000 5 0 0 0 0 0\ncpu1 100 0 50 1000 5 0 0 0 0 0\nintr 5\n"


def after(*passed: str) -> str:
    """A later reading, from what passed on each core: user, idle, iowait and steal."""
    lines = []
    for core, ticks in enumerate(passed):
        user, idle, iowait, steal = map(int, ticks.split())
        lines.append(f"cpu{core} {100 + user} 0 50 {1000 + idle} {5 + iowait} 0 0 {steal} 0 0")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        (("0 10 0 0", "0 10 0 0"), 0),
        (("10 0 0 0", "0 10 0 0"), 1),
        (("10 0 0 0", "5 5 0 0"), 1.5),
        (("0 5 5 0", "0 0 10 0"), 0),  # waiting for a disk takes no core
        (("0 0 0 10", "0 5 0 5"), 1.5),  # what the machine below takes is not there for us
    ],
)
def test_the_cores_at_work_are_counted(passed: tuple[str, ...], expected: float) -> None:
    assert busy_cores(BEFORE, after(*passed), {0, 1}) == pytest.approx(expected)


def test_cores_that_this_process_may_not_use_do_not_count() -> None:
    assert busy_cores(BEFORE, after("10 0 0 0", "0 10 0 0"), {1}) == 0


@pytest.mark.parametrize(
    "text", ["", BEFORE, "cpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0", "cpu0 x"]
)
def test_a_system_that_does_not_tell_is_not_guessed_of(text: str) -> None:
    assert busy_cores(BEFORE, text, {0, 1}) is None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float | None]]:
    """Two cores with nothing chosen; the list is what others take, sample by sample."""
    samples: list[float | None] = []
    for name in ("MONOXKIT_SPIN", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # so that the old value comes back
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    monkeypatch.setattr(spinning, "num_threads", lambda: 2)
    monkeypatch.setattr(spinning, "_sample", lambda _cores: samples.pop(0))
    yield samples


def chosen() -> tuple[str | None, str | None]:
    return os.environ.get("MONOXKIT_SPIN"), os.environ.get("OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0], ("on", None)),
        ([0.2], ("on", None)),
        ([None], ("on", None)),
        ([1.0, 1.1, 0.9], ("off", "PASSIVE")),
        ([0.5, 0.5, 0.5], ("off", "PASSIVE")),
        ([2.0, 2.0, 0.1], ("on", None)),  # a program that started beside us
    ],
)
def test_threads_sleep_beside_other_work(
    machine: list[float | None], samples: list[float | None], expected: tuple[str, str | None]
) -> None:
    machine += samples
    told = settle_spinning()
    assert chosen() == expected
    assert may_spin() == (expected[0] == "on")
    if expected[0] == "off":
        assert told is not None and f"take {min(filter(None, samples)):.1f} of 2 cores" in told
    else:
        assert told is None
    assert not machine


def test_a_worker_with_room_beside_others_spins(machine: list[float | None]) -> None:
    machine += [1.0]
    assert settle_spinning(threads=1) is None
    assert os.environ["MONOXKIT_SPIN"] == "on"


@pytest.mark.parametrize(
    ("variables", "asked", "expected"),
    [
        ({}, "on", ("on", None)),
        ({}, "off", ("off", "PASSIVE")),
        ({"MONOXKIT_SPIN": "off"}, None, ("off", "PASSIVE")),
        ({"MONOXKIT_SPIN": "off"}, "on", ("on", None)),
        ({"OMP_WAIT_POLICY": "active"}, None, ("on", "active")),
        ({"OMP_WAIT_POLICY": "passive"}, None, ("off", "passive")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "off", ("off", "ACTIVE")),
        ({"GOMP_SPINCOUNT": "10000"}, "off", ("off", None)),
    ],
)
def test_what_the_user_says_stays(
    machine: list[float | None],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    asked: str | None,
    expected: tuple[str, str | None],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert settle_spinning(asked) is None
    assert chosen() == expected


def test_another_word_is_refused(
    machine: list[float | None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="expected auto, on or off, found 'maybe'"):
        settle_spinning("maybe")
    assert main(["--spin", "maybe", "evaluate", "x", "--test", "y"]) == 2
    assert "'maybe'" in capsys.readouterr().err


def test_commands_that_load_a_model_choose_before_they_do_and_say_so(
    machine: list[float | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine += [1.5, 1.5, 1.5]
    assert main(["evaluate", "no-such-model", "--test", "no-such-file"]) != 0
    assert os.environ["MONOXKIT_SPIN"] == "off"
    # It failed before it computed anything.
    told = capsys.readouterr().err
    assert "no-such-model" in told and "Other processes" not in told
    del os.environ["MONOXKIT_SPIN"], os.environ["OMP_WAIT_POLICY"]
    machine += [1.5, 1.5, 1.5]
    model = bert_classifier(tmp_path / "model")
    rows = write_jsonl(tmp_path / "test.de.jsonl", labelled_rows(8, seed=1))
    assert main(["evaluate", str(model), "--test", str(rows)]) == 0
    told = capsys.readouterr().err
    assert told.count("Other processes take 1.5 of 2 cores") == 1
    assert main(["store", "info", "no-such-store"]) == 4
    assert main(["label", "--help"]) == 0


@pytest.mark.parametrize(("spin", "entry"), [("on", None), ("off", "0")])
def test_sessions_do_as_was_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spin: str, entry: str | None
) -> None:
    monkeypatch.setenv("MONOXKIT_SPIN", spin)
    given = []

    class Options:
        def __init__(self) -> None:
            given.append({})

        def add_session_config_entry(self, name: str, value: str) -> None:
            given[-1][name] = value

    monkeypatch.setattr(onnx_backend.require_runtime(), "SessionOptions", Options)
    with pytest.raises(Exception, match="no-such"):
        onnx_backend.open_session(tmp_path / "no-such.onnx", "cpu")
    assert given[0].get("session.intra_op.allow_spinning") == entry


def test_openmp_reads_the_choice(tmp_path: Path) -> None:
    """Libgomp shows its settings when it is loaded: it must have been told by then."""
    program = (
        "import sys\n"
        "from monoxkit_cli.app import main\n"
        "assert 'torch' not in sys.modules\n"
        f"main(['--spin', 'off', 'evaluate', {str(bert_classifier(tmp_path / 'model'))!r}, "
        "'--test', 'no-such-file'])\n"
        "import torch\n"
    )
    variables = {**os.environ, "OMP_DISPLAY_ENV": "TRUE"}
    variables = {name: value for name, value in variables.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
