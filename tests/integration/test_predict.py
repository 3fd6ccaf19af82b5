"""Predicting: the door's model, files in every format, streams, and interruptions."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import monox_kit as mk
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.models.predict import Model
from monox_kit.prediction import PredictConfig, predict, predict_stream, run
from monoxkit_cli.app import main
from tests.notes import Notes
from tests.tiny_models import (
    LABELS,
    balanced_classifier,
    bert_classifier,
    labelled_rows,
    write_jsonl,
)

ROWS = labelled_rows(25, seed=4)
TEXTS = [row["text"] for row in ROWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch folder, its ONNX bundle, one of any number of labels, and a corpus."""
    work = tmp_path_factory.mktemp("predict")
    bert_classifier(work / "torch", seed=5)
    config = ExportConfig(model=str(work / "torch"), precision="fp32")
    export_model(config, work / "onnx")
    balanced_classifier(work / "multi", ROWS)
    path = work / "multi" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "problem_type": "multi_label_classification"}))
    write_jsonl(work / "rows.jsonl", ROWS)
    return work


def reference(model: Path) -> np.ndarray:
    """[N, C] logits of plain transformers, one text at a time."""
    plain = AutoModelForSequenceClassification.from_pretrained(str(model)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    with torch.inference_mode():
        return np.concatenate(
            [plain(**tokenizer(text, return_tensors="pt")).logits.numpy() for text in TEXTS]
        )


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_labels_and_probabilities_are_those_of_plain_transformers(
    folder: Path, backend: str
) -> None:
    expected = torch.from_numpy(reference(folder / "torch")).double().softmax(1).numpy()
    found = mk.load(str(folder / backend)).predict(TEXTS, top_k=2)
    assert [one.label for one in found] == [LABELS[index] for index in expected.argmax(1)]
    np.testing.assert_allclose([one.probability for one in found], expected.max(1), atol=1e-5)
    for row, one in enumerate(found):
        best = np.argsort(-expected[row])[:2]
        assert [name for name, _ in one.top] == [LABELS[index] for index in best]
        np.testing.assert_allclose([value for _, value in one.top], expected[row, best], atol=1e-5)


def test_any_number_of_labels_is_decided_class_by_class(folder: Path) -> None:
    expected = torch.from_numpy(reference(folder / "multi")).double().sigmoid().numpy()
    model = mk.load(str(folder / "multi"))
    found = model.predict(TEXTS)
    for row, one in enumerate(found):
        chosen = np.flatnonzero(expected[row] > 0.5)
        assert one.label == tuple(LABELS[index] for index in chosen)
        np.testing.assert_allclose(one.probability, expected[row, chosen], atol=1e-5)
    assert len({one.label for one in found}) > 1
    np.testing.assert_allclose(model.probabilities(TEXTS), expected, atol=1e-5)


def test_pairs_are_predicted_as_pairs(folder: Path) -> None:
    model = mk.load(str(folder / "torch"))
    pairs = [(text, "alpha") for text in TEXTS]
    plain = AutoModelForSequenceClassification.from_pretrained(str(folder / "torch")).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "torch"))
    with torch.inference_mode():
        expected = plain(**tokenizer(TEXTS[0], "alpha", return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(model.logits(pairs)[:1], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "kind", "part"),
    [
        ("one text", ConfigError, "one text"),
        (["good", " "], CorpusError, "texts[1]"),
        (["good", 3], CorpusError, "texts[1]"),
        (["good", ("a", "b", "c")], CorpusError, "texts[1]"),
        (["good", ("a", "b")], ConfigError, "1 pairs among 2"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(
    folder: Path, texts: Any, kind: type[Exception], part: str
) -> None:
    with pytest.raises(kind) as found:
        mk.load(str(folder / "onnx")).predict(texts)
    assert part in str(found.value)
    assert mk.load(str(folder / "onnx")).predict([]) == []


def configured(folder: Path, **settings: Any) -> PredictConfig:
    source = CorpusConfig(paths=(str(folder / "rows.jsonl"),))
    return PredictConfig(model=str(folder / "onnx"), input=source, **settings)


def expected_rows(folder: Path) -> list[dict[str, Any]]:
    """What the output says, by the door's own model."""
    model = mk.load(str(folder / "onnx"))
    found = zip(ROWS, model.predict(TEXTS), model.probabilities(TEXTS), model.logits(TEXTS))
    return [
        {
            "id": row["id"],
            "lang": "en",
            "label": one.label,
            "probability": one.probability,
            "text": row["text"],
            "probabilities": dict(zip(LABELS, probabilities.tolist())),
            "logits": dict(zip(LABELS, logits.tolist())),
        }
        for row, one, probabilities, logits in found
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_every_format_holds_the_same_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run, "PART_ROWS", 7)
    config = configured(folder, text=True, probabilities=True, logits=True)
    summary = predict(config, tmp_path / name)
    assert summary.num_rows == 25 and sum(summary.labels.values()) == 25
    if name == "out.jsonl":
        found = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    else:
        flat = (
            pq.read_table(tmp_path / name).to_pylist()
            if name == "out.parquet"
            else list(csv.DictReader(io.StringIO((tmp_path / name).read_text())))
        )
        found = [
            {key: row[key] for key in ("id", "lang", "label", "text")}
            | {"probability": float(row["probability"])}
            | {
                kind: {label: float(row[f"{kind}.{label}"]) for label in LABELS}
                for kind in ("probabilities", "logits")
            }
            for row in flat
        ]
    for row, expected in zip(found, expected_rows(folder), strict=True):
        for key, value in expected.items():
            if isinstance(value, (float, dict)):
                assert row[key] == pytest.approx(value, abs=1e-6)
            else:
                assert row[key] == value


def test_an_interrupted_run_goes_on_and_a_finished_one_returns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PART_ROWS", 7)
    whole = predict(configured(folder), tmp_path / "whole.jsonl")
    scored: list[int] = []
    score = Model.score

    def stop_at_third(model: Model, documents: Any, **settings: Any) -> Any:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(documents))
        return score(model, documents, **settings)

    monkeypatch.setattr(Model, "score", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        predict(configured(folder), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(ConfigError) as refused:
        predict(configured(folder, text=True), tmp_path / "out.jsonl")
    assert "text" in str(refused.value)
    monkeypatch.setattr(Model, "score", score)
    resumed = predict(configured(folder), tmp_path / "out.jsonl")
    assert resumed.num_resumed_rows == 14 and resumed.num_rows == 25
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert resumed.labels == whole.labels and resumed.digest == whole.digest
    monkeypatch.setattr(Model, "score", stop_at_third)  # nothing is scored again
    assert predict(configured(folder), tmp_path / "out.jsonl").reused
    names = {path.name for path in tmp_path.iterdir()}
    assert {"out.jsonl", "out.jsonl.run.json"} <= names
    assert not [name for name in names if name.endswith(".parts")]
    (tmp_path / ".out.jsonl.parts").mkdir()  # as a kill leaves it while the parts are removed
    (tmp_path / ".out.jsonl.parts" / "000000002.parquet").write_bytes(b"")
    assert predict(configured(folder), tmp_path / "out.jsonl").reused
    assert not (tmp_path / ".out.jsonl.parts").exists()


def test_a_row_has_its_files_language_where_it_names_none(folder: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in ROWS[:3]]
    for name in ("a.de.jsonl", "b_fr.jsonl", "c.jsonl"):
        write_jsonl(tmp_path / name, [*rows, {**rows[0], "lang": "ja"}])
    paths = [str(tmp_path / name) for name in ("a.de.jsonl", "b_fr.jsonl", "c.jsonl")]
    out = tmp_path / "out.jsonl"
    mk.predict(str(folder / "onnx"), input=paths, language="c.jsonl=it", out=out)
    found = [json.loads(line)["lang"] for line in out.read_text().splitlines()]
    assert found == [*(["de"] * 3), "ja", *(["fr"] * 3), "ja", *(["it"] * 3), "ja"]
    with pytest.raises(ConfigError, match="languages"):
        mk.predict(str(folder / "onnx"), input=paths, out=out)


def test_what_another_program_wrote_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ConfigError) as found:
        predict(configured(folder), tmp_path / "out.csv")
    assert "out.csv" in str(found.value)
    assert (tmp_path / "out.csv").read_text() == "mine"
    with pytest.raises(ConfigError):
        predict(configured(folder), tmp_path / "out.doc")
    predict(configured(folder), tmp_path / "changed.jsonl")
    with (tmp_path / "changed.jsonl").open("a") as stream:
        stream.write("{}\n")
    with pytest.raises(ConfigError) as changed:
        predict(configured(folder), tmp_path / "changed.jsonl")
    assert "changed.jsonl" in str(changed.value)


class Reads(io.RawIOBase):
    """A stream that gives one piece a read, as a pipe does."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def read(self, size: int = -1) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_stream_is_answered_line_by_line(folder: Path) -> None:
    out = io.BytesIO()
    config = configured(folder)
    pieces = [f"{TEXTS[0]}\n{TEXTS[1][:3]}".encode(), f"{TEXTS[1][3:]}\n{TEXTS[2]}".encode()]
    assert predict_stream(config, Reads(pieces), out) == 3
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    expected = expected_rows(folder)[:3]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["id"] for row in found] == ["0", "1", "2"]
    out = io.BytesIO()
    source = CorpusConfig(paths=("-",), format="jsonl")
    config = PredictConfig(model=str(folder / "onnx"), input=source)
    lines = [json.dumps(ROWS[0]).encode() + b"\n", b'{"text": ""}\n']
    with pytest.raises(CorpusError) as found_error:
        predict_stream(config, Reads(lines), out)
    assert "line 2" in str(found_error.value)
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == ["row-0"]


def test_the_command_predicts_files_and_streams(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"predict {folder}/onnx --input {folder}/rows.jsonl --out {tmp_path}/out.csv --json"
    assert main(line.split()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["num_rows"] == 25 and shown["format"] == "csv"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "monoxkit_cli", "predict", f"{folder}/onnx"),
            *("--input", "-", "--out", "-", "--probabilities"),
        ],
        input="\n".join(TEXTS[:2]),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [row["label"] for row in answers] == [row["label"] for row in expected_rows(folder)[:2]]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in answers)
    line = f"predict {folder}/onnx --input {folder}/rows.jsonl --out {tmp_path}/out.doc"
    assert main(line.split()) == 2
    assert "--out-format" in capsys.readouterr().err


def test_what_the_cut_takes_is_told(folder: Path) -> None:
    whole, long = "a text", " ".join(TEXTS)
    model = mk.load(str(folder / "onnx"), max_length=8)
    assert [one.truncated for one in model.predict([whole, long, whole])] == [False, True, False]
    progress = Notes()
    config = PredictConfig(
        model=str(folder / "onnx"), input=CorpusConfig(paths=("-",)), max_length=8
    )
    lines = [f"{whole}\n{long}\n".encode(), f"{long}\n\n".encode()]
    out = io.BytesIO()
    # A bad row ends the stream; what was cut before is told once all the same.
    with pytest.raises(CorpusError, match="line 4"):
        predict_stream(config, Reads(lines), out, progress=progress)
    assert len(out.getvalue().splitlines()) == 3
    (note,) = progress.notes
    assert note.startswith("2 of 3 rows were truncated to 8 tokens")


def test_a_stream_is_read_in_its_encoding(folder: Path) -> None:
    def answered(pieces: list[bytes], encoding: str, out: io.BytesIO) -> list[str]:
        source = CorpusConfig(paths=("-",), encoding=encoding)
        config = PredictConfig(model=str(folder / "onnx"), input=source, text=True)
        predict_stream(config, Reads(pieces), out)
        return [json.loads(line)["text"] for line in out.getvalue().splitlines()]

    texts = ["caf\u00e9", "na\u00efve", "\u20ac 5"]
    for encoding in ("cp1252", "utf-16", "utf-8"):
        content = "\n".join(texts).encode(encoding)
        # Cut in the midst of characters.
        assert answered([content[:7], content[7:]], encoding, io.BytesIO()) == texts
    out = io.BytesIO()
    with pytest.raises(CorpusError, match="line 3: expected cp1252"):
        answered([b"one\ntwo\nth\x81\n"], "cp1252", out)
    assert [json.loads(line)["text"] for line in out.getvalue().splitlines()] == ["one", "two"]
