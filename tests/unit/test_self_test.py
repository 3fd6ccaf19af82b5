"""The self test: what a bundle's golden texts were given at export, compared with what they get."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import LabelSet, Logits, TokenBatch
from monox_kit.errors import ModelError
from monox_kit.models.agreement import FP32_TOLERANCE
from monox_kit.models.files import find_file
from monox_kit.models.folder import BundleRecord, open_folder, write_record
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.golden_file import Answers, Golden, Machine
from monox_kit.models.load import examine, machine_of, open_tokenizer
from monox_kit.models.self_test import (
    TOLERANCE_SHARE,
    answer,
    compare_logits,
    write_golden,
)
from monox_kit.models.torch_backend import TorchClassifier, load_classifier
from monoxkit_cli.app import main
from tests.tiny_models import LABELS, bert_classifier

ELSEWHERE = Machine(
    runtime="onnxruntime 1.0", provider="cpu", processor="Old CPU", features=("avx2",)
)
MAX_LENGTH = 24


class Moved:
    """A classifier whose logits are moved in one class."""

    def __init__(self, classifier: TorchClassifier, column: int, by: float) -> None:
        self.labels, self.concurrency = classifier.labels, 1
        self._classifier, self._column, self._by = classifier, column, by

    def logits(self, batch: TokenBatch) -> Logits:
        found = self._classifier.logits(batch)
        found[:, self._column] += self._by
        return found


def bundle(folder: Path, *, moved: float = 0.0, has_pairs: bool = False) -> Path:
    """A folder with its answers recorded; its own are `moved` away from the reference's."""
    bert_classifier(folder)
    opened = open_folder(str(folder))
    tokenizer, classifier = open_tokenizer(opened, MAX_LENGTH), load_classifier(opened)
    machine = machine_of("torch")
    own = Moved(classifier, 1, moved)
    write_golden(
        folder, tokenizer, (classifier, machine), (own, machine), has_pairs=bool(has_pairs)
    )
    record = BundleRecord(
        labels=LabelSet(LABELS),
        max_length=MAX_LENGTH,
        backend="torch",
        precision="fp32",
        has_pairs=has_pairs,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding.side,
    )
    write_record(folder, record, "card")
    return folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("honest") / "model")


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return shutil.copytree(honest, tmp_path / "model")


def edit(folder: Path, name: str, change: Any) -> None:
    """Change a JSON file, and the record's digest of it."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    write_record(folder, BundleRecord.read(folder / "monoxkit.json"), "card")


def golden_of(folder: Path) -> Golden:
    file = find_file(folder, "golden.json")
    assert file is not None
    return Golden.read(file, len(LABELS))


def test_a_bundle_that_answers_as_it_was_recorded_passes(folder: Path) -> None:
    found = examine(str(folder))
    assert (found.verdict, found.num_texts, found.num_different) == ("passed", 27, 0)
    assert found.largest is not None and found.largest < 1e-5
    model = mk.load(str(folder), check=True)
    # The texts are cut as the bundle cuts them, whatever the call's own cut.
    assert mk.load(str(folder), check=True, max_length=8).loaded.tokenizer.max_length == 8
    golden = golden_of(folder)
    assert [text for (text,) in golden.texts] == list(GOLDEN_TEXTS)
    for text, ids, logits in zip(golden.texts, golden.input_ids, golden.recorded.array):
        assert list(ids) == model.loaded.tokenizer.encode(list(text)).input_ids.tolist()
        np.testing.assert_allclose(model.logits(list(text))[0], logits, atol=1e-5)


def test_what_is_recorded_is_read_back_to_the_bit(folder: Path) -> None:
    opened = open_folder(str(folder))
    logits = answer(load_classifier(opened), open_tokenizer(opened), [(GOLDEN_TEXTS[0],)])
    answers = Answers.of(logits, ELSEWHERE)
    again = json.loads(json.dumps(asdict(answers)))["logits"]
    np.testing.assert_array_equal(np.array(again, np.float32), logits)
    np.testing.assert_array_equal(answers.array, logits)


def test_pairs_are_tested_as_pairs(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "pairs", has_pairs=True)
    assert {len(each) for each in golden_of(folder).texts} == {2}
    assert examine(str(folder)).verdict == "passed"


@pytest.mark.parametrize(
    ("distance", "share", "verdict"),
    [
        # fp32: rounding alone.
        (0.0, 0.0, "passed"),
        (0.0, 1.0, "failed"),
        # A reduced precision: a share of its own distance from fp32.
        (2.0, 0.2, "passed"),
        (2.0, 0.3, "failed"),
        (2.0, 1.0, "failed"),
    ],
)
def test_the_tolerance_is_rounding_or_a_share_of_the_distance_from_fp32(
    distance: float, share: float, verdict: str, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "model", moved=distance)
    opened = open_folder(str(folder))
    # Here the graph answers as it was recorded, but for a share of its distance from fp32.
    here = Moved(load_classifier(opened), 1, distance + share * (distance or 1.0))
    found = compare_logits("bundle", golden_of(folder), open_tokenizer(opened), here, ELSEWHERE)
    assert found.verdict == verdict
    largest = float(np.abs(golden_of(folder).recorded.array).max())
    rounding = FP32_TOLERANCE * max(1, largest)
    assert found.tolerance == pytest.approx(max(rounding, TOLERANCE_SHARE * distance), rel=1e-4)


def test_a_difference_is_named_by_text_class_values_and_machines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = golden_of(folder).recorded.logits[5][2]
    edit(folder, "golden.json", lambda value: value["recorded"]["logits"][5].__setitem__(2, 9.25))
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, *_: ELSEWHERE))
    with pytest.raises(ModelError) as failure:
        mk.load(str(folder), check=True)
    message = str(failure.value)
    assert message.startswith(str(folder))
    for part in (GOLDEN_TEXTS[5][:40], "'text'", "9.25", "torch", "Old CPU", "1 of 27"):
        assert part in message, part
    found = examine(str(folder))
    assert found.verdict == "failed" and found.num_different == 1
    assert found.differences[0].label == "text"
    assert found.differences[0].recorded == 9.25
    assert found.differences[0].found == pytest.approx(before, abs=1e-5)
    assert found.here == ELSEWHERE and found.recorded != ELSEWHERE
    assert json.dumps(found.to_json())


def test_other_ids_are_told_before_weights_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, "golden.json", lambda value: value["input_ids"][2].__setitem__(1, 77))
    monkeypatch.setattr(
        "monox_kit.models.load.load_backend", lambda *_, **__: pytest.fail("weights were loaded")
    )
    with pytest.raises(ModelError) as failure:
        mk.load(str(folder), check=True)
    assert GOLDEN_TEXTS[2][:40] in str(failure.value)
    assert "77" in str(failure.value)
    found = examine(str(folder))
    assert found.differences[0].label is None and found.differences[0].recorded[0] == 77  # type: ignore[index]


def test_without_recorded_answers_there_is_nothing_to_compare_with(folder: Path) -> None:
    record = BundleRecord.read(folder / "monoxkit.json")
    (folder / "golden.json").unlink()
    value = replace(record, files={}).to_json()
    (folder / "monoxkit.json").write_text(json.dumps(value))
    with pytest.raises(ModelError, match="nothing to compare"):
        mk.load(str(folder), check=True)
    assert examine(str(folder)).verdict == "none"
    assert len(mk.load(str(folder)).predict(["game"])) == 1  # as bundles of 0.1.0


def test_too_many_classes_have_no_answers(tmp_path: Path) -> None:
    bert_classifier(tmp_path / "model")
    opened = open_folder(str(tmp_path / "model"))
    tokenizer, classifier = open_tokenizer(opened), load_classifier(opened)
    wide = Moved(classifier, 0, 0)
    wide.labels = LabelSet(tuple(map(str, range(200_001))))
    machine = machine_of("torch")
    write_golden(tmp_path, tokenizer, (classifier, machine), (wide, machine), has_pairs=False)
    assert not (tmp_path / "golden.json").exists()


def test_the_doctor_runs_the_self_test_of_a_bundle(folder: Path, capsys: Any) -> None:
    assert main(["doctor", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["self_test"]["verdict"] == "passed"
    assert main(["doctor", str(folder)]) == 0
    assert "27 golden texts" in capsys.readouterr().out
    edit(folder, "golden.json", lambda value: value["recorded"]["logits"][5].__setitem__(2, 9.25))
    assert main(["doctor", str(folder), "--json"]) == 5
    shown = capsys.readouterr()
    assert json.loads(shown.out)["self_test"]["differences"][0]["recorded"] == 9.25
    assert "9.25" in shown.err
    assert main(["doctor", str(folder)]) == 5
    assert GOLDEN_TEXTS[5][:20] in capsys.readouterr().out
