"""Both backends on pretrained weights and real text of every length."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.store import LogitStore
from monox_kit.tasks.debian.prepare import DebianConfig, prepare_debian
from monox_kit.training.config import LoopConfig, TeacherConfig
from monox_kit.training.run import train_teacher

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine"),
    pytest.mark.timeout(600),
]


def test_onnx_and_torch_label_real_text_alike(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare_debian(DebianConfig(labelled=160, unlabelled=240, dev=40, languages=("de",)), data)
    config = TeacherConfig(
        model="packaged:minilm-l6",
        train=CorpusConfig(paths=(str(data / "labelled.jsonl"),)),
        dev=CorpusConfig(paths=(str(data / "dev.jsonl"),)),
        loop=LoopConfig(max_steps=10, learning_rate=1e-4, head_factor=10, max_length=32),
    )
    train_teacher(config, tmp_path / "teacher")
    lines = (data / "unlabelled.jsonl").read_text(encoding="utf-8").splitlines()
    # A third of the texts is cut to its first 1, 2, 3 ... words.
    texts = [json.loads(line)["text"] for line in lines]
    texts = [" ".join(t.split()[: 1 + i // 3]) if i % 3 == 0 else t for i, t in enumerate(texts)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    export_model(ExportConfig(model=str(tmp_path / "teacher"), max_length=256), tmp_path / "bundle")
    logits = {}
    for backend, model in (("torch", "teacher"), ("onnx", "bundle")):
        label = LabelConfig(
            teacher=backend,  # type: ignore[arg-type]
            model=str(tmp_path / model),
            corpus=CorpusConfig(paths=(str(corpus),)),
            max_length=256,
        )
        label_corpus(label, tmp_path / f"store-{backend}")
        logits[backend] = LogitStore.open(tmp_path / f"store-{backend}").logits(slice(None))
    assert np.abs(logits["torch"]).max() > 0.5
    np.testing.assert_allclose(logits["onnx"], logits["torch"], rtol=0, atol=1e-4)
