"""The demo's recipe on tiny models: whole, reused, and continued from every stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from monox_kit.demo import recipe
from monox_kit.demo.config import DemoConfig
from monox_kit.demo.recipe import run_demo
from monox_kit.demo.stages import Stages
from monox_kit.errors import ConfigError, CorpusError, ModelError, OtherRun
from monox_kit.exporting.search import Search
from monox_kit.labelling import run as labelling
from monox_kit.report import accuracy_rows, write_report
from monox_kit.training.loop import Trainer
from tests.notes import Notes
from tests.tiny_models import LABELS, bert_encoder, labelled_rows, write_jsonl


class Killed(BaseException):
    """Stands for a signal in the middle of a run."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DemoConfig:
    folder = tmp_path_factory.mktemp("demo")
    data = folder / "data"
    write_jsonl(data / "labelled.jsonl", labelled_rows(16, seed=1))
    write_jsonl(data / "dev.jsonl", labelled_rows(9, seed=2))
    unlabelled = [{"id": row["id"], "text": row["text"]} for row in labelled_rows(20, seed=3)]
    write_jsonl(data / "unlabelled.jsonl", unlabelled)
    for seed, language in enumerate(("en", "de", "ja")):
        rows = [{**row, "lang": language} for row in labelled_rows(24, seed=10 + seed)]
        write_jsonl(data / f"test.{language}.jsonl", rows)
    (data / "labels.json").write_text(json.dumps({"names": list(LABELS)}))
    return DemoConfig(
        data=data,
        teacher_model=str(bert_encoder(folder / "english")),
        student_model=str(bert_encoder(folder / "multilingual", seed=1)),
        teacher_max_length=32,
        max_length=32,
        teacher_steps=4,
        student_steps=4,
        freeze_layers=1,
    )


@pytest.fixture(scope="module")
def run(config: DemoConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run_demo(config, out)
    return out


def test_the_table_has_every_language_and_system(config: DemoConfig, run: Path) -> None:
    report = run_demo(config, run)
    header, *rows = accuracy_rows(report.scores)
    assert header[:6] == ["language", "rows", "teacher", "ce", "pl", "kd"]
    assert [row[0] for row in rows[:4]] == ["en", "de", "ja", "target average"]
    assert rows[0][2] != "-" and rows[1][2] == "-"  # the teacher reads English alone
    assert report.training["kd"]["counts"] == {"soft_rows": 36}
    assert report.training["ce"]["num_steps"] == report.training["pl"]["num_steps"] == 4
    assert report.agreement["num_texts"] == 72
    for path in write_report(report, run):
        assert path.stat().st_size > 1000


def test_without_an_english_test_set_the_teacher_is_not_tested(
    config: DemoConfig, run: Path, tmp_path: Path
) -> None:
    import shutil

    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(config.data or "", data)
    (data / "test.en.jsonl").unlink()
    shutil.copytree(run, out)  # models and store are those of the whole run
    notes = Notes()
    report = run_demo(replace(config, data=data), out, progress=notes)
    assert any("test.en.jsonl" in note for note in notes.notes)
    assert any(note.startswith("[14/14]") for note in notes.notes)
    header, *rows = accuracy_rows(report.scores)
    assert header[:5] == ["language", "rows", "ce", "pl", "kd"]
    assert [row[0] for row in rows[:3]] == ["de", "ja", "target average"]
    page = write_report(report, out)[0].read_text(encoding="utf-8")
    assert "the teacher in none" in page and "teacher reads English" not in page


def test_a_second_run_computes_nothing(
    config: DemoConfig, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_demo(config, run)
    written = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for place, name in (
        (Trainer, "fit"),
        (Search, "keep_best"),
        (labelling, "label_shards"),
        (recipe, "load_model"),
    ):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("computed again"))
    assert run_demo(config, run).to_json() == first.to_json()
    again = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path for path in again if again[path] != written.get(path)} <= {run / "settings.json"}


@pytest.mark.parametrize("stage", [6, 13])
def test_a_run_that_was_stopped_continues(
    config: DemoConfig, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    start = Stages._start

    def stop(self: Stages, name: str) -> object:
        if self._started == stage - 1:
            raise Killed
        return start(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_start", stop)
        with pytest.raises(Killed):
            run_demo(config, tmp_path / "run")
    assert len(list((tmp_path / "run" / "stages").glob("*.json"))) == stage - 1
    continued, whole = run_demo(config, tmp_path / "run"), run_demo(config, run)
    for method in ("ce", "pl", "kd"):
        assert continued.training[method]["history"] == whole.training[method]["history"]
        ours, theirs = (r.evaluations[method]["languages"] for r in (continued, whole))
        assert ours == theirs


def test_changed_data_runs_the_stages_that_depend_on_it(
    config: DemoConfig, run: Path, tmp_path: Path
) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(config.data or "", data)
    changed = replace(config, data=data)
    shutil.copytree(run, tmp_path / "run")
    run_demo(changed, tmp_path / "run")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "stages").iterdir()}
    rows = [{**row, "lang": "de"} for row in labelled_rows(24, seed=99)]
    write_jsonl(data / "test.de.jsonl", rows)
    run_demo(changed, tmp_path / "run")
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "stages").iterdir()}
    again = {name.removesuffix(".json") for name in after if after[name] != before[name]}
    assert again >= {"data", "evaluate-ce", "evaluate-kd", "check-exported"}
    assert not again & {"train-teacher", "label", "train-student-ce", "export-teacher"}


def test_other_settings_run_the_stages_that_depend_on_them(
    config: DemoConfig, run: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    first = run_demo(config, tmp_path / "run")
    store = (tmp_path / "run" / "store" / "complete.json").stat().st_mtime_ns
    second = run_demo(replace(config, student_steps=5), tmp_path / "run")
    assert [second.training[m]["num_steps"] for m in ("ce", "pl", "kd")] == [5, 5, 5]
    assert second.training["teacher"] == first.training["teacher"]
    assert (tmp_path / "run" / "store" / "complete.json").stat().st_mtime_ns == store


def test_a_stage_whose_folder_is_gone_runs_again(
    config: DemoConfig, run: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    first = run_demo(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "teacher")
    second = run_demo(config, tmp_path / "run")
    assert second.training["teacher"]["history"] == first.training["teacher"]["history"]
    assert (tmp_path / "run" / "teacher" / "model.safetensors").is_file()


def test_a_stage_is_believed_before_the_demos_own_record_of_it(
    config: DemoConfig, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    whole = run_demo(config, run)
    shutil.copytree(run, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    # Killed after a model was there and before it was noted; a note of another model is left.
    (stages / "train-student-kd.json").unlink()
    other = json.loads((stages / "train-student-pl.json").read_text())
    other["result"]["dev_accuracy"] = 0.999
    (stages / "train-student-pl.json").write_text(json.dumps(other))
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: pytest.fail("trained again"))
    found = run_demo(config, tmp_path / "run")
    for method, is_kept in (("ce", True), ("pl", False), ("kd", False)):
        ours, theirs = found.training[method], whole.training[method]
        assert ours["dev_accuracy"] == theirs["dev_accuracy"]
        assert ours["history"] == theirs["history"]
        assert ours["reused"] is not is_kept


def test_what_is_no_run_of_ours_is_not_removed(
    config: DemoConfig, run: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ce")
    (tmp_path / "run" / "ce").mkdir()
    (tmp_path / "run" / "ce" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError) as refused:
        run_demo(config, tmp_path / "run")
    assert not isinstance(refused.value, OtherRun)
    assert str(tmp_path / "run" / "ce") in str(refused.value)
    assert (tmp_path / "run" / "ce" / "thesis.tex").read_text() == "years of work"


def test_bad_data_is_found_before_any_training(
    config: DemoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(recipe, "train_teacher", lambda *_, **__: pytest.fail("trained"))
    data = tmp_path / "data"
    shutil.copytree(config.data or "", data)
    write_jsonl(data / "test.de.jsonl", [{"text": "alpha", "label": "zzz"}])
    with pytest.raises(CorpusError, match="'zzz'"):
        run_demo(replace(config, data=data), tmp_path / "run")
    for path in data.glob("test.*.jsonl"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"missing: test\.LANG\.jsonl"):
        run_demo(replace(config, data=data), tmp_path / "run")
    with pytest.raises(ModelError, match="expected a model folder"):
        run_demo(replace(config, student_model=str(tmp_path / "no")), tmp_path / "run")


def test_missing_files_are_named(config: DemoConfig, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.jsonl").touch()
    wanted = (
        r"missing: labelled\.jsonl, unlabelled\.jsonl, labels\.json, test\.LANG\.jsonl; "
        r"found: dev\.jsonl\."
    )
    with pytest.raises(CorpusError, match=wanted):
        run_demo(replace(config, data=tmp_path / "data"), tmp_path / "run")


def test_a_folder_of_other_files_is_not_touched(config: DemoConfig, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="found other files"):
        run_demo(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
