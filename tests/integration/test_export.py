"""Export at its public seam: what agrees with PyTorch is released, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, GateError, ModelError, NotFinite, ProviderError
from monox_kit.exporting import ExportConfig, build, export_model, run
from monox_kit.exporting.check_rows import read_check_rows
from monox_kit.exporting.config import FORMS, PRECISIONS
from monox_kit.exporting.quantize import CANDIDATE_PRECISIONS, calibration_feeds
from monox_kit.exporting.smooth import smoothed
from monox_kit.foreign import publishable
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import BundleRecord, open_folder, write_record
from monox_kit.models.load import examine, load_model
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import score, tokenize
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.problem import problem_of
from monox_kit.progress import Silent
from tests.family_zoo import family_classifier
from tests.notes import Notes
from tests.tiny_models import (
    bert_classifier,
    bert_encoder,
    labelled_rows,
    tokens_seen,
    write_jsonl,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_classifier(tmp_path_factory.mktemp("model") / "model")


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_an_explicit_precision_is_what_the_bundle_holds(
    model: Path, tmp_path: Path, precision: str
) -> None:
    config = ExportConfig(model=str(model), precision=precision, min_agreement=0.5)
    summary = export_model(config, tmp_path / "bundle")
    record = BundleRecord.read(tmp_path / "bundle" / "monoxkit.json")
    assert summary.precision == record.precision == precision
    verdicts = {name: value["rejected"] for name, value in summary.candidates.items()}
    assert verdicts.pop(precision) is None
    assert verdicts in ({}, {"fp32": f"precision {precision} was asked for"})
    files = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "monoxkit.json", "README.md"} <= files
    assert "candidates" not in files
    assert files - {"monoxkit.json", "README.md"} == set(record.files)
    assert (record.activation, record.padding_side, record.truncation_side) == (
        "softmax", "right", "right",
    )  # fmt: skip
    found = examine(str(tmp_path / "bundle"))
    assert (found.verdict, found.num_texts) == ("passed", 27)
    assert found.recorded is not None and found.recorded.provider == "cpu"


def test_the_last_layer_is_computed_for_the_classified_token_alone(
    model: Path, tmp_path: Path
) -> None:
    export_model(ExportConfig(model=str(model), precision="int8"), tmp_path / "bundle")
    batch = np.ones((2, 9), np.int64)
    feed = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), batch)
    # The fp32 graph beside it, which a guard computes again with: keys and values of all tokens.
    seen = tokens_seen(tmp_path / "bundle" / "model.fp32.onnx", feed)
    assert sorted(seen) == [1] * 4 + [9] * 8


def test_auto_keeps_one_candidate_and_says_why_not_the_others(model: Path, tmp_path: Path) -> None:
    summary = export_model(ExportConfig(model=str(model), precision="auto"), tmp_path / "bundle")
    verdicts = {name: value["rejected"] for name, value in summary.candidates.items()}
    assert verdicts.pop(summary.chosen) is None
    assert all(verdicts.values())
    tried = {value["precision"] for value in summary.candidates.values()}
    assert tried == {"fp32", *CANDIDATE_PRECISIONS["cpu"]}
    forms = {value["graph"] for value in summary.candidates.values()}
    assert forms == set(FORMS)
    record = BundleRecord.read(tmp_path / "bundle" / "monoxkit.json")
    # The cause of a graph that cannot be built may quote a name such as /model/encoder/Gather.
    assert record.checks["candidates"] == publishable(summary.candidates)
    assert record.checks["provider"] == "cpu"
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert all(f"| {name} |" in card for name in summary.candidates)


@pytest.mark.parametrize(
    ("precision", "form"),
    [
        *((name, "opset23") for name in PRECISIONS if name not in ("fp16", "int8-nncf")),
        *(("int8-smooth", form) for form in FORMS if form != "opset23"),
    ],
)
def test_every_precision_of_every_form_scores_as_pytorch_does(
    model: Path, tmp_path: Path, precision: str, form: str
) -> None:
    config = ExportConfig(model=str(model), precision=precision, graph=form, min_agreement=0.8)
    summary = export_model(config, tmp_path / "bundle")
    assert summary.candidates[summary.chosen]["agreement"]["argmax"] >= 0.8
    assert (tmp_path / "bundle" / "model.fp32.onnx").is_file()
    graph = onnx.load(str(tmp_path / "bundle/model.onnx")).graph
    operators = {node.op_type for node in graph.node}
    quantized = {"MatMulInteger", "DynamicQuantizeMatMul", "QuantizeLinear", "MatMulNBits"}
    assert bool(operators & quantized) == (precision != "int8-embedding")
    rows, width = load_model(str(model)).classifier.model.get_input_embeddings().weight.shape
    tables = [one for one in graph.initializer if tuple(one.dims) == (rows, width)]
    assert [one.data_type for one in tables] == [onnx.TensorProto.INT8]


def test_the_fp32_graph_is_left_out_where_it_is_not_wanted(model: Path, tmp_path: Path) -> None:
    config = ExportConfig(model=str(model), precision="int8", min_agreement=0.5, keep_fp32=False)
    export_model(config, tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "model.fp32.onnx").exists()


def as_made_by(model: Path, folder: Path, *stages: str) -> Path:
    """A copy of the model with the record of one that went through some stages, last one first."""
    shutil.copytree(model, folder)
    provenance: dict[str, Any] = {}
    for stage in reversed(stages):
        provenance = {"run": {"command": stage}, "source": provenance}
    record = BundleRecord(
        labels=open_folder(str(model)).labels,
        max_length=32,
        backend="torch",
        precision="fp32",
        has_pairs=False,
        provenance=provenance,
    )
    write_record(folder, record, "")
    return folder


@pytest.mark.parametrize(
    ("stages", "asked", "is_kept"),
    [
        (("train-student",), None, False),
        (("trim", "train-student"), None, False),
        (("train-student",), True, True),
        (("train-teacher",), None, True),
        (("train-teacher",), False, False),
        (("trim",), None, True),
    ],
)
def test_the_fp32_graph_of_a_student_is_left_out_unless_it_is_asked_for(
    model: Path, tmp_path: Path, stages: tuple[str, ...], asked: bool | None, is_kept: bool
) -> None:
    source = open_folder(str(as_made_by(model, tmp_path / "model", *stages)))
    assert run.keeps_fp32(ExportConfig(model="m", keep_fp32=asked), source) == is_kept


def test_a_student_without_it_is_refused_by_the_guard_and_its_bytes_are_told(
    model: Path, tmp_path: Path
) -> None:
    student = as_made_by(model, tmp_path / "student", "trim", "train-student")
    config = ExportConfig(model=str(student), precision="int8", min_agreement=0.5)
    summary = export_model(config, tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"`guard`: .*model\.fp32\.onnx.*`keep_fp32`"):
        open_folder(str(tmp_path / "bundle")).require_reference()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "bundle").iterdir()}
    before, after = (dict(zip(summary.bytes, each)) for each in zip(*summary.bytes.values()))
    assert sum(after.values()) == sum(sizes.values()) - sizes["monoxkit.json"] - sizes["README.md"]
    table = load_model(str(model)).classifier.model.get_input_embeddings().weight
    assert before["embedding"] == 4 * table.numel()
    assert after["embedding"] == table.numel() + 4 * len(table)
    assert after["embedding"] + after["layers"] == sizes["model.onnx"]
    assert after["tokenizer"] == sizes["tokenizer.json"] + sizes["tokenizer_config.json"]
    assert "fp32 graph" not in after
    assert "| embedding |" in (tmp_path / "bundle" / "README.md").read_text()
    assert export_model(config, tmp_path / "bundle").bytes == summary.bytes


def test_smoothing_changes_the_weights_and_not_the_function(model: Path, tmp_path: Path) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    folder = open_folder(str(tmp_path / "bundle"))
    tokenizer = Tokenizer(folder.path, 32)
    rows = [Document(row=0, id="0", text="alpha game mu"), Document(row=1, id="1", text="font")]
    feeds = calibration_feeds(tmp_path / "bundle" / "model.onnx", tokenize(tokenizer, rows))
    graph = onnx.load(str(tmp_path / "bundle" / "model.onnx"))
    before = [onnx.numpy_helper.to_array(value) for value in graph.graph.initializer]
    changed = smoothed(copy.deepcopy(graph), feeds, tmp_path)
    (tmp_path / "smooth").mkdir()
    onnx.save(changed, str(tmp_path / "smooth" / "model.onnx"))
    assert sum("/smooth" in value.name for value in changed.graph.initializer) >= 12
    assert len(before) <= len(changed.graph.initializer)
    other = dataclasses.replace(folder, path=tmp_path / "smooth")
    left, right = (score(OnnxClassifier(one), tokenizer, rows).logits for one in (folder, other))
    np.testing.assert_allclose(left, right, atol=1e-4)


def test_the_bundle_scores_texts_of_every_length_as_pytorch_does(
    model: Path, tmp_path: Path
) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    texts = [" ".join(["alpha", "game", "mu"] * n)[: 3 * n + 1] for n in range(1, 60)]
    documents = [Document(row=i, id=str(i), text=text) for i, text in enumerate(texts)]
    graph, torch_model = load_model(str(tmp_path / "bundle")), load_model(str(model))
    found = score(graph.classifier, graph.tokenizer, documents, batch_tokens=200)
    expected = score(torch_model.classifier, graph.tokenizer, documents, batch_tokens=200)
    assert graph.backend == "onnx" and torch_model.backend == "torch"
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)


def test_other_tools_read_the_bundles_configuration_and_tokenizer(
    model: Path, tmp_path: Path
) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    config = AutoConfig.from_pretrained(str(tmp_path / "bundle"))
    assert list(config.id2label.values()) == ["games", "mail", "text"]
    assert AutoTokenizer.from_pretrained(str(tmp_path / "bundle"))("game")["input_ids"]


def copy_that_overflows(model: Path, folder: Path) -> Path:
    """Finite weights whose logits are not."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"].fill_(3e38)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_graph_that_differs_is_not_released(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = build.write_form

    def write_other(model: torch.nn.Module, folder: Path, form: object, **kwargs: bool) -> None:
        opposite = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in opposite.classifier.parameters():
                parameter.neg_()
        write(opposite, folder, form, **kwargs)

    monkeypatch.setattr(build, "write_form", write_other)
    # int8 is made from the fp32 graph: a wrong one is refused whatever was asked for.
    for precision in ("fp32", "int8", "auto"):
        config = ExportConfig(model=str(model), precision=precision)
        with pytest.raises(ModelError, match="logits differ from PyTorch's by up to"):
            export_model(config, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("bundle")] == []


@pytest.mark.parametrize("fault", ["flips labels", "is not finite", "cannot be built"])
def test_a_bad_int8_graph_is_rejected_and_fp32_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def bad(precision: str, source: Path, folder: Path, calibration: object) -> None:
        if fault == "cannot be built":
            raise RuntimeError("no kernel")
        graph = onnx.load(str(source / "model.onnx"))
        output = graph.graph.node[-1].output[0]
        factor = -1.0 if fault == "flips labels" else float("nan")
        graph.graph.node[-1].output[0] = "before"
        value = onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor")
        graph.graph.initializer.append(value)
        graph.graph.node.append(onnx.helper.make_node("Mul", ["before", "factor"], [output]))
        onnx.save(graph, str(folder / "model.onnx"))

    monkeypatch.setattr(build, "write_quantized", bad)
    config = ExportConfig(model=str(model), precision="auto", graph="opset23", candidates=("int8",))
    summary = export_model(config, tmp_path / "auto")
    expected = {
        "flips labels": "is asked for",
        "is not finite": "finite",
        "cannot be built": "no kernel",
    }
    assert summary.precision == "fp32"
    found = summary.candidates["int8"]
    assert expected[fault] in f"{found['rejected']} {found['cause']}"
    # What a quantizer met is for the record: the table says what it means.
    assert "no kernel" not in found["rejected"]
    error = ModelError if fault == "cannot be built" else GateError
    with pytest.raises(error, match=expected[fault]):
        export_model(ExportConfig(model=str(model), precision="int8"), tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("precision", ["int8-static", "auto"])
def test_a_precision_that_one_form_does_not_take_is_built_on_another(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    write, tried = build.write_quantized, []

    def choosy(precision: str, source: Path, folder: Path, calibration: Any) -> None:
        tried.append(folder.parent.name)
        if len(tried) == 1:
            raise RuntimeError("Unable to find data type for weight_name='x'")
        write(precision, source, folder, calibration)

    monkeypatch.setattr(build, "write_quantized", choosy)
    progress = Notes()
    config = ExportConfig(
        model=str(model),
        precision=precision,
        candidates=("int8-static",) if precision == "auto" else None,
        min_agreement=0.5,
    )
    summary = export_model(config, tmp_path / "bundle", progress=progress)
    made = [one for one in summary.candidates.values() if one["precision"] == "int8-static"]
    assert [one["graph"] for one in made] == tried[: len(made)]
    assert made[0]["rejected"] == "It cannot be built in this form."
    assert made[0]["cause"] == "Unable to find data type for weight_name='x'"
    # Which form is next depends on speed, and the fused one may not take it either.
    assert any(one["agreement"] is not None for one in made[1:])
    if precision != "auto":
        assert summary.precision == precision
        assert any("Trying the next graph form." in note for note in progress.notes)


def test_a_model_that_is_not_finite_itself_is_said_to_be(model: Path, tmp_path: Path) -> None:
    broken = copy_that_overflows(model, tmp_path / "model")
    with pytest.raises(NotFinite, match=f"{broken}: PyTorch's own logits"):
        export_model(ExportConfig(model=str(broken)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_model_without_a_form_names_each_cause_and_nothing_else_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    t5 = family_classifier(tmp_path / "t5", "t5")
    capfd.readouterr()
    with pytest.raises(ModelError, match=r"docs/models\.md") as caught:
        export_model(ExportConfig(model=str(t5)), tmp_path / "bundle")
    message = str(caught.value)
    # Neither the banner of PyTorch's exporter nor its colours; of each exporter the cause.
    assert "T5ForSequenceClassification cannot be exported" in message
    assert "Expected cond to be True" in message
    assert all(word not in message for word in ("x1b", "Next steps", "step 1/3"))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ModelError, match="Leave `graph` out"):
        export_model(ExportConfig(model=str(t5), graph="opset17-eager"), tmp_path / "bundle")


def test_a_graph_that_does_not_run_leaves_no_line_of_onnxruntimes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    funnel = family_classifier(tmp_path / "funnel", "funnel")
    capfd.readouterr()
    with pytest.raises(ModelError, match="fp32:opset17-eager: onnxruntime cannot run it"):
        export_model(ExportConfig(model=str(funnel), graph="opset17-eager"), tmp_path / "bundle")
    assert capfd.readouterr() == ("", "")


def test_check_texts_come_from_every_file_in_turn(model: Path, tmp_path: Path) -> None:
    for name, text in (("de", "paquet"), ("ja", "spiel")):
        write_jsonl(tmp_path / f"test.{name}.jsonl", [{"text": text}] * 30)
    seen, calibration, languages = read_check_rows(
        ExportConfig(
            model=str(model),
            check=CorpusConfig(paths=(str(tmp_path / "test.*.jsonl"),)),
            check_rows=20,
            calibration_rows=4,
        ),
        32,
        Silent(),
    )
    assert [document.text for document in seen] == ["paquet", "spiel"] * 10
    assert [document.row for document in calibration] == [10, 10, 11, 11]
    assert languages.tolist() == ["de", "ja"] * 2


def test_an_equal_export_is_reused_and_another_is_refused(model: Path, tmp_path: Path) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    assert export_model(ExportConfig(model=str(model)), tmp_path / "bundle").reused
    with pytest.raises(ConfigError, match="`precision` differs: 'fp32' then, 'int8' now"):
        export_model(ExportConfig(model=str(model), precision="int8"), tmp_path / "bundle")


def test_a_bundle_of_other_graphs_is_not_taken_for_this_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    monkeypatch.setattr(run, "GRAPHS_VERSION", 999)
    with pytest.raises(ConfigError, match="version of the exporter differs"):
        export_model(ExportConfig(model=str(model)), tmp_path / "bundle")


def test_a_last_layer_that_stays_whole_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise ModelError("the last layer is computed for all tokens: it is round.")

    monkeypatch.setattr(build, "slice_last_layer", refuse)
    progress = Notes()
    summary = export_model(ExportConfig(model=str(model)), tmp_path / "bundle", progress=progress)
    assert summary.candidates["fp32"]["rejected"] is None
    assert "fp32: the last layer is computed for all tokens: it is round." in progress.notes
    feed = {
        "input_ids": np.ones((2, 9), np.int64),
        "attention_mask": np.ones((2, 9), np.int64),
        "token_type_ids": np.zeros((2, 9), np.int64),
    }
    assert set(tokens_seen(tmp_path / "bundle" / "model.onnx", feed)) == {9}


def test_it_checks_on_the_users_text(model: Path, tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "check.jsonl", labelled_rows(30))
    check = CorpusConfig(paths=(str(corpus),))
    config = ExportConfig(model=str(model), check=check, check_rows=20)
    progress = Notes()
    summary = export_model(config, tmp_path / "bundle", progress=progress)
    assert summary.candidates["fp32"]["agreement"]["num_texts"] == 20
    (note,) = progress.notes
    assert all(part in note for part in ("30 rows", "from 7", "on 20"))


def test_what_cannot_be_exported_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a fine-tuned classifier"):
        export_model(ExportConfig(model=str(bert_encoder(tmp_path / "e"))), tmp_path / "b")
    with pytest.raises(ConfigError, match=r"`precision` 'int4'.*fp32, bf16, fp16, int8"):
        export_model(ExportConfig(model=str(model), precision="int4"), tmp_path / "b")
    with pytest.raises(ProviderError, match="`provider` cuda"):
        export_model(ExportConfig(model=str(model), provider="cuda"), tmp_path / "b")
    with pytest.raises(ConfigError, match=r"`exporter`.*'optimum'"):
        export_model(ExportConfig(model=str(model), exporter="optimum"), tmp_path / "b")


def test_a_bundle_of_another_version_is_refused(model: Path, tmp_path: Path) -> None:
    export_model(ExportConfig(model=str(model)), tmp_path / "bundle")
    path = tmp_path / "bundle" / "monoxkit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ModelError, match="expected format_version 1, found 2"):
        open_folder(str(tmp_path / "bundle"))


def test_agreement_counts_labels_and_measures_divergence() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
    other = np.array([[2.0, 0.0], [1.0, 0.0]], np.float32)
    problem = problem_of(LabelSet(("a", "b")))
    found = agreement(reference, other, problem)
    p = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    expected = (p * (np.log(p) - np.log(p[::-1]))).sum() / 2
    assert (found.argmax, found.max_delta) == (0.5, 1.0)
    assert found.mean_kl == pytest.approx(expected)
    assert agreement(reference, reference, problem).within_fp32
    assert not found.within_fp32
