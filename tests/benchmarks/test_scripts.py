"""Every script of the benchmarks: its options, that it leaves to the harness what is the harness's,
and a run on tiny models whose figures have the right form."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from tests.tiny_models import LABELS, bert_classifier, bert_encoder, labelled_rows, write_jsonl

SCRIPTS = sorted(
    path
    for path in (harness.ROOT / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def test_every_other_module_is_known() -> None:
    modules = {path.stem for path in (harness.ROOT / "benchmarks").glob("*.py")}
    assert modules - {path.stem for path in SCRIPTS} == {"harness", "row_formats", "texts"}


@by_name
def test_every_script_shows_its_options(script: Path) -> None:
    done = run(script, "--help")
    assert "--out" in done.stdout


@by_name
def test_no_script_does_what_the_harness_does(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    own = ["ArgumentParser(", "read_hardware", "importlib.metadata", "VmHWM"]
    assert [name for name in own if name in text] == []


def run(script: Path, *given: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(script), *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher and its bundle, an encoder, a store, and a folder of the demo's form."""
    folder = tmp_path_factory.mktemp("benchmarks")
    data = folder / "data"
    for seed, name in enumerate(("labelled", "unlabelled", "dev", "test.en", "test.de")):
        language = {"lang": name.removeprefix("test.")} if name.startswith("test.") else {}
        rows = [{**row, **language} for row in labelled_rows(120, seed=seed)]
        write_jsonl(data / f"{name}.jsonl", rows)
    (data / "labels.json").write_text(json.dumps({"names": list(LABELS)}))
    bert_classifier(folder / "teacher")
    bert_encoder(folder / "encoder")
    export = ExportConfig(model=str(folder / "teacher"), max_length=32)
    export_model(export, folder / "bundle")
    config = LabelConfig(
        teacher="onnx",
        model=str(folder / "bundle"),
        corpus=CorpusConfig(paths=(str(data / "labelled.jsonl"), str(data / "unlabelled.jsonl"))),
    )
    label_corpus(config, folder / "store")
    return folder


# By script, the smallest run; {} is the folder of `files`. The first ones take a second or two,
# the others import torch in several processes.
QUICK = {
    "cli_startup": "--rounds 1",
    "label_overhead": "--bundle {}/bundle --corpus {}/data/unlabelled.jsonl --rows 40 --rounds 2",
    "store_checks": "--shards 5 --rows 400 --rounds 1",
    "store_io": "--rows 2000 --shard-rows 500 --rounds 1 --limit-s 0.01",
    "store_price": "--shard-rows 64 --shards 2 --rounds 1",
}
LONG = {
    "backend_parity": "--run {} --rows 40 --max-length 32",
    "embedding_modes": "--model {}/encoder --rows 40 --max-length 16 --steps 2 --rounds 1",
    "guard_fidelity": "--bundle {}/reduced --corpus {}/data/unlabelled.jsonl --rows 120"
    " --guard 0.9 --guard-rows 50 --guards fp32",
    "label_memory": "--rows 200",
    "last_layer": "--model {}/teacher --corpus {}/data/unlabelled.jsonl --rows 40 --rounds 1"
    " --max-length 32 --precisions fp32",
    "ray_overhead": "--bundle {}/bundle --corpus {}/data/unlabelled.jsonl --rows 40 --shard-rows 20"
    " --rounds 1 --claims 10",
    "student": "--student {}/teacher --test {}/data/test.en.jsonl {}/data/test.de.jsonl --work"
    " {}/student --corpus {}/data/unlabelled.jsonl --precision int8 --min-agreement 0.5 --rows 40"
    " --seconds 1 --starts 1 --rounds 1 --max-length 32",
    "runtimes": "{}/teacher --texts {}/data/unlabelled.jsonl --rows 40 --max-length 32 --rounds 1"
    " --precisions fp32 bf16",
    "train_throughput": "--model {}/encoder --teacher {}/teacher --store {}/store"
    " --dev {}/data/dev.jsonl --steps 2 --rounds 1 --max-length 16",
    "trim_lossless": "--model {}/encoder --corpus {}/data/test.en.jsonl {}/data/test.de.jsonl"
    " --max-length 16 --vocabulary 400",
    "train_tokenizing": "--model {}/encoder --rows 200 --max-length 16 --step-ms 1 --rounds 1",
}


def numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given"),
    [
        *QUICK.items(),
        *(pytest.param(*each, marks=pytest.mark.complete) for each in LONG.items()),
    ],
)
def test_a_tiny_run_writes_its_figures(name: str, given: str, files: Path, tmp_path: Path) -> None:
    if "reduced" in given:
        unlabelled = CorpusConfig(paths=(str(files / "data" / "unlabelled.jsonl"),))
        export_model(
            ExportConfig(
                model=str(files / "teacher"),
                max_length=32,
                precision="int8",
                check=unlabelled,
                min_agreement=0.5,
            ),
            files / "reduced",
        )
    out = tmp_path / "result.json"
    script = harness.ROOT / "benchmarks" / f"{name}.py"
    run(script, *given.replace("{}", str(files)).split(), "--out", str(out))
    value = json.loads(out.read_text(encoding="utf-8"))
    assert {"hardware", "versions"} < set(value)
    figures = list(numbers({key: value[key] for key in value if key != "hardware"}))
    assert figures
    assert all(math.isfinite(figure) for figure in figures)
    # What a script compares besides its times is right however small the run.
    assert value.get("differing_rows", 0) == 0
    assert value.get("equal_stores", True) is True
    assert value.get("argmax", 1.0) == 1.0


@pytest.mark.slow
def test_servers_take_turns_under_the_same_load(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    own = f"{sys.executable} -m monoxkit_cli serve tiny={files}/bundle --port {{port}}"
    script = harness.ROOT / "benchmarks" / "serving_load.py"
    servers = [f"--server=tei={own}", f"--server=tiny:kserve={own}"]
    words = ["--test", f"{files}/data/test.de.jsonl", "--rates", "50,100", "--rows", "1,2"]
    run(script, *servers, *words, "--requests", "20", "--out", str(out))
    value = json.loads(out.read_text(encoding="utf-8"))
    assert set(value["runs"]) == {"tei", "tiny"}
    for (found,) in value["runs"].values():
        assert found["memory_bytes"] > 1_000_000
        assert [step["all"]["statuses"] for step in found["report"]["steps"]] == [{"200": 20}] * 2
    refused = subprocess.run(
        [sys.executable, str(script), "--server", "a:grpc=x {port}", "--test", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
