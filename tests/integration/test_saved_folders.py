"""What is saved loads in transformers 4.57 and both optimums, with the same ids and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import Document
from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.run import export_model
from monox_kit.extras import is_installed
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import save_classifier
from monox_kit.problem import problem_of
from tests.integration.older_environment import read_by_older
from tests.tiny_families import FAMILIES, write_family
from tests.tiny_models import LABELS, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # an installation may wait for others

TEXTS = [text for text in GOLDEN_TEXTS if "<" not in text][:8]
MAX_LENGTH = 24


def require_alike(folder: Path, answer: dict[str, Any]) -> None:
    loaded = load_model(str(folder), max_length=MAX_LENGTH)
    documents = [Document(row=row, id=str(row), text=text) for row, text in enumerate(TEXTS)]
    encoded = loaded.tokenizer.encode(TEXTS)
    assert sum(encoded.truncated > 0) > 2  # the cut is part of what is compared
    assert [id for ids in answer["ids"] for id in ids] == encoded.input_ids.tolist()
    logits = score(loaded.classifier, loaded.tokenizer, documents).logits
    np.testing.assert_allclose(np.array(answer["logits"]), logits, rtol=0, atol=2e-5)
    assert answer["labels"] == list(LABELS)
    # The pipeline of transformers, over optimum's model too, gives every class, the best first.
    probabilities = problem_of(loaded.classifier.labels).probabilities(logits)
    for found, row in zip(answer["pipeline"], probabilities, strict=True):
        assert [one["score"] for one in found] == sorted(one["score"] for one in found)[::-1]
        scores = {one["label"]: one["score"] for one in found}
        np.testing.assert_allclose([scores[name] for name in LABELS], row, atol=2e-5)


def test_every_family_that_is_saved_loads_in_transformers_4(
    older_python: Path, tmp_path: Path
) -> None:
    folders = []
    for family in FAMILIES:
        model = write_family(tmp_path / "pretrained" / family, family)
        folder = tmp_path / family
        folder.mkdir()
        save_classifier(model, Tokenizer(tmp_path / "pretrained" / family, MAX_LENGTH), folder)
        folders.append((folder, "torch"))
    answers = read_by_older(older_python, folders, TEXTS)
    for (folder, _), answer in zip(folders, answers, strict=True):
        require_alike(folder, answer)


def test_trimmed_models_load_in_transformers_4(older_python: Path, tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in TEXTS])
    folders = []
    for family in ("bert", "roberta", "xlnet"):
        write_family(tmp_path / family, family)
        out = tmp_path / f"{family}-small"
        summary = mk.trim(str(tmp_path / family), corpus=corpus, out=out, max_length=MAX_LENGTH)
        assert summary.num_tokens < summary.num_tokens_before
        folders.append((out, "torch"))
    answers = read_by_older(older_python, folders, TEXTS)
    for (folder, _), answer in zip(folders, answers, strict=True):
        require_alike(folder, answer)


@pytest.mark.parametrize(
    "kind",
    [
        "onnx",
        pytest.param(
            "openvino",
            marks=pytest.mark.skipif(not is_installed("openvino"), reason="needs openvino"),
        ),
    ],
)
def test_bundles_load_in_optimum(older_python: Path, tmp_path: Path, kind: str) -> None:
    """In optimum-onnx, and in optimum-intel."""
    folders = []
    for family in ("bert", "roberta"):
        write_family(tmp_path / family, family)
        config = ExportConfig(model=str(tmp_path / family), max_length=MAX_LENGTH)
        export_model(config, tmp_path / f"{family}-onnx")
        folders.append((tmp_path / f"{family}-onnx", kind))
    answers = read_by_older(older_python, folders, TEXTS)
    for (folder, _), answer in zip(folders, answers, strict=True):
        require_alike(folder, answer)
