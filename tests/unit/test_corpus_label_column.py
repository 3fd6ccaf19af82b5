"""Where labels are not needed, files may lack their column; where they are, and of what rows lack,
one message says what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.data import LabelSet
from monox_kit.errors import CorpusError
from tests.notes import Notes

LABELS = LabelSet(("x", "y"))
NAMED = {"text_column": "Nachricht", "label_column": "Thema"}


@pytest.fixture(params=["csv", "tsv", "jsonl", "parquet", "txt"])
def unlabelled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file of every format without the column of labels."""
    path = tmp_path / f"unlabelled.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.table({"Nachricht": ["a", "b"], "id": ["1", "2"]}), path)
    else:
        rows = {
            "csv": "Nachricht,id\na,1\nb,2\n",
            "tsv": "Nachricht\tid\na\t1\nb\t2\n",
            "jsonl": '{"Nachricht": "a", "id": "1"}\n{"Nachricht": "b"}\n',
            "txt": "a\nb\n",
        }
        path.write_text(rows[request.param])
    return str(path)


def written(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def refusal(config: CorpusConfig, labels: LabelSet | None = LABELS) -> str:
    with pytest.raises(CorpusError) as caught:
        Corpus(config).scan(labels=labels)
    return str(caught.value)


def test_files_without_the_column_have_no_labels_and_one_note(
    unlabelled: str, tmp_path: Path
) -> None:
    claims = written(tmp_path / "claims.csv", "Nachricht,Thema\nc,x\n")
    notes = Notes()
    corpus = Corpus(CorpusConfig(paths=(claims, unlabelled), **NAMED), notes)
    documents = list(corpus.documents())
    assert [(d.text, d.label) for d in documents] == [("c", "x"), ("a", None), ("b", None)]
    assert corpus.scan(progress=notes, labels=LABELS).num_labelled == 1
    told = [note for note in notes.notes if "Thema" in note]
    assert len(told) == 1 and unlabelled in told[0]
    assert "none" in told[0] if unlabelled.endswith("txt") else "Nachricht, id" in told[0]


def test_a_column_that_no_file_has_is_refused_where_labels_are_compared(unlabelled: str) -> None:
    config = CorpusConfig(paths=(unlabelled,), **NAMED)
    assert Corpus(config).scan().num_labelled == 0  # predicted text
    message = refusal(config)
    assert message.startswith(unlabelled) and "'Thema'" in message and "`label_column`" in message
    with pytest.raises(CorpusError, match="'Thema'"):
        read_labelled(config)
    assert "'Other'" in refusal(
        CorpusConfig(paths=(f"{unlabelled}:label=Other",), text_column="Nachricht"), None
    )


def test_labels_are_missed_at_once_where_the_file_has_no_column(unlabelled: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read_labelled(CorpusConfig(paths=(unlabelled,), text_column="Nachricht"))
    message = str(caught.value)
    assert "'label'" in message and "`label_column`" in message
    assert unlabelled.endswith(".txt") or "found columns: Nachricht" in message


def test_keys_of_json_are_named_where_one_is_missing(tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"id": n, "message": "a"}) for n in range(3))
    message = refusal(CorpusConfig(paths=(written(tmp_path / "a.jsonl", rows),)))
    assert "'text' (3)" in message and message.count("id, message") == 1
    assert "`text_column`" in message and "FILE:text=COLUMN" in message


def test_rows_of_an_array_are_named_by_their_number(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": ""}, {"text": "b"}, 5, {"body": "c"}]
    path = written(tmp_path / "bad.json", json.dumps(rows))
    message = refusal(CorpusConfig(paths=(path,)))
    assert all(f"{path}, line 1, entry {n}" in message for n in (2, 4, 5))


def test_unknown_labels_are_counted_by_their_name(tmp_path: Path) -> None:
    rows = "text,label\n" + "a,Water damage\n" * 57 + "a,z\n" + "a,x\n"
    path = written(tmp_path / "a.csv", rows)
    config = CorpusConfig(paths=(path,))
    message = refusal(config, LabelSet(("x", "y"), origin="teacher/monoxkit.json"))
    assert f"'Water damage' (57 rows: {path}, line 2, " in message
    assert message.count("Water damage") == 1 and f"{path}, line 59 ('z')" in message
    assert "train a new teacher" in message and "docs/own-data.md" in message
    own = written(tmp_path / "labels.json", '{"names": ["x", "y"]}')
    message = refusal(config, LabelSet.read(Path(own)))
    assert f"add the class to {own}" in message and "teacher" not in message


def test_what_ends_reading_ends_in_one_full_stop(tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", "text,label\n,x\n")
    second = written(tmp_path / "b.csv", "text\na\n")
    message = refusal(CorpusConfig(paths=(first, f"{second}:label=queue")))
    assert "'queue'" in message and ".." not in message.replace("...", "")


def test_a_file_that_is_not_there_names_a_near_one(tmp_path: Path) -> None:
    near = written(tmp_path / "claims.csv", "text\na\n")
    with pytest.raises(CorpusError, match="nothing there") as caught:
        Corpus(CorpusConfig(paths=(str(tmp_path / "claim.csv"),)))
    assert near in str(caught.value)
    with pytest.raises(CorpusError, match=r"Check the path\.$"):
        Corpus(CorpusConfig(paths=(str(tmp_path / "other.tsv"),)))
