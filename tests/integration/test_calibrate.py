"""Calibration at its public seams: calibrate, then predict, evaluate, export and trim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import MULTI_LABEL
from monox_kit.errors import ConfigError, CorpusError, ModelError, OtherRun
from monox_kit.evaluation import reliability
from monox_kit.models.record import BundleRecord
from monox_kit.objectives import confidence, probabilities
from monoxkit_cli.app import main
from tests.notes import Notes
from tests.store_samples import tree
from tests.tiny_models import LABELS, balanced_classifier, labelled_rows, write_jsonl

ROWS = {"en": 60, "de": 40, "ja": 6}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is right in part, rows of three languages, and the model calibrated."""
    folder = tmp_path_factory.mktemp("data")
    rows = labelled_rows(60, seed=1)
    balanced_classifier(folder / "model", rows)
    model = mk.load(str(folder / "model"))
    for at, (language, count) in enumerate(ROWS.items()):
        texts = labelled_rows(count, seed=at)
        said = model.predict([row["text"] for row in texts])
        surest = sorted(range(count), key=lambda at: (-said[at].probability, texts[at]["text"]))
        for place, (row, one) in enumerate((texts[at], said[at]) for at in surest):
            # The surer half is right, of the others one row in three; in Japanese none is.
            is_right = language != "ja" and (2 * place < count or place % 3 == 0)
            others = [name for name in LABELS if name != one.label]
            row["label"] = str(one.label) if is_right else others[place % 2]
            row["lang"] = language
        write_jsonl(folder / f"dev.{language}.jsonl", texts)
    calibrated(folder, folder / "sure")
    return folder


def calibrated(files: Path, out: Path, **settings: Any) -> mk.CalibrateSummary:
    given = {"precision": 0.7, "min_rows": 20, "num_resamples": 100, "model": str(files / "model")}
    dev = [str(files / f"dev.{language}.jsonl") for language in ROWS]
    return mk.calibrate(out=out, **{"dev": dev, **given, **settings})


def texts_of(files: Path, language: str) -> list[dict[str, str]]:
    lines = (files / f"dev.{language}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_each_language_has_its_own_temperature_and_threshold(files: Path) -> None:
    notes = Notes()
    found = calibrated(files, files / "again", progress=notes)
    assert list(found.languages) == ["en", "de", "ja"]
    assert [one.is_own for one in found.languages.values()] == [True, True, False]
    assert found.stand_in == ("en",)
    assert found.languages["ja"].temperatures == found.languages["en"].temperatures
    model = mk.load(str(files / "model"))
    for language in ("en", "de"):
        one, rows = found.languages[language], texts_of(files, language)
        logits = model.logits([row["text"] for row in rows])
        gold = np.array([LABELS.index(row["label"]) for row in rows])
        assert one.temperatures == reliability.best_temperature(model.problem, logits, gold)
        scaled = logits / np.float32(one.temperatures[0])
        sure = reliability.sureness(model.problem, scaled.astype(np.float32), gold)
        assert one.error_after == pytest.approx(reliability.calibration_error(sure), abs=1e-6)
        assert one.precision is not None and one.precision >= 0.7
        assert one.accuracy == pytest.approx((logits.argmax(axis=1) == gold).mean())
    told = " ".join(notes.notes)
    assert "ja: fewer than 20 rows" in told and "known to be optimistic" in told


def test_the_model_is_copied_as_it_is(files: Path) -> None:
    before, after = tree(files / "model"), tree(files / "sure")
    assert {name: after[name] for name in before if name != "README.md"} == before
    record = BundleRecord.read(files / "sure" / "monoxkit.json")
    assert record.calibration is not None and set(record.calibration.temperatures) == {
        *("*", "en", "de")
    }
    assert record.labels is not None and record.labels.names == LABELS
    assert "## Calibration" in (files / "sure" / "README.md").read_text()


def test_predictions_are_calibrated_and_may_abstain(files: Path, tmp_path: Path) -> None:
    plain, sure = (mk.load(str(files / name)) for name in ("model", "sure"))
    calibration = sure.calibration
    assert calibration is not None
    texts = [row["text"] for row in texts_of(files, "de")]
    logits = plain.logits(texts)
    for language, key in (("de", "de"), ("ja", "*"), (None, "*")):
        (temperature,) = calibration.temperatures[key]
        scaled = (logits.astype(np.float64) / temperature).astype(np.float32)
        expected = probabilities(scaled)
        np.testing.assert_allclose(
            sure.probabilities(texts, language=language), expected, rtol=1e-6
        )
        found = sure.predict(texts, language=language)
        assert [one.label for one in found] == [one.label for one in plain.predict(texts)]
        threshold = calibration.thresholds[key]
        wanted = [threshold is None or each < threshold for each in confidence(scaled)]
        assert [one.abstained for one in found] == wanted
    assert {one.abstained for one in sure.predict(texts, language="de")} == {True, False}
    assert all(one.abstained is None for one in plain.predict(texts))
    np.testing.assert_array_equal(sure.logits(texts), logits)  # logits are the model's own
    # Files: the language is the row's, or the file's.
    for name in ("model", "sure"):
        out = tmp_path / f"{name}.jsonl"
        dev = str(files / "dev.de.jsonl")
        mk.predict(str(files / name), input=dev, out=out, probabilities=True)
    rows = [json.loads(line) for line in (tmp_path / "sure.jsonl").read_text().splitlines()]
    found = sure.predict(texts, language="de")
    assert [row["abstained"] for row in rows] == [one.abstained for one in found]
    assert [row["probability"] for row in rows] == [one.probability for one in found]
    assert max(rows[0]["probabilities"].values()) == rows[0]["probability"]
    assert "abstained" not in json.loads((tmp_path / "model.jsonl").read_text().splitlines()[0])


def test_evaluation_reports_errors_and_what_is_answered(files: Path) -> None:
    tests = [str(files / f"dev.{language}.jsonl") for language in ROWS]
    plain, sure = (mk.evaluate(str(files / name), test=tests) for name in ("model", "sure"))
    found = calibrated(files, files / "sure")  # as it stands there
    assert found.reused
    for language, one in found.languages.items():
        before, after = plain.languages[language], sure.languages[language]
        assert before.calibration_error == pytest.approx(one.error_before)
        assert after.calibration_error == pytest.approx(one.error_after)
        assert before.coverage is None
        assert after.coverage == pytest.approx(one.coverage)
        assert after.answered_accuracy == pytest.approx(one.precision)
        assert (before.accuracy, before.num_rows) == (after.accuracy, after.num_rows)
    assert sure.wanted_precision == 0.7 and plain.wanted_precision is None


def test_one_temperature_for_all(files: Path, tmp_path: Path) -> None:
    found = calibrated(files, tmp_path / "one", temperature="one", precision=None)
    assert len({one.temperatures for one in found.languages.values()}) == 1
    assert found.calibration.thresholds == {}
    assert all(one.threshold is None for one in found.languages.values())
    model = mk.load(str(tmp_path / "one"))
    assert model.predict(["alpha game"])[0].abstained is None


def test_another_run_and_settings_that_do_not_fit_are_refused(files: Path, tmp_path: Path) -> None:
    before = tree(files / "sure")
    with pytest.raises(OtherRun, match="`precision`"):
        calibrated(files, files / "sure", precision=0.5)
    assert tree(files / "sure") == before
    with pytest.raises(ConfigError, match="`precision`"):
        calibrated(files, tmp_path / "x", precision=1.0)
    unlabelled = write_jsonl(tmp_path / "dev.jsonl", [{"text": "alpha"}])
    with pytest.raises(CorpusError):
        calibrated(files, tmp_path / "x", dev=str(unlabelled))


def test_thresholds_that_no_rows_reach_abstain_always(files: Path, tmp_path: Path) -> None:
    notes = Notes()
    dev = str(files / "dev.ja.jsonl")  # no row is right
    found = calibrated(
        files, tmp_path / "ja", dev=dev, min_rows=2, source_language="ja", progress=notes
    )
    assert found.calibration.thresholds == {"*": None, "ja": None}
    assert any("abstains there always" in note for note in notes.notes)
    assert any("at the bound" in note for note in notes.notes)
    model = mk.load(str(tmp_path / "ja"))
    assert all(one.abstained for one in model.predict(["alpha game", "beta mail"]))


def test_rows_of_no_language_stand_in_for_all(files: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in texts_of(files, "en")]
    dev = write_jsonl(tmp_path / "dev.jsonl", rows)
    found = calibrated(files, tmp_path / "out", dev=str(dev))
    known = calibrated(files, files / "sure")
    assert found.stand_in == ("und",)
    assert found.calibration.temperatures["*"] == known.calibration.temperatures["en"]
    with pytest.raises(CorpusError, match=r"`dev`: expected at least 61 rows.*found 60"):
        calibrated(files, tmp_path / "few", dev=str(dev), min_rows=61)
    assert not (tmp_path / "few").exists()


def test_another_provider_is_another_run(files: Path) -> None:
    """Runtimes compute other int8 logits, which have other temperatures."""
    path = files / "sure" / "monoxkit.json"
    record, kept = json.loads(path.read_text()), path.read_bytes()
    assert record["provenance"]["run"]["provider"] == "cpu"
    record["provenance"]["run"]["provider"] = "openvino"
    path.write_text(json.dumps(record))
    try:
        with pytest.raises(OtherRun, match="`provider`"):
            calibrated(files, files / "sure")
    finally:
        path.write_bytes(kept)


def test_rows_without_a_language_have_the_values_of_such_rows(files: Path, tmp_path: Path) -> None:
    rows = [
        {"text": row["text"], "label": row["label"], "lang": language if language == "en" else ""}
        for language in ("en", "ja")
        for row in texts_of(files, language)
    ]
    dev = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = calibrated(files, tmp_path / "out", dev=str(dev), min_rows=2)
    assert found.languages["und"].is_own
    model, plain = mk.load(str(tmp_path / "out")), mk.load(str(files / "model"))
    (temperature,) = found.languages["und"].temperatures
    assert temperature != found.calibration.temperatures["*"][0]
    texts = [row["text"] for row in texts_of(files, "ja")]
    expected = probabilities((plain.logits(texts) / np.float64(temperature)).astype(np.float32))
    np.testing.assert_allclose(model.probabilities(texts), expected, rtol=1e-6)
    assert all(one.abstained for one in model.predict(texts))  # none of them was right


def test_exports_and_trims_keep_the_calibration(files: Path, tmp_path: Path) -> None:
    dev = str(files / "dev.en.jsonl")
    mk.export(str(files / "sure"), out=tmp_path / "bundle", check=dev, graph="opset23")
    mk.trim(str(files / "sure"), corpus=dev, out=tmp_path / "small")
    expected = mk.load(str(files / "sure")).calibration
    for name in ("bundle", "small"):
        assert mk.load(str(tmp_path / name)).calibration == expected
    # A bundle is calibrated in the same way, with all of its files.
    bundle = calibrated(files, tmp_path / "sure", model=str(tmp_path / "bundle"))
    before, after = tree(tmp_path / "bundle"), tree(tmp_path / "sure")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"monoxkit.json", "README.md"}
    one = bundle.languages["en"].temperatures[0]
    assert one == pytest.approx(expected.temperatures["en"][0], rel=1e-3)  # type: ignore[union-attr]


def test_classes_that_do_not_exclude_each_other_are_calibrated_one_by_one(
    files: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"names": LABELS, "problem_type": MULTI_LABEL}))
    config = json.loads((files / "model" / "config.json").read_text())
    multi = tmp_path / "multi"
    multi.mkdir()
    for name, content in tree(files / "model").items():
        (multi / name).write_bytes(content)
    (multi / "config.json").write_text(json.dumps({**config, "problem_type": MULTI_LABEL}))
    model = mk.load(str(multi))
    rows = labelled_rows(40, seed=2)
    for place, (row, one) in enumerate(zip(rows, model.predict([row["text"] for row in rows]))):
        # Of every third row each class is wrong.
        names = [name for name in LABELS if (name in one.label) is bool(place % 3)]
        row["label"] = names  # type: ignore[assignment]
    dev = write_jsonl(tmp_path / "dev.en.jsonl", rows)
    found = mk.calibrate(str(multi), dev=str(dev), out=tmp_path / "sure", precision=0.6, min_rows=2)
    temperatures = found.languages["en"].temperatures
    assert len(temperatures) == 3 and len(set(temperatures)) > 1
    sure = mk.load(str(tmp_path / "sure"))
    text = [row["text"] for row in rows]
    expected = 1 / (1 + np.exp(-model.logits(text) / np.array(temperatures)))
    np.testing.assert_allclose(sure.probabilities(text, language="en"), expected, rtol=1e-5)
    assert [one.label for one in sure.predict(text)] == [one.label for one in model.predict(text)]


DAMAGE: dict[str, Any] = {
    "not an object": [],
    "a key too many": {"temperatures": {"*": [1]}, "precision": None, "thresholds": {}, "x": 1},
    "no stand-in": {"temperatures": {"en": [1]}, "precision": None, "thresholds": {}},
    "0": {"temperatures": {"*": [0]}, "precision": None, "thresholds": {}},
    "infinite": {"temperatures": {"*": [1e999]}, "precision": None, "thresholds": {}},
    "text": {"temperatures": {"*": ["1"]}, "precision": None, "thresholds": {}},
    "of other classes": {"temperatures": {"*": [1, 1]}, "precision": None, "thresholds": {}},
    "thresholds of others": {
        "temperatures": {"*": [1]},
        "precision": 0.9,
        "thresholds": {"en": 0.5},
    },
    "a threshold above 1": {
        "temperatures": {"*": [1]},
        "precision": 0.9,
        "thresholds": {"*": 1.5},
    },
    "no precision": {"temperatures": {"*": [1]}, "precision": None, "thresholds": {"*": 0.5}},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_calibration_is_told(files: Path, tmp_path: Path, name: str) -> None:
    record = json.loads((files / "sure" / "monoxkit.json").read_text())
    path = tmp_path / "monoxkit.json"
    path.write_text(json.dumps({**record, "calibration": DAMAGE[name]}))
    with pytest.raises(ModelError, match="calibration"):
        BundleRecord.read(path)


def test_the_commands(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = [str(files / f"dev.{language}.jsonl") for language in ROWS]
    line = ["calibrate", str(files / "model"), "--dev", *dev, "--precision", "0.7"]
    assert main([*line, "--min-rows", "20", "--out", str(tmp_path / "sure")]) == 0
    shown = capsys.readouterr().out
    assert "Thresholds for 70 % right answers" in shown and "stand" not in shown.lower()
    assert main(["evaluate", str(tmp_path / "sure"), "--test", *dev]) == 0
    assert "answered" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "sure"), "--test", *dev, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = mk.load(str(files / "model"))
    logits = model.logits([row["text"] for row in texts_of(files, "de")])
    (temperature,) = mk.load(str(tmp_path / "sure")).calibration.temperatures["de"]  # type: ignore[union-attr]
    threshold = mk.load(str(tmp_path / "sure")).calibration.thresholds["de"]  # type: ignore[union-attr]
    sure = confidence((logits / temperature).astype(np.float32))
    assert found["languages"]["de"]["coverage"] == pytest.approx((sure >= threshold).mean())
