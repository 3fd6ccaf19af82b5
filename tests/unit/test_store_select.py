"""Rows of a store chosen by confidence, margin or entropy, with a share for language and class."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import MULTI_LABEL, Document, LabelSet
from monox_kit.errors import ConfigError, StoreError, StoreMismatch
from monox_kit.store import (
    FolderWriter,
    LogitStore,
    SelectReport,
    StoreManifest,
    choice,
    contents,
    merge_stores,
)
from monox_kit.store.diversity import farthest_first, text_vectors
from monox_kit.store.select import NO_CLASS, _Counted, _csv, _Row
from tests.notes import Notes
from tests.store_samples import tree, write_shard

LABELS = LabelSet(("games", "mail", "text"))
NUM_ROWS = 240
# By language, the rows of each class: French has almost no mail.
OFFERED = {"de": (40, 40, 40), "fr": (60, 2, 18), None: (20, 10, 10)}


def rows_of(seed: int = 1) -> tuple[np.ndarray, list[Document]]:
    """Logits and documents in a mixed order; some logits are equal."""
    generator = np.random.default_rng(seed)
    cells = [
        (tag, label)
        for tag, counts in OFFERED.items()
        for label, count in enumerate(counts)
        for _ in range(count)
    ]
    logits, documents = np.zeros((NUM_ROWS, 3), np.float32), []
    for row, at in enumerate(generator.permutation(NUM_ROWS)):
        tag, label = cells[at]
        logits[row] = generator.normal(0, 0.3, 3).round(1)
        logits[row, label] = logits[row].max() + generator.integers(1, 9) / 4
        documents.append(
            Document(row, f"k{row}", f"text {row} {'äöü' * (row % 3)}", None, None, tag)
        )
    return logits, documents


def stored(
    folder: Path, *, gold: np.ndarray | None = None, labels: LabelSet = LABELS, seed: int = 1
) -> LogitStore:
    """A store of these rows."""
    logits, documents = rows_of(seed)
    if labels.is_multi:
        logits -= np.float32(0.8)  # some rows are of no class
    manifest = StoreManifest(
        labels=labels,
        num_rows=NUM_ROWS,
        shard_rows=50,
        dtype="float32",
        has_pairs=False,
        fingerprint={"teacher": "student-1", "corpus_digest": f"c{seed}"},
        format_version=2,
    )
    if gold is None:
        shape = (NUM_ROWS,) if not labels.is_multi else (NUM_ROWS, 3)
        gold = np.full(shape, -1, np.int32 if not labels.is_multi else np.int8)
    with FolderWriter(folder, manifest) as writer:
        for shard in writer.missing:
            mine = slice(shard.start, shard.stop)
            write_shard(
                writer, shard, logits=logits[mine], documents=documents[mine], labels=gold[mine]
            )
        writer.complete()
    return LogitStore.open(folder)


def select(store: LogitStore, out: Path, **settings: Any) -> SelectReport:
    report = mk.select_store(store.folder, out=out, **settings)
    assert isinstance(report, SelectReport)
    return report


def chosen(folder: Path) -> list[int]:
    """The rows of the first store that a store of chosen ones holds, by their ids."""
    ids = LogitStore.open(folder, verify="full").ids(slice(None))
    return [int(name.removeprefix("k")) for name in ids]


def by_hand(store: LogitStore, values: np.ndarray, quotas: Mapping[Any, int]) -> list[int]:
    """The oracle: each cell's rows sorted by value, then by row."""
    decided = store.logits(slice(None)).argmax(axis=1).tolist()
    found = []
    for (tag, label), quota in quotas.items():
        rows = [
            row
            for row, lang in enumerate(store.languages(slice(None)))
            if (lang, decided[row]) == (tag, label)
        ]
        found += sorted(rows, key=lambda row: (values[row], row))[:quota]
    return sorted(found)


@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_each_class_of_each_language_gives_its_first_rows(
    tmp_path: Path, by: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_PART_ROWS", 7)
    store = stored(tmp_path / "s")
    logits = store.logits(slice(None)).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    two = np.sort(logits, axis=1)[:, -2:]
    values = {
        "confidence": shares.max(axis=1),
        "margin": two[:, 1] - two[:, 0],
        "entropy": -(shares * np.log(shares)).sum(axis=1),
    }[by]
    values = (-values if order == "highest" else values).round(9)
    report = select(store, tmp_path / "out", per_class=5, by=by, order=order)
    quotas = {(tag, label): 5 for tag in OFFERED for label in range(3)}
    expected = by_hand(store, values, quotas)
    # Equal values may differ in their last bits: what is chosen is as good as what is expected.
    found = chosen(tmp_path / "out")
    assert sorted(values[found]) == pytest.approx(sorted(values[expected]))
    assert report.num_rows == len(expected) == 42
    assert {one.language: one.num_rows for one in report.languages} == {
        "de": 15, "fr": 12, "und": 15,
    }  # fmt: skip
    assert {one.language: dict(one.short) for one in report.languages} == {
        "de": {}, "fr": {"mail": 2}, "und": {},
    }  # fmt: skip


def test_what_a_class_is_short_of_the_others_have(tmp_path: Path) -> None:
    report = select(stored(tmp_path / "s"), tmp_path / "out", per_language=60)
    counts = {one.language: tuple(one.labels.values()) for one in report.languages}
    assert counts == {"de": (20, 20, 20), "fr": (40, 2, 18), "und": (20, 10, 10)}
    both = select(stored(tmp_path / "t"), tmp_path / "both", per_language=60, per_class=30)
    counts = {one.language: tuple(one.labels.values()) for one in both.languages}
    assert counts == {"de": (20, 20, 20), "fr": (30, 2, 18), "und": (20, 10, 10)}
    odd = select(stored(tmp_path / "u"), tmp_path / "odd", per_language=4)
    assert [one.num_rows for one in odd.languages] == [4, 4, 4]


def test_short_classes_are_told(tmp_path: Path) -> None:
    notes = Notes()
    stored(tmp_path / "s")
    mk.select_store(tmp_path / "s", out=tmp_path / "out", per_class=12, progress=notes)
    assert any("fr: fewer rows than the 12" in note and "mail (2)" in note for note in notes.notes)


def test_the_store_of_chosen_rows_is_one_like_others(tmp_path: Path) -> None:
    gold = np.arange(NUM_ROWS, dtype=np.int32) % 4 - 1
    store = stored(tmp_path / "s", gold=gold)
    report = select(store, tmp_path / "out", per_class=9)
    rows = np.array(chosen(tmp_path / "out"))
    out = LogitStore.open(tmp_path / "out", verify="full")
    assert rows.tolist() == sorted(rows.tolist())
    assert out.logits(slice(None)).tolist() == store.logits(rows).tolist()
    assert out.gold(slice(None)).tolist() == gold[rows].tolist()
    assert out.languages(slice(None)) == store.languages(rows)
    assert out.texts(slice(None)) == store.texts(rows)
    assert out.digest == report.digest
    fingerprint = out.manifest.fingerprint
    assert fingerprint["selected_from"] == store.digest
    assert fingerprint["corpus_digest"] != store.manifest.fingerprint["corpus_digest"]
    # Two of them are put together like stores of two corpora.
    other = stored(tmp_path / "t", seed=2)
    select(other, tmp_path / "two", per_class=9)
    merge_stores([tmp_path / "out", tmp_path / "two"], tmp_path / "merged")
    merged = LogitStore.open(tmp_path / "merged", verify="full")
    assert len(merged) == len(out) + len(LogitStore.open(tmp_path / "two"))
    assert "selected_rows" not in merged.manifest.fingerprint


def test_an_interrupted_selection_goes_on_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    store = stored(tmp_path / "s")
    first = select(store, tmp_path / "whole", per_class=30)
    whole = tree(tmp_path / "whole")
    select(store, tmp_path / "out", per_class=30)
    (tmp_path / "out" / "complete.json").unlink()
    for path in (tmp_path / "out" / "shards" / "000001").iterdir():
        path.unlink()
    (tmp_path / "out" / "shards" / "000001").rmdir()
    assert not select(store, tmp_path / "out", per_class=30).reused
    assert tree(tmp_path / "out") == whole
    again = select(store, tmp_path / "whole", per_class=30)
    assert (again.reused, again.digest) == (True, first.digest)
    with pytest.raises(StoreMismatch, match=r"selected_rows|number of rows"):
        select(store, tmp_path / "whole", per_class=29)


def test_rows_for_annotators_are_the_least_sure_without_gold_labels(tmp_path: Path) -> None:
    gold = np.where(np.arange(NUM_ROWS) % 5 == 0, 1, -1).astype(np.int32)
    store = stored(tmp_path / "s", gold=gold)
    report = select(store, tmp_path / "rows.jsonl", per_class=3, form="jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert (report.order, report.num_rows, report.num_labelled) == ("lowest", len(lines), 48)
    assert all(line["row"] % 5 for line in lines)
    logits = store.logits(np.array([line["row"] for line in lines]))
    assert [LABELS.names[at] for at in logits.argmax(axis=1)] == [
        line["predicted"] for line in lines
    ]
    confidence = store.manifest.problem.confidence(logits)
    assert [line["confidence"] for line in lines] == pytest.approx(confidence, abs=1e-6)
    assert {"id", "text", "lang"} <= lines[0].keys()
    every = stored(tmp_path / "t", gold=np.zeros(NUM_ROWS, np.int32))
    with pytest.raises(StoreError, match="all 240 rows have gold labels"):
        select(every, tmp_path / "none.jsonl", per_class=3, form="jsonl")


def test_the_forms_of_annotation_tools(tmp_path: Path) -> None:
    store = stored(tmp_path / "s")
    select(store, tmp_path / "rows.jsonl", per_class=2, form="jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    select(store, tmp_path / "tasks.json", per_class=2, form="label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    for task, row in zip(tasks, rows, strict=True):
        data = {"document_id": row["id"], **{key: row[key] for key in ("text", "lang", "row")}}
        assert task["data"] == data
        (said,) = task["predictions"]
        assert (said["model_version"], said["score"]) == ("student-1", row["confidence"])
        assert said["result"] == [
            {
                "from_name": "label",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": [row["predicted"]]},
            }
        ]
    select(store, tmp_path / "records.json", per_class=2, form="argilla")
    records = json.loads((tmp_path / "records.json").read_text())
    assert len({record["id"] for record in records}) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert record["fields"] == {"text": row["text"]}
        assert record["metadata"]["id"] == row["id"]
        assert record["metadata"].get("lang") == row["lang"]
        assert record["suggestions"]["label"] == {
            "value": row["predicted"], "score": row["confidence"], "agent": "student-1",
        }  # fmt: skip
    select(store, tmp_path / "rows.csv", per_class=2, form="csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [line["text"] for line in table] == [row["text"] for row in rows]
    assert {line["label"] for line in table} == {""}


def test_a_lone_carriage_return_does_not_end_a_row_of_csv(tmp_path: Path) -> None:
    out = io.BytesIO()
    document = Document(row=0, id="a", text="x\ry", lang="en")
    rows = [_Row(document=document, predicted="pos", confidence=0.5)]
    _csv(iter(rows), "teacher", _Counted(out))
    (line,) = csv.DictReader(io.StringIO(out.getvalue().decode(), newline=""))
    assert (line["text"], line["lang"]) == ("x\ry", "en")


def test_a_file_is_written_whole_and_takes_no_other_ones_place(tmp_path: Path) -> None:
    store, out = stored(tmp_path / "s"), tmp_path / "rows.csv"
    assert not select(store, out, per_class=2, form="csv").reused
    assert select(store, out, per_class=2, form="csv").reused
    out.write_text(out.read_text().replace(",\n", ",games\n", 1))
    kept = out.read_text()
    with pytest.raises(ConfigError, match="annotators may have worked on it"):
        select(store, out, per_class=2, form="csv")
    assert out.read_text() == kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_any_number_of_labels_a_row(tmp_path: Path) -> None:
    """A row is of the class that leads; of none where no class is decided for."""
    store = stored(tmp_path / "s", labels=LabelSet(LABELS.names, MULTI_LABEL))
    report = select(store, tmp_path / "out", per_class=4)
    logits = store.logits(slice(None))
    assert (logits.max(axis=1) <= 0).any()
    expected: Counter[tuple[str, str]] = Counter()
    for tag, row in zip(store.languages(slice(None)), logits):
        name = LABELS.names[int(row.argmax())] if row.max() > 0 else NO_CLASS
        expected[tag or "und", name] += 1
    found = {
        (one.language, name): count
        for one in report.languages
        for name, count in one.labels.items()
    }
    assert {cell: n for cell, n in found.items() if n} == {
        cell: min(n, 4) for cell, n in expected.items()
    }
    select(store, tmp_path / "tasks.json", per_class=4, form="label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert any(len(task["predictions"][0]["result"][0]["value"]["choices"]) != 1 for task in tasks)


def test_diverse_rows_are_among_the_first_and_differ(tmp_path: Path) -> None:
    same = text_vectors(["the same text"] * 3 + ["ein anderer", "日本語のテキスト", "x"])
    assert farthest_first(same, 4).tolist()[0] == 0
    assert set(farthest_first(same, 4).tolist()) == {0, 3, 4, 5}
    assert sorted(farthest_first(same, 6).tolist()) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(np.linalg.norm(same, axis=1), 1, rtol=1e-5)
    store = stored(tmp_path / "s")
    select(store, tmp_path / "first", per_class=10)
    select(store, tmp_path / "some", per_class=2, diverse=True)
    assert set(chosen(tmp_path / "some")) <= set(chosen(tmp_path / "first"))
    select(store, tmp_path / "again", per_class=2, diverse=True)
    assert tree(tmp_path / "again") == tree(tmp_path / "some")


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path / "s")
    with pytest.raises(ConfigError, match="`per_language`, `per_class`: neither is given"):
        select(store, tmp_path / "out")
    with pytest.raises(ConfigError, match="it is the store that is read"):
        select(store, store.folder, per_class=1)
    monkeypatch.setattr(choice, "MOST_DIVERSE", 3)
    with pytest.raises(ConfigError, match="`diverse`: a class of a language would have 4 rows"):
        select(store, tmp_path / "out", per_class=4, diverse=True)
    monkeypatch.setattr(choice, "_MOST_LANGUAGES", 2)
    with pytest.raises(ConfigError, match="more than 2 languages"):
        select(store, tmp_path / "out", per_class=4)
    assert not (tmp_path / "out").exists()
