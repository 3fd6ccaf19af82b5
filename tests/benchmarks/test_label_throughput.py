"""The labelling benchmark end to end on a tiny model: agreement, missing and crashing rows."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from labelling_race.plan import make_plan
from labelling_race.result import (
    LabelBenchmark,
    RoundResult,
    write_label_benchmark,
)
from labelling_race.run import benchmark_labelling
from labelling_race.worker import ContenderError, Worker
from monox_kit.progress import Silent
from tests.benchmarks.tiny_race import config_for

pytestmark = pytest.mark.slow  # each row is a process that imports torch

# Answers as a contender does, dies at the second request.
FAKE = """
import json, sys
job = json.loads(sys.stdin.readline())
print(json.dumps({"answer": "ready", "settings": {}, "versions": {"python": "3"}}), flush=True)
sys.stdin.readline()
sys.stderr.write("out of luck\\n")
sys.exit(3)
"""


def interpreter(path: Path, body: str) -> str:
    """An executable that runs `body` in place of the contender."""
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture(scope="module")
def result(files: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelBenchmark:
    """One run of every kind of row that needs nothing beyond the project's own packages."""
    work = tmp_path_factory.mktemp("work")
    missing = work / "missing" / "sentence_transformers.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError('No module named sentence_transformers')\n")
    patched = (
        "import os, sys\n"
        f"os.environ['PYTHONPATH'] = {str(missing.parent)!r}\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    config = config_for(
        files,
        rows=(
            "pipeline",
            "pipeline-sorted",
            "curator",
            "monoxkit",
            "crossencoder",
            "openvino-fp32",
        ),
        slices={"pipeline": 5},
        interpreters={
            "crossencoder": interpreter(work / "lacking", patched),
            "openvino-fp32": interpreter(work / "crashing", FAKE),
        },
    )
    return benchmark_labelling(config, work)


def test_fp32_rows_agree_with_the_reference(result: LabelBenchmark) -> None:
    for name, num_texts in (("pipeline", 10), ("pipeline-sorted", 24), ("monoxkit", 24)):
        row = result.rows[name]
        assert (row.state, row.reason) == ("measured", None)
        assert row.agreement is not None
        assert row.agreement.num_texts == num_texts
        assert row.agreement.argmax == 1.0
        assert row.agreement.max_delta < 1e-5
        assert sum(found.num_texts for found in row.rounds.values()) == num_texts
    rounded = result.rows["curator"].agreement
    assert rounded is not None
    assert 1e-5 < rounded.max_delta < 0.1  # bf16 is another arithmetic, of the same rows


def test_rows_count_the_same_real_tokens(result: LabelBenchmark) -> None:
    counts = {
        tuple(found.num_tokens for _, found in sorted(result.rows[name].rounds.items()))
        for name in ("pipeline-sorted", "curator", "monoxkit")
    }
    assert len(counts) == 1
    assert result.texts["num_tokens"] == sum(counts.pop())


def test_a_row_without_its_package_is_listed_with_the_reason(result: LabelBenchmark) -> None:
    row = result.rows["crossencoder"]
    assert (row.state, row.tokens_per_s) == ("not installed", None)
    assert "No module named sentence_transformers" in str(row.reason)


def test_a_row_that_dies_is_a_failure_with_its_name(result: LabelBenchmark) -> None:
    row = result.rows["openvino-fp32"]
    assert row.state == "failed"
    assert "benchmark row openvino-fp32" in str(row.reason)
    assert "ended with 3" in str(row.reason)
    assert "out of luck" in str(row.reason)


def test_files_hold_the_documented_keys(result: LabelBenchmark, tmp_path: Path) -> None:
    found, plot = write_label_benchmark(result, tmp_path / "out")
    value = json.loads(found.read_text(encoding="utf-8"))
    assert set(value) == {
        "rows", "ratios", "limits", "model", "texts", "environments", "hardware",
    }  # fmt: skip
    assert list(value["rows"]) == list(result.rows)
    assert set(value["rows"]["monoxkit"]) == {
        "what", "state", "reason", "settings", "texts_per_round", "rounds", "peak_rss_bytes",
        "agreement", "limit_fractions", "tokens_per_s", "texts_per_s",
    }  # fmt: skip
    assert value["rows"]["pipeline"]["texts_per_round"] == 5
    assert set(value["ratios"]["monoxkit"]) == {"pipeline", "pipeline-sorted", "curator"}
    assert set(value["limits"]["tokens_per_s"]) == {"fp32", "bf16", "int8"}
    assert value["rows"]["monoxkit"]["peak_rss_bytes"] > 0
    assert str(tmp_path.parent) not in found.read_text(encoding="utf-8")
    assert all("torch" in each["versions"] for each in value["environments"][:1])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_pass_over_its_limit_ends_with_what_it_has(files: Path, tmp_path: Path) -> None:
    plan = make_plan(config_for(files, rows=("curator",)), tmp_path, Silent())
    with Worker(vars_of(plan.job("curator")), sys.executable) as worker:
        worker.start(120)
        request = {"texts_path": str(plan.round_path(0, "curator")), "store": ""}
        cut = worker.score({**request, "limit_s": -1.0}, 60)
        whole = worker.score({**request, "limit_s": 60.0}, 60)
    assert (cut["over_limit"], cut["texts"], cut["tokens"], cut["logits"]) == (True, 0, 0, None)
    assert (whole["over_limit"], whole["texts"]) == (False, 12)
    found = RoundResult(cut["seconds"], 0, None, over_limit=True)
    assert found.tokens_per_s is None


def vars_of(job: object) -> dict[str, object]:
    return dict(vars(job))


def test_a_worker_that_says_nothing_is_ended(files: Path, tmp_path: Path) -> None:
    silent = interpreter(tmp_path / "silent", "import time\ntime.sleep(60)\n")
    plan = make_plan(config_for(files, rows=("curator",)), tmp_path / "work", Silent())
    with (
        Worker(vars_of(plan.job("curator")), silent) as worker,
        pytest.raises(ContenderError, match=r"benchmark row curator: expected an answer within"),
    ):
        worker.start(0.3)


def test_an_interpreter_that_is_not_there_is_named(files: Path, tmp_path: Path) -> None:
    plan = make_plan(config_for(files, rows=("curator",)), tmp_path, Silent())
    with (
        pytest.raises(ContenderError, match=r"benchmark row curator: .*--python"),
        Worker(vars_of(plan.job("curator")), str(tmp_path / "none")),
    ):
        pass
