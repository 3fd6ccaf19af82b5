"""Lists of labels in input rows: what is read, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.data import MULTI_LABEL, LabelSet
from monox_kit.errors import CorpusError

MULTI = LabelSet(("games", "mail", "1"), MULTI_LABEL)
SINGLE = LabelSet(MULTI.names)
VALUES: list[Any] = [["mail", "games"], [], None, ["games"]]


def jsonl(folder: Path, *labels: Any) -> CorpusConfig:
    lines = [json.dumps({"text": f"text {row}", "label": each}) for row, each in enumerate(labels)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return CorpusConfig(paths=(str(folder / "rows.jsonl"),))


def test_lists_are_read_alike_from_jsonl_and_parquet(tmp_path: Path) -> None:
    first = jsonl(tmp_path, *VALUES)
    table = pa.table({"text": [f"text {row}" for row in range(4)], "label": VALUES})
    pq.write_table(table, tmp_path / "rows.parquet")
    second = CorpusConfig(paths=(str(tmp_path / "rows.parquet"),))
    found = [Corpus(each).scan(labels=MULTI) for each in (first, second)]
    assert found[0].digest == found[1].digest
    assert (found[0].num_labelled, found[0].label_names) == (3, ("games", "mail"))
    labels = [document.label for document in Corpus(first).documents()]
    assert labels == [("games", "mail"), (), None, ("games",)]


def test_no_two_corpora_with_other_labels_share_a_digest(tmp_path: Path) -> None:
    variants: list[Any] = [None, [], ["games"], "games", ["games", "mail"], ["gamesmail"]]
    digests = {Corpus(jsonl(tmp_path, each)).scan().digest for each in variants}
    assert len(digests) == len(variants)


@pytest.mark.parametrize(
    ("labels", "label", "says"),
    [
        (MULTI, "games", r"rows\.jsonl, line 1: expected a list of labels.* found 'games'"),
        (MULTI, ["spam"], r"rows\.jsonl, line 1: expected one of the 3 labels.* found 'spam'"),
        (MULTI, ["mail", 1, True], r"line 1: expected every label once .* found '1' 2 times"),
        (MULTI, [["mail"]], r"line 1: expected a label in column 'label', found list"),
        (MULTI, ["mail", None], r"line 1: expected a label in column 'label', found NoneType"),
        (MULTI, {"mail": 1}, r"line 1: expected a label in column 'label', found dict"),
        (SINGLE, ["games"], r"line 1: expected one label, found a list of 1\..*problem_type"),
    ],
)
def test_a_label_that_cannot_be_used_is_named(
    tmp_path: Path, labels: LabelSet, label: Any, says: str
) -> None:
    with pytest.raises(CorpusError, match=says):
        read_labelled(jsonl(tmp_path, label), labels)


def test_a_row_without_any_class_is_labelled_and_one_without_a_list_is_not(tmp_path: Path) -> None:
    assert read_labelled(jsonl(tmp_path, []), MULTI)[0].label == ()
    with pytest.raises(CorpusError, match="line 1: expected a label in column 'label', found none"):
        read_labelled(jsonl(tmp_path, None), MULTI)


@pytest.mark.parametrize(
    ("name", "row"), [("a.csv", 'x,"[""mail"",1]"'), ("a.tsv", 'x\t["mail",1]')]
)
def test_a_json_array_in_csv_is_a_list(tmp_path: Path, name: str, row: str) -> None:
    path = tmp_path / name
    path.write_text("text,label\n".replace(",", row[1]) + row + "\n")
    assert read_labelled([str(path)], MULTI)[0].label == ("1", "mail")
    path.write_text("text,label\n".replace(",", row[1]) + f"x{row[1]}[mail]\n")
    with pytest.raises(CorpusError, match=r"line 2: expected a list of labels.* found '\[mail\]'"):
        read_labelled([str(path)], MULTI)


def test_classes_are_not_guessed_from_lists(tmp_path: Path) -> None:
    rows = read_labelled(jsonl(tmp_path, ["games"], ["mail"]))
    with pytest.raises(CorpusError, match=r"train: row 0: expected one label.*`labels` labels\.js"):
        LabelSet.from_documents(rows, "train")
