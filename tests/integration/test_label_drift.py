"""Resuming under other conditions: what changes the store is refused by name, the rest goes on."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import StoreMismatch
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus, teacher
from monox_kit.store import LogitStore
from tests.store_samples import tree
from tests.tiny_models import LABELS, bert_classifier, labelled_rows, write_jsonl

Rows = list[dict[str, Any]]
NUM_ROWS = 100


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model with its bundle, and for each backend a begun and a finished store."""
    home = tmp_path_factory.mktemp("home")
    write_jsonl(home / "corpus.jsonl", labelled_rows(NUM_ROWS, seed=1))
    bert_classifier(home / "model")
    export_model(ExportConfig(model=str(home / "model"), max_length=32), home / "bundle")
    shutil.copy(home / "bundle" / "model.onnx", home / "bundle" / "model.fp32.onnx")
    for backend in ("torch", "onnx"):
        label_corpus(config_of(home, backend), home / f"{backend}-whole")
        label_part(config_of(home, backend), home / f"{backend}-begun")
    label_part(config_of(home, "guarded"), home / "guarded-begun")
    return home


def label_part(config: LabelConfig, store: Path) -> None:
    label_corpus(replace(config, begin=True), store)
    label_corpus(replace(config, shard_range=(1, 2)), store)


def config_of(home: Path, kind: str = "torch") -> LabelConfig:
    """What the store `kind` was begun with; `guarded` is `onnx` with a guard."""
    is_onnx = kind != "torch"
    return LabelConfig(
        teacher="onnx" if is_onnx else "torch",
        model=str(home / ("bundle" if is_onnx else "model")),
        corpus=CorpusConfig(paths=(str(home / "corpus.jsonl"),)),
        max_length=32,
        shard_rows=40,
        batch_tokens=64,
        guard=0.9 if kind == "guarded" else None,
        guard_rows=None,
    )


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Path:
    """A copy of all that a test may change."""
    return Path(shutil.copytree(home, tmp_path / "home"))


def resume(place: Path, config: LabelConfig, kind: str = "torch") -> LogitStore:
    """Go on with a begun store, to its end."""
    assert label_corpus(config, place / f"{kind}-begun").num_resumed_rows == 40
    return LogitStore.open(place / f"{kind}-begun", verify="full")


def refused(place: Path, config: LabelConfig, kind: str = "torch") -> str:
    """The refusal to go on with a begun store, which stays as it was."""
    before = tree(place / f"{kind}-begun")
    with pytest.raises(StoreMismatch) as caught:
        label_corpus(config, place / f"{kind}-begun")
    assert tree(place / f"{kind}-begun") == before
    assert "`store`" in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# Other settings


@pytest.mark.parametrize(
    ("kind", "change", "field", "was", "now"),
    [
        ("torch", {"max_length": 16}, "fingerprint.max_length", 32, 16),
        ("torch", {"dtype": "float16"}, "dtype", "float32", "float16"),
        ("torch", {"shard_rows": 20}, "shard_rows", 40, 20),
        ("torch", {"precision": "bf16"}, "fingerprint.precision", "fp32", "bf16"),
        ("torch", {"ignore_labels": True}, "fingerprint.gold_labels", "kept", "ignored"),
        ("onnx", {"max_length": 31}, "fingerprint.max_length", 32, 31),
        ("onnx", {"provider": "other"}, "fingerprint.provider", "cpu", "other"),
        ("onnx", {"guard": 0.9}, "fingerprint.guard_target", None, 0.9),
        ("guarded", {"guard": 0.8}, "fingerprint.guard_target", 0.9, 0.8),
        ("guarded", {"guard": None}, "fingerprint.guard_target", 0.9, None),
        ("guarded", {"guard_rows": 50}, "fingerprint.guard_rows", None, 50),
    ],
)
def test_another_setting_is_refused_by_name_with_both_values(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    change: dict[str, Any],
    field: str,
    was: object,
    now: object,
) -> None:
    # No second provider is here: one that is begins like this.
    monkeypatch.setattr(teacher, "require_runnable", lambda *args: None)
    message = refused(place, replace(config_of(place, kind), **change), kind)
    assert re.search(
        rf"\({re.escape(field)}\) .*{re.escape(repr(was))}.*{re.escape(repr(now))}", message
    )


def test_another_backend_is_refused(place: Path) -> None:
    message = refused(place, config_of(place, "onnx"))
    assert "fingerprint.backend ('torch', now 'onnx')" in message


def test_a_bundle_of_another_precision_is_refused(place: Path) -> None:
    edit_json(place / "bundle" / "monoxkit.json", lambda value: value.update(precision="int8"))
    message = refused(place, config_of(place, "onnx"), "onnx")
    assert re.search(r"\(fingerprint\.precision\) .*'fp32'", message)


# Another teacher


def test_other_weights_are_refused_under_the_same_name(place: Path) -> None:
    digest = LogitStore.open(place / "torch-whole").manifest.fingerprint["teacher_digest"]
    shutil.rmtree(place / "model")
    bert_classifier(place / "model", seed=5)
    message = refused(place, config_of(place))
    assert re.search(rf"\(fingerprint\.teacher_digest\) .*{digest[:12]}", message)


def test_another_tokenizer_is_refused(place: Path) -> None:
    path = place / "model" / "tokenizer_config.json"
    edit_json(path, lambda value: value.update(clean_up_tokenization_spaces=True))
    assert "(fingerprint.tokenizer_digest) was " in refused(place, config_of(place))


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_classes_in_another_order_are_refused(place: Path, kind: str) -> None:
    """Every name of the corpus is still there: only its column is another one."""
    names = [LABELS[1], LABELS[0], *LABELS[2:]]
    if kind == "torch":
        pairs = {"id2label": dict(enumerate(names))}
        edit_json(place / "model" / "config.json", lambda value: value.update(pairs))
    else:
        labels = place / "bundle" / "monoxkit.json"
        edit_json(labels, lambda value: value["labels"].update(names=names))
    message = refused(place, config_of(place, kind), kind)
    assert "labels[0]" in message and "'games'" in message and "'mail'" in message


def test_a_class_of_another_name_and_one_more_are_refused(place: Path) -> None:
    write_jsonl(place / "corpus.jsonl", [{"text": "alpha"}] * NUM_ROWS)
    record = place / "bundle" / "monoxkit.json"
    edit_json(record, lambda value: value["labels"].update(names=[*LABELS[:2], "prose", "verse"]))
    message = refused(place, config_of(place, "onnx"), "onnx")
    assert "number of labels (3, now 4)" in message
    assert f"labels[2] ({LABELS[2]!r}, now 'prose')" in message
    assert "labels[3] (nothing, now 'verse')" in message


# Another corpus


def at(index: int, **values: Any) -> Callable[[Rows], Rows]:
    """Change one row."""

    def change(rows: Rows) -> Rows:
        return [*rows[:index], {**rows[index], **values}, *rows[index + 1 :]]

    return change


ROW = labelled_rows(1, seed=9)[0]
CORPORA: dict[str, Callable[[Rows], Rows]] = {
    "a row at the end": lambda rows: [*rows, {**ROW, "id": "new"}],
    "a row at the start": lambda rows: [{**ROW, "id": "new"}, *rows],
    "a row twice": lambda rows: [*rows, rows[-1]],
    "a row in place of another": lambda rows: [*rows[:-1], {**ROW, "id": "new"}],
    "the last row lost": lambda rows: rows[:-1],
    "a row lost within": lambda rows: rows[:5] + rows[6:],
    "two rows exchanged": lambda rows: [rows[1], rows[0], *rows[2:]],
    "all rows in another order": lambda rows: rows[::-1],
    "a text edited in a finished shard": at(50, text="alpha"),
    "a text edited in a missing shard": at(2, text="alpha"),
    "a space more": lambda rows: at(20, text=rows[20]["text"] + " ")(rows),
    "an id changed": at(20, id="another"),
    "no ids": lambda rows: [{k: v for k, v in row.items() if k != "id"} for row in rows],
    "a gold label changed": lambda rows: at(20, label=rows[21]["label"])(rows),
    "a gold label lost": at(20, label=None),
    "a language changed": at(20, lang="de"),
    "every row a pair": lambda rows: [{**row, "text_pair": "beta"} for row in rows],
}
OTHER_LENGTH = {
    "a row at the end": 101,
    "a row at the start": 101,
    "a row twice": 101,
    "the last row lost": 99,
    "a row lost within": 99,
}


@pytest.mark.parametrize("kind", CORPORA)
def test_another_corpus_is_refused_with_both_digests_and_lengths(place: Path, kind: str) -> None:
    digest = LogitStore.open(place / "torch-whole").manifest.fingerprint["corpus_digest"]
    write_jsonl(place / "corpus.jsonl", CORPORA[kind](labelled_rows(NUM_ROWS, seed=1)))
    message = refused(place, config_of(place))
    assert re.search(rf"\(fingerprint\.corpus_digest\) .*{digest[:12]}", message)
    assert ("num_rows" in message) == (kind in OTHER_LENGTH)
    if kind in OTHER_LENGTH:
        assert f"num_rows (100, now {OTHER_LENGTH[kind]})" in message
    if "pair" in kind:
        assert "has_pairs (False, now True)" in message


def test_another_column_or_order_of_files_is_another_corpus(place: Path) -> None:
    rows = labelled_rows(NUM_ROWS, seed=1)
    write_jsonl(place / "corpus.jsonl", [{**row, "body": f"{row['text']} mu"} for row in rows])
    paths = [str(write_jsonl(place / f"{n}.jsonl", rows[n : n + 50])) for n in (0, 50)]
    for corpus in (
        replace(config_of(place).corpus, text_column="body"),
        CorpusConfig(paths=tuple(paths[::-1])),
    ):
        message = refused(place, replace(config_of(place), corpus=corpus))
        assert "fingerprint.corpus_digest" in message


# What changes nothing


def expect_whole(home: Path, store: LogitStore, kind: str = "torch") -> None:
    """The store that one run makes, but for the last bits of logits batched otherwise."""
    whole = LogitStore.open(home / f"{kind}-whole")
    assert store.manifest == whole.manifest
    np.testing.assert_allclose(store.logits(slice(None)), whole.logits(slice(None)), atol=1e-5)
    assert list(store.documents()) == list(whole.documents())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("torch", {"batch_tokens": 512}),
        ("torch", {"batch_tokens": None}),
        ("onnx", {"sessions": 2, "threads": 1}),
        ("onnx", {"batch_tokens": None, "threads": 2}),
        ("onnx", {"max_length": None}),  # the bundle's own
        ("onnx", {"provider": "cpu"}),  # what `auto` is here
    ],
)
def test_how_a_run_is_made_may_change(place: Path, kind: str, change: dict[str, Any]) -> None:
    store = resume(place, replace(config_of(place, kind), **change), kind)
    expect_whole(place, store, kind)


def test_a_guard_goes_on_as_it_was_learned(place: Path) -> None:
    manifest = LogitStore.open(place / "guarded-begun", allow_incomplete=True).manifest
    assert resume(place, config_of(place, "guarded"), "guarded").manifest == manifest


@pytest.mark.parametrize("name", ["elsewhere/model", "teacher-of-may"])
def test_a_moved_or_renamed_model_is_the_same_teacher(place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    shutil.move(place / "model", place / name)
    expect_whole(place, resume(place, replace(config_of(place), model=str(place / name))))


def write_gz(path: Path, rows: Rows) -> None:
    plain = write_jsonl(path.with_suffix(""), rows)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


def write_other_json(path: Path, rows: Rows) -> None:
    """Keys in another order, more of them, and escapes."""
    lines = (json.dumps({"score": 0.5, **dict(reversed(row.items()))}) for row in rows)
    path.write_text("\r\n".join(lines) + "\r\n")


@pytest.mark.parametrize(
    ("names", "write"),
    [
        (["c.jsonl.gz"], write_gz),
        (["c.csv"], write_csv),
        (["c.tsv"], write_csv),
        (["c.parquet"], write_parquet),
        (["c.ndjson"], write_other_json),
        (["a.jsonl", "b.jsonl", "c.jsonl"], write_jsonl),
        (["a.jsonl.gz", "b.csv", "c.parquet"], None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_the_same_rows_in_other_files_are_the_same_corpus(
    place: Path, names: Sequence[str], write: Callable[[Path, Rows], Any] | None
) -> None:
    by_suffix = {".gz": write_gz, ".csv": write_csv, ".parquet": write_parquet}
    rows = labelled_rows(NUM_ROWS, seed=1)
    bounds = [*[0, 7, 61][: len(names)], NUM_ROWS]
    for name, first, last in zip(names, bounds, bounds[1:], strict=False):
        (write or by_suffix[Path(name).suffix])(place / name, rows[first:last])
    (place / "corpus.jsonl").unlink()
    corpus = CorpusConfig(paths=tuple(str(place / name) for name in names))
    expect_whole(place, resume(place, replace(config_of(place), corpus=corpus)))


def test_a_glob_and_other_names_of_columns_are_the_same_corpus(place: Path) -> None:
    rows: Rows = [{"body": row.pop("text"), **row} for row in labelled_rows(NUM_ROWS, seed=1)]
    for first in range(0, NUM_ROWS, 20):
        write_jsonl(place / "parts" / f"{first:02}.jsonl", rows[first : first + 20])
    corpus = CorpusConfig(paths=(str(place / "parts" / "*.jsonl"),), text_column="body")
    expect_whole(place, resume(place, replace(config_of(place), corpus=corpus)))
