"""Models side by side: what is measured, on what, and what the report says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.benchmarking import contenders, process, run
from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.benchmarking.report import BenchmarkReport, percentile
from monox_kit.benchmarking.sample import batches_of
from monox_kit.benchmarking.worker import FolderModel
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import ConfigError, CorpusError, LabelMismatchError, ModelError, ProviderError
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score, tokenize
from monox_kit.problem import problem_of
from monox_kit.progress import Silent
from monoxkit_cli.app import main
from tests.tiny_models import balanced_classifier, bert_classifier, labelled_rows, write_jsonl

_MAX_LENGTH = 24
_ROWS = {"en": 40, "de": 12}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PyTorch folder, bundles of it in fp32 and int8, and texts of two languages."""
    folder = tmp_path_factory.mktemp("benchmark")
    rows = labelled_rows(60, seed=5)
    balanced_classifier(folder / "torch", rows)
    for seed, (tag, count) in enumerate(_ROWS.items()):
        made = labelled_rows(count, seed=seed)
        write_jsonl(folder / f"test.{tag}.jsonl", [{**row, "lang": tag} for row in made])
    for precision in ("fp32", "int8"):
        export = ExportConfig(
            model=str(folder / "torch"),
            precision=precision,
            graph="opset17-eager",
            max_length=_MAX_LENGTH,
            min_agreement=0.1,
        )
        export_model(export, folder / precision)
    return folder


@pytest.fixture(scope="module")
def report(work: Path) -> BenchmarkReport:
    return mk.benchmark(
        [str(work / "fp32"), str(work / "int8")],
        test=f"{work}/test.*.jsonl",
        providers="cpu",
        batches="1,8",
        rounds=2,
        starts=1,
        seconds=0.5,
        max_length=_MAX_LENGTH,
        out=work / "report.json",
        plot=work / "report.svg",
    )


def test_the_report_is_of_every_model_language_and_batch(report: BenchmarkReport) -> None:
    assert [one.name for one in report.contenders] == ["fp32 cpu fp32", "int8 cpu int8"]
    assert report.reference == "fp32 cpu fp32"
    for one in report.contenders:
        assert {tag: figures.num_rows for tag, figures in one.languages.items()} == _ROWS
        assert sum(figures.num_rows for figures in one.lengths.values()) == sum(_ROWS.values())
        for figures in (one.all, *one.languages.values()):
            assert set(figures.timings) == {1, 8}
        assert one.best_batch in (1, 8)
        assert one.peak_bytes is None or one.peak_bytes >= (one.first_answer.peak_bytes or 0)
        parts = one.first_answer
        inside = parts.import_s.median + parts.load_s.median + parts.answer_s.median
        assert parts.total_s.median > inside > 0
    assert report.contenders[0].times_as_fast[1].median == 1.0


def test_every_contender_is_timed_on_the_same_texts(report: BenchmarkReport) -> None:
    first, second = report.contenders
    for tag, figures in first.languages.items():
        for size, timing in figures.timings.items():
            other = second.languages[tag].timings[size]
            assert (timing.num_batches, timing.num_rows) == (other.num_batches, other.num_rows)
    whole, parts = first.all.timings[1], first.languages.values()
    assert whole.num_rows == sum(figures.timings[1].num_rows for figures in parts)
    by_length = [one.timings[1] for one in first.lengths.values() if 1 in one.timings]
    assert whole.num_rows == sum(timing.num_rows for timing in by_length)


def test_fidelity_is_that_of_the_logits_of_the_reference(
    report: BenchmarkReport, work: Path
) -> None:
    # All at once, as they were scored: int8 graphs scale activations by the batch.
    documents = _documents(work, "*")
    scores = []
    for name in ("fp32", "int8"):
        model = load_model(str(work / name))
        scores.append(score(model.classifier, model.tokenizer, documents).logits)
    problem = problem_of(model.classifier.labels)
    german = [row for row, one in enumerate(documents) if one.lang == "de"]
    wanted, found = (logits[german] for logits in scores)
    gold = problem.encode([documents[row] for row in german], "test")
    exact, reduced = (one.languages["de"].fidelity for one in report.contenders)
    assert exact.agreement == 1.0
    assert exact.mean_kl == pytest.approx(0, abs=1e-12)
    assert reduced.agreement == float((wanted.argmax(1) == found.argmax(1)).mean())
    assert reduced.mean_kl == pytest.approx(problem.divergence(wanted, found).mean(), rel=1e-4)
    assert reduced.max_delta == pytest.approx(np.abs(wanted - found).max(), rel=1e-4)
    assert reduced.accuracy == float((found.argmax(1) == gold).mean())
    assert reduced.agreement_interval is not None
    low, high = reduced.agreement_interval
    assert low <= reduced.agreement <= high


def test_tokens_are_counted_by_each_models_own_tokenizer(
    report: BenchmarkReport, work: Path
) -> None:
    model = load_model(str(work / "int8"))
    documents = _documents(work, "de")
    lengths = tokenize(model.tokenizer, documents).document_lengths
    figures = report.contenders[1].languages["de"]
    assert figures.tokens_per_text == pytest.approx(lengths.mean(), abs=0.01)
    characters = sum(len(one.text) for one in documents)
    assert figures.tokens_per_character == pytest.approx(lengths.sum() / characters, abs=1e-4)


def test_the_size_is_that_of_the_folder_by_part(report: BenchmarkReport, work: Path) -> None:
    bundle = report.contenders[1]
    files = {path.name: path.stat().st_size for path in (work / "int8").iterdir()}
    assert bundle.total_bytes == sum(files.values())
    assert bundle.bytes["model"] == files["model.onnx"]
    assert bundle.bytes["fp32 graph"] == files["model.fp32.onnx"]


def test_the_report_is_written_and_drawn(report: BenchmarkReport, work: Path) -> None:
    written = json.loads((work / "report.json").read_text(encoding="utf-8"))
    assert written == report.to_json()
    assert written["hardware"]["num_cores"] >= 1
    assert written["versions"]["onnxruntime"]
    assert (work / "report.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_a_bundle_alone_is_compared_with_its_own_fp32_graph(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--test", f"{work}/test.de.jsonl", "--seconds", "0.1", "--rounds", "1", "--starts"]
    assert main(["benchmark", "model", f"{work}/int8", *given, "1", "--providers", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert f"agreement with {work}/int8 fp32 graph" in shown
    assert "int8 cpu int8" in shown
    assert "tokens/character" in shown


def test_texts_without_labels_have_no_accuracy(work: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in labelled_rows(8)]
    found = mk.benchmark(
        str(work / "int8"),
        test=write_jsonl(tmp_path / "texts.fr.jsonl", rows),
        providers="cpu",
        batches=(1,),
        rounds=1,
        starts=1,
        seconds=0.1,
    )
    (figures,) = found.contenders[0].languages.values()
    assert (figures.fidelity.accuracy, figures.fidelity.accuracy_interval) == (None, None)
    assert figures.timings[1].p99_ms is None  # of 8 batches there is none


def _config(work: Path, **given: Any) -> BenchmarkConfig:
    test = CorpusConfig(paths=(f"{work}/test.*.jsonl",))
    return BenchmarkConfig(**{"models": (str(work / "int8"),), "test": test, **given})


def test_what_runs_where_and_what_it_is_compared_with(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "installed_providers", lambda: ["cpu", "openvino", "tensorrt"])
    config = _config(work, models=(f"{work}/int8", f"{work}/torch"), precisions=("bf16", "fp32"))
    found = contenders.contenders_of(config, Silent())
    assert [one.name for one in found] == [
        "int8 cpu int8", "int8 openvino int8", "torch torch bf16", "torch torch fp32",
    ]  # fmt: skip
    assert contenders.reference_of(found) == found[3]
    alone = contenders.reference_of(found[:2])
    assert alone is not None
    assert (alone.file, alone.precision, alone.provider) == ("model.fp32.onnx", "fp32", "cpu")
    # PyTorch in bf16 is no reference, whatever precision its folder's record has.
    assert contenders.reference_of([found[2]]) is None
    assert contenders.short_names(["a/x", "b/x/", "packaged:y"]) == ["a/x", "b/x/", "packaged:y"]


def test_a_worker_gives_the_logits_of_the_model_that_it_was_given(work: Path) -> None:
    config = _config(work, models=(f"{work}/torch",), precisions=("fp32",), max_length=_MAX_LENGTH)
    (one,) = contenders.contenders_of(config, Silent())
    subject = FolderModel(one.given(config, ["alpha", None]))
    documents = _documents(work, "de")
    model = load_model(str(work / "torch"), max_length=_MAX_LENGTH)
    wanted = score(model.classifier, model.tokenizer, documents).logits
    np.testing.assert_array_equal(subject.logits(documents), wanted)
    assert subject.lengths(documents).max() <= _MAX_LENGTH


def test_models_of_other_labels_are_refused(work: Path, tmp_path: Path) -> None:
    other = bert_classifier(tmp_path / "other", labels=("mail", "games", "text"))
    with pytest.raises(LabelMismatchError, match="other"):
        contenders.contenders_of(_config(work, models=(f"{work}/torch", str(other))), Silent())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"batches": (8, 8)}, "`batches`"),
        ({"plot": Path("report.pdf")}, "report.pdf"),
        ({"precisions": ("fp8",)}, "`precisions`"),
        ({"models": ()}, "`models`"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    given: Mapping[str, Any], named: str, work: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        _config(work, **given)


def test_a_plot_that_cannot_be_drawn_is_told_before_anything_is_measured(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(run, "_start", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        run.benchmark(_config(work, plot=tmp_path / "plot.svg"))


def test_a_number_that_is_none_is_a_usage_error(work: Path, capsys: Any) -> None:
    test = ["--test", f"{work}/test.de.jsonl"]
    assert main(["benchmark", "model", f"{work}/int8", *test, "--batches", "1,two"]) == 2
    assert "--batches" in capsys.readouterr().err


def _opened(work: Path, command: tuple[str, ...] | None, **given: Any) -> process.ModelProcess:
    config = _config(work, providers=("cpu",))
    one = contenders.contenders_of(config, Silent())[0]
    return process.ModelProcess("it", {**one.given(config, ["alpha", None]), **given}, command)


def test_what_a_worker_meets_is_raised_here(work: Path) -> None:
    with pytest.raises(ProviderError, match="no-such-provider"):
        _opened(work, None, provider="no-such-provider").__enter__()


def test_a_worker_that_ends_is_named_with_its_status(work: Path) -> None:
    with pytest.raises(ModelError, match=r"it: .* status 3"):
        _opened(work, (sys.executable, "-c", "raise SystemExit(3)")).__enter__()


def test_no_process_is_left(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen

    def noted(*args: Any, **given: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **given))
        return started[-1]

    monkeypatch.setattr(process.subprocess, "Popen", noted)
    with pytest.raises(CorpusError, match="pairs"), _opened(work, None) as opened:
        opened.ask("read", texts=[["alpha", "a pair"], ["beta", None]])
    assert [one.returncode for one in started] == [0]


def test_batches_are_of_one_language_and_begin_with_every_language() -> None:
    lengths = np.random.default_rng(1).integers(1, 90, 71)
    rows = [np.arange(0, 50), np.arange(50, 71)]
    batches = batches_of(rows, lengths, 8, np.random.default_rng(2))
    owners = [0 if batch.max() < 50 else 1 for batch in batches]
    assert owners == [0, 1, 0, 1, 0, 0, 0, 0]
    texts = np.concatenate(batches)
    assert len(set(texts.tolist())) == len(texts) == 48 + 16
    for batch, owner in zip(batches, owners):
        assert set(batch.tolist()) <= set(rows[owner].tolist())
        assert (np.diff(lengths[batch]) >= 0).all()
    spans = [(lengths[batch].min(), lengths[batch].max()) for batch in batches[::2]]
    ordered = sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def test_a_percentile_needs_a_value_above_it() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile(values[:99], 0.99) is None
    assert percentile(values[:20], 0.95) == 19
    assert percentile(values[:19], 0.95) is None
    assert percentile([7.0], 0.5) == 7.0


def _documents(work: Path, tag: str) -> list[Any]:
    return list(Corpus(CorpusConfig(paths=(f"{work}/test.{tag}.jsonl",))).documents())
