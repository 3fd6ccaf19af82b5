"""Model folders of strangers: nothing runs, nothing leaks, each refusal is a ModelError by name."""

from __future__ import annotations

import ast
import fnmatch
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from monox_kit.data import Document
from monox_kit.digest import digest_file, digest_json
from monox_kit.errors import ModelError
from monox_kit.models.folder import open_folder
from monox_kit.models.load import load_backend, load_model, open_tokenizer
from monox_kit.models.scoring import score
from monoxkit_cli.app import main
from tests.hostile.canary import Canary
from tests.hostile.models import (
    CONFIG,
    GRAPH,
    INDEX,
    RECORD,
    SETTINGS,
    TOKENIZER,
    WEIGHTS,
    Case,
    adapter,
    bundle,
    code_of_its_own,
    deep,
    drop,
    graph,
    header,
    index,
    key,
    kind,
    lfs,
    linked,
    nested_graphs,
    secret_key,
    sharded_checkpoint,
    text,
    tokenizer,
    weights,
)
from tests.tiny_models import bert_classifier

ROOT = Path(__file__).resolve().parents[2]
CUSTOM = {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}
# What a saved tokenizer consists of.
SAVED = {TOKENIZER, SETTINGS, "special_tokens_map.json"}
BOMB = [helper.make_node("EPContext", ["input_ids"], ["logits"], ep_cache_context="evil.so")]
NAN = np.full(3, np.nan, np.float32)

CODE = [
    Case("code", code_of_its_own(CONFIG, model_type="evil", auto_map=CUSTOM), CONFIG),
    Case("code-known-type", code_of_its_own(CONFIG, auto_map=CUSTOM), CONFIG),
    Case("code-elsewhere", code_of_its_own(CONFIG, auto_map={"AutoModel": "a/b--evil.E"}), CONFIG),
    Case("code-list", code_of_its_own(CONFIG, auto_map=["evil.Evil"]), CONFIG),
    Case("code-class", code_of_its_own(CONFIG, architectures=["EvilForSequenceClassification"]),
         CONFIG),
    Case("code-unused", code_of_its_own(CONFIG, auto_map={"AutoModelForCausalLM": "evil.E"}), None),
    Case("code-tokenizer", code_of_its_own(SETTINGS, auto_map={"AutoTokenizer": ["evil.E", None]}),
         SETTINGS),
    Case("code-tokenizer-list", code_of_its_own(SETTINGS, auto_map=["evil.E", None]), SETTINGS),
    Case("unknown-type", key(CONFIG, model_type="evil"), CONFIG),
    Case("type-number", key(CONFIG, model_type=7), CONFIG),
    Case("type-list", key(CONFIG, model_type=["bert"]), CONFIG),
]  # fmt: skip
LINKS = [
    Case(f"link-{name}", linked(name), name)
    for name in (CONFIG, TOKENIZER, SETTINGS, WEIGHTS, INDEX, RECORD, "vocab.txt", "merges.txt",
                 "special_tokens_map.json", "added_tokens.json", "spiece.model", "spm.model")
    if name != INDEX
]  # fmt: skip
LINKS += [
    Case(f"{what}-{name}", kind(name, what), name)
    for what, name in (
        ("fifo", CONFIG), ("fifo", "vocab.txt"), ("fifo", WEIGHTS), ("folder", TOKENIZER),
        ("folder", WEIGHTS), ("broken", WEIGHTS), ("broken", RECORD), ("loop", CONFIG),
        ("device", TOKENIZER), ("device", "vocab.txt"),
    )
]  # fmt: skip
KEYS = [
    Case("weights-elsewhere", key(CONFIG, transformers_weights="other.safetensors"), CONFIG),
    Case("quantized", key(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}), CONFIG),
    Case("kernel", key(CONFIG, _attn_implementation="evil/kernel"), None),
    Case("kernel-new", key(CONFIG, attn_implementation="evil/kernel"), None),
    Case("kernel-internal", key(CONFIG, _attn_implementation_internal="evil/kernel"), None),
    Case("experts", key(CONFIG, experts_implementation="evil/kernel"), None),
    Case("fusion", key(CONFIG, fusion_config={"evil": True}), None),
    Case("vocab-file", key(CONFIG, vocab_file="/etc/hostname"), None),
    Case("returns-tuples", key(CONFIG, return_dict=False), None),
    Case("method", key(CONFIG, to_dict="x"), ""),
    Case("class", key(CONFIG, __class__="x"), CONFIG),
    Case("padding-outside", key(CONFIG, pad_token_id=1 << 40), CONFIG),
    Case("other-config", key(CONFIG, configuration_files=["config.4.0.0.json"]), None),
    Case("name-or-path", key(CONFIG, _name_or_path="evil/repo"), None),
]
INDEXES = [
    Case("index-pickle", index(a="w.bin"), INDEX),
    Case("index-above", index(a="../outside/secret.safetensors"), INDEX),
    Case("index-absolute", index(a="{canary}/secret.safetensors"), INDEX),
    Case("index-backslash", index(a="..\\secret.safetensors"), INDEX),
    Case("index-below", index(a="sub/one.safetensors"), INDEX),
    Case("index-missing", index(a="two.safetensors"), "two.safetensors"),
    Case("index-empty", index(), INDEX),
    Case("index-number", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / INDEX).write_text('{"weight_map": {"a": 7}}')), INDEX),
    Case("index-list", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / INDEX).write_text('{"weight_map": ["a"]}')), INDEX),
    Case("index-deep", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / INDEX).write_text(deep("[", "]"))), INDEX),
    Case("pickle-alone", lambda folder, canary: ((folder / WEIGHTS).unlink(),
         (folder / "pytorch_model.bin").write_bytes(canary.pickled())), WEIGHTS),
    Case("pickle-beside", lambda folder, canary: (folder / "pytorch_model.bin").write_bytes(
         canary.pickled()), None),
    Case("pickle-sharded", sharded_checkpoint, None),
]  # fmt: skip
DAMAGE = [
    Case("config-empty", text(CONFIG, ""), CONFIG),
    Case("config-binary", text(CONFIG, b"\xff\xfe\x00"), CONFIG),
    Case("config-list", text(CONFIG, "[]"), CONFIG),
    Case("config-deep", text(CONFIG, deep("[", "]")), CONFIG),
    Case("config-deep-objects", text(CONFIG, deep('{"a":', "}")), CONFIG),
    Case("config-rather-deep", text(CONFIG, deep("[", "]", 500)), CONFIG),
    Case("config-huge", text(CONFIG, b"[" + b" " * (17 << 20) + b"]"), CONFIG),
    Case("config-number", text(CONFIG, '{"a": ' + "9" * 5000 + "}"), CONFIG),
    Case("architectures-text", key(CONFIG, architectures="BertForSequenceClassification"), CONFIG),
    Case("architectures-numbers", key(CONFIG, architectures=[1]), CONFIG),
    Case("hidden-text", key(CONFIG, hidden_size="many"), CONFIG),
    Case("hidden-zero", key(CONFIG, hidden_size=0), CONFIG),
    Case("hidden-huge", key(CONFIG, hidden_size=1 << 40), CONFIG),
    Case("vocabulary-huge", key(CONFIG, vocab_size=1 << 40), CONFIG),
    Case("vocabulary-negative", key(CONFIG, vocab_size=-5), CONFIG),
    Case("layers-endless", key(CONFIG, num_hidden_layers=1 << 40), CONFIG),
    Case("layers-many", key(CONFIG, num_hidden_layers=500), CONFIG),
    Case("positions-endless", key(CONFIG, max_position_embeddings=1 << 40), CONFIG),
    Case("positions-others", key(CONFIG, max_position_embeddings=32), "position_embeddings"),
    Case("activation", key(CONFIG, hidden_act="__import__('os')"), CONFIG),
    Case("dtype", key(CONFIG, dtype="load"), CONFIG),
    Case("problem", key(CONFIG, problem_type="regression"), CONFIG),
    Case("problem-list", key(CONFIG, problem_type=["single"]), CONFIG),
    Case("names-list", key(CONFIG, id2label=["a", "b", "c"]), CONFIG),
    Case("names-swapped", key(CONFIG, id2label={"a": 0, "b": 1, "c": 2}), CONFIG),
    Case("names-true", key(CONFIG, id2label={"0": False, "1": True, "2": None}), CONFIG),
    Case("names-twice", key(CONFIG, id2label={"0": "a", "1": "a", "2": "b"}), CONFIG),
    Case("names-index-twice", key(CONFIG, id2label={"0": "a", "00": "b", "2": "c"}), CONFIG),
    Case("names-gap", key(CONFIG, id2label={"0": "a", "1": "b", "7": "c"}), CONFIG),
    Case("names-nested", key(CONFIG, id2label={"0": ["a"], "1": {}, "2": "c"}), CONFIG),
    Case("names-surrogate", key(CONFIG, id2label={"0": "\ud800", "1": "b", "2": "c"}), CONFIG),
    Case("names-one", key(CONFIG, id2label={"0": "a"}), CONFIG),
    Case("names-none", key(CONFIG, id2label={}), CONFIG),
    Case("labels-endless", lambda folder, _: (drop(folder, CONFIG, "id2label"),
         key(CONFIG, num_labels=1 << 40)(folder, _)), CONFIG),
    Case("labels-text", lambda folder, _: (drop(folder, CONFIG, "id2label"),
         key(CONFIG, num_labels="3")(folder, _)), CONFIG),
    Case("weights-empty", text(WEIGHTS, b""), WEIGHTS),
    Case("weights-text", text(WEIGHTS, b"no weights at all"), WEIGHTS),
    Case("weights-header-endless", text(WEIGHTS, b"\xff" * 64), WEIGHTS),
    Case("weights-shape", header(shape=[1 << 40]), WEIGHTS),
    Case("weights-offsets", header(data_offsets=[0, 1 << 50]), WEIGHTS),
    Case("weights-dtype", header(dtype="EVIL"), WEIGHTS),
    Case("weights-nan", weights(classifier__bias=NAN), "classifier.bias"),
    Case("weights-infinite", weights(classifier__bias=np.full(3, np.inf, np.float32)),
         "classifier.bias"),
    Case("weights-no-head", weights(classifier__bias=None), "classifier.bias"),
    Case("weights-other-size", weights(classifier__bias=np.ones(7, np.float32)),
         "classifier.bias"),
    Case("lfs-weights", lfs(WEIGHTS), WEIGHTS),
    Case("lfs-tokenizer", lfs(TOKENIZER), TOKENIZER),
    Case("adapter", adapter, "adapter_config.json"),
    Case("tokenizer-deep", text(TOKENIZER, deep("[", "]")), ""),
    Case("tokenizer-empty", text(TOKENIZER, "{}"), ""),
    Case("tokenizer-model", text(TOKENIZER, '{"model": {"type": "BPE", "vocab": 7}}'), ""),
    Case("settings-list", text(SETTINGS, "[]"), SETTINGS),
    Case("settings-deep", text(SETTINGS, deep("[", "]")), SETTINGS),
]  # fmt: skip
RECORDS = [
    Case("record", bundle(), None),
    Case("record-version", bundle(format_version=2), RECORD),
    Case("record-labels", bundle(labels=["a", "b"]), RECORD),
    Case("record-names", bundle(labels={"names": [1, 2]}), RECORD),
    Case("record-same-names", bundle(labels={"names": ["a", "a"]}), RECORD),
    Case("record-length", bundle(max_length="16"), RECORD),
    Case("record-length-negative", bundle(max_length=-1), RECORD),
    Case("record-length-true", bundle(max_length=True), RECORD),
    Case("record-backend", bundle(backend="pickle"), RECORD),
    Case("record-backend-list", bundle(backend=[]), RECORD),
    Case("record-precision", bundle(precision=4), RECORD),
    Case("record-pairs", bundle(has_pairs="yes"), RECORD),
    Case("record-checks", bundle(checks=[]), RECORD),
    Case("record-provenance", bundle(provenance="x"), RECORD),
    Case("record-deep", text(RECORD, deep("[", "]")), RECORD),
]
GRAPHS = [
    Case("graph", graph(), None),
    Case("graph-absolute", graph(locations=("{canary}",)), GRAPH),
    Case("graph-above", graph(locations=("../outside/secret.txt",)), GRAPH),
    Case("graph-above-later", graph(locations=("a", "sub/../../outside/secret.txt")), GRAPH),
    Case("graph-memory", graph(locations=("*/_ORT_MEM_ADDR_/*",)), GRAPH),
    Case("graph-backslash", graph(locations=("..\\secret",)), GRAPH),
    Case("graph-no-location", graph(locations=("",)), GRAPH),
    Case("graph-missing", graph(locations=("weights.bin",)), "weights.bin"),
    Case("graph-link", lambda folder, canary: (graph(locations=("weights.bin",))(folder, canary),
         linked("weights.bin")(folder, canary)), "weights.bin"),
    Case("graph-fifo", lambda folder, canary: (graph(locations=("weights.bin",))(folder, canary),
         kind("weights.bin", "fifo")(folder, canary)), "weights.bin"),
    Case("graph-itself-link", lambda folder, canary: (graph()(folder, canary),
         linked(GRAPH)(folder, canary)), GRAPH),
    Case("graph-input", graph(inputs={"evil": TensorProto.INT64}), GRAPH),
    Case("graph-input-type", graph(inputs={"token_type_ids": TensorProto.FLOAT}), GRAPH),
    Case("graph-output", graph(outputs=("scores", ["B", 3])), GRAPH),
    Case("graph-columns", graph(outputs=("logits", ["B", 4])), GRAPH),
    Case("graph-columns-unknown", graph(outputs=("logits", ["B", "C"])), None),
    Case("graph-axes", graph(outputs=("logits", [3])), GRAPH),
    Case("graph-no-axes", graph(outputs=("logits", [])), GRAPH),
    Case("graph-loads-code", graph(nodes=BOMB), GRAPH),
    Case("graph-operator", graph(nodes=[helper.make_node("Evil", ["input_ids"], ["logits"])]),
         GRAPH),
    Case("graph-nested", nested_graphs, GRAPH),
    Case("graph-empty", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / GRAPH).write_bytes(b"")), GRAPH),
    Case("graph-text", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / GRAPH).write_bytes(b"no graph")), GRAPH),
    Case("graph-endless-number", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / GRAPH).write_bytes(b"\xff" * 4096)), GRAPH),
    Case("graph-endless-field", lambda folder, _: ((folder / WEIGHTS).unlink(),
         (folder / GRAPH).write_bytes(b"\x3a\xff\xff\xff\xff\x0f")), GRAPH),
    Case("graph-lfs", lambda folder, _: ((folder / WEIGHTS).unlink(),
         lfs(GRAPH)(folder, _)), GRAPH),
]  # fmt: skip
TOKENIZERS = [
    Case("settings-vocab-file", secret_key(SETTINGS, "vocab_file", "tokenizer_file", "merges_file",
         "spm_file", "special_tokens_map_file", "added_tokens_file"), None),
    Case("map-vocab-file", secret_key("special_tokens_map.json", "vocab_file"), None),
    Case("settings-gguf", secret_key(SETTINGS, "gguf_file", "name_or_path"), None),
    Case("settings-inputs", key(SETTINGS, init_inputs=["/etc/hostname"]), None),
    Case("settings-template", key(SETTINGS, chat_template={"../../evil": "x", "default": "y"}),
         None),
    Case("settings-template-list", key(SETTINGS, chat_template=[
         {"name": "../../evil", "template": "x"}]), None),
    Case("settings-other-files", key(SETTINGS, fast_tokenizer_files=["tokenizer.4.0.0.json"]),
         None),
    Case("settings-class", key(SETTINGS, tokenizer_class="os.system"), None),
    Case("settings-class-number", key(SETTINGS, tokenizer_class=7), None),
    Case("settings-side", key(SETTINGS, padding_side="evil"), None),
    Case("settings-length", key(SETTINGS, model_max_length="evil"), None),
    Case("settings-inputs-names", key(SETTINGS, model_input_names=7), None),
    Case("settings-pad-number", key(SETTINGS, pad_token=7), None),
    Case("settings-pad-unknown", key(SETTINGS, pad_token="[EVIL]"), "embedding"),
    Case("settings-added", key(SETTINGS, added_tokens_decoder={"x": "y"}), SETTINGS),
    Case("settings-special", key(SETTINGS, extra_special_tokens=[7]), None),
    Case("tokenizer-cut", tokenizer(truncation={"direction": "Right", "max_length": 2,
         "strategy": "LongestFirst", "stride": 5}), None),
    Case("tokenizer-padding", tokenizer(padding={"strategy": {"Fixed": 1 << 40},
         "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0,
         "pad_token": "[PAD]"}), None),
    Case("tokenizer-regex", tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("},
         "behavior": "Removed", "invert": False}), TOKENIZER),
    Case("tokenizer-charsmap", tokenizer(normalizer={"type": "Precompiled",
         "precompiled_charsmap": "AAAA"}), TOKENIZER),
    Case("tokenizer-replace", tokenizer(normalizer={"type": "Replace", "pattern": {"String": ""},
         "content": "evil"}), None),
    Case("tokenizer-ids", tokenizer(added_tokens=[{"id": 1 << 31, "content": "[EVIL]",
         "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}]), "embedding"),
    Case("tokenizer-unk", tokenizer(model={"unk_token": "[EVIL]"}), TOKENIZER),
    Case("tokenizer-template", tokenizer(post_processor={"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "[EVIL]", "type_id": 0}}], "pair": [],
         "special_tokens": {}}), None),
    Case("tokenizer-types", tokenizer(post_processor={"type": "TemplateProcessing",
         "single": [{"Sequence": {"id": "A", "type_id": 99}}], "pair": [
         {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
         "special_tokens": {}}), None),
    Case("tokenizer-unigram", tokenizer(model={"type": "Unigram", "vocab": [], "unk_id": 9}),
         TOKENIZER),
    Case("tokenizer-unigram-unk", tokenizer(model={"type": "Unigram", "vocab": [["a", 0.0]],
         "unk_id": 9}), TOKENIZER),
    Case("tokenizer-bpe", tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}),
         TOKENIZER),
]  # fmt: skip
CASES = [*TOKENIZERS, *CODE, *LINKS, *KEYS, *INDEXES, *DAMAGE, *RECORDS, *GRAPHS]
assert len({case.name for case in CASES}) == len(CASES)


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """The digest of some files of a folder as 0.1.0 made it: their names and their bytes."""
    return digest_json({name: digest_file(folder / name) for name in names})


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that scores three classes."""
    return bert_classifier(tmp_path_factory.mktemp("honest") / "model")


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return shutil.copytree(honest, tmp_path / "model")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_folder_is_refused_by_name_or_loads_without_harm(
    case: Case, folder: Path, canary: Canary
) -> None:
    case.build(folder, canary)
    canary.touched()  # what building it did
    if case.names is None:
        model = load_model(str(folder), max_length=16)
        scored = score(model.classifier, model.tokenizer, [Document(0, "1", "game")])
        assert np.isfinite(scored.logits).all()
        out = folder.parent / "saved" / "tokenizer"
        out.mkdir(parents=True)
        model.tokenizer.save(out)
        assert {path.name for path in out.parent.rglob("*")} <= {"tokenizer", *SAVED}
        canary.require_untouched(out)
        return
    with pytest.raises(ModelError) as refusal:
        load_model(str(folder), max_length=16)
    assert refusal.value.exit_code == 5
    assert str(refusal.value).startswith(str(folder))
    assert case.names in str(refusal.value)


def logits(folder: Path) -> np.ndarray:
    model = load_model(str(folder), max_length=16)
    return score(model.classifier, model.tokenizer, [Document(0, "1", "game font mail")]).logits


def test_a_model_beside_an_index_is_digested_as_it_is_loaded(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "model-00001-of-00001.safetensors")
    names = {"classifier.bias": "model-00001-of-00001.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    before, digest = logits(folder), open_folder(str(folder)).model_digest
    weights(classifier__bias=np.full(3, 50, np.float32))(folder, None)  # type: ignore[arg-type]
    assert np.abs(logits(folder) - before).max() > 10
    assert open_folder(str(folder)).model_digest != digest


def test_the_shards_of_an_index_are_digested_whatever_their_names(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "part.safetensors")
    names = dict.fromkeys(tensors, "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    before, digest = logits(folder), open_folder(str(folder)).model_digest
    tensors["classifier.bias"] += 50
    save_file(tensors, folder / "part.safetensors", {"format": "pt"})
    assert np.abs(logits(folder) - before).max() > 10
    assert open_folder(str(folder)).model_digest != digest


def test_external_data_of_any_name_is_digested(folder: Path, canary: Canary) -> None:
    graph()(folder, canary)
    model = onnx.load(str(folder / GRAPH))
    onnx.save(
        model,
        str(folder / GRAPH),
        save_as_external_data=True,
        location="w.onnx_data",
        size_threshold=0,
    )
    opened = open_folder(str(folder))
    digest = opened.model_digest
    assert set(opened.graph_files(GRAPH)) == {GRAPH, "w.onnx_data"}
    (folder / "w.onnx_data").write_bytes((folder / "w.onnx_data").read_bytes() + b"more")
    assert open_folder(str(folder)).model_digest != digest


def test_a_file_that_is_exchanged_after_its_digest_is_not_used(folder: Path) -> None:
    opened = open_folder(str(folder))
    assert opened.model_digest
    weights(classifier__bias=np.ones(3, np.float32))(folder, None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="changed"):
        load_backend(opened, "torch")


def test_a_tokenizer_that_is_exchanged_after_its_digest_is_not_used(folder: Path) -> None:
    opened = open_folder(str(folder))
    assert opened.tokenizer_digest
    tokenizer(normalizer={"lowercase": False})(folder, None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"tokenizer\.json.*changed"):
        open_tokenizer(opened)


def test_digests_of_sharded_folders_are_those_of_0_1_0(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = {
        name: f"model-{number % 2 + 1:05}-of-00002.safetensors"
        for number, name in enumerate(tensors)
    }
    for shard in set(names.values()):
        part = {name: tensors[name] for name in names if names[name] == shard}
        save_file(part, folder / shard, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert np.isfinite(logits(folder)).all()
    expected = digest_files(folder, [CONFIG, INDEX, *set(names.values())])
    assert open_folder(str(folder)).model_digest == expected


def test_digests_of_plain_folders_are_those_of_0_1_0(folder: Path, canary: Canary) -> None:
    opened = open_folder(str(folder))
    assert opened.model_digest == digest_files(folder, [CONFIG, WEIGHTS])
    assert opened.tokenizer_digest == digest_files(folder, [TOKENIZER, SETTINGS])
    graph()(folder, canary)
    onnx.save(
        onnx.load(str(folder / GRAPH)),
        str(folder / GRAPH),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    expected = digest_files(folder, [CONFIG, GRAPH, "model.onnx.data"])
    assert open_folder(str(folder)).model_digest == expected


def test_a_snapshot_of_the_hubs_cache_is_links_and_loads(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    np.testing.assert_array_equal(logits(snapshot), logits(folder))
    assert open_folder(str(snapshot)).model_digest == open_folder(str(folder)).model_digest


def test_a_cache_whose_blobs_are_a_link_gives_nothing_away(
    folder: Path, tmp_path: Path, canary: Canary
) -> None:
    cache = tmp_path / "models--owner--name"
    (cache / "snapshots").mkdir(parents=True)
    folder = folder.rename(cache / "snapshots" / "0123abc")
    (cache / "blobs").symlink_to(canary.secret.parent)
    (folder / "vocab.txt").symlink_to(f"../../blobs/{canary.secret.name}")
    with pytest.raises(ModelError, match=r"vocab\.txt"):
        open_folder(str(folder))


@pytest.mark.parametrize(
    "name",
    ["teachr", "Teacher1", "./teacher2", "runs/teacher", "runz/teacher", "a/b/c", "teacher/x",
     "../teacher", "hub:a/b/c", "teacher \x1b[2J", ""],
)  # fmt: skip
def test_a_mistyped_folder_is_never_sent_to_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("teacher", "runs"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail(f"{name!r} was sent")
    )
    with pytest.raises(ModelError):
        open_folder(name)


def test_a_hub_model_comes_with_what_its_graph_names(
    folder: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph()(folder, canary)
    onnx.save(
        onnx.load(str(folder / GRAPH)),
        str(folder / GRAPH),
        save_as_external_data=True,
        location="w[1].onnx_data",
        size_threshold=0,
    )
    (folder / "other.safetensors").write_bytes(b"large")
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert name == "owner/name"
        assert revision in (None, "0123abc")
        for file in folder.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, snapshot / file.name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    opened = open_folder("owner/name")
    assert set(opened.graph_files(GRAPH)) == {GRAPH, "w[1].onnx_data"}
    assert not (snapshot / "other.safetensors").exists()


@pytest.mark.timeout(120)
def test_an_exported_bundle_names_no_file_of_its_source(
    folder: Path, canary: Canary, tmp_path: Path, capsys: Any
) -> None:
    code_of_its_own(CONFIG, auto_map={"AutoModelForCausalLM": "evil.E"})(folder, canary)
    key(CONFIG, vocab_file=str(canary.secret), _attn_implementation="evil/kernel")(folder, canary)
    key(SETTINGS, vocab_file=str(canary.secret))(folder, canary)
    rows = [{"text": f"game {name}", "label": name} for name in ("games", "mail", "text")] * 4
    (tmp_path / "check.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bundle = tmp_path / "bundle"
    arguments = ["export", str(folder), "--out", str(bundle), "--precision", "fp32"]
    assert main([*arguments, "--check", str(tmp_path / "check.jsonl")]) == 0, capsys.readouterr()
    config = json.loads((bundle / CONFIG).read_text())
    assert not {"auto_map", "vocab_file", "_attn_implementation"} & config.keys()
    assert config["id2label"] == {"0": "games", "1": "mail", "2": "text"}
    canary.require_untouched(bundle)


def test_the_command_asks_nothing_and_exits_with_5(
    folder: Path, canary: Canary, tmp_path: Path, capsys: Any
) -> None:
    code_of_its_own(CONFIG, model_type="evil", auto_map=CUSTOM)(folder, canary)
    (tmp_path / "test.jsonl").write_text('{"text": "game", "label": "games"}\n')
    arguments = ["evaluate", str(folder), "--test", str(tmp_path / "test.jsonl"), "--json"]
    assert main(arguments) == 5
    shown = capsys.readouterr()
    assert "config.json" in shown.err
    assert "?" not in shown.out


def test_no_call_leaves_the_choice_of_running_code_to_a_folder() -> None:
    calls = []
    for top in ("monox_kit", "cli", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in OPENERS:
                    given = {word.arg: word.value for word in node.keywords}
                    value = given.get("trust_remote_code")
                    is_off = isinstance(value, ast.Constant) and value.value is False
                    calls.append((f"{path.relative_to(ROOT)}:{node.lineno}", is_off))
    assert len(calls) >= 3
    assert [place for place, is_off in calls if not is_off] == []


OPENERS = {"from_pretrained", "from_config"}
