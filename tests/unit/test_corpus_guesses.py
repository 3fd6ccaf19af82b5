"""What is guessed about a file is told, what looks alike is refused, bad rows are told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monox_kit.corpora.classes import class_notes, dev_notes, near_names
from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_by_file, read_labelled
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.evaluation import read_test
from monox_kit.training.evaluate import DevConfig
from monox_kit.unseen import is_blank, look
from tests.notes import Notes

# The first row's quote closes in the third line.
SWALLOWING = '"Well, it works\tpos\nSecond row\tneg\nIt said so."\tpos\nfourth\tneg\n'


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(path: str, **settings: Any) -> tuple[list[Document], list[str]]:
    """The documents of a file, and what is told of it."""
    notes = Notes()
    found = list(Corpus(CorpusConfig(paths=(path,), **settings), notes).documents())
    return found, notes.notes


def refusal(path: str, **settings: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        Corpus(CorpusConfig(paths=(path,), **settings)).scan()
    return str(caught.value)


class TestQuotes:
    def test_tsv_has_none(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", f"text\tlabel\n{SWALLOWING}")
        documents, notes = read(path)
        texts = ['"Well, it works', "Second row", 'It said so."', "fourth"]
        assert [d.text for d in documents] == texts
        assert [d.label for d in documents] == ["pos", "neg", "pos", "neg"]
        assert notes == []

    def test_lines_that_quotes_swallow_are_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", f"text\tlabel\n{SWALLOWING}")
        documents, notes = read(path, delimiter="tab")
        assert len(documents) == 2
        assert len(notes) == 1 and "line 2, 3: 2 lines" in notes[0]
        assert [len(d) for d in (read(path, delimiter="\t", quoting="none")[0],)] == [4]

    def test_line_ends_in_quotes_are_told_nothing_of(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label,id\n"one\ntwo, and\nthree",a,1\n')
        documents, notes = read(path)
        assert documents[0].text == "one\ntwo, and\nthree"
        assert notes == []

    def test_a_tsv_with_quotes_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", 'text\tlabel\n"say ""hi"""\ta\n')
        documents, notes = read(path)
        assert documents[0].text == '"say ""hi"""'
        assert len(notes) == 1 and "line 2" in notes[0] and "minimal" in notes[0]
        assert read(path, quoting="minimal")[0][0].text == 'say "hi"'


class TestDelimiters:
    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_the_headers_own_is_taken_and_told(self, tmp_path: Path, delimiter: str) -> None:
        path = write(tmp_path / "a.csv", f"id{delimiter}Body\n1{delimiter}a, b\n")
        documents, notes = read(path, text_column="Body")
        assert [(d.id, d.text) for d in documents] == [("1", "a, b")]
        assert len(notes) == 1 and repr(delimiter) in notes[0]

    def test_the_given_one_counts(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "text;x,label\na;b,c\n")
        assert read(path, text_column="text;x") == (
            [Document(row=0, id="0", text="a;b", label="c")],
            [],
        )
        assert read(path, delimiter="semicolon")[0][0].text == "a"

    def test_a_given_one_that_the_header_is_not_written_with_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "text,label\na,b\n")
        told = refusal(path, delimiter="semicolon")
        assert told.startswith(f"{path}, line 1: ") and "`delimiter` ';'" in told
        assert "'text'" in told and "','" in told
        assert "found columns: x" in refusal(write(tmp_path / "b.csv", "x\na\n"), delimiter=";")

    def test_columns_are_listed_under_the_likely_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "Ticket ID;Body;Queue\n1;a;b\n")
        assert "found columns: Ticket ID, Body, Queue" in refusal(path)


class TestEncodings:
    def test_cp1252_of_excel_is_told_with_a_piece_of_it(self, tmp_path: Path) -> None:
        content = "text;label\nDie Größe stimmt nicht;Rücksendung\n".encode("cp1252")
        documents, notes = read(write(tmp_path / "a.csv", content))
        assert (documents[0].text, documents[0].label) == ("Die Größe stimmt nicht", "Rücksendung")
        assert any("cp1252" in note and "Größe" in note for note in notes)

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("cp1251", "Посылка пришла"),
            ("shift_jis", "荷物が届きません"),
            ("gb18030", "包裹没有到"),
        ],
    )
    def test_others_are_asked_for(self, tmp_path: Path, encoding: str, text: str) -> None:
        path = write(tmp_path / "a.csv", f"text,label\n{text},x\n".encode(encoding))
        assert "line 2: expected UTF-8" in refusal(path)
        assert read(path, encoding=encoding)[0][0].text == text

    def test_utf8_with_a_wrong_byte_is_not_taken_for_another(self, tmp_path: Path) -> None:
        content = "text\nÄpfel für Köche\ncaf".encode() + b"\xe9\n"
        message = refusal(write(tmp_path / "a.csv", content))
        assert (
            f"line 3: expected UTF-8, found byte 0xe9 at byte offset {len(content) - 2}" in message
        )

    def test_jsonl_is_not_guessed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", '{"text": "Größe"}\n'.encode("cp1252"))
        assert "line 1: expected UTF-8" in refusal(path)
        assert read(path, encoding="latin-1")[0][0].text == "Größe"


class TestAlike:
    @pytest.mark.parametrize(
        "other", ["neg ", "neg\u00a0", "\u200bneg", "ne\u00adg", "nеg", "neg\ufe0f"]
    )
    def test_labels_are_refused_with_both_places(self, tmp_path: Path, other: str) -> None:
        first = write(tmp_path / "a.jsonl", '{"text": "a", "label": "neg"}\n')
        rows = [{"text": "b", "label": "pos"}, {"text": "c", "label": other}]
        second = write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows)))
        with pytest.raises(CorpusError) as caught:
            read_labelled([first, second])
        message = str(caught.value)
        assert f"{second}, line 2" in message and f"{first}, line 1" in message
        assert ascii(other) in message and "'neg'" in message

    def test_composed_and_decomposed_labels(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": "n\u00e9gatif"}, {"text": "b", "label": "ne\u0301gatif"}]
        path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
        assert r"'ne\u0301gatif' looks like label 'n\xe9gatif'" in refusal(path)

    def test_a_label_set_is_refused_with_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"names": ["a", "b", "a\u200b"]}))
        with pytest.raises(CorpusError, match=r"labels\.json: label 'a\\u200b' looks like"):
            LabelSet.read(path)

    def test_an_unknown_label_says_what_it_looks_like_and_whose_set_it_is(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "labels.json").write_text('{"names": ["neg", "pos"]}')
        labels = LabelSet.read(tmp_path / "labels.json")
        path = write(tmp_path / "a.jsonl", '{"text": "a", "label": "pos\u00a0"}\n')
        with pytest.raises(CorpusError) as caught:
            read_labelled([path], labels)
        assert str(tmp_path / "labels.json") in str(caught.value)
        assert r"'pos\xa0'" in str(caught.value) and "looks like 'pos'" in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "text, label\na,b\n"),
            ("a.tsv", "text\tlabel\u200b\na\tb\n"),
            ("a.jsonl", '{"text": "a", "label\u00a0": "b"}\n'),
            ("a.csv", "text,label,label \na,b,c\n"),
        ],
    )
    def test_columns(self, tmp_path: Path, name: str, content: str) -> None:
        message = refusal(write(tmp_path / name, content))
        assert "line 1: column 'label" in message or "line 1: column ' label'" in message
        assert message.isascii() and "the column 'label'" in message

    def test_columns_of_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a"], "label ": ["b"]}), tmp_path / "a.parquet")
        assert "'label '" in refusal(str(tmp_path / "a.parquet"))

    def test_what_can_be_seen_differs(self) -> None:
        assert len({look(name) for name in ("Neg", "neg", "né", "ne", "n e", "n-e", "1", "l")}) == 8

    @pytest.mark.parametrize("text", ["\u200b", "\u3164\ufeff", "\u2800 ", "\x1b", "\ufe0f\u034f"])
    def test_unseen_text_is_empty(self, tmp_path: Path, text: str) -> None:
        assert is_blank(text)
        message = refusal(write(tmp_path / "a.jsonl", json.dumps({"text": text})))
        assert (
            "line 1: expected text in column 'text', found characters that nobody sees" in message
        )

    @pytest.mark.parametrize("text", ["a", "。", "👩\u200d🚀", "\u200bx", "-", "ा"])
    def test_seen_text_is_text(self, text: str) -> None:
        assert not is_blank(text)


class TestNumbers:
    def described(self, folder: Path, labels: Any, feature: Any) -> str:
        table = pa.table({"text": ["x"] * len(labels), "label": labels})
        description = json.dumps({"info": {"features": {"label": feature}}})
        table = table.replace_schema_metadata({"huggingface": description})
        pq.write_table(table, folder / "a.parquet")
        return str(folder / "a.parquet")

    def test_parquets_class_names(self, tmp_path: Path) -> None:
        feature = {"names": ["no", "yes"], "_type": "ClassLabel"}
        path = self.described(tmp_path, [1, 0, -1, None], feature)
        assert [d.label for d in read(path)[0]] == ["yes", "no", None, None]

    @pytest.mark.parametrize("kind", ["Sequence", "List", "old"])
    def test_parquets_class_names_in_lists(self, tmp_path: Path, kind: str) -> None:
        names = {"names": ["no", "yes"], "_type": "ClassLabel"}
        feature = [names] if kind == "old" else {"feature": names, "_type": kind}
        path = self.described(tmp_path, [[1, 0], [-1], [1, -1], []], feature)
        assert [d.label for d in read(path)[0]] == [("no", "yes"), (), ("yes",), ()]

    def test_what_datasets_itself_writes(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        names = datasets.ClassLabel(names=["no", "yes"])
        features = datasets.Features({"text": datasets.Value("string"), "label": names})
        made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
        made.to_parquet(str(tmp_path / "a.parquet"))
        assert [d.label for d in read(str(tmp_path / "a.parquet"))[0]] == ["yes", None]

    def test_label_names(self, tmp_path: Path) -> None:
        rows = [2, "0", 1.0, "neutral", -1, None, True]
        content = "\n".join(json.dumps({"text": "a", "label": label}) for label in rows)
        path = write(tmp_path / "a.jsonl", content)
        documents, _ = read(path, label_names=("negative", "neutral", "positive"))
        assert [d.label for d in documents] == [
            *("positive", "negative", "neutral", "neutral", None, None, "neutral")
        ]
        assert "line 1: label '2'" in refusal(path, label_names=("negative", "neutral"))
        with pytest.raises(ConfigError, match="label_names"):
            CorpusConfig(paths=("a",), label_names=("one", "one"))

    def test_floats_of_pandas(self, tmp_path: Path) -> None:
        pq.write_table(
            pa.table({"text": ["a", "b", "c"], "label": [1.0, float("nan"), None]}),
            tmp_path / "a.parquet",
        )
        assert [d.label for d in read(str(tmp_path / "a.parquet"))[0]] == ["1", None, None]


class TestBadRows:
    def test_all_are_told_by_kind_with_counts(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"text": "a", "label": "x"}] * 30
        rows[2] = rows[7] = {"text": " ", "label": "x"}
        rows[11] = {"text": "a", "label": "Shiping"}
        lines = [json.dumps(row) for row in rows]
        lines[20] = "{"
        path = write(tmp_path / "a.jsonl", "\n".join(lines))
        with pytest.raises(CorpusError) as caught:
            read_labelled([path], LabelSet(("x", "y")))
        message = str(caught.value)
        assert message.startswith("4 rows cannot be used.")
        places = f"(2 rows: {path}, line 3", f"{path}, line 8", f"{path}, line 12 ('Shiping')"
        for place in places:
            assert place in message
        assert f"not JSON (1): {path}, line 21" in message

    def test_rows_of_csv_and_across_files(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a.csv", "text,label\na\nb,c\nd,e,f\n")
        second = write(tmp_path / "b.txt", "a\n\nb\n")
        with pytest.raises(CorpusError) as caught:
            Corpus(CorpusConfig(paths=(first, second))).scan()
        message = str(caught.value)
        assert "3 rows" in message
        for place in (f"{first}, line 2 (1)", f"{first}, line 4 (3)", f"{second}, line 2"):
            assert place in message

    def test_no_more_than_twenty_are_shown(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", '{"text": ""}\n' * 500)
        message = refusal(path)
        assert "500 rows" in message and message.count("line ") == 20

    def test_what_ends_reading_is_told_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\na\n"b,c')
        message = refusal(path)
        assert (
            message.startswith("1 row cannot be used")
            and "line 2" in message
            and "unexpected end of data" in message
        )

    def test_one_is_its_own_error(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": ""}\n{"text": "b"}')
        assert refusal(path).startswith(f"{path}, line 2: expected text")


def test_a_file_may_have_columns_of_its_own(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", "text,label\na,x\n")
    second = write(tmp_path / "b:c.jsonl", '{"message": "b", "queue": "y", "label": "no"}\n')
    paths = (first, f"{second}:text=message,label=queue")
    corpus = Corpus(CorpusConfig(paths=paths))
    assert [(d.text, d.label) for d in corpus.documents()] == [("a", "x"), ("b", "y")]
    assert corpus.files == paths
    assert refusal(f"{first}:text=body").startswith(f"{first}, line 1: expected a column 'body'")
    with pytest.raises(CorpusError, match=r"FILE:text=COLUMN"):
        Corpus(CorpusConfig(paths=(second,))).scan()
    with pytest.raises(ConfigError, match="twice"):
        Corpus(CorpusConfig(paths=(f"{first}:text=a,text=b",)))


class TestLanguages:
    def files(self, folder: Path, *names: str) -> tuple[str, ...]:
        row = "text,label\na,x\n"
        return tuple(write(folder / name, row) for name in names)

    def test_option_name_and_neither(self, tmp_path: Path) -> None:
        paths = self.files(tmp_path, "tickets_de.csv", "b.csv", "c.csv")
        config = CorpusConfig(paths=paths, language=("b.csv=es",))
        found = read_test(config, LabelSet(("x", "y")))
        assert {name: len(rows) for name, rows in found.items()} == {"de": 1, "es": 1, "und": 1}
        assert [language for _, language, _ in read_by_file(config, LabelSet(("x", "y")))] == [
            *("de", "es", None)
        ]

    def test_a_language_for_no_file_is_refused(self, tmp_path: Path) -> None:
        paths = self.files(tmp_path, "a.csv")
        config = CorpusConfig(paths=paths, language=("b.csv=es",))
        with pytest.raises(ConfigError, match=r"`language` b\.csv=es: "):
            read_test(config, LabelSet(("x", "y")))
        for wrong in ("es", "=es", "a.csv=", "a.csv=Spanish!"):
            with pytest.raises(ConfigError, match="FILE=TAG"):
                CorpusConfig(paths=paths, language=(wrong,))

    def test_reported_dev_sets_go_by_their_names(self, tmp_path: Path) -> None:
        paths = self.files(tmp_path, "dev.csv", "dev-de.csv", "other.csv")
        reported = CorpusConfig(paths=paths[1:], language=("other.csv=fr",))
        sets = DevConfig(CorpusConfig(paths=paths[:1]), reported, ("dev",))
        found = sets.read(LabelSet(("x", "y")), [])
        assert set(found.documents) == {"dev", "de", "fr"}
        assert found.documents["dev"][0].lang is None  # digests of earlier runs have none


class TestClasses:
    def documents(self, *labels: str) -> list[Document]:
        return [
            Document(row, str(row), f"text {row}", None, label) for row, label in enumerate(labels)
        ]

    def test_counts_and_slips_are_told(self) -> None:
        documents = self.documents(*["Shipping"] * 9, "Shiping", *["Billing"] * 12)
        labels = LabelSet.from_documents(documents, "t.csv")
        notes = list(class_notes(documents, labels, "t.csv"))
        assert notes[0] == "t.csv: Billing 12, Shipping 9, Shiping 1"
        assert "Shiping 1" in notes[1] and "fewer than 5" in notes[1]
        assert "'Shiping' (1) and 'Shipping' (9)" in notes[2]
        assert len(notes) == 3

    @pytest.mark.parametrize(
        ("one", "other", "near"),
        [
            ("Shiping", "Shipping", True),
            ("shipping", "Shipping", True),
            ("e-mail", "email", True),
            ("tehcnical", "technical", True),
            ("deliverry", "delivery", True),
            ("step 1", "step 2", False),
            ("neg", "pos", False),
            ("cat", "car", False),
            ("positive", "negative", False),
            ("1", "2", False),
        ],
    )
    def test_near_names(self, one: str, other: str, near: bool) -> None:
        assert bool(near_names([one, other])) is near

    def test_dev_sets_that_do_not_fit(self) -> None:
        train = self.documents("a", "b", "c")
        labels = LabelSet(("a", "b", "c"))
        assert list(dev_notes([Document(0, "0", "new", None, "a")], train, labels)) == [
            "`dev`: no row of 'b', 'c': whether they are learned is not measured"
        ]
        same = list(dev_notes(train, train, labels))
        assert len(same) == 1 and "all 3 texts are in the training text and no others" in same[0]
        half = [*train[:1], *(Document(i, str(i), f"new {i}", None, "b") for i in range(2))]
        assert "1 of 3 texts" in list(dev_notes(half, train, labels))[-1]

    def test_one_class_names_the_file_and_its_label(self) -> None:
        with pytest.raises(CorpusError, match=r"t\.csv: .*2 rows.*'a'"):
            LabelSet.from_documents(self.documents("a", "a"), "t.csv")
