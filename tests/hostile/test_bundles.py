"""Bundles of strangers: what their record, golden answers and digests may say, and what not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from monox_kit.data import Document, LabelSet
from monox_kit.errors import ModelError
from monox_kit.models.folder import BundleRecord, open_folder, write_record
from monox_kit.models.load import examine, load_model, machine_of, open_tokenizer
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import score
from monox_kit.models.self_test import write_golden
from tests.hostile.canary import Canary
from tests.hostile.models import (
    CONFIG,
    GRAPH,
    RECORD,
    SETTINGS,
    TOKENIZER,
    Case,
    deep,
    edit,
    graph,
    key,
    kind,
    lfs,
    linked,
    text,
    write_graph,
)
from tests.tiny_models import LABELS, bert_classifier

GOLDEN, FP32 = "golden.json", "model.fp32.onnx"
DIGEST = "0" * 64
Change = Callable[[Path, Canary], object]


def recorded(build: Change) -> Change:
    """A change whose digests the record has, as whoever makes a bundle can write them."""

    def both(folder: Path, canary: Canary) -> None:
        build(folder, canary)
        write_record(folder, BundleRecord.read(folder / RECORD), "card")

    return both


def golden(*place: str | int, value: Any) -> Change:
    """Another value at a place of the golden answers, with its digest."""

    def build(folder: Path, _: Canary) -> None:
        content = json.loads((folder / GOLDEN).read_text())
        inner = content
        for part in place[:-1]:
            inner = inner[part]
        inner[place[-1]] = value
        (folder / GOLDEN).write_text(json.dumps(content))

    return recorded(build)


def named(name: str, **changes: Any) -> Change:
    """A file that the record names, with this size and digest."""

    def build(folder: Path, canary: Canary) -> None:
        record = json.loads((folder / RECORD).read_text())
        name_of = name.format(canary=canary.secret)
        record["files"][name_of] = {"num_bytes": 9, "sha256": DIGEST} | changes
        (folder / RECORD).write_text(json.dumps(record))

    return build


def flipped(file: str) -> Change:
    """A file of the same size with another last byte but one."""

    def build(folder: Path, _: Canary) -> None:
        content = bytearray((folder / file).read_bytes())
        content[-2] ^= 1
        (folder / file).write_bytes(bytes(content))

    return build


def longer(file: str) -> Change:
    """A file with a line more."""
    return lambda folder, _: (folder / file).write_bytes((folder / file).read_bytes() + b"\n")


def gone(file: str) -> Change:
    """A folder without a file."""
    return lambda folder, _: (folder / file).unlink()


def calibrated(temperature: Any) -> Change:
    """A record with a temperature for all languages."""
    content = {"temperatures": {"*": [temperature]}, "precision": None, "thresholds": {}}
    return key(RECORD, calibration=content)


def nodes_of(domain: str) -> list[Any]:
    """A graph's only node, of an operator of a domain."""
    return [helper.make_node("Evil", ["input_ids"], ["logits"], domain=domain)]


def inside_a_branch(folder: Path, canary: Canary) -> None:
    """An operator of a stranger in a graph in a node."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3])
    branch = helper.make_graph(nodes_of("evil.library"), "branch", [], [value])
    node = helper.make_node("If", ["input_ids"], ["logits"], then_branch=branch, else_branch=branch)
    write_graph(folder / GRAPH, nodes=[node])


def as_a_function(folder: Path, _: Canary) -> None:
    """An operator that the graph itself defines, as PyTorch's exporter writes them."""
    write_graph(folder / GRAPH)
    model = onnx.load(str(folder / GRAPH))
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("pkg.own", "Own", ["x"], ["y"], [cast], opsets))
    model.opset_import.append(helper.make_opsetid("pkg.own", 1))
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("Own", ["ids"], ["logits"], domain="pkg.own"))
    onnx.save(model, str(folder / GRAPH))


def without_ids(folder: Path, _: Canary) -> None:
    """A graph that takes a mask alone."""
    write_graph(folder / GRAPH)
    model = onnx.load(str(folder / GRAPH))
    del model.graph.input[0]
    onnx.save(model, str(folder / GRAPH))


def other_graph(**how: Any) -> Change:
    """Another graph in the place of the bundle's."""
    return lambda folder, _: write_graph(folder / GRAPH, **how)


ANSWERS = [
    *(Case(f"golden-{what}", kind(GOLDEN, what), GOLDEN)
      for what in ("fifo", "folder", "broken", "loop", "device")),
    Case("golden-link", linked(GOLDEN), GOLDEN),
    Case("golden-gone", gone(GOLDEN), GOLDEN),
    Case("golden-lfs", lfs(GOLDEN), GOLDEN),
    Case("golden-empty", recorded(text(GOLDEN, "")), GOLDEN),
    Case("golden-binary", recorded(text(GOLDEN, b"\xff\xfe\x00")), GOLDEN),
    Case("golden-list", recorded(text(GOLDEN, "[]")), GOLDEN),
    Case("golden-object", recorded(text(GOLDEN, "{}")), GOLDEN),
    Case("golden-deep", recorded(text(GOLDEN, deep("[", "]"))), GOLDEN),
    Case("golden-huge", recorded(text(GOLDEN, b"[" + b" " * (17 << 20) + b"]")), GOLDEN),
    Case("golden-version", golden("format_version", value=2), GOLDEN),
    Case("golden-no-texts", golden("texts", value=[]), GOLDEN),
    Case("golden-numbers", golden("texts", 0, 0, value=7), GOLDEN),
    Case("golden-ids-negative", golden("input_ids", 0, 0, value=-1), GOLDEN),
    Case("golden-ids-endless", golden("input_ids", 0, 0, value=1 << 70), GOLDEN),
    Case("golden-ids-fewer", golden("input_ids", value=[[1]]), GOLDEN),
    Case("golden-ids-other", golden("input_ids", 1, 1, value=5), "ids"),
    Case("golden-nan", golden("recorded", "logits", 0, 0, value=float("nan")), GOLDEN),
    Case("golden-infinite", golden("reference", "logits", 0, 0, value=1e300), GOLDEN),
    Case("golden-text-logit", golden("recorded", "logits", 0, 0, value="1.0"), GOLDEN),
    Case("golden-columns", golden("recorded", "logits", 0, value=[1.0, 2.0]), GOLDEN),
    Case("golden-other", golden("recorded", "logits", 4, 1, value=1e6), "1000000.0"),
    Case("golden-length", golden("max_length", value=-1), GOLDEN),
    Case("golden-longer", golden("max_length", value=1 << 20), "1048576"),
    Case("golden-many", golden("texts", value=[["a"]] * 10_000), "texts"),
    Case("golden-machine", golden("recorded", "machine", value="fast"), GOLDEN),
]  # fmt: skip
DIGESTS = [
    *(Case(f"flipped-{file}", flipped(file), file) for file in (CONFIG, SETTINGS, TOKENIZER, FP32)),
    Case("longer-golden", longer(GOLDEN), GOLDEN),
    Case("longer-settings", longer(SETTINGS), SETTINGS),
    Case("gone-settings", gone(SETTINGS), SETTINGS),
    Case("gone-fp32", gone(FP32), None),
    Case("gone-fp32-data", named(f"{FP32}.data"), None),
    Case("graph-exchanged", other_graph(outputs=("logits", ["N", 3])), GRAPH),
    Case("planted-map", text("special_tokens_map.json", '{"pad_token": "[SEP]"}'),
         "special_tokens_map.json"),
    Case("planted-tokens", text("added_tokens.json", "{}"), "added_tokens.json"),
    Case("fp32-link", linked(FP32), FP32),
    Case("files-above", named("../outside/secret.txt"), RECORD),
    Case("files-absolute", named("{canary}"), RECORD),
    Case("files-dots", named("a/../../secret.txt"), RECORD),
    Case("files-backslash", named("..\\secret.txt"), RECORD),
    Case("files-line", named("a\nb"), RECORD),
    Case("files-missing", named("evil.py"), "evil.py"),
    Case("files-size", named("x", num_bytes=-1), RECORD),
    Case("files-size-true", named("x", num_bytes=True), RECORD),
    Case("files-digest", named("x", sha256="0"), RECORD),
    Case("files-key", named("x", url="x"), RECORD),
    Case("files-linked", lambda folder, canary: ((folder / "weights").symlink_to(canary.secret),
         named("weights")(folder, canary)), "weights"),
    Case("files-list", key(RECORD, files=["model.onnx"]), RECORD),
]  # fmt: skip
WORDS = [
    Case("activation", key(RECORD, activation="sigmoid"), RECORD),
    Case("activation-other", key(RECORD, activation="relu"), RECORD),
    Case("activation-list", key(RECORD, activation=[]), RECORD),
    Case("padding", key(RECORD, padding_side="left"), "padding_side"),
    Case("padding-other", key(RECORD, padding_side="up"), RECORD),
    Case("truncation", key(RECORD, truncation_side="left"), "truncation_side"),
    Case("truncation-number", key(RECORD, truncation_side=1), RECORD),
    Case("more-labels", key(RECORD, labels={"names": ["a", "b", "c", "d"]}), GOLDEN),
    *(
        Case(f"temperature-{number}", calibrated(value), RECORD)
        for number, value in enumerate([10**400, 5e-324, 1e300, -1, True, "1"])
    ),
    Case("later-field", key(RECORD, later={"a": 1}), None),
]
# Of these the digests are the record's.
GRAPHS = [
    Case("domain", recorded(other_graph(nodes=nodes_of("evil.library"))), "evil.library"),
    Case("domain-extensions", recorded(other_graph(nodes=nodes_of("ai.onnx.contrib"))),
         "ai.onnx.contrib"),
    Case("domain-control", recorded(other_graph(nodes=nodes_of("a\x1b[2J"))), "\\x1b"),
    Case("domain-in-branch", recorded(inside_a_branch), "evil.library"),
    Case("domain-own", recorded(as_a_function), None),
    Case("input", recorded(other_graph(inputs={"evil": TensorProto.INT64})), GRAPH),
    Case("input-type", recorded(other_graph(inputs={"token_type_ids": TensorProto.FLOAT})), GRAPH),
    Case("output", recorded(other_graph(outputs=("scores", ["B", 3]))), GRAPH),
    Case("columns", recorded(other_graph(outputs=("logits", ["B", 4]))), GRAPH),
    Case("axes", recorded(other_graph(outputs=("logits", [3]))), GRAPH),
    Case("no-inputs", recorded(without_ids), "input_ids"),
    Case("input-narrow", recorded(other_graph(inputs={"input_ids": TensorProto.INT32})), "int32"),
    Case("input-strings", recorded(other_graph(inputs={"input_ids": TensorProto.STRING})), GRAPH),
    Case("output-axes", recorded(other_graph(outputs=("logits", ["B", 3, 1]))), "3 axes"),
    Case("columns-endless", recorded(other_graph(outputs=("logits", ["B", 1 << 62]))), GRAPH),
    Case("columns-negative", recorded(other_graph(outputs=("logits", ["B", -3]))), GRAPH),
]  # fmt: skip
# What a session must compute to be told; all else is judged before one is made.
RUN = {"golden-other"}
CASES = [*ANSWERS, *DIGESTS, *WORDS, *GRAPHS]
assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny graph, with its golden answers, and a record of every file."""
    folder = bert_classifier(tmp_path_factory.mktemp("honest") / "model")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    graph()(folder, None)  # type: ignore[arg-type]
    shutil.copy(folder / GRAPH, folder / FP32)
    record = BundleRecord(
        labels=LabelSet(LABELS),
        max_length=16,
        backend="onnx",
        precision="int8",
        has_pairs=False,
        truncation_side="right",
        padding_side="right",
    )
    opened = replace(open_folder(str(folder)), record=record)
    answers = OnnxClassifier(opened), machine_of("onnx", "cpu")
    write_golden(folder, open_tokenizer(opened), answers, answers, has_pairs=False)
    write_record(folder, record, "card")
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return shutil.copytree(honest, tmp_path / "bundle")


def test_the_honest_bundle_passes(folder: Path) -> None:
    assert examine(str(folder)).verdict == "passed"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_bundle_is_refused_by_name_or_loads_without_harm(
    case: Case, folder: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.build(folder, canary)
    canary.touched()  # what building it did
    if case.names is None:
        model = load_model(str(folder), check=True)
        scored = score(model.classifier, model.tokenizer, [Document(0, "1", "game")])
        assert np.isfinite(scored.logits).all()
        canary.require_untouched(folder)
        return
    if case.name not in RUN:
        monkeypatch.setattr(
            "monox_kit.models.onnx_backend.open_session",
            lambda *_, **__: pytest.fail("a session was made"),
        )
    with pytest.raises(ModelError) as refusal:
        load_model(str(folder), check=True)
    assert refusal.value.exit_code == 5
    assert str(refusal.value).startswith(str(folder))
    assert case.names in str(refusal.value)
    canary.require_untouched()


def test_bundles_without_digests_open_as_they_did(folder: Path) -> None:
    for name in ("files", "activation", "truncation_side", "padding_side"):
        record = json.loads((folder / RECORD).read_text())
        del record[name]
        (folder / RECORD).write_text(json.dumps(record))
    edit(folder, SETTINGS, later=1)
    assert load_model(str(folder), check=True).classifier.labels.names == LABELS
