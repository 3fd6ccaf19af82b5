"""Export that trims first: one command, the same bundle, compared with the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import monox_kit as mk
from monox_kit.data import Document
from monox_kit.errors import ConfigError, GateError, OtherRun
from monox_kit.exporting import ExportConfig, ExportSummary
from monox_kit.exporting.gate import FAILED
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import BundleRecord, open_folder
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.problem import problem_of
from tests.tiny_families import write_family
from tests.tiny_models import corpus_of, write_jsonl

TRIMMED_FOR = GOLDEN_TEXTS[:3]
# The last ones have tokens that are removed.
CHECKED = (*GOLDEN_TEXTS[:3], *GOLDEN_TEXTS[:3], *GOLDEN_TEXTS[8:12])


def rows(texts: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def documents(texts: tuple[str, ...]) -> list[Document]:
    return [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "whole").mkdir()
    write_family(folder / "whole", "roberta")
    write_jsonl(folder / "text.en.jsonl", rows(TRIMMED_FOR))
    write_jsonl(folder / "check.jsonl", rows(CHECKED))
    return folder


def settings(files: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": files / "whole",
        "precision": "int8",
        "trim": files / "text.en.jsonl",
        "check": files / "check.jsonl",
        "calibration_rows": 1,
        "max_length": 64,
        "min_agreement": 0.0,
        **changes,
    }


@pytest.fixture(scope="module")
def exported(files: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportSummary:
    out = tmp_path_factory.mktemp("out") / "bundle"
    summary: ExportSummary = mk.export(out=out, **settings(files))
    return summary


def test_it_is_the_trimmed_models_bundle(
    files: Path, exported: ExportSummary, tmp_path: Path
) -> None:
    mk.trim(files / "whole", corpus=files / "text.en.jsonl", out=tmp_path / "small", max_length=64)
    small, bundle = (load_model(str(path)) for path in (tmp_path / "small", exported.path))
    assert bundle.tokenizer.content == small.tokenizer.content
    assert bundle.tokenizer.num_ids < load_model(str(files / "whole")).tokenizer.num_ids
    one, other = (score(each.classifier, each.tokenizer, documents(TRIMMED_FOR)).logits
                  for each in (small, bundle))  # fmt: skip
    np.testing.assert_allclose(other, one, atol=0.2)  # int8
    assert sorted(path.name for path in exported.path.iterdir()) == [
        "README.md", "config.json", "golden.json", "model.fp32.onnx", "model.onnx",
        "monoxkit.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_graphs_are_compared_with_the_whole_model(files: Path, exported: ExportSummary) -> None:
    whole, bundle = (load_model(str(path)) for path in (files / "whole", exported.path))
    checked = documents(CHECKED[:-1])  # the last one is for the quantizer
    expected, found = (score(each.classifier, each.tokenizer, checked).logits
                       for each in (whole, bundle))  # fmt: skip
    told = agreement(expected, found, problem_of(whole.classifier.labels)).to_json()
    assert exported.candidates["int8"]["agreement"] == pytest.approx(told, rel=1e-4)
    # In fp32 the graph is right, and texts that lost tokens are read otherwise all the same.
    fp32 = exported.candidates["fp32"]
    assert fp32["rejected"] == "precision int8 was asked for"
    assert fp32["agreement"]["max_delta"] > 1e-3


def test_the_record_the_card_and_the_sizes_say_so(files: Path, exported: ExportSummary) -> None:
    record = BundleRecord.read(exported.path / "monoxkit.json")
    assert record.stages == ("export", "trim")
    assert "It has " in (exported.path / "README.md").read_text()
    whole = load_model(str(files / "whole"))
    table = whole.classifier.model.get_input_embeddings().weight
    before, after = exported.bytes["embedding"]
    assert before == table.nbytes
    assert after == load_model(str(exported.path)).tokenizer.num_ids * (table.shape[1] + 4)
    assert str(exported.path.parent) not in (exported.path / "monoxkit.json").read_text()


def test_an_equal_run_returns_at_once_and_one_for_other_texts_is_refused(
    files: Path, exported: ExportSummary, tmp_path: Path
) -> None:
    again: ExportSummary = mk.export(out=exported.path, **settings(files))
    assert again.reused and again.bytes == exported.bytes
    other = write_jsonl(tmp_path / "text.en.jsonl", rows(GOLDEN_TEXTS[:2]))
    with pytest.raises(OtherRun, match="`trim`"):
        mk.export(out=exported.path, **settings(files, trim=other))
    with pytest.raises(OtherRun, match="`trim`"):
        mk.export(out=exported.path, **settings(files, trim=()))
    assert open_folder(str(exported.path)).record is not None


@pytest.fixture(scope="module")
def balanced(files: Path) -> Path:
    """A model that gives half of the golden texts another label: whatever moves logits flips some.

    What it is checked on are these texts, of which it is trimmed for three.
    """
    folder = files / "balanced"
    folder.mkdir()
    model = write_family(folder, "roberta")
    opened = load_model(str(folder))
    logits = score(opened.classifier, opened.tokenizer, documents(GOLDEN_TEXTS)).logits
    first, second = np.argsort(-logits.mean(axis=0))[:2]
    with torch.no_grad():
        bias = model.classifier.out_proj.bias
        bias[second] += float(np.median(logits[:, first] - logits[:, second]))
    model.save_pretrained(str(folder))
    write_jsonl(files / "golden.en.jsonl", rows(GOLDEN_TEXTS))
    return folder


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"precision": "fp32", "min_agreement": 1.0}, "`min_agreement`"),
        ({"precision": "auto", "min_agreement": 1.0, "candidates": ("int8",)}, "`min_agreement`"),
        ({"precision": "auto", "gate": ("worst=0.99",), "candidates": ("int8",)}, "`gate`"),
    ],
)
def test_what_trimming_costs_is_refused_in_fp32_too(
    files: Path, balanced: Path, tmp_path: Path, asked: dict[str, Any], what: str
) -> None:
    least = {"min_agreement": ExportConfig(model="m").min_agreement}
    changes = {"model": balanced, "check": files / "golden.en.jsonl", "graph": "opset23"}
    with pytest.raises(GateError, match="more text") as caught:
        mk.export(out=tmp_path / "bundle", **settings(files, **changes, **(least | asked)))
    assert caught.value.exit_code == 7
    assert "`trim`" in str(caught.value) and what in str(caught.value)
    assert not (tmp_path / "bundle").exists()
    result: Any = caught.value.result
    assert list(result.candidates) == ["fp32"]
    found = result.candidates["fp32"]
    assert found["rejected"] is not None and found["agreement"]["argmax"] < 1
    assert (result.gate is not None and result.gate.verdict == FAILED) == ("gate" in asked)


def test_a_trimmed_model_is_checked_on_text_of_its_languages() -> None:
    with pytest.raises(ConfigError, match=r"`trim`.*`check`"):
        ExportConfig(model="m", trim=corpus_of())
