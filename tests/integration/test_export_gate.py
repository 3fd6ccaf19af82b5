"""The gate at the export's seam: a fault in one language is found, and nothing is claimed."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, CorpusError, OtherRun
from monox_kit.exporting import ExportConfig, build, export_model
from monox_kit.exporting.candidates import RefusedExport, Subject
from monox_kit.exporting.check_rows import gold_labels, read_check_rows
from monox_kit.exporting.gate import FAILED, NOT_SHOWN, PASSED, GateReport
from monox_kit.exporting.mixed import costliest
from monox_kit.exporting.search import Search
from monox_kit.models.folder import BundleRecord
from monox_kit.problem import problem_of
from monox_kit.progress import Silent
from monoxkit_cli.app import main
from monoxkit_cli.export import COMMAND
from monoxkit_cli.render import emit
from tests.notes import Notes
from tests.tiny_models import LABELS, WORDS, balanced_classifier, write_jsonl

LANGUAGES = ("bg", "cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "sv")
# The words that one language alone has, as a script has rows of the embedding of its own.
OTHER, OWN = WORDS[:24], WORDS[24:]
# Steps of the coarse rounding, of each sign: 4 bits in place of 24.
STEPS = 8
# Rows of a language, of which 400 are checked. The fault changes 14 of them, 3 %: of fourteen
# languages' average that is 0.2 points.
ROWS, SPARE, CHANGED = 400, 60, 14


def words(picked: tuple[str, ...], count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(picked, random.integers(2, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": text} for text in words(OTHER, 300, 0) + words(OWN, 300, 1)]
    return balanced_classifier(tmp_path_factory.mktemp("model") / "model", rows)


def own_rows(tokenizer: Any) -> list[int]:
    """The rows of the word embeddings that the words of one language alone are looked up in."""
    ids = {
        each: {*tokenizer(" ".join(each), add_special_tokens=False)["input_ids"]}
        for each in (OTHER, OWN)
    }
    return sorted(ids[OWN] - ids[OTHER])


def rounded(values: np.ndarray, rows: list[int]) -> np.ndarray:
    """A table whose rows are rounded coarsely where they are one language's."""
    changed = values.copy()
    step = np.abs(values[rows]).max() / STEPS
    changed[rows] = np.round(values[rows] / step) * step
    return changed


@pytest.fixture(scope="module")
def texts(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fourteen files of labelled text; PyTorch is right on nine rows of ten."""
    folder = tmp_path_factory.mktemp("texts")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(model))
    torch_model = BertForSequenceClassification.from_pretrained(str(model)).eval()

    def labels_of(found: list[str]) -> np.ndarray:
        with torch.inference_mode():
            inputs = tokenizer(found, padding=True, return_tensors="pt")
            return torch_model(**inputs).logits.argmax(-1).numpy()

    for seed, language in enumerate(LANGUAGES):
        found = words(OTHER, ROWS + SPARE, 10 + seed)
        write_labelled(folder / f"test.{language}.jsonl", found, labels_of(found))
    pool = np.array(words(OWN, 3000, 1))
    before = labels_of(pool.tolist())
    table = torch_model.get_input_embeddings().weight
    with torch.no_grad():
        table.copy_(torch.from_numpy(rounded(table.numpy(), own_rows(tokenizer))))
    is_changed = labels_of(pool.tolist()) != before
    # How many texts the fault changes depends on the random model: here it is a known share.
    kept = np.flatnonzero(~is_changed)[: ROWS + SPARE - CHANGED]
    changed = np.flatnonzero(is_changed)[:CHANGED]
    assert len(changed) == CHANGED
    rows = np.concatenate([kept, changed])
    write_labelled(folder / "test.el.jsonl", pool[rows].tolist(), before[rows])
    return str(folder / "test.*.jsonl")


def write_labelled(path: Path, found: list[str], labels: np.ndarray) -> None:
    rows = [
        {"id": str(at), "text": text, "label": LABELS[(label + (at % 10 == 0)) % 3]}
        for at, (text, label) in enumerate(zip(found, labels.tolist()))
    ]
    write_jsonl(path, rows)


def coarse_rows(precision: str, source: Path, folder: Path, calibration: object) -> None:
    """A quantizer that rounds the embeddings of one language's words coarsely, and nothing else."""
    model = onnx.load(str(source / "model.onnx"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(coarse_rows.tokenizer))  # type: ignore[attr-defined]
    (table,) = (
        one
        for one in model.graph.initializer
        if one.dims == [len(tokenizer), 32] and "word" in one.name
    )
    values = rounded(onnx.numpy_helper.to_array(table), own_rows(tokenizer))
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    onnx.save(model, str(folder / "model.onnx"))


def asked(model: Path, texts: str, gate: str, **settings: Any) -> ExportConfig:
    settings = {"graph": "opset23", "check_rows": ROWS, "calibration_rows": 56} | settings
    check = CorpusConfig(paths=(texts,))
    return ExportConfig(model=str(model), check=check, gate=tuple(gate.split(",")), **settings)


def set_rates(monkeypatch: pytest.MonkeyPatch, rates: dict[str, float]) -> None:
    """Let every candidate run at a known speed."""

    def rate(search: Search, graph: object) -> float:
        return rates[next(name for name, one in search._graphs.items() if one is graph)]

    monkeypatch.setattr(Search, "_rate", rate)


@pytest.fixture
def fault(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse_rows, "tokenizer", model, raising=False)
    monkeypatch.setattr(build, "write_quantized", coarse_rows)


@pytest.mark.usefixtures("fault")
def test_a_fault_in_one_language_is_caught_while_the_average_hardly_moves(
    model: Path, texts: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(model), "--out", str(tmp_path / "bundle"), "--check", texts]
    command += ["--precision", "int8-embedding", "--graph", "opset23", "--json"]
    command += ["--check-rows", str(ROWS), "--gate", "agreement=0.99,worst=0.99"]
    assert main(command) == 7
    shown = capfd.readouterr()
    assert not (tmp_path / "bundle").exists()
    assert "GateError" in shown.err and "el: same label 9" in shown.err
    value = json.loads(shown.out)
    assert value["error"]["class"] == "GateError" and value["error"]["exit_code"] == 7
    assert value["candidates"]["int8-embedding"]["gate"] == FAILED
    report = GateReport.from_json(value["gate"], Path("stdout"))
    assert report.verdict == FAILED
    failed = [(one.threshold, one.language) for one in report.findings if one.verdict == FAILED]
    assert failed == [("worst", "el")]
    # By the average nothing would be seen: labels and accuracy move by less than 0.3 points.
    by_language = report.languages.values()
    assert 0 < 100 * np.mean([1 - one.agreement.value for one in by_language]) < 0.3
    assert abs(np.mean([one.drop.value for one in by_language if one.drop])) < 0.3
    assert report.total.agreement.low > 0.99
    assert report.languages["el"].num_rows == report.languages["de"].num_rows == ROWS
    refused = RefusedExport(value["reason"], value["candidates"], report)
    emit(refused, False, lambda: COMMAND.show(refused))
    table = capfd.readouterr().out
    assert "gate: failed" in table and "failed: worst" in table


@pytest.mark.usefixtures("fault")
def test_the_fastest_that_passes_in_every_language_is_kept(
    model: Path, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth as fast, fp32 is given up while it is timed, and comes back.
    set_rates(monkeypatch, {"int8-embedding": 1000.0, "fp32": 100.0})
    config = asked(model, texts, "worst=0.99", precision="auto", candidates=("int8-embedding",))
    summary = export_model(config, tmp_path / "bundle")
    assert summary.chosen == "fp32"
    assert "fails the gate: el: same label" in summary.candidates["int8-embedding"]["rejected"]
    assert summary.candidates["fp32"]["tokens_per_s"] == 100.0
    assert summary.gate is not None and summary.gate.verdict == PASSED
    record = BundleRecord.read(tmp_path / "bundle" / "monoxkit.json")
    assert record.checks["gate"] == json.loads(json.dumps(summary.gate.to_json()))
    assert export_model(config, tmp_path / "bundle").gate == summary.gate
    with pytest.raises(OtherRun, match="`gate` differs"):
        export_model(
            asked(model, texts, "worst=0.9", precision="auto", candidates=("int8-embedding",)),
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
    assert "same label 100.0 % (98.1 to 100.0) on 200 rows" in after
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "**not shown**" in card
    assert "| el | 200 | 100.0 % (98.1 to 100.0) |" in card


def with_opposite_units(folder: Path, model: Path) -> Path:
    """The model with two equal units of its head, which the last product takes with opposite signs.

    In fp32 they cancel out. In int8 they set the scale, and round all other weights off.
    """
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    for name in ("weight", "bias"):
        unit = weights[f"bert.pooler.dense.{name}"]
        unit[1] = unit[0]
    output = weights["classifier.weight"]
    large = 1000 * output.std(dim=1)
    output[:, 0], output[:, 1] = large, -large
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_layers_left_in_fp32_rescue_what_rounding_them_breaks(
    model: Path, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rates(monkeypatch, {"int8-smooth": 300.0, "int8-mixed": 250.0, "fp32": 100.0})
    odd, notes = with_opposite_units(tmp_path / "model", model), Notes()
    names = ("int8-smooth", "int8-mixed")
    config = asked(odd, texts, "kl=0.01", precision="auto", candidates=names)
    summary = export_model(config, tmp_path / "mixed", progress=notes)
    assert "fails the gate" in summary.candidates["int8-smooth"]["rejected"]
    assert summary.chosen == "int8-mixed"
    assert summary.gate is not None and summary.gate.verdict == PASSED
    note = next(note for note in notes.notes if "these stay in fp32" in note)
    # Three runs of twelve, of one or two products each, the head's among them.
    kept = note.partition("in fp32: ")[2].split(", ")
    assert 3 <= len(kept) <= 6
    graph = onnx.load(str(tmp_path / "mixed" / "model.onnx")).graph
    weights = {one.name for one in graph.initializer}
    exact = [
        node.name.removesuffix("_MatMul")
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    assert exact == kept
    assert graph.node[-2].name.removesuffix("_MatMul") == kept[-1]  # before the bias
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 14 - len(kept)


def test_the_costliest_quarter_is_kept_in_the_order_of_the_graph() -> None:
    runs = [["a", "b"], ["c"], ["d", "e"], ["f"], ["g"]]
    assert costliest(runs, [0.1, 3.0, 0.2, math.inf, 0.0]) == ("c", "f")
    assert costliest(runs[:2], [0.1, 0.2]) == ("c",)


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
    checked, learned = ({d.row for d in part} for part in found[:2])
    assert found.calibration_languages.tolist() == [d.lang for d in found.calibration]
    assert not checked & learned
    assert len(learned) == 5  # 3 of de, and a quarter of ja
    assert "28 rows of 3 languages" in notes.notes[-1]
    # A random sample: not the first rows, which may all be of one class.
    assert {d.row for d in found.check if d.lang == "de"} != set(range(20))


def test_without_a_gate_too_quantizers_know_their_rows_languages(
    model: Path, tmp_path: Path
) -> None:
    for tag in ("de", "ja"):
        write_jsonl(tmp_path / f"test.{tag}.jsonl", [{"text": f"{tag} {at}"} for at in range(9)])
    write_jsonl(tmp_path / "other.jsonl", [{"text": "fr", "lang": "fr"}, {"text": "none"}])
    check = CorpusConfig(paths=(str(tmp_path / "*.jsonl"),))
    config = ExportConfig(model=str(model), check=check, check_rows=2, calibration_rows=18)
    found = read_check_rows(config, 32, Silent())
    first = [document.text.split()[0] for document in found.calibration]
    assert {*first} == {"de", "ja", "none"}
    named = [tag if tag != "none" else "und" for tag in first]
    assert found.calibration_languages.tolist() == named
    # Rows are as their files have them: they tell one export from another.
    assert {d.lang for d in [*found.check, *found.calibration]} == {None, "fr"}
    with pytest.raises(ConfigError, match="nobody"):
        told = replace(check, language=("nobody.jsonl=de",))
        read_check_rows(replace(config, check=told), 32, Silent())


def test_graphs_are_timed_on_rows_that_they_were_checked_on() -> None:
    # The longest texts come after those that every graph is compared on.
    lengths = np.arange(300) + 1
    nothing: Any = None
    names = [each.name for each in fields(Subject)]
    blank = Subject(**dict.fromkeys(names, nothing))
    texts: Any = LengthsOnly(lengths)
    gated = replace(blank, check=texts, judge=object())
    assert len(gated.first_rows) == 200
    assert len(gated.timed_rows) == 48
    assert {0, 199} <= {*gated.timed_rows.tolist()} <= {*gated.first_rows.tolist()}
    assert gated.timed_rows.max() < 200
    assert replace(blank, check=texts).timed_rows.max() == 299


@dataclass
class LengthsOnly:
    """Of tokenized texts what timing looks at."""

    document_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.document_lengths)


def test_labels_that_are_not_the_models_are_needed_for_a_drop_alone() -> None:
    problem, notes = problem_of(LabelSet(LABELS)), Notes()
    rows = [Document(row=row, id=str(row), text="a", label="spam") for row in range(3)]
    assert gold_labels(rows, problem, notes, is_needed=False) is None
    assert "accuracy is left out" in notes.notes[0] and "spam" in notes.notes[0]
    with pytest.raises(CorpusError, match="spam"):
        gold_labels(rows, problem, notes, is_needed=True)
    bare = [replace(row, label=None) for row in rows]
    assert gold_labels(bare, problem, notes, is_needed=False) is None
    with pytest.raises(CorpusError, match="drop"):
        gold_labels(bare, problem, notes, is_needed=True)
    some = [replace(rows[0], label="mail"), *bare[1:]]
    assert gold_labels(some, problem, notes, is_needed=True).tolist() == [1, -1, -1]


def test_too_few_rows_to_learn_and_check_are_refused(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "alpha", "lang": tag} for tag in ("de", "ja", "de")]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ConfigError, match="`check`"):
        read_check_rows(asked(model, str(path), "worst=0.9"), 32, Silent())
