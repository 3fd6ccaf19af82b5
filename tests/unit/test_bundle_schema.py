"""The published schema of a bundle's records says what the reader takes, and is the types'."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from monox_kit.data import LabelSet
from monox_kit.errors import ModelError
from monox_kit.models.bundle_schema import bundle_schema, read_schema
from monox_kit.models.files import find_file
from monox_kit.models.golden_file import Answers, Golden, Machine
from monox_kit.models.record import BundleRecord, RecordedFile

jsonschema = pytest.importorskip("jsonschema")

DIGEST = "0" * 64
RIGHT = {"num_bytes": 1, "sha256": DIGEST}
RECORD = BundleRecord(
    labels=LabelSet(("a", "b")),
    max_length=16,
    backend="onnx",
    precision="int8",
    has_pairs=False,
    truncation_side="right",
    padding_side="left",
    files={"model.onnx": RecordedFile(num_bytes=3, sha256=DIGEST)},
    checks={"gate": {"passed": True}},
).to_json()
OLDER = {
    name: value
    for name, value in RECORD.items()
    if name not in ("activation", "truncation_side", "padding_side", "files", "checks")
}
MACHINE = Machine(runtime="r 1", provider=None, processor="p", features=("avx2",))
ANSWERS = Answers(logits=((0.5, -1.0),), machine=MACHINE)
GOLDEN = json.loads(json.dumps(Golden(
    texts=(("a text",),), max_length=16, input_ids=((1, 2),), reference=ANSWERS, recorded=ANSWERS,
).to_json()))  # fmt: skip
# One of each kind that a field may be given by a slip.
VALUES: tuple[Any, ...] = (
    "head-tail",
    None, True, -1, 0, 1, 1 << 25, 1.5, "", "x", "left", "softmax", "onnx", "fp32", [], [1], ["a"],
    [["a"]], {}, {"a": 1}, {"names": ["a"]}, {"names": ["a", "a"]}, {"names": ["a", "c"]},
    {"names": ["a", "c"], "problem_type": "regression"}, {"names": ["a", "c"], "other": 1},
    {"f": RIGHT}, {"f": {"num_bytes": -1, "sha256": DIGEST}},
    {"f": {"num_bytes": 1, "sha256": "00"}}, {"f": {"num_bytes": 1}},
    {"../f": RIGHT}, {"/f": RIGHT}, {"a/../f": RIGHT}, {"a//f": RIGHT}, {"a\\f": RIGHT},
)  # fmt: skip


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    checker = jsonschema.Draft202012Validator(schema)
    return not list(checker.iter_errors(value))


def golden_schema() -> dict[str, Any]:
    schema = read_schema()
    return {"$ref": "#/$defs/Golden", "$defs": schema["$defs"]}


def is_read(value: Any, path: Path) -> bool:
    path.write_text(json.dumps(value))
    try:
        BundleRecord.read(path)
    except ModelError as error:
        assert str(error).startswith(str(path))
        return False
    return True


def is_read_as_golden(value: Any, path: Path) -> bool:
    path.write_text(json.dumps(value))
    file = find_file(path.parent, path.name)
    assert file is not None
    try:
        Golden.read(file, 2)
    except ModelError as error:
        assert str(error).startswith(str(path))
        return False
    return True


def test_the_schema_in_the_package_is_the_types_own() -> None:
    assert read_schema() == bundle_schema(), "run `make docs`"
    jsonschema.Draft202012Validator.check_schema(read_schema())


@pytest.mark.parametrize("record", [RECORD, OLDER], ids=["0.2.0", "0.1.0"])
def test_what_is_written_is_valid_and_read(record: dict[str, Any], tmp_path: Path) -> None:
    assert is_valid(record, read_schema())
    assert is_read(record, tmp_path / "monoxkit.json")
    assert set(read_schema()["properties"]) == set(RECORD)


@pytest.mark.parametrize("name", RECORD)
def test_the_reader_takes_what_the_schema_takes(name: str, tmp_path: Path) -> None:
    judged = set()
    for value in VALUES:
        changed = {**RECORD, name: value}
        if name == "labels":  # the reader compares the two, which a schema cannot
            changed["activation"] = None
        if name == "activation" and value == "sigmoid":
            continue
        is_right = is_valid(changed, read_schema())
        judged.add(is_right)
        assert is_read(changed, tmp_path / "monoxkit.json") == is_right, value
    assert judged == {True, False}
    without = {key: value for key, value in RECORD.items() if key != name}
    assert is_read(without, tmp_path / "monoxkit.json") == is_valid(without, read_schema())


def test_golden_answers_are_read_as_the_schema_says(tmp_path: Path) -> None:
    assert is_valid(GOLDEN, golden_schema())
    assert is_read_as_golden(GOLDEN, tmp_path / "golden.json")
    places = [(name,) for name in GOLDEN] + [
        ("recorded", "logits"), ("recorded", "machine"), ("reference", "machine", "features"),
        ("recorded", "machine", "provider"), ("recorded", "logits", 0, 1), ("input_ids", 0, 0),
        ("texts", 0, 0),
    ]  # fmt: skip
    for place in places:
        for value in VALUES:
            changed = copy.deepcopy(GOLDEN)
            inner = changed
            for part in place[:-1]:
                inner = inner[part]
            inner[place[-1]] = value
            # Counts of several fields are compared by the reader alone: below.
            if value in ([], [["a"]], ["a"]) and place in COUNTED:
                continue
            is_right = is_valid(changed, golden_schema())
            assert is_read_as_golden(changed, tmp_path / "golden.json") == is_right, (place, value)


COUNTED = (("texts",), ("input_ids",), ("recorded", "logits"))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("input_ids",), [[1, 2], [3]]),
        (("input_ids",), []),
        (("recorded", "logits"), [[0.5, 1.0], [0.5, 1.0]]),
        (("recorded", "logits"), [[0.5]]),
        (("reference", "logits"), [[0.5, 1.0, 2.0]]),
        (("texts",), [["a text", "b"], ["c"]]),
    ],
)
def test_counts_that_do_not_fit_are_refused(
    place: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    changed = copy.deepcopy(GOLDEN)
    inner = changed
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    assert not is_read_as_golden(changed, tmp_path / "golden.json")
