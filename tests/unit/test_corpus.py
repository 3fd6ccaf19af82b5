"""What a corpus yields, what it refuses in a row, and what a scan reports."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from monox_kit.corpora.corpus import (
    MAX_LABEL_NAMES,
    Corpus,
    CorpusConfig,
    CorpusSummary,
    read_labelled,
)
from monox_kit.data import Document, LabelSet
from monox_kit.digest import RowDigest
from monox_kit.errors import ConfigError, CorpusError


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def corpus(*paths, **settings):
    return Corpus(CorpusConfig(paths=tuple(map(str, paths)), **settings))


def refusal(opened, *, error=CorpusError):
    """The message with which reading fails."""
    with pytest.raises(error) as caught:
        list(opened.documents())
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_rows_are_counted_across_files_and_every_pass_is_the_same(tmp_path):
    first = jsonl(
        tmp_path / "a.jsonl",
        {"text": "one", "label": 1, "id": 7, "lang": "en"},
        {"text": "two", "label": True, "id": "k", "lang": None},
    )
    second = jsonl(tmp_path / "b.jsonl", {"text": "three", "label": "", "id": "", "extra": [1]})
    opened = corpus(first, second)
    expected = [
        Document(row=0, id="7", text="one", label="1", lang="en"),
        Document(row=1, id="k", text="two", label="1"),
        Document(row=2, id="2", text="three"),
    ]
    assert list(opened.documents()) == expected
    assert list(opened.documents()) == expected
    assert opened.files == (first, second)
    assert not opened.has_pairs


def test_other_column_names(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        {"body": "t", "hypothesis": "h", "class": "c", "key": "k", "language": "de", "text": "no"},
    )
    opened = corpus(
        path,
        text_column="body",
        pair_column="hypothesis",
        label_column="class",
        id_column="key",
        lang_column="language",
    )
    assert list(opened.documents()) == [
        Document(row=0, id="k", text="t", text_pair="h", label="c", lang="de")
    ]
    assert opened.has_pairs


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"text": None}, "found null"),
        ({"text": ""}, "found an empty one"),
        ({"text": " \t\u00a0\u2003"}, "found white space alone"),
        ({"text": 5}, "found int 5"),
        ({"text": ["a"]}, "found list"),
        ({"text": "a\0b"}, "found a NUL character at position 1"),
        ({"text": "a\ud800"}, r"found the lone surrogate '\ud800' at position 1"),
        ({"text": "a", "text_pair": 1}, "column 'text_pair', found int 1"),
        ({"text": "a", "text_pair": " "}, "column 'text_pair', found white space alone"),
        ({"text": "a", "text_pair": "\udfff"}, "column 'text_pair', found the lone surrogate"),
        ({"text": "a", "label": 1.5}, "column 'label', found float 1.5"),
        ({"text": "a", "label": {"x": 1}}, "column 'label', found dict"),
        ({"text": "a", "label": " "}, "column 'label', found white space alone"),
        ({"text": "a", "label": "\ud800"}, "column 'label', found the lone surrogate"),
        ({"text": "a", "id": 1.5}, "column 'id', found float 1.5"),
        ({"text": "a", "id": True}, "column 'id', found bool True"),
        ({"text": "a", "id": "\ud800"}, "column 'id', found the lone surrogate"),
        ({"text": "a", "lang": 1}, "column 'lang', found int 1"),
        ({"text": "a", "lang": "\ud800"}, "column 'lang', found the lone surrogate"),
    ],
)
def test_a_bad_value_names_row_column_and_what_was_found(tmp_path, record, found):
    path = jsonl(tmp_path / "a.jsonl", {"text": "fine"}, record)
    message = refusal(corpus(path))
    assert message.startswith(f"{path}, line 2: expected ")
    assert found in message
    assert message.isascii()


def test_whole_numbers_and_booleans_become_label_names(tmp_path):
    labels = [0, 1, -1, True, False, "x", 10**20, 3.0, float("nan")]
    path = jsonl(tmp_path / "a.jsonl", *({"text": "t", "label": label} for label in labels))
    names = [document.label for document in corpus(path).documents()]
    assert names == ["0", "1", "-1", "1", "0", "x", str(10**20), "3", None]


def test_a_label_that_was_accepted_as_text_does_not_let_a_fraction_pass(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "t", "label": "1"}, {"text": "t", "label": 1.5})
    assert "found float 1.5" in refusal(corpus(path))


def test_duplicate_ids_and_texts_are_legal(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *[{"text": "t", "id": "same"}] * 3)
    assert [document.id for document in corpus(path).documents()] == ["same"] * 3


class TestPairs:
    def test_a_row_without_a_pair_among_rows_with_one(self, tmp_path):
        first = jsonl(tmp_path / "a.jsonl", {"text": "t", "text_pair": "p"})
        second = jsonl(tmp_path / "b.jsonl", {"text": "t", "text_pair": ""})
        message = refusal(corpus(first, second))
        assert message.startswith(f"{second}, line 1: expected a 'text_pair' as in the rows before")

    def test_a_row_with_a_pair_among_rows_without(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t"}, {"text": "t", "text_pair": "p"})
        message = refusal(corpus(path))
        assert message.startswith(f"{path}, line 2: expected no 'text_pair' as in the rows before")

    def test_none_leaves_pairs_unread(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t"}, {"text": "t", "text_pair": 5})
        for column in ("text_pair", "absent"):
            opened = corpus(path, pair="none", pair_column=column)
            assert [d.text_pair for d in opened.documents()] == [None, None]

    def test_required(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t", "text_pair": None})
        assert "line 1: expected a 'text_pair', found none" in refusal(
            corpus(path, pair="required")
        )
        path = jsonl(tmp_path / "b.jsonl", {"text": "t", "hypothesis": "h"})
        message = refusal(corpus(path, pair="required"))
        assert "column 'text_pair', found columns: text, hypothesis. Use `pair_column`" in message


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "option"),
        [
            ({"format": "xml"}, "`format`"),
            ({"pair": "maybe"}, "`pair`"),
            ({"text_column": ""}, "`text_column`"),
            ({"label_column": ""}, "`label_column`"),
        ],
    )
    def test_an_impossible_setting_is_refused(self, settings, option):
        with pytest.raises(ConfigError, match=option):
            CorpusConfig(paths=("a.jsonl",), **settings)


class TestScan:
    def test_summary(self, tmp_path):
        path = jsonl(
            tmp_path / "a.jsonl",
            {"text": "ä", "text_pair": "bc", "label": "y"},
            {"text": "d", "text_pair": "e", "label": "x", "id": "k", "lang": "de"},
            {"text": "f", "text_pair": "g"},
        )
        digest = RowDigest()
        digest.add("0", "ä", "bc", "y", None)
        digest.add("k", "d", "e", "x", "de")
        digest.add("2", "f", "g", None, None)
        assert corpus(path).scan() == CorpusSummary(
            num_rows=3,
            digest=digest.hexdigest(),
            has_pairs=True,
            num_labelled=2,
            label_names=("x", "y"),
            text_bytes=8,
            languages=("de", "und"),
        )

    def test_the_digest_sees_order_and_every_field(self, tmp_path):
        row = {"text": "a", "text_pair": "b", "label": "c", "id": "d", "lang": "e"}
        other = {"text": "o", "text_pair": "o", "label": "o", "id": "o", "lang": "o"}
        variants = [[row, other], [other, row], [row]]
        variants += [[{**row, field: "other"}, other] for field in row]
        digests = {
            corpus(jsonl(tmp_path / f"{i}.jsonl", *rows)).scan().digest
            for i, rows in enumerate(variants)
        }
        assert len(digests) == len(variants)

    def test_an_unknown_label_is_named_with_its_row(self, tmp_path):
        path = jsonl(
            tmp_path / "a.jsonl",
            {"text": "t", "label": "a"},
            {"text": "t"},
            {"text": "t", "label": "c"},
        )
        with pytest.raises(CorpusError, match=r"line 3: .*labels a, b, found 'c'"):
            corpus(path).scan(labels=LabelSet(("a", "b")))
        assert corpus(path).scan(labels=LabelSet(("a", "c"))).num_labelled == 2

    def test_label_names_are_given_up_where_there_are_too_many(self, tmp_path):
        records = [{"text": "t", "label": str(n)} for n in range(MAX_LABEL_NAMES + 1)]
        most = corpus(jsonl(tmp_path / "most.jsonl", *records[:-1])).scan()
        assert most.label_names is not None and len(most.label_names) == MAX_LABEL_NAMES
        over = corpus(jsonl(tmp_path / "over.jsonl", *records)).scan()
        assert over.label_names is None
        assert over.num_labelled == MAX_LABEL_NAMES + 1

    def test_progress_ends_at_the_total_of_stored_bytes(self, tmp_path, recorder):
        paths = [
            jsonl(tmp_path / f"{name}.jsonl", *[{"text": "t" * 40}] * 5000) for name in ("a", "b")
        ]
        corpus(*paths).scan(progress=recorder)
        assert recorder.unit == "bytes"
        assert recorder.done == recorder.total == sum((tmp_path / p).stat().st_size for p in paths)
        assert recorder.details[-1] == "10,000 rows"
        assert recorder.amounts[0] > 0  # reported while the first file is read
        assert all(amount >= 0 for amount in recorder.amounts)


@pytest.fixture
def recorder():
    """A progress that remembers what it was told."""

    class Recorder:
        def task(self, description, total, unit, done=0):
            self.total, self.unit, self.amounts, self.details = total, unit, [], []
            return self

        @property
        def done(self):
            return sum(self.amounts)

        def advance(self, amount=1):
            self.amounts.append(amount)

        def detail(self, text):
            self.details.append(text)

        def note(self, message):
            raise AssertionError(message)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    return Recorder()


class TestReadLabelled:
    def test_all_labelled(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t", "label": "a"}, {"text": "u", "label": 1})
        documents = read_labelled([path], LabelSet(("1", "a")))
        assert [(d.text, d.label) for d in documents] == [("t", "a"), ("u", "1")]
        assert documents == read_labelled(CorpusConfig(paths=(path,)))

    def test_a_row_without_a_label(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t", "label": "a"}, {"text": "u"})
        with pytest.raises(CorpusError, match=r"line 2: expected a column 'label'"):
            read_labelled([path])

    def test_an_unknown_label(self, tmp_path):
        path = jsonl(tmp_path / "a.jsonl", {"text": "t", "label": "b"}, {"text": "t", "label": "z"})
        with pytest.raises(CorpusError, match=r"line 2: expected one of the 2 labels b, c"):
            read_labelled([path], LabelSet(("b", "c")))


def peak_bytes(path):
    opened = corpus(path)
    tracemalloc.start()
    try:
        opened.scan()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("suffix", "few", "many"),
    [("jsonl", 5_000, 50_000), ("csv", 4_000, 16_000), ("txt", 4_000, 16_000)],
)
def test_memory_does_not_grow_with_the_corpus(tmp_path, suffix, few, many):
    row = {"jsonl": '{"text": "%s"}\n', "csv": '"%s",a\n', "txt": "%s\n"}[suffix]
    header = "text,label\n" if suffix == "csv" else ""
    peaks = []
    # Both hold several read blocks, so that only what is kept per row can make a difference.
    for num_rows in (few, many):
        path = tmp_path / f"{num_rows}.{suffix}"
        path.write_text(header + "".join(row % f"{n} {'x' * 200}" for n in range(num_rows)))
        peaks.append(peak_bytes(path))
    assert peaks[1] < 1.2 * peaks[0]


def test_plain_jsonl_needs_no_optional_package(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "t"})
    program = (
        "import sys\n"
        "from monox_kit.corpora.corpus import read_labelled, Corpus, CorpusConfig\n"
        f"Corpus(CorpusConfig(paths=({path!r},))).scan()\n"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert not loaded & {"pyarrow", "fsspec", "zstandard", "datasets", "torch"}


def test_the_order_in_a_list_of_labels_is_nothing_that_a_digest_sees(tmp_path: Path) -> None:
    digests = set()
    for number, labels in enumerate((["a", "b"], ["b", "a"])):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({"text": "x", "label": labels}) + "\n")
        digests.add(Corpus(CorpusConfig(paths=(str(path),))).scan().digest)
    assert len(digests) == 1


def test_a_misspelled_key_of_labels_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"names": ["a", "b"], "problemtype": "multi_label_classification"}')
    with pytest.raises(CorpusError, match="found 'problemtype'"):
        LabelSet.read(path)
