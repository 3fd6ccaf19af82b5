"""The gate at the export's seam: a fault in one language is found, and nothing is claimed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError, CorpusError, GateError, OtherRun
from monox_kit.exporting import ExportConfig, build, export_model
from monox_kit.exporting.candidates import RefusedExport
from monox_kit.exporting.check_rows import read_check_rows
from monox_kit.exporting.gate import FAILED, NOT_SHOWN, PASSED
from monox_kit.models.folder import BundleRecord
from monox_kit.progress import Silent
from monoxkit_cli.app import main
from monoxkit_cli.export import COMMAND
from monoxkit_cli.render import emit
from tests.notes import Notes
from tests.tiny_models import LABELS, WORDS, balanced_classifier, write_jsonl

LANGUAGES = ("bg", "cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "sv")
# The words that one language alone has, as a script has rows of the embedding of its own.
OTHER, OWN = WORDS[:24], WORDS[24:]
# Steps of the coarse rounding: 16 of each sign, 5 bits in place of 24.
STEPS = 16
# Read by language as they are named; a fault in one is 0.24 points of the average.
ROWS = 400


def words(picked: tuple[str, ...], count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(picked, random.integers(2, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": text} for text in words(OTHER, 300, 0) + words(OWN, 300, 1)]
    return balanced_classifier(tmp_path_factory.mktemp("model") / "model", rows)


@pytest.fixture(scope="module")
def texts(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fourteen files of labelled text; PyTorch is right on nine rows of ten."""
    folder = tmp_path_factory.mktemp("texts")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(model))
    torch_model = BertForSequenceClassification.from_pretrained(str(model)).eval()
    for seed, language in enumerate((*LANGUAGES, "el")):
        found = words(OWN if language == "el" else OTHER, ROWS + 60, 10 + seed)
        with torch.inference_mode():
            logits = torch_model(**tokenizer(found, padding=True, return_tensors="pt")).logits
        labels = logits.argmax(-1).tolist()
        rows = [
            {"id": f"{language}-{at}", "text": text, "label": LABELS[(label + (at % 10 == 0)) % 3]}
            for at, (text, label) in enumerate(zip(found, labels))
        ]
        write_jsonl(folder / f"test.{language}.jsonl", rows)
    return str(folder / "test.*.jsonl")


def coarse_rows(precision: str, source: Path, folder: Path, calibration: object) -> None:
    """A quantizer that rounds the embeddings of one language's words coarsely, and nothing else."""
    model = onnx.load(str(source / "model.onnx"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(coarse_rows.tokenizer))  # type: ignore[attr-defined]
    ids = {
        each: {*tokenizer(" ".join(each), add_special_tokens=False)["input_ids"]}
        for each in (OTHER, OWN)
    }
    rows = sorted(ids[OWN] - ids[OTHER])
    (table,) = (
        one
        for one in model.graph.initializer
        if one.dims == [len(tokenizer), 32] and "word" in one.name
    )
    values = onnx.numpy_helper.to_array(table).copy()
    step = np.abs(values[rows]).max() / STEPS
    values[rows] = np.round(values[rows] / step) * step
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    onnx.save(model, str(folder / "model.onnx"))


def asked(model: Path, texts: str, gate: str, **settings: Any) -> ExportConfig:
    settings = {"graph": "opset23", "check_rows": ROWS, "calibration_rows": 56} | settings
    check = CorpusConfig(paths=(texts,))
    return ExportConfig(model=str(model), check=check, gate=tuple(gate.split(",")), **settings)


@pytest.fixture
def fault(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse_rows, "tokenizer", model, raising=False)
    monkeypatch.setattr(build, "write_quantized", coarse_rows)


@pytest.mark.usefixtures("fault")
def test_a_fault_in_one_language_is_caught_while_the_average_hardly_moves(
    model: Path, texts: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = asked(model, texts, "agreement=0.99,worst=0.985", precision="int8")
    with pytest.raises(GateError, match=r"el: same label 9.* worst=0\.985") as caught:
        export_model(config, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    refused = caught.value.result
    assert isinstance(refused, RefusedExport) and refused.gate is not None
    report = refused.gate
    assert report.verdict == FAILED
    failed = [(one.threshold, one.language) for one in report.findings if one.verdict == FAILED]
    assert failed == [("worst", "el")]
    # By the average nothing would be seen: labels and accuracy move by less than 0.3 points.
    by_language = report.languages.values()
    assert 0 < 100 * np.mean([1 - one.agreement.value for one in by_language]) < 0.3
    assert abs(np.mean([one.drop.value for one in by_language if one.drop])) < 0.3
    assert report.total.agreement.low > 0.99
    assert report.languages["el"].num_rows == report.languages["de"].num_rows == ROWS
    assert refused.candidates["int8"]["gate"] == FAILED
    emit(refused, False, lambda: COMMAND.show(refused))
    shown = capfd.readouterr().out
    assert "gate: failed" in shown and "failed: worst" in shown


@pytest.mark.usefixtures("fault")
def test_the_fastest_that_passes_in_every_language_is_kept(
    model: Path, texts: str, tmp_path: Path
) -> None:
    config = asked(model, texts, "worst=0.985", precision="auto", candidates=("int8",))
    summary = export_model(config, tmp_path / "bundle")
    assert summary.chosen == "fp32"
    found = summary.candidates["int8"]
    # It runs as fast: only its labels, or its closeness, speak against it.
    assert "el: same label" in found["rejected"] or "slower" in found["rejected"]
    assert summary.gate is not None and summary.gate.verdict == PASSED
    record = BundleRecord.read(tmp_path / "bundle" / "monoxkit.json")
    assert record.checks["gate"] == json.loads(json.dumps(summary.gate.to_json()))
    assert export_model(config, tmp_path / "bundle").gate == summary.gate
    with pytest.raises(OtherRun, match="`gate` differs"):
        export_model(
            asked(model, texts, "worst=0.9", precision="auto", candidates=("int8",)),
            tmp_path / "bundle",
        )


def test_200_rows_do_not_show_99_and_a_half_percent_and_say_so(
    model: Path, texts: str, tmp_path: Path
) -> None:
    notes = Notes()
    config = asked(model, texts, "worst=0.995", check_rows=200)
    summary = export_model(config, tmp_path / "bundle", progress=notes)
    assert summary.gate is not None and summary.gate.verdict == NOT_SHOWN
    assert {one.agreement.value for one in summary.gate.languages.values()} == {1.0}
    assert {one.rows_needed for one in summary.gate.findings} == {736}
    before, after = (
        next(note for note in notes.notes if part in note)
        for part in ("not one that equals PyTorch either", "the bundle is in place, but")
    )
    assert "worst=0.995 needs 736 rows of bg, and there are 200" in before
    assert "same label 100.0 % (98.2 to 100.0) on 200 rows" in after
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "**not shown**" in card
    assert "| el | 200 | 100.0 % (98.2 to 100.0) |" in card


@pytest.mark.usefixtures("fault")
def test_the_command_shows_what_was_measured_and_ends_with_7(
    model: Path, texts: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(model), "--out", str(tmp_path / "bundle"), "--check", texts]
    command += ["--precision", "int8", "--graph", "opset23", "--check-rows", str(ROWS)]
    assert main([*command, "--gate", "worst=0.985,drop=5", "--json"]) == 7
    shown = capfd.readouterr()
    assert "GateError" in shown.err
    value = json.loads(shown.out)
    assert value["error"]["class"] == "GateError" and value["error"]["exit_code"] == 7
    assert value["gate"]["languages"]["el"]["drop"]["value"] > 0
    assert value["candidates"]["int8"]["gate"] == FAILED
    assert not (tmp_path / "bundle").exists()


def test_rows_are_of_each_language_and_none_is_learned_from_and_checked(
    model: Path, tmp_path: Path
) -> None:
    rows = [{"text": f"de {at}", "lang": "de"} for at in range(100)]
    rows += [{"text": f"ja {at}", "lang": "ja"} for at in range(9)] + [{"text": "none"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    notes = Notes()
    found = read_check_rows(
        asked(model, str(path), "worst=0.9", check_rows=20, calibration_rows=8), 32, notes
    )
    tags = [document.lang for document in found.check]
    assert {tag: tags.count(tag) for tag in tags} == {"de": 20, "ja": 7, "und": 1}
    assert tags[:5] == ["de", "ja", "und", "de", "ja"]
    checked, learned = ({d.row for d in part} for part in found)
    assert not checked & learned
    assert len(learned) == 5  # 3 of de, and a quarter of ja
    assert "28 rows of 3 languages" in notes.notes[-1]
    # A random sample: not the first rows, which may all be of one class.
    assert {d.row for d in found.check if d.lang == "de"} != set(range(20))


def test_labels_that_are_not_the_models_are_needed_for_a_drop_alone(
    model: Path, tmp_path: Path
) -> None:
    rows = [{"text": text, "label": "spam"} for text in words(OTHER, 40, 5)]
    path = str(write_jsonl(tmp_path / "test.de.jsonl", rows))
    notes = Notes()
    summary = export_model(asked(model, path, "kl=0.01"), tmp_path / "bundle", progress=notes)
    assert summary.gate is not None and summary.gate.languages["de"].drop is None
    assert any("accuracy is left out" in note and "spam" in note for note in notes.notes)
    with pytest.raises(CorpusError, match="spam"):
        export_model(asked(model, path, "drop=1"), tmp_path / "other")
    bare = str(write_jsonl(tmp_path / "bare.de.jsonl", [{"text": row["text"]} for row in rows]))
    with pytest.raises(CorpusError, match="drop"):
        export_model(asked(model, bare, "drop=1"), tmp_path / "other")


def test_too_few_rows_to_learn_and_check_are_refused(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "alpha", "lang": tag} for tag in ("de", "ja", "de")]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ConfigError, match="`check`"):
        read_check_rows(asked(model, str(path), "worst=0.9"), 32, Silent())
