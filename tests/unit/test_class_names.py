"""Names for the classes of a model that has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monox_kit.data import LabelSet
from monox_kit.errors import LabelMismatchError
from monox_kit.models.class_names import are_named
from monox_kit.models.folder import open_folder
from monox_kit.models.load import load_model
from tests.tiny_models import bert_classifier

NAMES = ("games", "mail", "text")
UNNAMED = (("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1", "2"))


@pytest.mark.parametrize("own", UNNAMED)
def test_a_model_without_names_takes_those_that_are_given(
    own: tuple[str, ...], tmp_path: Path
) -> None:
    path = str(bert_classifier(tmp_path / "m", labels=own))
    folder = open_folder(path)
    assert folder.labels.names == folder.named(()).labels.names == own
    assert folder.named(NAMES).labels == LabelSet(NAMES)
    assert folder.named(NAMES).model_digest == folder.model_digest
    assert folder.resolve_labels(LabelSet(NAMES)).names == NAMES
    loaded = load_model(path, label_names=NAMES)
    assert loaded.classifier.labels.names == loaded.folder.labels.names == NAMES
    for wrong in (NAMES[:2], (*NAMES, "more")):
        with pytest.raises(LabelMismatchError, match=f"3 classes.* gives {len(wrong)}") as caught:
            _ = folder.named(wrong).labels
        assert path in str(caught.value)


def test_a_model_keeps_its_own_names(tmp_path: Path) -> None:
    folder = open_folder(str(bert_classifier(tmp_path / "m", labels=NAMES)))
    assert folder.named(("x", "y", "z")).labels.names == NAMES


def test_the_problem_type_stays(tmp_path: Path) -> None:
    path = bert_classifier(tmp_path / "m", labels=UNNAMED[0])
    config = json.loads((path / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (path / "config.json").write_text(json.dumps(config))
    assert open_folder(str(path)).named(NAMES).labels.is_multi


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("LABEL_0", "LABEL_1"), False),
        (("0", "1", "2"), False),
        (("LABEL_1", "LABEL_0"), True),
        (("1", "2"), True),
        (("1", "0"), True),
        (("neg", "pos"), True),
    ],
)
def test_which_names_are_none(names: tuple[str, ...], expected: bool) -> None:
    assert are_named(names) is expected
