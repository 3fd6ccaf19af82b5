"""OpenVINO by its own runtime: the logits of PyTorch, the plan's streams, the cache, and by name.

`test_bf16.py` holds what it computes in bf16.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import monox_kit as mk
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Classifier, Document, TokenBatch
from monox_kit.errors import ModelError, ProviderError
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.extras import is_installed
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models import openvino_backend, openvino_cache, providers
from monox_kit.models.agreement import agreement
from monox_kit.models.batching import pad_batch
from monox_kit.models.folder import ModelFolder, open_folder
from monox_kit.models.graph_classifier import SessionPlan
from monox_kit.models.load import load_model, open_tokenizer
from monox_kit.models.openvino_backend import OpenVinoClassifier
from monox_kit.models.scoring import score, tokenize
from monox_kit.problem import problem_of
from monox_kit.store import LogitStore
from tests.tiny_models import balanced_classifier, labelled_rows, write_jsonl

pytestmark = pytest.mark.skipif(not is_installed("openvino"), reason="needs openvino")

PLANS = [SessionPlan(1, 2), SessionPlan(2, 1), SessionPlan(3, 1)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its fp32 bundle that was checked on OpenVINO, and texts of many lengths."""
    folder = tmp_path_factory.mktemp("openvino")
    rows = labelled_rows(60, seed=3)
    for number, row in enumerate(rows):
        row["text"] = " ".join((row["text"] * 3).split()[: 1 + number % 30])
    write_jsonl(folder / "rows.jsonl", rows)
    balanced_classifier(folder / "model", rows)
    export_model(
        ExportConfig(model=str(folder / "model"), provider="openvino", max_length=32),
        folder / "bundle",
    )
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled graphs are kept."""
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def documents(files: Path) -> list[Document]:
    return list(Corpus(CorpusConfig(paths=(str(files / "rows.jsonl"),))).documents())


def logits_of(classifier: Classifier, files: Path, folder: Path | None = None) -> Any:
    tokenizer = open_tokenizer(open_folder(str(folder or files / "bundle")))
    return score(classifier, tokenizer, documents(files), batch_tokens=96).logits


@pytest.fixture(scope="module")
def expected(files: Path) -> Any:
    """[N, C] logits of PyTorch."""
    model = load_model(str(files / "model"), max_length=32)
    return score(model.classifier, model.tokenizer, documents(files)).logits


@pytest.mark.parametrize("plan", PLANS)
def test_fp32_is_fp32_on_any_number_of_streams(
    files: Path, expected: Any, plan: SessionPlan
) -> None:
    """By itself OpenVINO takes bf16 where the CPU has it; that would be off by 1e-2."""
    folder = open_folder(str(files / "bundle"))
    classifier = OpenVinoClassifier(folder, plan=plan)
    assert classifier.concurrency == plan.sessions
    found = agreement(expected, logits_of(classifier, files), problem_of(classifier.labels))
    assert found.within_fp32, found


def test_batches_at_once_do_not_mix(files: Path) -> None:
    folder = open_folder(str(files / "bundle"))
    classifier = OpenVinoClassifier(folder, plan=SessionPlan(2, 1))
    texts = tokenize(open_tokenizer(folder), documents(files))
    batches = [
        pad_batch(texts.encoded, np.arange(start, start + size), texts.padding)
        for start in (0, 7, 20)
        for size in (1, 2, 5)
    ]
    alone = [classifier.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:  # more than there are streams: two wait
        for _ in range(5):
            for found, one in zip(pool.map(classifier.logits, batches), alone):
                np.testing.assert_array_equal(found, one)


def test_it_is_freed_with_its_streams(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing refers to it in a circle; threads that served one graph serve the next."""
    opened: list[Any] = []
    compiled = openvino_backend._Opened._compiled

    def watched(self: Any, graph: Path, settings: Any) -> Any:
        model = compiled(self, graph, settings)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr(openvino_backend._Opened, "_compiled", watched)
    folder = open_folder(str(files / "bundle"))

    def used() -> int:
        logits_of(OpenVinoClassifier(folder, plan=SessionPlan(2, 1), keep=False), files)
        assert opened.pop()() is None
        return len(os.listdir("/proc/self/task"))

    gc.disable()
    try:
        first = used()
        assert [used() for _ in range(4)] == [first] * 4
    finally:
        gc.enable()


def write_graph(folder: Path, nodes: list[Any], *values: Any, **changes: Any) -> ModelFolder:
    """A bundle whose graph is made of `nodes`, over tokens."""
    ids = changes.get("ids", TensorProto.INT64)
    inputs = [helper.make_tensor_value_info(name, ids, ["b", "l"]) for name in ("input_ids",)]
    logits = helper.make_tensor_value_info(
        changes.get("output", "logits"), TensorProto.FLOAT, ["b", changes.get("columns", 3)]
    )
    graph = helper.make_graph(nodes, "g", inputs, [logits], list(values))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    return open_folder(str(folder))


@pytest.fixture
def bundle(files: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(files / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_weights_in_8_bits_leave_activations_as_they_are(bundle: Path) -> None:
    """By itself OpenVINO rounds activations to 8 bits wherever weights have so many."""
    random = np.random.default_rng(0)
    embedding = random.normal(size=(300, 64)).astype(np.float32)
    weights = random.integers(-127, 127, (64, 3)).astype(np.int8)
    scales = (random.random(3) / 100).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axes"], ["mean"], keepdims=0),
        helper.make_node("DequantizeLinear", ["weights", "scales"], ["exact"], axis=1),
        helper.make_node("MatMul", ["mean", "exact"], ["logits"]),
    ]
    values = {"embedding": embedding, "weights": weights, "scales": scales, "axes": np.array([1])}
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    folder = write_graph(bundle, nodes, *tensors)
    classifier = OpenVinoClassifier(folder)
    ids = random.integers(0, 300, (16, 9))
    batch = TokenBatch(np.arange(16), ids, np.ones_like(ids))
    mean = embedding[ids].astype(np.float64).mean(axis=1)
    exact = mean @ (weights * scales.astype(np.float64))
    np.testing.assert_allclose(classifier.logits(batch), exact, atol=1e-5 * np.abs(exact).max())


FOUR_COLUMNS = [
    helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Constant", [], ["shape"], value_ints=[-1, 4]),
    helper.make_node("Reshape", ["floats", "shape"], ["logits"]),
]
IDENTITY = [
    helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Identity", ["floats"], ["logits"]),
]


@pytest.mark.parametrize(
    ("nodes", "changes", "message"),
    [
        ([helper.make_node("Evil", ["input_ids"], ["logits"], domain="com.microsoft")], {}, "Evil"),
        (FOUR_COLUMNS, {"columns": 4}, "3 labels .* found 4"),
        (IDENTITY, {"ids": TensorProto.FLOAT}, "int64 of 2 axes, found 'input_ids', float of 2"),
        (
            [IDENTITY[0], helper.make_node("Identity", ["floats"], ["scores"])],
            {"output": "scores"},
            "expected an output 'logits'",
        ),
    ],
)
def test_a_graph_that_is_no_classifiers_is_named(
    bundle: Path, nodes: list[Any], changes: dict[str, Any], message: str
) -> None:
    folder = write_graph(bundle, nodes, **changes)
    with pytest.raises(ModelError, match=message) as raised:
        OpenVinoClassifier(folder)
    assert str(raised.value).startswith(str(bundle / "model.onnx"))
    assert "src/" not in str(raised.value)  # places in OpenVINO's source


def test_weights_outside_the_folder_are_refused_before_it_reads_them(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "bias")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../secret")
    (bundle.parent / "secret").write_bytes(bytes(12))
    monkeypatch.setattr(openvino_backend, "import_openvino", lambda: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match=r"weights at '\.\./secret'"):
        write_graph(bundle, IDENTITY, tensor)


# What was compiled


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*"))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The graphs that were compiled, not taken from the cache."""
    graphs: list[Path] = []
    compiled = openvino_backend._Opened._compiled

    def watched(self: Any, graph: Path, settings: Any) -> Any:
        graphs.append(graph)
        return compiled(self, graph, settings)

    monkeypatch.setattr(openvino_backend._Opened, "_compiled", watched)
    return graphs


def test_a_graph_is_compiled_once_for_all_plans_and_places(
    files: Path, bundle: Path, cache: Path, compilations: list[Path]
) -> None:
    first = logits_of(OpenVinoClassifier(open_folder(str(files / "bundle"))), files)
    assert [path.stat().st_mode & 0o077 for path in (cache.parent,)] == [0]
    for plan in PLANS:
        classifier = OpenVinoClassifier(open_folder(str(bundle)), plan=plan)
        np.testing.assert_array_equal(logits_of(classifier, files), first)
    assert len(compilations) == len(kept(cache)) == 1
    OpenVinoClassifier(open_folder(str(bundle)), keep=False)
    assert len(compilations) == 2


def test_other_weights_of_the_same_name_size_and_time_are_compiled_anew(
    files: Path, bundle: Path, compilations: list[Path]
) -> None:
    before = logits_of(OpenVinoClassifier(open_folder(str(bundle))), files)
    path = bundle / "model.onnx"
    model, status = onnx.load(str(path)), path.stat()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.shape == (3,) and values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values + 1, tensor.name))
    onnx.save(model, str(path))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = logits_of(OpenVinoClassifier(open_folder(str(bundle))), files)
    np.testing.assert_allclose(after, before + 1, atol=1e-4)
    assert len(compilations) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "link"])
def test_what_is_damaged_in_the_cache_is_made_again(
    files: Path, bundle: Path, cache: Path, compilations: list[Path], damage: str
) -> None:
    first = logits_of(OpenVinoClassifier(open_folder(str(bundle))), files)
    (path,) = kept(cache)
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.touch()
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "other":
            path.write_bytes(b"no graph" * 100)
        case "link":
            (cache / "elsewhere").write_bytes(content)
            path.symlink_to("elsewhere")
    again = logits_of(OpenVinoClassifier(open_folder(str(bundle))), files)
    np.testing.assert_array_equal(again, first)
    assert len(compilations) == 2


def test_a_cache_that_others_may_write_to_is_left_alone(
    files: Path, cache: Path, compilations: list[Path]
) -> None:
    cache.mkdir(parents=True)
    cache.parent.chmod(0o777)
    for _ in range(2):
        OpenVinoClassifier(open_folder(str(files / "bundle")))
    assert kept(cache) == [] and len(compilations) == 2


def test_the_cache_keeps_what_was_opened_last(
    files: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(str(files / "bundle"))
    OpenVinoClassifier(folder)
    (new,) = kept(cache)
    num_bytes = new.stat().st_size
    for seconds, name in ((100, "older"), (200, "old")):
        (cache / f"{name}.blob").write_bytes(bytes(1000))
        os.utime(cache / f"{name}.blob", (seconds, seconds))
    new.unlink()
    monkeypatch.setattr(openvino_cache, "_MOST_BYTES", num_bytes + 1500)
    OpenVinoClassifier(folder)
    assert {path.name for path in kept(cache)} == {"old.blob", new.name}
    new.unlink()
    monkeypatch.setattr(openvino_cache, "_MOST_GRAPH_BYTES", 100)
    OpenVinoClassifier(folder)
    assert [path.name for path in kept(cache)] == ["old.blob"]


# By name


def test_a_missing_package_is_named_with_its_command(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "is_installed", lambda module: False)
    with pytest.raises(ProviderError, match=r"openvino: .*pip install \"monoxkit\[openvino\]\"$"):
        load_model(str(files / "bundle"), provider="openvino")
    both = ("onnxruntime-openvino",)
    monkeypatch.setattr(openvino_backend, "runtime_distributions", lambda: both)
    with pytest.raises(ProviderError, match=r"Or give `provider` openvino-ep"):
        load_model(str(files / "bundle"), provider="openvino")
    with pytest.raises(
        ProviderError, match=r"openvino-ep: .*pip install \"monoxkit\[openvino-ep\]"
    ):
        load_model(str(files / "bundle"), provider="openvino-ep")


def test_a_record_opens_on_the_way_to_openvino_that_is_there(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of 0.1.0 say `openvino` of ONNX Runtime's provider; so do stores, of either."""
    assert providers.installed_providers() == ["cpu", "openvino"]
    both = ["cpu", "openvino", "openvino-ep"]
    for installed, recorded, expected in (
        (both[:2], "openvino", "openvino"),
        (both[:2], "openvino-ep", "openvino"),
        (["cpu", "openvino-ep"], "openvino", "openvino-ep"),
        (both, "openvino-ep", "openvino-ep"),
        (["cpu"], "openvino", "openvino"),  # refused when it is opened, by name
        (["openvino"], "cpu", "cpu"),
    ):
        monkeypatch.setattr(providers, "installed_providers", lambda found=installed: found)
        assert providers.installed_like(recorded) == expected
    assert [providers.recorded(name) for name in providers.PROVIDERS] == [
        *("cpu", "cuda", "tensorrt", "openvino", "openvino"),
    ]


def test_the_whole_way(files: Path, expected: Any, tmp_path: Path, cache: Path) -> None:
    """Exported with candidates on it, labelled by the record's provider, predicted, evaluated."""
    rows = str(files / "rows.jsonl")
    check = CorpusConfig(paths=(rows,))
    config = ExportConfig(
        model=str(files / "model"),
        provider="openvino",
        precision="auto",
        graph="opset17-eager",
        candidates=("int8-static",),
        max_length=32,
        check=check,
        min_agreement=0.5,
    )
    summary = export_model(config, tmp_path / "bundle")
    assert set(summary.candidates) == {
        "fp32:opset17-eager@openvino",
        "int8-static:opset17-eager@openvino",
    }
    assert all(one["tokens_per_s"] > 0 for one in summary.candidates.values())
    record = open_folder(str(tmp_path / "bundle")).record
    assert record is not None and record.checks["runtime"].startswith("openvino 2")
    assert kept(cache) == []  # candidates are opened once
    labelling = LabelConfig(model=str(files / "bundle"), corpus=check, batch_tokens=96)
    labelled = label_corpus(labelling, tmp_path / "store")
    assert labelled.provider == "openvino"
    store = LogitStore.open(tmp_path / "store", verify="full")
    assert store.manifest.fingerprint["provider"] == "openvino"
    np.testing.assert_allclose(store.logits(slice(None)), expected, atol=2e-5)
    found = mk.load(str(files / "bundle"), provider="openvino").predict(
        [document.text for document in documents(files)]
    )
    names = store.manifest.labels.names
    assert [one.label for one in found] == [names[index] for index in expected.argmax(axis=1)]
    ways = {"model": "cpu", "bundle": "openvino"}
    languages = [
        evaluate(
            EvaluateConfig(model=str(files / name), test=check, provider=provider, max_length=32)
        ).to_json()["languages"]["en"]
        for name, provider in ways.items()
    ]
    for name in ("calibration_error", "calibration_error_interval"):  # of probabilities, not labels
        np.testing.assert_allclose(*[each.pop(name) for each in languages], atol=1e-5)
    assert languages[0] == languages[1]


_PREDICTION = """
import sys
import monox_kit as mk
found = mk.load(sys.argv[1], provider="openvino").predict(["game mail font"])
unwanted = ("torch", "transformers", "onnxruntime", "openvino_telemetry.main")
print(found[0].label, [name for name in unwanted if name in sys.modules])
"""


def test_loading_needs_no_other_runtime_and_leaves_the_home_folder_alone(
    files: Path, tmp_path: Path
) -> None:
    """`import openvino` alone writes a client id into the home folder, and sends an event."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "MONOXKIT_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", _PREDICTION, str(files / "bundle")],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1)[1] == "[]\n"
    assert list(home.iterdir()) == []
