"""Labelling at its public seam: backends agree, every row once and in order, resumable."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from monox_kit.corpora import blocks
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.marks import Place
from monox_kit.data import Document
from monox_kit.errors import (
    ConfigError,
    CorpusError,
    ModelError,
    StoreError,
    StoreLocked,
    StoreMismatch,
    StoreNotBegun,
)
from monox_kit.exporting import ExportConfig, build, export_model
from monox_kit.labelling import (
    LabelConfig,
    LabelSummary,
    guard_learning,
    label_corpus,
    teacher,
)
from monox_kit.labelling.teacher import TeacherModel
from monox_kit.labelling.totals import Totals
from monox_kit.models import run_plan
from monox_kit.store import FolderWriter, LogitStore, filling, merge_stores
from tests.notes import Notes
from tests.store_samples import tree
from tests.tiny_models import (
    balanced_classifier,
    bert_classifier,
    bert_encoder,
    labelled_rows,
    off_by_a_little,
    write_jsonl,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "corpus.jsonl", labelled_rows(50, seed=1))
    write_jsonl(folder / "pairs.jsonl", labelled_rows(20, seed=2, pairs=True))
    bert_classifier(folder / "model")
    export_model(ExportConfig(model=str(folder / "model"), max_length=32), folder / "bundle")
    return folder


def config_for(files: Path, backend: str = "torch", name: str = "corpus.jsonl") -> LabelConfig:
    return LabelConfig(
        teacher=backend,  # type: ignore[arg-type]
        model=str(files / ("bundle" if backend == "onnx" else "model")),
        corpus=CorpusConfig(paths=(str(files / name),)),
        max_length=32,
        shard_rows=16,
        batch_tokens=64,
    )


def begin(config: LabelConfig, store: Path) -> LabelSummary:
    """Begin a store, as `monoxkit label --begin` does."""
    return label_corpus(replace(config, begin=True, shard_range=None), store)


def logits_one_by_one(files: Path, name: str) -> np.ndarray:
    """The oracle: transformers, one text at a time, no padding."""
    tokenizer = AutoTokenizer.from_pretrained(str(files / "model"))
    model = AutoModelForSequenceClassification.from_pretrained(str(files / "model")).eval()
    rows = []
    for row in (
        labelled_rows(50, seed=1)
        if name == "corpus.jsonl"
        else labelled_rows(20, seed=2, pairs=True)
    ):
        pair = (row["text_pair"],) if "text_pair" in row else ()
        inputs = tokenizer(row["text"], *pair, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name) for backend in ("torch", "onnx") for name in ("corpus.jsonl", "pairs.jsonl")],
)
def test_stored_logits_are_those_of_one_text_at_a_time(
    files: Path, tmp_path: Path, backend: str, name: str
) -> None:
    label_corpus(config_for(files, backend, name), tmp_path / "store")
    store = LogitStore.open(tmp_path / "store", verify="full")
    expected = logits_one_by_one(files, name)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(store.logits(slice(None)), expected, atol=1e-4)
    source = (
        labelled_rows(50, seed=1)
        if name == "corpus.jsonl"
        else labelled_rows(20, seed=2, pairs=True)
    )
    assert [store.text(row) for row in range(len(store))] == [row["text"] for row in source]
    assert [store.id(row) for row in range(len(store))] == [row["id"] for row in source]
    names = [store.labels.names[label] for label in store.gold(slice(None))]
    assert names == [row["label"] for row in source]


@pytest.mark.parametrize("failing_shard", [0, 2, 3])
def test_a_run_that_fails_continues_to_the_same_store(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_shard: int
) -> None:
    label_corpus(config_for(files), tmp_path / "whole")
    score = teacher.score_texts
    calls = itertools.count()

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == failing_shard:
            raise RuntimeError("power cut")
        return score(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "score_texts", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            label_corpus(config_for(files), tmp_path / "store")
    summary = label_corpus(config_for(files), tmp_path / "store")
    assert summary.num_resumed_rows == 16 * failing_shard
    whole, resumed = (LogitStore.open(tmp_path / n, verify="full") for n in ("whole", "store"))
    assert whole.digest == resumed.digest


def test_a_finished_store_is_left_as_it_is(files: Path, tmp_path: Path) -> None:
    first = label_corpus(config_for(files), tmp_path / "store")
    again = label_corpus(config_for(files), tmp_path / "store")
    assert again.store_digest == first.store_digest
    assert (again.num_resumed_rows, again.rows_per_s) == (50, None)


def test_parts_labelled_apart_make_the_store_of_one_run(files: Path, tmp_path: Path) -> None:
    label_corpus(config_for(files), tmp_path / "whole")
    begin(config_for(files), tmp_path / "store")
    parts = [(2, 4), (0, 1), (1, 2)]
    for number, part in enumerate(parts):
        config = replace(config_for(files), shard_range=part)
        summary = label_corpus(config, tmp_path / "store")
        assert summary.complete == (number == 2)
        assert summary.num_rows_done == [18, 34, 50][number]
        assert (summary.num_rows, summary.num_resumed_rows) == (50, 0)
        assert (summary.store_digest is None) == (number < 2)
    whole, other = (LogitStore.open(tmp_path / n, verify="full") for n in ("whole", "store"))
    assert whole.digest == other.digest
    again = label_corpus(replace(config_for(files), shard_range=(2, 4)), tmp_path / "store")
    assert (again.complete, again.num_resumed_rows) == (True, 18)


def test_a_part_waits_for_nobody_but_the_owner_of_its_shards(files: Path, tmp_path: Path) -> None:
    begin(config_for(files), tmp_path / "store")
    first = label_corpus(replace(config_for(files), shard_range=(0, 1)), tmp_path / "store")
    assert first.num_rows_done == 16
    manifest = LogitStore.open(tmp_path / "store", allow_incomplete=True).manifest
    with FolderWriter(tmp_path / "store", manifest, range(1, 3)):
        with pytest.raises(StoreLocked, match=r"/store: .*shards 2 to 3"):
            label_corpus(replace(config_for(files), shard_range=(2, 4)), tmp_path / "store")
        label_corpus(replace(config_for(files), shard_range=(3, 4)), tmp_path / "store")
    assert label_corpus(config_for(files), tmp_path / "store").complete


@pytest.mark.parametrize("shards", [(0, 5), (3, 2)])
def test_a_range_outside_of_the_store_is_refused_before_any_work(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: tuple[int, int]
) -> None:
    begin(config_for(files), tmp_path / "store")
    monkeypatch.setattr(TeacherModel, "plan", lambda *given: pytest.fail("expected no plan yet"))
    with pytest.raises(ConfigError, match=rf"within 0:4, found {shards[0]}:{shards[1]}"):
        label_corpus(replace(config_for(files), shard_range=shards), tmp_path / "store")


def test_a_part_of_a_store_that_nobody_has_begun_is_refused_by_name(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = counted_scans(monkeypatch)
    with pytest.raises(StoreNotBegun, match=r"store: `shard_range` needs .* with `begin`") as found:
        label_corpus(replace(config_for(files), shard_range=(0, 1)), tmp_path / "store")
    assert found.value.exit_code == 4
    assert not scans and not (tmp_path / "store").exists()


def test_beginning_labels_no_row_and_says_how_many_shards_there_are(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "score_texts", lambda *args, **kwargs: pytest.fail("model ran"))
        begun = begin(config_for(files), tmp_path / "store")
    assert (begun.num_rows, begun.num_shards, begun.num_rows_done) == (50, 4, 0)
    assert (begun.complete, begun.store_digest) == (False, None)
    assert sorted(os.listdir(tmp_path / "store")) == ["lock", "scan", "shards", "store.json"]
    assert not os.listdir(tmp_path / "store" / "shards")
    before = tree(tmp_path / "store")
    begin(config_for(files), tmp_path / "store")
    assert tree(tmp_path / "store") == before
    whole = label_corpus(config_for(files), tmp_path / "whole")
    assert label_corpus(config_for(files), tmp_path / "store").store_digest == whole.store_digest
    assert begin(config_for(files), tmp_path / "store").complete


@pytest.mark.parametrize("change", [{"shard_range": (0, 1)}, {"engine": "ray"}], ids=str)
def test_beginning_and_labelling_a_part_are_two_runs(
    files: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="`begin`"):
        label_corpus(replace(config_for(files), begin=True, **change), tmp_path / "store")


def test_only_the_rows_of_missing_shards_are_read_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(64, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 256)
    begin(config, tmp_path / "store")
    label_corpus(replace(config, shard_range=(0, 3)), tmp_path / "store")
    read: list[int] = []
    documents = Corpus.with_languages

    def counting(self: Corpus, place: Place | None = None) -> Iterator[tuple[Document, str | None]]:
        for document, language in documents(self, place):
            read.append(document.row)
            yield document, language

    monkeypatch.setattr(Corpus, "with_languages", counting)
    label_corpus(config, tmp_path / "store")
    assert read[-16:] == list(range(48, 64))
    assert len(read) < 24


def counted_scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of scans from now on, as the length of a list."""
    scan, scans = Corpus.scan, []

    def counting(self: Corpus, **kwargs: object) -> object:
        scans.append(1)
        return scan(self, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Corpus, "scan", counting)
    return scans


def test_one_run_scans_and_the_others_take_what_it_found(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_corpus(config_for(files), tmp_path / "whole")
    scans = counted_scans(monkeypatch)
    begin(config_for(files), tmp_path / "store")
    for part in [(2, 3), (0, 1), (0, 2)]:
        label_corpus(replace(config_for(files), shard_range=part), tmp_path / "store")
        assert (tmp_path / "store" / "scan").is_file()
    assert label_corpus(config_for(files), tmp_path / "store").num_resumed_rows == 48
    assert len(scans) == 1
    found, whole = tree(tmp_path / "store"), tree(tmp_path / "whole")
    assert found.keys() == whole.keys()
    assert [name for name in found if found[name] != whole[name]] in ([], ["complete.json"])


def test_a_scan_that_cannot_be_believed_is_made_again_and_kept(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, lost, or of files that somebody has touched since."""
    corpus = write_jsonl(tmp_path / "c.jsonl", labelled_rows(50, seed=4))
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    begin(config, tmp_path / "store")
    scan = tmp_path / "store" / "scan"
    scans = counted_scans(monkeypatch)
    for number, spoil in enumerate((lambda: scan.write_bytes(b"x"), scan.unlink, corpus.touch), 1):
        spoil()
        for _ in range(2):
            notes = Notes()
            label_corpus(replace(config, shard_range=(0, 1)), tmp_path / "store", progress=notes)
        assert len(scans) == number
        assert sum("50 rows were checked by an earlier run" in note for note in notes.notes) == 1


def test_of_two_runs_that_begin_a_store_at_once_one_begins_and_nobody_waits(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one finds its shards taken, or labels what the first has left."""
    scan, at_once = Corpus.scan, Barrier(2)

    def scan_then_meet(self: Corpus, **kwargs: object) -> object:
        found = scan(self, **kwargs)  # type: ignore[arg-type]
        at_once.wait(60)
        return found

    def label(number: int) -> LabelSummary | StoreLocked:
        try:
            return label_corpus(config_for(files), tmp_path / "store")
        except StoreLocked as error:
            return error

    monkeypatch.setattr(Corpus, "scan", scan_then_meet)
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(label, range(2)))
    assert any(isinstance(end, LabelSummary) and end.complete for end in ends)
    assert len(LogitStore.open(tmp_path / "store", verify="full")) == 50


def test_a_store_that_another_run_begins_meanwhile_keeps_its_guard(
    coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that learn at once may learn a little different thresholds, on different machines."""
    learn, store = guard_learning.learn_guard, tmp_path / "store"

    def learn_after_another(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(guard_learning, "learn_guard", learn)
        begin(guarded(coarse), store)
        return replace(learn(*args, **kwargs), threshold=7.0)

    monkeypatch.setattr(guard_learning, "learn_guard", learn_after_another)
    summary = label_corpus(guarded(coarse), store)
    assert summary.complete and summary.guard is not None
    fingerprint = LogitStore.open(store).manifest.fingerprint
    assert summary.guard["guard_threshold"] == fingerprint["guard_threshold"] != 7.0


def test_a_bad_row_begins_nothing_and_the_same_command_goes_on_once_it_is_mended(
    files: Path, tmp_path: Path
) -> None:
    rows = labelled_rows(50, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", [*rows[:-1], {**rows[-1], "label": "unheard of"}])
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    with pytest.raises(CorpusError, match="unheard of"):
        begin(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    write_jsonl(corpus, rows)
    begin(config, tmp_path / "store")
    assert label_corpus(config, tmp_path / "store").complete


def test_a_corpus_changed_under_its_size_and_time_gets_no_row_into_the_store(
    files: Path, tmp_path: Path
) -> None:
    rows = labelled_rows(50, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    status = corpus.stat()
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    begin(config, tmp_path / "store")
    label_corpus(replace(config, shard_range=(0, 1)), tmp_path / "store")
    rows[40]["text"] = rows[40]["text"][:-1] + "#"
    write_jsonl(corpus, rows)
    os.utime(corpus, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert corpus.stat().st_size == status.st_size
    with pytest.raises(CorpusError, match=r"c\.jsonl: .*50 rows"):
        label_corpus(config, tmp_path / "store")
    assert LogitStore.open(tmp_path / "store", allow_incomplete=True).info().num_rows_done <= 32
    (tmp_path / "store" / "scan").unlink()
    with pytest.raises(StoreMismatch, match="corpus_digest"):
        label_corpus(config, tmp_path / "store")


def test_a_corpus_that_changes_while_it_is_labelled_never_completes(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(40, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    scan = Corpus.scan

    def scan_then_edit(self: Corpus, **kwargs: object) -> object:
        summary = scan(self, **kwargs)  # type: ignore[arg-type]
        rows[30]["text"] = "changed"
        write_jsonl(corpus, rows)
        return summary

    monkeypatch.setattr(Corpus, "scan", scan_then_edit)
    with pytest.raises(CorpusError, match="changed while it was labelled"):
        label_corpus(config, tmp_path / "store")
    assert not (tmp_path / "store" / "complete.json").exists()


def test_rows_that_changed_before_the_last_shard_are_never_committed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back after the failed run, the corpus is labelled as it is, not as it was in between."""
    rows = labelled_rows(40, seed=4)
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    scan = Corpus.scan

    def scan_then_edit(self: Corpus, **kwargs: object) -> object:
        summary = scan(self, **kwargs)  # type: ignore[arg-type]
        write_jsonl(corpus, [{**rows[0], "text": "changed"}, *rows[1:]])
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "scan", scan_then_edit)
        with pytest.raises(CorpusError, match="changed while it was labelled"):
            label_corpus(config, tmp_path / "store")
    write_jsonl(corpus, rows)
    assert label_corpus(config, tmp_path / "store").num_resumed_rows == 0
    assert LogitStore.open(tmp_path / "store").text(0) == rows[0]["text"]


def test_a_moved_teacher_goes_on_and_options_of_the_other_backend_are_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_corpus(config_for(files), tmp_path / "store")
    monkeypatch.chdir(files)
    relative = replace(config_for(files), model="model")
    assert label_corpus(relative, tmp_path / "store").rows_per_s is None
    with pytest.raises(ConfigError, match="`provider` cuda: it is for ONNX bundles"):
        label_corpus(replace(relative, provider="cuda"), tmp_path / "store")
    onnx = replace(config_for(files, "onnx"), device="cuda")
    with pytest.raises(ConfigError, match="`device` cuda: it is for PyTorch models"):
        label_corpus(onnx, tmp_path / "store")


def test_a_bad_row_is_found_before_the_model_runs(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows(40, seed=4)
    rows[39]["label"] = "unheard of"
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    monkeypatch.setattr(teacher, "score_texts", lambda *args, **kwargs: pytest.fail("model ran"))
    config = replace(config_for(files), corpus=CorpusConfig(paths=(str(corpus),)))
    with pytest.raises(CorpusError, match="unheard of"):
        label_corpus(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_folder_where_the_scan_belongs_is_refused_before_the_model_is_opened(
    files: Path, tmp_path: Path
) -> None:
    (tmp_path / "store" / "scan").mkdir(parents=True)
    config = replace(config_for(files), model=str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"/store/scan: "):
        label_corpus(config, tmp_path / "store")


def test_models_that_cannot_label_are_refused(files: Path, tmp_path: Path) -> None:
    encoder = bert_encoder(tmp_path / "encoder")
    with pytest.raises(ModelError, match="expected a fine-tuned classifier"):
        label_corpus(replace(config_for(files), model=str(encoder)), tmp_path / "store")
    with pytest.raises(ModelError, match=r"monoxkit export .* --out BUNDLE"):
        label_corpus(replace(config_for(files), teacher="onnx"), tmp_path / "store")
    with pytest.raises(ConfigError, match="at most 64 tokens"):
        label_corpus(replace(config_for(files), max_length=65), tmp_path / "store")
    many = bert_classifier(tmp_path / "many")
    settings = json.loads((many / "config.json").read_text())
    settings["problem_type"] = "regression"
    (many / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"problem_type single_label.*, found 'regression'"):
        label_corpus(replace(config_for(files), model=str(many)), tmp_path / "store")


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph gets close calls wrong, with the fp32 graph beside it."""
    folder = tmp_path_factory.mktemp("coarse")
    rows = labelled_rows(700, seed=3)
    write_jsonl(folder / "corpus.jsonl", rows)
    balanced_classifier(folder / "model", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "write_quantized", off_by_a_little)
        config = ExportConfig(
            model=str(folder / "model"), precision="int8", max_length=32, min_agreement=0.5
        )
        export_model(config, folder / "bundle")
    return folder


def guarded(coarse: Path, **changes: object) -> LabelConfig:
    values = {"shard_rows": 200, "guard": 0.99, "guard_rows": 150, **changes}
    return replace(config_for(coarse, "onnx"), **values)  # type: ignore[arg-type]


def test_the_guard_brings_back_the_fp32_labels_and_says_which_rows_it_computed(
    coarse: Path, tmp_path: Path
) -> None:
    plain = label_corpus(guarded(coarse, guard=None, guard_rows=None), tmp_path / "plain")
    summary = label_corpus(guarded(coarse), tmp_path / "guarded")
    torch_config = replace(config_for(coarse), shard_rows=200)
    label_corpus(torch_config, tmp_path / "reference")
    stores = {
        name: LogitStore.open(tmp_path / name, verify="full")
        for name in ("plain", "guarded", "reference")
    }
    logits = {name: store.logits(slice(None)) for name, store in stores.items()}
    labels = {name: values.argmax(axis=1) for name, values in logits.items()}
    recomputed = stores["guarded"].recomputed(slice(None))
    assert not stores["plain"].recomputed(slice(None)).any()
    assert (labels["plain"] == labels["reference"]).mean() < 0.99
    assert (labels["guarded"] == labels["reference"]).mean() >= 0.99
    np.testing.assert_allclose(
        logits["guarded"][recomputed], logits["reference"][recomputed], atol=1e-4
    )
    assert 0 < recomputed.sum() == summary.num_recomputed_rows < len(recomputed)
    assert (plain.num_recomputed_rows, plain.guard) == (0, None)
    fingerprint = stores["guarded"].manifest.fingerprint
    assert fingerprint["guard_target"] == 0.99
    assert summary.guard is not None
    assert summary.guard["guard_threshold"] == fingerprint["guard_threshold"] > 0
    assert summary.guard["guard_audit_agreement"] > summary.guard["guard_audit_plain_agreement"]
    assert summary.guard["price"] > 0


def test_a_guard_that_costs_more_than_fp32_is_told() -> None:
    totals = Totals(tokens=1000, recomputed_tokens=100, recomputing_s=2.0, seconds=15.0)
    assert totals.reference_alone_s == 20.0
    assert Totals(tokens=1000, seconds=15.0).reference_alone_s is None


@pytest.mark.parametrize(("rows", "is_told"), [(300, True), (150, False)])
def test_a_guard_that_learns_on_most_of_a_corpus_is_told(
    coarse: Path, tmp_path: Path, rows: int, is_told: bool
) -> None:
    notes = Notes()
    config = guarded(coarse, guard_rows=rows, begin=True)
    label_corpus(config, tmp_path / "store", progress=notes)
    told = [note for note in notes.notes if "600 of the corpus's 700" in note]
    assert bool(told) == is_told


def test_a_guard_asks_for_more_rows_than_a_corpus_has(coarse: Path, tmp_path: Path) -> None:
    wanted = (
        r"`guard_rows` 400: expected a corpus of at least 800 rows.* found 700.*`guard_rows` 350"
    )
    with pytest.raises(ConfigError, match=wanted):
        label_corpus(guarded(coarse, guard_rows=400), tmp_path / "store")


def test_a_guard_may_be_asked_for_a_mean_divergence_too(coarse: Path, tmp_path: Path) -> None:
    whole = label_corpus(guarded(coarse), tmp_path / "labels")
    assert whole.guard is not None
    wanted = whole.guard["guard_audit_mean_kl"] / 2
    config = guarded(coarse, guard_kl=wanted)
    notes = Notes()
    begin(config, tmp_path / "store")
    label_corpus(replace(config, shard_range=(0, 1)), tmp_path / "store", progress=notes)
    summary = label_corpus(config, tmp_path / "store", progress=notes)
    assert sum("are not read again" in line for line in notes.notes) == 1
    assert summary.guard is not None
    assert summary.guard["guard_max_kl"] == wanted
    assert summary.num_recomputed_rows > whole.num_recomputed_rows
    begun = LogitStore.open(tmp_path / "store").manifest.fingerprint
    assert begun["guard_max_kl"] == wanted
    assert begun["guard_audit_mean_kl"] < whole.guard["guard_audit_mean_kl"]
    with pytest.raises(StoreMismatch, match="guard_max_kl"):
        label_corpus(replace(config, guard_kl=2 * wanted), tmp_path / "store")
    with pytest.raises(StoreMismatch, match="guard_max_kl"):
        label_corpus(replace(config, guard_kl=None), tmp_path / "store")


def test_a_guarded_run_goes_on_with_the_threshold_that_it_began_with(
    coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_corpus(guarded(coarse), tmp_path / "whole")
    score = teacher.score_texts
    calls = itertools.count()

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == 2 + 5:  # two to learn the guard, two a window
            raise RuntimeError("power cut")
        return score(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "score_texts", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            label_corpus(guarded(coarse), tmp_path / "store")
    monkeypatch.setattr(
        guard_learning, "learn_guard", lambda *args, **kwargs: pytest.fail("learned anew")
    )
    scans = counted_scans(monkeypatch)
    summary = label_corpus(guarded(coarse), tmp_path / "store")
    assert not scans  # the sample that the guard was learned on is not needed again
    assert summary.num_resumed_rows == 400
    whole, resumed = (LogitStore.open(tmp_path / n, verify="full") for n in ("whole", "store"))
    assert whole.digest == resumed.digest
    for change, field in (({"guard": 0.9}, "guard_target"), ({"guard": None}, "guard_target")):
        changed = guarded(coarse, **({"guard_rows": None} if change["guard"] is None else {}))
        with pytest.raises(StoreMismatch, match=field):
            label_corpus(replace(changed, **change), tmp_path / "store")  # type: ignore[arg-type]


def test_parts_begun_with_one_store_json_share_its_guard(
    coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = label_corpus(guarded(coarse), tmp_path / "whole")
    begin(guarded(coarse), tmp_path / "a")
    label_corpus(guarded(coarse, shard_range=(0, 2)), tmp_path / "a")
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "store.json", tmp_path / "b")
    monkeypatch.setattr(
        guard_learning, "learn_guard", lambda *args, **kwargs: pytest.fail("learned anew")
    )
    label_corpus(guarded(coarse, shard_range=(2, 4)), tmp_path / "b")
    report = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert report.store_digest == whole.store_digest


def test_a_guard_needs_a_reduced_bundle_with_its_fp32_graph(
    files: Path, coarse: Path, tmp_path: Path
) -> None:
    onnx = config_for(files, "onnx")
    with pytest.raises(ConfigError, match=r"`guard`.*fp32"):
        label_corpus(replace(onnx, guard=0.99), tmp_path / "store")
    shutil.copytree(coarse / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / "model.fp32.onnx").unlink()
    with pytest.raises(ConfigError, match="`keep_fp32`"):
        label_corpus(guarded(coarse, model=str(tmp_path / "bundle")), tmp_path / "store")


@pytest.mark.parametrize(
    ("backend", "change", "message"),
    [
        ("torch", {"guard": 0.99}, "`guard` 0.99: .* `teacher` onnx"),
        ("torch", {"guard_kl": 0.1}, "`guard_kl` 0.1: .* `teacher` onnx"),
        ("torch", {"sessions": 2}, "`sessions` 2: .* `teacher` onnx"),
        ("onnx", {"precision": "bf16"}, "`precision` bf16: .* `teacher` torch"),
        ("onnx", {"compile": True}, "`compile` True: .* `teacher` torch"),
        ("onnx", {"guard_rows": 60}, "`guard_rows` 60: .* `guard`"),
        ("onnx", {"guard_kl": 0.1}, "`guard_kl` 0.1: .* `guard`"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    files: Path, tmp_path: Path, backend: str, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        label_corpus(replace(config_for(files, backend), **change), tmp_path / "store")  # type: ignore[arg-type]


def test_shards_of_any_size_and_any_run_plan_give_the_same_logits(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_corpus(config_for(files, "onnx"), tmp_path / "one")
    monkeypatch.setattr(filling, "WINDOW_ROWS", 7)
    config = replace(
        config_for(files, "onnx"), shard_rows=50, sessions=2, threads=1, batch_tokens=None
    )
    summary = label_corpus(config, tmp_path / "two")
    assert summary.plan["session"] == {"sessions": 2, "threads": 1}
    assert summary.num_shards == 1
    one, two = (LogitStore.open(tmp_path / n, verify="full") for n in ("one", "two"))
    np.testing.assert_allclose(one.logits(slice(None)), two.logits(slice(None)), atol=1e-4)
    assert [one.text(row) for row in range(50)] == [two.text(row) for row in range(50)]


def test_equal_texts_go_through_the_model_once(files: Path, tmp_path: Path) -> None:
    rows = [{"id": str(row), "text": "alpha game" if row % 2 else "mu"} for row in range(40)]
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    config = replace(
        config_for(files, "onnx"), corpus=CorpusConfig(paths=(str(corpus),)), shard_rows=40
    )
    summary = label_corpus(config, tmp_path / "store")
    store = LogitStore.open(tmp_path / "store", verify="full")
    assert summary.num_repeated_rows == 38
    assert [store.id(row) for row in range(40)] == [row["id"] for row in rows]
    logits = store.logits(slice(None))
    assert len({row.tobytes() for row in logits}) == 2
    np.testing.assert_array_equal(logits[1::2], np.repeat(logits[1:2], 20, axis=0))


def test_the_run_plan_is_measured_once_and_kept(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run_plan, "_LEAST_SAMPLES", 0)
    config = replace(config_for(files, "onnx"), batch_tokens=None)
    first = label_corpus(config, tmp_path / "first")
    assert first.plan["chosen_by"] == "measured"
    assert len(first.plan["tokens_per_s"]) >= 3
    second = label_corpus(config, tmp_path / "second")
    assert second.plan == {**first.plan, "chosen_by": "cached"}
    (kept,) = (tmp_path / "cache" / "plans").iterdir()
    kept.write_text("damaged")
    assert label_corpus(config, tmp_path / "third").plan["chosen_by"] == "measured"


def test_a_small_corpus_is_not_worth_measuring(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    summary = label_corpus(replace(config_for(files, "onnx"), batch_tokens=None), tmp_path / "s")
    assert summary.plan["chosen_by"] == "default"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler, of itself
def test_pytorch_labels_in_bf16_and_compiled(files: Path, tmp_path: Path) -> None:
    label_corpus(config_for(files), tmp_path / "plain")
    for name, change in (("bf16", {"precision": "bf16"}), ("compiled", {"compile": True})):
        label_corpus(replace(config_for(files), **change), tmp_path / name)  # type: ignore[arg-type]
        store = LogitStore.open(tmp_path / name, verify="full")
        plain = LogitStore.open(tmp_path / "plain").logits(slice(None))
        assert store.manifest.fingerprint["precision"] == ("bf16" if name == "bf16" else "fp32")
        tolerance = 0.1 * np.abs(plain).max() if name == "bf16" else 1e-4
        np.testing.assert_allclose(store.logits(slice(None)), plain, atol=tolerance)
