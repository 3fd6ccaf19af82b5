"""bf16 at the public seams: the fp32 graph, multiplied in it where provider and CPU do so.

Most tests let the CPU provider stand in for OpenVINO's and round its logits; those with OpenVINO
itself, either way, are skipped where it is not installed or the CPU has no bf16.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import ConfigError, ProviderError, StoreMismatch
from monox_kit.exporting import ExportConfig, build, export_model
from monox_kit.extras import is_installed
from monox_kit.hardware import has_bf16
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models import graph_classifier, onnx_backend
from monox_kit.models.folder import BundleRecord, open_folder
from monox_kit.models.graph_classifier import SessionPlan
from monox_kit.models.load import load_backend, load_model
from monox_kit.models.onnx_backend import EXECUTION_PROVIDERS, OnnxClassifier, open_session
from monox_kit.models.run_plan import default_plan
from monox_kit.models.scoring import score
from monox_kit.store import LogitStore, store_stats
from tests.tiny_models import balanced_classifier, labelled_rows, off_by_a_little, write_jsonl

NEEDS_OPENVINO_EP = pytest.mark.skipif(
    EXECUTION_PROVIDERS["openvino-ep"] not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-openvino",
)
NEEDS_OPENVINO = pytest.mark.skipif(not is_installed("openvino"), reason="needs openvino")


class RoundedSession:
    """A session whose logits are rounded, about as bf16 moves them in a model of many layers."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        (logits,) = self._session.run(outputs, feed)
        return [np.round(logits * 256) / np.float32(256)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def stand_in_for_openvino(patch: pytest.MonkeyPatch) -> None:
    """Let the CPU provider answer for OpenVINO's, on a CPU with bf16."""
    opened: Callable[..., Any] = onnx_backend.open_session

    def opening(
        graph: Path,
        provider: str,
        threads: int | None = None,
        precision: str = "fp32",
        streams: int = 1,
    ) -> Any:
        if precision == "fp32":
            return opened(graph, "cpu", threads)
        onnx_backend.require_bf16(provider)
        return RoundedSession(opened(graph, "cpu", threads))

    patch.setattr(onnx_backend, "open_session", opening)
    patch.setattr(graph_classifier, "has_bf16", lambda: True)
    patch.setitem(onnx_backend.EXECUTION_PROVIDERS, "openvino-ep", EXECUTION_PROVIDERS["cpu"])


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_openvino(monkeypatch)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its bf16 bundle, a quantized one that gets close calls wrong, and texts."""
    folder = tmp_path_factory.mktemp("bf16")
    rows = labelled_rows(400, seed=3)
    write_jsonl(folder / "corpus.jsonl", rows)
    balanced_classifier(folder / "model", rows)
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_openvino(patch)
        export_model(asked(folder), folder / "bundle")
        patch.setattr(build, "write_quantized", off_by_a_little)
        export_model(asked(folder, precision="int8"), folder / "coarse")
    return folder


def asked(folder: Path, **changes: Any) -> ExportConfig:
    values = {"precision": "bf16", "provider": "openvino-ep", "max_length": 32, **changes}
    values.setdefault("min_agreement", 0.5)  # random weights, close calls
    return ExportConfig(model=str(folder / "model"), **values)


def labelling(files: Path, **changes: Any) -> LabelConfig:
    config = LabelConfig(
        teacher="onnx",
        model=str(files / "bundle"),
        corpus=CorpusConfig(paths=(str(files / "corpus.jsonl"),)),
        shard_rows=200,
        batch_tokens=256,
    )
    return replace(config, **changes)


def bf16_guarded(files: Path) -> LabelConfig:
    model = str(files / "coarse")
    return labelling(files, model=model, guard=0.97, guard_rows=150, guard_precision="bf16")


def stored(path: Path) -> LogitStore:
    return LogitStore.open(path, verify="full")


def test_the_bundle_is_the_fp32_graph_and_its_record_says_bf16(
    files: Path, tmp_path: Path, openvino: None
) -> None:
    record = BundleRecord.read(files / "bundle" / "monoxkit.json")
    assert (record.precision, record.checks["provider"]) == ("bf16", "openvino-ep")
    candidates = record.checks["candidates"]
    assert candidates["fp32@openvino-ep"]["rejected"] == "precision bf16 was asked for"
    assert candidates["bf16@openvino-ep"]["rejected"] is None
    fp32, bf16 = (candidates[f"{name}@openvino-ep"]["agreement"] for name in ("fp32", "bf16"))
    assert fp32["max_delta"] < 1e-4 < bf16["max_delta"]
    export_model(asked(files, precision="fp32"), tmp_path / "fp32")
    digests = {
        open_folder(str(path)).model_digest for path in (files / "bundle", tmp_path / "fp32")
    }
    assert len(digests) == 1
    assert not (files / "bundle" / "model.fp32.onnx").exists()  # it would be the same graph twice


def test_auto_times_bf16_and_keeps_the_graph_of_the_one_that_wins(
    files: Path, tmp_path: Path, openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asked(files, precision="auto", graph="opset23", candidates=("bf16", "int8-static"))
    summary = export_model(config, tmp_path / "bundle")
    found = summary.candidates["bf16@openvino-ep"]
    assert found["tokens_per_s"] > 0
    assert (
        found["agreement"]["max_delta"]
        > summary.candidates["fp32@openvino-ep"]["agreement"]["max_delta"]
    )
    assert (tmp_path / "bundle" / "model.onnx").is_file()
    has_reference = (tmp_path / "bundle" / "model.fp32.onnx").is_file()
    assert has_reference == (summary.precision == "int8-static")


@pytest.mark.parametrize(
    ("provider", "cpu_has_it", "message"),
    [
        ("cpu", True, "bf16: expected `provider` openvino, .* found cpu"),
        ("openvino-ep", False, "bf16: expected a CPU with AVX512-BF16 or AMX, found .* without"),
    ],
)
def test_bf16_where_there_is_none_is_named_before_any_work(
    files: Path,
    tmp_path: Path,
    openvino: None,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    cpu_has_it: bool,
    message: str,
) -> None:
    monkeypatch.setattr(graph_classifier, "has_bf16", lambda: cpu_has_it)
    with pytest.raises(ProviderError, match=message):
        export_model(asked(files, provider=provider), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    # A bundle that came from another machine is not computed in something else.
    with pytest.raises(ProviderError, match=message):
        load_model(str(files / "bundle"), provider=provider)
    with pytest.raises(ProviderError, match=message):
        label_corpus(labelling(files, provider=provider), tmp_path / "store")
    config = asked(files, precision="auto", candidates=("bf16",), provider=provider)
    summary = export_model(replace(config, graph="opset23"), tmp_path / "auto")
    assert summary.precision == "fp32"
    (rejected,) = (one for one in summary.candidates.values() if one["precision"] == "bf16")
    assert rejected["rejected"].startswith("bf16: expected ")


def test_a_bf16_bundle_labels_in_bf16_and_is_guarded_by_its_own_graph_in_fp32(
    files: Path, tmp_path: Path, openvino: None
) -> None:
    label_corpus(labelling(files), tmp_path / "plain")
    label_corpus(labelling(files, guard=0.999, guard_rows=100), tmp_path / "guarded")
    exact = replace(labelling(files), teacher="torch", model=str(files / "model"), max_length=32)
    label_corpus(exact, tmp_path / "torch")
    plain, guarded, reference = (stored(tmp_path / n) for n in ("plain", "guarded", "torch"))
    assert plain.manifest.fingerprint["precision"] == "bf16"
    rounding = np.abs(plain.logits(slice(None)) - reference.logits(slice(None)))
    assert 1e-4 < rounding.max() < 1e-2
    recomputed = guarded.recomputed(slice(None))
    assert 0 < recomputed.sum() < len(recomputed)
    kept, again = (guarded.logits(np.flatnonzero(rows)) for rows in (~recomputed, recomputed))
    np.testing.assert_allclose(again, reference.logits(np.flatnonzero(recomputed)), atol=2e-5)
    np.testing.assert_array_equal(kept, plain.logits(np.flatnonzero(~recomputed)))


def test_the_guard_computes_again_in_bf16_and_the_store_says_so(
    files: Path, tmp_path: Path, openvino: None
) -> None:
    config = bf16_guarded(files)
    label_corpus(labelling(files, model=str(files / "coarse")), tmp_path / "plain")
    label_corpus(labelling(files), tmp_path / "bf16")
    label_corpus(replace(config, begin=True), tmp_path / "store")
    summary = label_corpus(config, tmp_path / "store")
    assert summary.guard is not None
    assert summary.guard["guard_precision"] == "bf16"
    plain, bf16, store = (stored(tmp_path / name) for name in ("plain", "bf16", "store"))
    recomputed = store.recomputed(slice(None))
    assert 0 < recomputed.sum() < len(recomputed)
    expected = np.where(recomputed[:, None], bf16.logits(slice(None)), plain.logits(slice(None)))
    np.testing.assert_array_equal(store.logits(slice(None)), expected)
    counts = store_stats(tmp_path / "store").precision_rows
    assert counts == {"int8": (~recomputed).sum(), "bf16": recomputed.sum()}


def test_a_guard_is_in_fp32_unless_bf16_was_asked_for(
    files: Path, tmp_path: Path, openvino: None
) -> None:
    """Equal commands give stores that can be merged, whatever is faster where they run."""
    config = labelling(files, model=str(files / "coarse"), guard=0.97, guard_rows=150)
    summary = label_corpus(replace(config, begin=True), tmp_path / "store")
    assert summary.guard is not None
    assert summary.guard["guard_precision"] == "fp32"
    with pytest.raises(StoreMismatch, match="guard_precision"):
        label_corpus(replace(config, guard_precision="bf16"), tmp_path / "store")
    label_corpus(config, tmp_path / "store")
    assert "guard_precision" not in stored(tmp_path / "store").manifest.fingerprint
    assert set(store_stats(tmp_path / "store").precision_rows) == {"int8", "fp32"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"provider": "cpu"}, ProviderError, "`guard_precision` bf16: .* found cpu"),
        ({"model": "bundle"}, ConfigError, "`guard_precision` bf16: .* in bf16, which its guard"),
        ({"guard": None, "guard_rows": None}, ConfigError, "`guard_precision` bf16: .* `guard`"),
    ],
)
def test_a_bf16_guard_that_cannot_be_is_named(
    files: Path,
    tmp_path: Path,
    openvino: None,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    changed = {"model": "coarse", "guard": 0.97, "guard_rows": 150, **change}
    changed["model"] = str(files / changed["model"])
    with pytest.raises(error, match=message):
        label_corpus(labelling(files, guard_precision="bf16", **changed), tmp_path / "store")


def test_a_store_begun_with_a_bf16_guard_is_not_finished_in_fp32(
    files: Path, tmp_path: Path, openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bf16_guarded(files)
    label_corpus(replace(config, begin=True), tmp_path / "store")
    monkeypatch.setattr(graph_classifier, "has_bf16", lambda: False)
    with pytest.raises(ProviderError, match="AVX512-BF16 or AMX"):
        label_corpus(config, tmp_path / "store")


def test_an_fp32_bundle_still_needs_no_guard(files: Path, tmp_path: Path, openvino: None) -> None:
    export_model(asked(files, precision="fp32"), tmp_path / "fp32")
    with pytest.raises(ConfigError, match="in fp32, which needs no guard"):
        label_corpus(labelling(files, model=str(tmp_path / "fp32"), guard=0.99), tmp_path / "s")


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_a_session_tells_openvino_what_to_compute_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: Any, hint: str
) -> None:
    """OpenVINO takes bf16 by itself where the CPU has it: fp32 must be said as well."""
    seen: dict[str, str] = {}

    class Session:
        def __init__(
            self,
            graph: str,
            sess_options: Any,
            providers: list[Any],
            disabled_optimizers: list[str],
        ) -> None:
            assert not disabled_optimizers  # onnxruntime's CPU fusions are none of OpenVINO's
            seen.update(providers[0][1])

        def get_providers(self) -> list[str]:
            return [EXECUTION_PROVIDERS["openvino-ep"]]

    class Options:
        def add_session_config_entry(self, name: str, value: str) -> None:
            assert name == "session.intra_op.allow_spinning"

    runtime = SimpleNamespace(
        InferenceSession=Session,
        SessionOptions=Options,
        get_available_providers=lambda: [EXECUTION_PROVIDERS["openvino-ep"]],
        __version__="1.24",
    )
    monkeypatch.setattr(onnx_backend, "require_runtime", lambda: runtime)
    monkeypatch.setattr(graph_classifier, "has_bf16", lambda: True)
    open_session(tmp_path / "model.onnx", "openvino-ep", 2, precision)
    assert json.loads(seen["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": hint}}
    assert (seen["num_streams"], seen["num_of_threads"]) == ("1", "2")
    open_session(tmp_path / "model.onnx", "openvino-ep", 2, precision, streams=3)
    assert (seen["num_streams"], seen["num_of_threads"]) == ("3", "6")


def test_batches_at_once_are_streams_of_one_openvino_session(
    files: Path, monkeypatch: pytest.MonkeyPatch, openvino: None
) -> None:
    """Each session would have its own weights."""
    opened: list[tuple[int | None, int]] = []
    opening = onnx_backend.open_session

    def watched(*args: Any, streams: int = 1) -> Any:
        opened.append((args[2], streams))
        return opening(*args, streams=streams)

    monkeypatch.setattr(onnx_backend, "open_session", watched)
    folder = open_folder(str(files / "bundle"))
    for provider, plan, expected in (
        ("openvino-ep", SessionPlan(3, 2), [(2, 3)]),
        ("cpu", SessionPlan(3, 2), [(2, 1)] * 3),
        ("cpu", SessionPlan(3, 1), [(1, 1)]),
    ):
        opened.clear()
        classifier = OnnxClassifier(folder, provider=provider, plan=plan, precision="fp32")
        assert (opened, classifier.concurrency) == (expected, 3)


@pytest.mark.parametrize(
    ("provider", "cores", "threads", "expected"),
    [
        ("cpu", 8, None, SessionPlan(1, 8)),
        ("openvino", 8, None, SessionPlan(2, 4)),
        ("openvino-ep", 8, None, SessionPlan(2, 4)),
        ("openvino", 3, None, SessionPlan(1, 3)),  # no core is left out
        ("openvino", 1, None, SessionPlan(1, 1)),
        ("openvino", 8, 2, SessionPlan(4, 2)),
    ],
)
def test_openvino_runs_two_batches_at_once_by_default(
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    cores: int,
    threads: int | None,
    expected: SessionPlan,
) -> None:
    monkeypatch.setattr(graph_classifier, "num_threads", lambda: cores)
    assert default_plan(provider, threads=threads).session == expected


@pytest.mark.skipif(not has_bf16(), reason="needs a CPU with bf16")
@pytest.mark.parametrize(
    "provider",
    [
        pytest.param("openvino", marks=NEEDS_OPENVINO),
        pytest.param("openvino-ep", marks=NEEDS_OPENVINO_EP),
    ],
)
def test_openvino_computes_in_what_it_was_told(
    files: Path, tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    summary = export_model(
        asked(files, graph="opset17-eager", provider=provider), tmp_path / "bundle"
    )
    assert summary.precision == "bf16"
    model = load_model(str(tmp_path / "bundle"), provider=provider)
    expected = load_backend(open_folder(str(files / "model")), "torch")
    exact = load_backend(model.folder, "onnx", provider=provider, precision="fp32")
    rows = list(Corpus(labelling(files).corpus).documents())
    logits = {
        name: score(classifier, model.tokenizer, rows).logits
        for name, classifier in (
            ("torch", expected),
            ("fp32", exact),
            ("bf16", model.classifier),
        )
    }
    off = {name: np.abs(logits[name] - logits["torch"]).max() for name in ("fp32", "bf16")}
    assert off["fp32"] < 1e-4
    assert 10 * off["fp32"] < off["bf16"] < 0.1
