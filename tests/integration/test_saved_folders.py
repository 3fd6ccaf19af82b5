"""What is saved loads in transformers 4.57 and optimum-onnx, with the same ids and logits.

Their users read our students and bundles; neither runs beside transformers 5, so an environment of
their own is made once, below pytest's cache folder. It borrows torch and the rest from the suite's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import Document
from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.run import export_model
from monox_kit.locks import owned_folder
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import save_classifier
from tests.tiny_families import FAMILIES, write_family
from tests.tiny_models import LABELS, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # an installation may wait for others

PACKAGES = (
    "transformers==4.57.6",
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "huggingface_hub<1",
    "tokenizers>=0.22,<0.23",
)
READER = Path(__file__).with_name("older_reader.py")
TEXTS = [text for text in GOLDEN_TEXTS if "<" not in text][:8]
MAX_LENGTH = 24


@pytest.fixture(scope="session")
def older_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with transformers 4.57.6 and optimum-onnx."""
    assert request.config.cache is not None
    root = request.config.cache.mkdir("transformers-4.57.6")
    python = root / "env" / "bin" / "python"
    done = root / "done"
    with owned_folder(root / "env"):
        if not done.is_file() or done.read_text() != repr(PACKAGES):
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", "--without-pip", str(root / "env")],
                check=True,
            )
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
            subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
            own = subprocess.run(
                [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip
            # Looked at after its own packages: torch, numpy and onnxruntime are the suite's.
            (Path(own) / "suite.pth").write_text(sysconfig.get_path("purelib") + "\n")
            done.write_text(repr(PACKAGES))
    return python


def read_by_older(python: Path, folders: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    asked = [{"folder": str(path), "kind": kind, "texts": TEXTS} for path, kind in folders]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), str(READER)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["transformers"] == "4.57.6"
    answers: list[dict[str, Any]] = found["answers"]
    return answers


def require_alike(folder: Path, answer: dict[str, Any]) -> None:
    loaded = load_model(str(folder), max_length=MAX_LENGTH)
    documents = [Document(row=row, id=str(row), text=text) for row, text in enumerate(TEXTS)]
    encoded = loaded.tokenizer.encode(TEXTS)
    assert sum(encoded.truncated > 0) > 2  # the cut is part of what is compared
    assert [id for ids in answer["ids"] for id in ids] == encoded.input_ids.tolist()
    logits = score(loaded.classifier, loaded.tokenizer, documents).logits
    np.testing.assert_allclose(np.array(answer["logits"]), logits, rtol=0, atol=2e-5)
    assert answer["labels"] == list(LABELS)


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
    answers = read_by_older(older_python, folders)
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
    answers = read_by_older(older_python, folders)
    for (folder, _), answer in zip(folders, answers, strict=True):
        require_alike(folder, answer)


def test_bundles_load_in_optimum_onnx(older_python: Path, tmp_path: Path) -> None:
    folders = []
    for family in ("bert", "roberta"):
        write_family(tmp_path / family, family)
        config = ExportConfig(model=str(tmp_path / family), max_length=MAX_LENGTH)
        export_model(config, tmp_path / f"{family}-onnx")
        folders.append((tmp_path / f"{family}-onnx", "onnx"))
    answers = read_by_older(older_python, folders)
    for (folder, _), answer in zip(folders, answers, strict=True):
        require_alike(folder, answer)
