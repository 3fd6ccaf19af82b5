"""A user's whole way through the commands, on tiny models; then what goes wrong, by exit code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from monoxkit_cli.app import _several, build_app, main
from monoxkit_cli.options import spread
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl

SHORT = ["--max-steps", "4", "--batch-size", "4", "--max-length", "24"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, encoders, and a run of every command up to the student."""
    folder = tmp_path_factory.mktemp("work")
    for name, count, seed in (("labelled", 16, 1), ("dev", 9, 2), ("test.en", 12, 3)):
        write_jsonl(folder / f"{name}.jsonl", labelled_rows(count, seed=seed))
    german = [{**row, "lang": "de"} for row in labelled_rows(12, seed=4)]
    write_jsonl(folder / "test.de.jsonl", german)
    texts = "".join(f"{row['text']}\n" for row in labelled_rows(20, seed=5))
    (folder / "more.txt.gz").write_bytes(gzip.compress(texts.encode()))
    bert_encoder(folder / "encoder")
    bert_encoder(folder / "multilingual", seed=1)
    run(
        f"train-teacher --model {folder}/encoder --train {folder}/labelled.jsonl "
        f"--dev {folder}/dev.jsonl --out {folder}/teacher",
        *SHORT,
    )
    run(f"export {folder}/teacher --out {folder}/bundle --check {folder}/dev.jsonl")
    run(
        f"label --teacher onnx --model {folder}/bundle --store {folder}/store "
        f"--corpus {folder}/labelled.jsonl {folder}/more.txt.gz --shard-rows 8"
    )
    run(
        f"train-student --model {folder}/multilingual --store {folder}/store --method kd "
        f"--dev {folder}/dev.jsonl --out {folder}/student",
        *SHORT,
    )
    return folder


def run(line: str, *more: str) -> None:
    assert main([*line.split(), *more]) == 0


def result(capsys: pytest.CaptureFixture[str], line: str, *more: str) -> dict[str, Any]:
    """What a command prints with --json, as its whole standard output."""
    capsys.readouterr()
    assert main([*line.split(), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], line: str, *more: str) -> tuple[int, str]:
    """The exit code and the one line on stderr after any notes."""
    capsys.readouterr()
    code = main([*line.split(), *more])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return code, captured.err.splitlines()[-1]


def test_every_stage_tells_its_result_as_json(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = result(
        capsys,
        f"train-teacher --model {files}/encoder --train {files}/labelled.jsonl "
        f"--dev {files}/dev.jsonl --out {files}/teacher",
        *SHORT,
    )
    assert teacher["reused"] and teacher["num_steps"] == 4
    bundle = result(
        capsys, f"export {files}/teacher --out {files}/bundle --check {files}/dev.jsonl"
    )
    assert bundle["reused"] and bundle["precision"] == "fp32"
    info = result(capsys, f"store info {files}/store")
    assert (info["num_rows"], info["num_shards"], info["num_labelled"]) == (36, 5, 16)
    assert result(capsys, f"store verify {files}/store")["num_rows"] == 36


@pytest.mark.parametrize("model", ["student", "teacher", "bundle"])
def test_evaluate_reports_by_language(
    files: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    report = result(
        capsys, f"evaluate {files}/{model} --test {files}/test.en.jsonl {files}/test.de.jsonl"
    )
    assert list(report["languages"]) == ["en", "de"]
    for found in report["languages"].values():
        assert found["num_rows"] == 12
        low, high = found["accuracy_interval"]
        assert 0 <= low <= found["accuracy"] <= high <= 1
        assert 0 <= found["macro_f1"] <= 1
    assert report["target_average"] == report["languages"]["de"]["accuracy"]


def test_two_models_are_compared_on_the_same_rows(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = f"--test {files}/test.en.jsonl {files}/test.de.jsonl"
    found = result(capsys, f"compare {files}/teacher {files}/bundle {tests}")
    assert list(found["languages"]) == ["en", "de"]
    for one in found["languages"].values():
        assert (one["difference"], one["p_value"]) == (0.0, 1.0)
        assert one["difference_interval"][0] < 0 < one["difference_interval"][1]
    assert found["target_difference"] == 0.0
    alone = [result(capsys, f"evaluate {files}/{name} {tests}") for name in ("teacher", "student")]
    found = result(capsys, f"compare {files}/teacher {files}/student {tests}")
    for language, one in found["languages"].items():
        assert (one["first"], one["second"]) == tuple(
            report["languages"][language]["accuracy"] for report in alone
        )
        gained = one["only_second"] - one["only_first"]
        assert one["difference"] == pytest.approx(gained / one["num_rows"])
    capsys.readouterr()
    run(f"compare {files}/teacher {files}/student {tests}")
    assert "target average" in capsys.readouterr().out
    code, line = failure(capsys, f"compare {files}/teacher {files}/bundle {tests} --device cuda:9")
    assert code == 5 and "cuda:9" in line
    code, line = failure(
        capsys, f"compare {files}/teacher {files}/student {tests} --provider openvino"
    )
    assert code == 2 and "--provider" in line
    two = bert_classifier(tmp_path / "two", labels=("games", "mail"))
    code, line = failure(capsys, f"compare {files}/teacher {two} {tests}")
    assert code == 5 and str(two) in line and "text" in line


def test_details_of_an_evaluation(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"evaluate {files}/student --test {files}/test.de.jsonl --details {tmp_path}/d"
    report = result(capsys, command)["languages"]["de"]
    wrong = (tmp_path / "d" / "wrong.jsonl").read_text().splitlines()
    assert len(wrong) == round(12 * (1 - report["accuracy"]))
    assert (tmp_path / "d" / "by_class.csv").is_file()
    assert report["rows_for_3_points"] > 0


def test_tables_are_for_people(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run(f"evaluate {files}/student --test {files}/test.de.jsonl")
    table = capsys.readouterr().out
    assert "target average" in table
    run(f"store info {files}/store")
    assert "36 of 36" in capsys.readouterr().out


def test_bad_input_ends_with_its_exit_code_and_one_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "missing": '{"body": "x"}\n',
        "json": '{"text": "x"}\n{"text": \n',
        "empty": "",
        "blank": '{"text": " "}\n',
        "unknown": '{"text": "x", "label": "sport"}\n',
    }
    for name, content in bad.items():
        (tmp_path / f"{name}.jsonl").write_text(content)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    expected = {
        "missing": "found columns: body",
        "json": "json.jsonl, line 2",
        "empty": "empty.jsonl: expected at least one row",
        "blank": "blank.jsonl, line 1",
        "unknown": "'sport'",
        "latin": "UTF-8",
    }
    for name, message in expected.items():
        code, line = failure(
            capsys,
            f"label --model {files}/bundle --corpus {tmp_path}/{name}.jsonl "
            f"--store {tmp_path}/store",
        )
        assert code == 3, name
        assert line.startswith("CorpusError: ") and message in line, (name, line)
        assert not (tmp_path / "store").exists()


def test_wrong_models_stores_and_options_end_with_their_exit_codes(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = bert_classifier(tmp_path / "two", labels=("games", "mail"))
    student = (
        f"train-student --dev {files}/dev.jsonl --out {tmp_path}/out --method kd "
        f"--store {files}/store"
    )
    label_line = f"label --corpus {files}/more.txt.gz --store {files}/store"
    for code, message, line in (
        (5, "found 2 labels here and 3 labels", f"{student} --model {two}"),
        (5, "expected a model folder", f"{student} --model {tmp_path}/nothing"),
        (2, "--temperature", f"{student} --model {files}/encoder --temperature 0"),
        (4, "store", f"{student} --model {files}/encoder --store {tmp_path}/nothing"),
        (4, "teacher", f"{label_line} --teacher torch --model {files}/teacher"),
        (5, "--provider cuda", f"{label_line} --model {files}/bundle --provider cuda"),
        (3, "folder", f"evaluate {files}/student --test {files}"),
        (2, "--test is missing", f"evaluate {files}/student"),
        (2, "'sideways'", f"{student} --model {files}/encoder --schedule sideways"),
    ):
        found, text = failure(capsys, line)
        assert found == code, (line, text)
        assert message in text, (line, text)


def test_a_full_disk_is_named_and_finished_shards_stay(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    import errno
    import os

    fsync, calls = os.fsync, iter(range(10_000))

    def full(descriptor: int) -> None:
        if next(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    line = (
        f"label --model {files}/bundle --corpus {files}/more.txt.gz --store {tmp_path}/store "
        "--shard-rows 4"
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, text = failure(capsys, line)
    assert code == 6 and "No space left" in text
    done = result(capsys, f"store info {tmp_path}/store")
    assert not done["complete"] and done["num_shards_done"] > 0
    assert result(capsys, line)["num_resumed_rows"] == done["num_rows_done"]


def test_objectives_options_reach_the_training(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        f"label --teacher torch --model {files}/teacher --store {tmp_path}/second --shard-rows 8 "
        f"--corpus {files}/labelled.jsonl {files}/more.txt.gz"
    )
    student = f"train-student --model {files}/multilingual --dev {files}/dev.jsonl"
    found = result(
        capsys,
        f"{student} --method kd --store {files}/store {tmp_path}/second --combine average "
        "--store-weight 0.7 0.3 --kd-loss kl --temperature 2 --temperature-on both --alpha 0.5 "
        f"--min-confidence 0.3 --out {tmp_path}/student",
        *SHORT,
    )
    # No row of three classes has less confidence than a third.
    assert found["counts"] == {
        "soft_rows": 36,
        "below_min_confidence_rows": 0,
        "of_them_gold_rows": 16,
    }
    run_of = json.loads((tmp_path / "student" / "monoxkit.json").read_text())["provenance"]["run"]
    assert run_of["store_weights"] == [0.7, 0.3]
    settings = ("temperature", "temperature_on", "kd_loss", "alpha", "min_confidence")
    assert [run_of[name] for name in settings] == [2.0, "both", "kl", 0.5, 0.3]
    line = (
        f"{student} --method self-training --labelled {files}/labelled.jsonl --unlabelled "
        f"{files}/more.txt.gz {files}/dev.jsonl --rounds 1 --threshold 0.3 --out {tmp_path}/own"
    )
    own = result(capsys, line, *SHORT)
    assert [each["num_steps"] for each in own["rounds"]] == [4, 4]
    assert sum(own["rounds"][1]["counts"].values()) == 16 + 20 + 9
    capsys.readouterr()
    run(line, *SHORT)
    table = capsys.readouterr().out
    assert "already trained" in table and "round 1" in table


def test_options_of_several_values_take_them_after_one_name() -> None:
    line = ["evaluate", "M", "--test", "a", "b", "--seed", "1"]
    assert spread(line, {"--test"}) == [
        *("evaluate", "M", "--test", "a", "--test", "b", "--seed", "1")
    ]
    assert spread(line, {"--seed"}) == line
    stores = ["--store", "a", "b", "--json"]
    assert _several(typer.main.get_command(build_app()), ["train-student", *stores]) >= {"--store"}
    assert "--store" not in _several(typer.main.get_command(build_app()), ["label", *stores])
