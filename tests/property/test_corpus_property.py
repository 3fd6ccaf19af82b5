"""Equal documents in any format and compression read back equal, with an equal digest."""

import csv
import gzip
import io
import json
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.corpora import blocks
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document
from monox_kit.digest import RowDigest
from monox_kit.unseen import is_blank, look

FIELDS = ("id", "text", "text_pair", "label", "lang")

characters = st.one_of(
    st.sampled_from("\n\r\t\",;'\\{}#\u2028\u2029\u0085\ufeff\x0b\x1c 😀"),
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
)
texts = st.text(characters, min_size=1, max_size=30).filter(lambda text: not is_blank(text))
# In CSV a JSON array of labels is a list of them.
labels = texts.filter(lambda text: not (text.startswith("[") and text.endswith("]")))
# Plain text ends lines with "\n" or "\r\n", and a mark at its start is a byte order mark.
single_lines = texts.filter(lambda text: not set(text) & set("\n\r") and text[0] != "\ufeff")


@st.composite
def corpora(draw):
    """Documents as a corpus may hold them: pairs everywhere or nowhere, the rest optional."""
    has_pairs = draw(st.booleans())
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "text": texts,
                    "text_pair": texts if has_pairs else st.none(),
                    "label": st.none() | labels,
                    "id": st.none() | texts,
                    "lang": st.none() | texts,
                }
            ),
            min_size=1,
            max_size=8,
        )
    )
    looks = {}
    for row in rows:  # two labels that look alike are refused
        if row["label"] is not None:
            row["label"] = looks.setdefault(look(row["label"]), row["label"])
    return [
        Document(row=row, **{**fields, "id": fields["id"] or str(row)})
        for row, fields in enumerate(rows)
    ]


def as_jsonl(documents, draw):
    keep_ascii = draw(st.booleans())
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = []
    for document in documents:
        record = {field: getattr(document, field) for field in FIELDS}
        if draw(st.booleans()):
            record = {field: value for field, value in record.items() if value is not None}
        lines.append(json.dumps(record, ensure_ascii=keep_ascii))
    return (end.join(lines) + draw(st.sampled_from(["", end]))).encode()


def as_delimited(delimiter):
    def write(documents, draw):
        stream = io.StringIO(newline="")
        end = draw(st.sampled_from(["\n", "\r\n"]))
        # Before Python 3.13 the writer leaves "\r" unquoted where lines end in "\n" alone.
        fits = end == "\r\n" or not any(
            "\r" in str(getattr(d, f)) for d in documents for f in FIELDS
        )
        quoting = (
            draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])) if fits else csv.QUOTE_ALL
        )
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
        order = draw(st.permutations(FIELDS))
        writer.writerow(order)
        for document in documents:
            writer.writerow([getattr(document, field) for field in order])
        return (draw(st.sampled_from(["", "\ufeff"])) + stream.getvalue()).encode()

    return write


def as_parquet(documents, draw):
    columns = {field: [getattr(d, field) for d in documents] for field in FIELDS}
    table = pa.table({field: pa.array(values, pa.string()) for field, values in columns.items()})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=draw(st.integers(1, 5)))
    return stream.getvalue()


def compressed(content, suffix, cut):
    """The content in two members or frames, parted anywhere."""
    parts = [content[:cut], content[cut:]]
    if suffix == ".gz":
        return b"".join(map(gzip.compress, parts))
    return b"".join(map(zstandard.compress, parts)) if suffix == ".zst" else content


WRITERS = {
    "jsonl": as_jsonl,
    "csv": as_delimited(","),
    "tsv": as_delimited("\t"),
    "parquet": as_parquet,
}


@contextmanager
def opened(contents, block_bytes, **settings):
    """A corpus of files given as (suffix, bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.{suffix}" for i, (suffix, _) in enumerate(contents)]
        for path, (_, content) in zip(paths, contents, strict=True):
            path.write_bytes(content)
        settings = {"quoting": "minimal", **settings}
        corpus = Corpus(CorpusConfig(paths=tuple(map(str, paths)), **settings))
        # Small blocks put every character and line end on a border sooner or later.
        whole, blocks.BLOCK_BYTES = blocks.BLOCK_BYTES, block_bytes
        try:
            yield corpus
        finally:
            blocks.BLOCK_BYTES = whole


def read(contents, block_bytes, mark_every=None):
    """Documents and summary of files given as (suffix, bytes)."""
    with opened(contents, block_bytes) as corpus:
        return list(corpus.documents()), corpus.scan(mark_every=mark_every)


def expected_digest(documents):
    digest = RowDigest()
    for d in documents:
        digest.add(d.id, d.text, d.text_pair, d.label, d.lang)
    return digest.hexdigest()


@settings(max_examples=80, deadline=None)
@given(st.data(), corpora(), st.integers(1, 64))
def test_every_format_reads_back_what_was_written(data, documents, block_bytes):
    suffix = data.draw(st.sampled_from(sorted(WRITERS)))
    compression = data.draw(st.sampled_from(["", ".gz", ".zst"]))
    content = WRITERS[suffix](documents, data.draw)
    content = compressed(content, compression, data.draw(st.integers(0, len(content))))
    found, summary = read([(f"{suffix}{compression}", content)], block_bytes)
    assert found == documents
    assert summary.digest == expected_digest(documents)
    assert summary.num_rows == len(documents)
    assert summary.num_labelled == sum(d.label is not None for d in documents)
    assert set(summary.label_names) == {d.label for d in documents} - {None}
    assert summary.has_pairs == (documents[0].text_pair is not None)
    both = "".join(d.text + (d.text_pair or "") for d in documents)
    assert summary.text_bytes == len(both.encode())
    assert summary.languages == tuple(sorted({d.lang or "und" for d in documents}))


@settings(max_examples=40, deadline=None)
@given(st.data(), corpora(), st.integers(1, 12))
def test_every_block_has_a_mark_of_its_bytes_and_rows(data, documents, mark_every):
    _, summary = read([("parquet", as_parquet(documents, data.draw))], 64, mark_every)
    has_pairs = documents[0].text_pair is not None
    expected = []
    for start in range(0, len(documents), mark_every):
        block = documents[start : start + mark_every]
        sizes = {
            "ids": len("".join(d.id for d in block).encode()),
            "text": len("".join(d.text for d in block).encode()),
            "lang": len("".join(d.lang or "" for d in block).encode()),
        }
        if has_pairs:
            sizes["text_pair"] = len("".join(d.text_pair for d in block).encode())
        expected.append((expected_digest(block), sizes))
    assert [(mark.digest, mark.text_bytes) for mark in summary.marks] == expected
    json.dumps(summary.to_json())


@settings(max_examples=150, deadline=None)
@given(st.data(), corpora(), st.integers(1, 64), st.integers(1, 4))
def test_reading_begins_in_the_middle_as_it_would_have_gone_on(
    data, documents, block_bytes, mark_every
):
    cut = data.draw(st.integers(0, len(documents)))
    parts = [part for part in (documents[:cut], documents[cut:]) if part]
    contents = []
    for part in parts:
        suffix = data.draw(st.sampled_from(sorted(WRITERS)))
        compression = data.draw(st.sampled_from(["", "", ".gz", ".zst"]))
        content = compressed(WRITERS[suffix](part, data.draw), compression, 0)
        contents.append((f"{suffix}{compression}", content))
    with opened(contents, block_bytes) as corpus:
        for index, mark in enumerate(corpus.scan(mark_every=mark_every).marks):
            row = mark.place.row
            assert row <= index * mark_every
            assert list(corpus.documents(mark.place)) == documents[row:]


def test_a_mark_lies_near_its_block():
    """Not at the top of the file, where reading would be right too and slow."""
    lines = [json.dumps({"text": "x" * 100}) + "\n" for _ in range(100)]
    with opened([("jsonl", "".join(lines).encode())], 500) as corpus:
        places = [mark.place for mark in corpus.scan(mark_every=10).marks]
    assert all(0 <= 10 * index - place.row < 6 for index, place in enumerate(places))


@settings(max_examples=40, deadline=None)
@given(st.data(), corpora(), st.integers(1, 64))
def test_a_corpus_in_files_of_several_formats(data, documents, block_bytes):
    cut = data.draw(st.integers(0, len(documents)))
    parts = [part for part in (documents[:cut], documents[cut:]) if part]
    suffixes = [data.draw(st.sampled_from(sorted(WRITERS))) for _ in parts]
    contents = [(s, WRITERS[s](part, data.draw)) for s, part in zip(suffixes, parts, strict=True)]
    found, summary = read(contents, block_bytes)
    assert found == documents
    assert summary.digest == expected_digest(documents)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(single_lines, min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", ".gz", ".zst"]),
    st.integers(0, 3),
    st.integers(1, 64),
)
def test_plain_text(lines, end, compression, num_ends, block_bytes):
    content = (end.join(lines) + end * num_ends).encode()
    content = compressed(content, compression, len(content) // 2)
    found, summary = read([(f"txt{compression}", content)], block_bytes)
    documents = [Document(row=row, id=str(row), text=text) for row, text in enumerate(lines)]
    assert found == documents
    assert summary.digest == expected_digest(documents)


ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "cp1252",
    "gb18030",
    "shift_jis",
]


@st.composite
def dialects(draw):
    """Documents, and how they are written: a delimiter, an encoding that has them, quotes or none.

    Without quotes no field holds the delimiter or a line end, or ends a line in a carriage return.
    """
    documents = draw(corpora())
    encoding = draw(st.sampled_from(ENCODINGS))
    delimiter = draw(st.sampled_from(",;\t|"))
    quoting = draw(st.sampled_from(["none", "minimal"]))
    removed = "\n\r" + delimiter if quoting == "none" else ""

    def fits(text):
        try:
            return text.encode(encoding).decode(encoding) == text
        except UnicodeError:
            return False

    def kept(text):
        found = "".join(each for each in text if each not in removed and fits(each))
        return found if not is_blank(found) and fits(found) else "x"

    changed = []
    for document in documents:
        values = {f: kept(v) for f in FIELDS if (v := getattr(document, f)) is not None}
        values["id"] = values["id"] if document.id != str(document.row) else document.id
        changed.append(replace(document, **values))
    looks = {}
    return (
        [
            d if d.label is None else replace(d, label=looks.setdefault(look(d.label), d.label))
            for d in changed
        ],
        delimiter,
        encoding,
        quoting,
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), dialects(), st.integers(1, 64))
def test_delimiters_encodings_and_quotes_change_nothing(data, dialect, block_bytes):
    documents, delimiter, encoding, quoting = dialect
    rows = [FIELDS, *([getattr(d, field) or "" for field in FIELDS] for d in documents)]
    if quoting == "none":
        content = "\n".join(delimiter.join(row) for row in rows)
    else:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
        content = stream.getvalue()
    settings = {"quoting": quoting}
    # A mark tells the encoding, and a header its delimiter.
    if encoding not in ("utf-8", "utf-8-sig", "utf-16") or data.draw(st.booleans()):
        settings["encoding"] = encoding
    if data.draw(st.booleans()):
        settings["delimiter"] = delimiter
    suffix = data.draw(st.sampled_from(["csv", "tsv"]))
    with opened([(suffix, content.encode(encoding))], block_bytes, **settings) as corpus:
        assert list(corpus.documents()) == documents
        for mark in corpus.scan(mark_every=2).marks:
            assert list(corpus.documents(mark.place)) == documents[mark.place.row :]


@settings(max_examples=60, deadline=None)
@given(st.data(), corpora(), st.integers(1, 64))
def test_a_json_array_is_its_rows(data, documents, block_bytes):
    records = [{field: getattr(d, field) for field in FIELDS} for d in documents]
    indent = data.draw(st.sampled_from([None, 0, 2]))
    content = json.dumps(records, indent=indent, ensure_ascii=data.draw(st.booleans())).encode()
    with opened([("json", b"\n" + content + b"\n")], block_bytes) as corpus:
        assert list(corpus.documents()) == documents
