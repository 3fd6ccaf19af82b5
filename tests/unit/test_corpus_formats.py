"""Each format as it stands in files: line ends, blank lines, damage, what is refused and how."""

import errno
import gzip
import json
import os
import re
import resource
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from monox_kit.corpora import blocks
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.paths import SourceFile
from monox_kit.errors import CorpusError, CorpusUnreadable


def corpus(path, **settings):
    return Corpus(CorpusConfig(paths=(str(path),), **settings))


def texts(path, **settings):
    return [document.text for document in corpus(path, **settings).documents()]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


LINE_FORMATS = {
    "jsonl": ("", '{{"text": "{}", "label": "x"}}'),
    "csv": ("text,label", '"{}",x'),
    "tsv": ("text\tlabel", "{}\tx"),
    "txt": ("", "{}"),
}


@pytest.fixture(params=LINE_FORMATS)
def lines(request, tmp_path):
    """Writes documents in a line-based format with a given line end, and what follows them."""
    header, row = LINE_FORMATS[request.param]

    def written(*documents, end="\n", before="", after=""):
        rows = [row.format(document) if document else "" for document in documents]
        content = end.join(([header] if header else []) + rows)
        return write(tmp_path / f"a.{request.param}", before + content + after)

    written.first_line = 2 if header else 1
    return written


class TestLines:
    def test_unicode_line_ends_split_nothing(self, lines):
        document = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
        # Below U+0020 nothing may stand raw in JSON strings.
        plain = "a\u2028b\u2029c\u0085d"
        path = lines(plain, "z", after="\n")
        assert texts(path) == [plain, "z"]
        if path.suffix != ".jsonl":
            assert texts(lines(document, "z", after="\n")) == [document, "z"]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("after", ["", "{}", "{}{}{}"])
    def test_line_ends_and_empty_lines_at_the_end(self, lines, end, after):
        assert texts(lines("a", "b", end=end, after=after.format(*[end] * 3))) == ["a", "b"]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_an_empty_line_between_rows_is_refused(self, lines, end):
        path = lines("a", "", "", "b", end=end)
        where = f"{path}, line {lines.first_line + 1}"
        with pytest.raises(CorpusError, match=f"^{re.escape(where)}: .*empty line"):
            texts(path)

    def test_an_empty_line_at_the_start_is_refused(self, lines):
        with pytest.raises(CorpusError, match=r", line 1: .*empty"):
            texts(lines("a", before="\n"))

    def test_a_byte_order_mark_is_removed(self, lines):
        assert texts(lines("ä", before="\ufeff")) == ["ä"]

    @pytest.mark.parametrize("content", ["", "\ufeff", "\n", "\r\n\r\n"])
    def test_an_empty_file_is_refused(self, lines, content):
        path = write(lines("a"), content)
        expected = f"^{re.escape(str(path))}: expected at least one row, found an empty file"
        with pytest.raises(CorpusError, match=expected):
            texts(path)

    @pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
    def test_invalid_utf8_names_line_and_byte_offset(self, lines, mark):
        path = lines("ä", "b", "c?d", "e")
        content = mark + path.read_bytes().replace(b"?", b"\xc3\x28")
        write(path, content)
        place = f"line {lines.first_line + 2}: expected UTF-8, found byte 0xc3 at byte offset "
        with pytest.raises(CorpusError, match=place + str(content.index(b"\xc3\x28")) + r"\."):
            texts(path)

    def test_the_byte_offset_counts_the_blocks_before(self, lines, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 7)
        path = lines("äaaaaaaaaaaaaaaaaaaa", "b", "c?")
        content = path.read_bytes().replace(b"?", b"\xff")
        write(path, content)
        place = f"line {lines.first_line + 2}: .* byte offset {content.index(255)}"
        with pytest.raises(CorpusError, match=place):
            texts(path)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf16_is_read(self, lines, encoding, monkeypatch):
        path = lines("abc", "dé😀f")
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 7)
        write(path, path.read_text().encode(encoding))
        assert texts(path, encoding=encoding) == ["abc", "dé😀f"]
        if encoding != "utf-32":
            assert texts(path) == ["abc", "dé😀f"]

    def test_bytes_of_another_encoding_than_the_given_one_name_line_and_offset(self, lines):
        path = lines("a", "b", "c?", "d")
        content = path.read_bytes().replace(b"?", b"\x81")
        write(path, content)
        place = f"line {lines.first_line + 2}: expected cp1252, found byte 0x81 at byte offset "
        with pytest.raises(CorpusError, match=place + str(content.index(0x81))):
            texts(path, encoding="cp1252")

    def test_a_line_without_end_is_not_held_for_ever(self, lines, monkeypatch):
        monkeypatch.setattr(blocks, "MAX_VALUE_BYTES", 1 << 20)
        path = lines("a", "x" * (3 << 20), "b")
        with pytest.raises(CorpusError, match=f"line {lines.first_line + 1}: .* at most 1 MiB"):
            texts(path)

    def test_texts_longer_than_a_block(self, lines):
        document = "äöü" * blocks.BLOCK_BYTES
        assert texts(lines("a", document, "b")) == ["a", document, "b"]

    def test_a_missing_column_lists_those_that_exist(self, lines):
        path = lines("a")
        if path.suffix == ".txt":
            pytest.skip("plain text has no columns")
        with pytest.raises(CorpusError) as caught:
            texts(path, text_column="body")
        told = str(caught.value)
        assert told.startswith(f"{path}, line 1: ") and "'body'" in told
        assert "text, label" in told and "`text_column`" in told and "FILE:text=COLUMN" in told

    @pytest.mark.parametrize("option", ["pair", "id", "lang"])
    def test_a_named_optional_column_must_exist(self, lines, option):
        path = lines("a")
        with pytest.raises(CorpusError, match=rf"expected a column 'other', .*`{option}_column`"):
            texts(path, **{f"{option}_column": "other"})


class TestJsonl:
    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ('{"text": "a"', "Expecting ',' delimiter at column 13"),
            ('{"text": "a"} {"text": "b"}', "Extra data at column 15"),
            ('{"text": "a"}x', "Extra data"),
            ("{'text': 'a'}", "Expecting property name"),
            ('{"text": "a\tb"}', "Invalid control character"),
            ('{"text": "a\rb"}', "Invalid control character"),
            ("   ", "Expecting value"),
            ('{"text": "a", "n": ' + "9" * 5000 + "}", "4300 digits"),
            ('{"text": ' + "[" * 100_000, "recursion"),
            ('["a"]', "found an array"),
            ('"a"', "found a string"),
            ("5", "found a number"),
            ("true", "found true or false"),
            ("null", "found null"),
        ],
    )
    def test_a_wrong_line_says_what_is_wrong(self, tmp_path, line, found):
        path = write(tmp_path / "a.jsonl", f'{{"text": "a"}}\n{line}\n')
        with pytest.raises(CorpusError) as caught:
            texts(path)
        message = str(caught.value)
        assert message.startswith(f"{path}, line 2: expected a JSON object")
        assert found in message
        assert len(message) < 400

    def test_space_around_an_object_and_a_repeated_key(self, tmp_path):
        path = write(tmp_path / "a.jsonl", ' \t{"text": "a", "text": "b"} \r\n{"text": "c"}\t')
        assert texts(path) == ["b", "c"]

    def test_escapes(self, tmp_path):
        path = write(tmp_path / "a.jsonl", r'{"text": "\ud83d\ude00\r\n\u2028\""}')
        assert texts(path) == ['😀\r\n\u2028"']

    def test_a_named_column_may_be_null_but_not_missing(self, tmp_path):
        path = write(tmp_path / "a.jsonl", '{"text": "a", "y": null}\n{"text": "b"}\n')
        with pytest.raises(CorpusError, match=r"line 2: expected a column 'y'.*columns: text\."):
            texts(path, lang_column="y")


class TestDelimited:
    def test_quoted_line_ends_quotes_and_delimiters(self, tmp_path):
        content = 'id,text\r\n1,"a\nb\r\nc\rd"\r\n2,"say ""hi"", then"\r\n3,5" disk\r\n'
        path = write(tmp_path / "a.csv", content)
        assert texts(path) == ["a\nb\r\nc\rd", 'say "hi", then', '5" disk']

    def test_positions_are_lines_where_rows_begin(self, tmp_path):
        path = write(tmp_path / "a.csv", 'text\n"a\nb\nc"\n" "\n')
        with pytest.raises(CorpusError, match=r", line 5: .*'text'"):
            texts(path)

    @pytest.mark.parametrize(
        ("row", "found"),
        [
            ("a", "expected 2 fields as in the header, found 1"),
            ("a,b,c", "expected 2 fields as in the header, found 3"),
            ('"a"b,c', "expected after"),
            ('"a,c\nd,e', "unexpected end of data"),
            ("a\rb,c", "new-line character"),
        ],
    )
    def test_a_wrong_row_is_refused(self, tmp_path, row, found):
        path = write(tmp_path / "a.csv", f"text,label\nx,y\n{row}\n")
        with pytest.raises(CorpusError, match=f"line 3: .*{found}"):
            texts(path)

    def test_a_header_alone_is_an_empty_file(self, tmp_path):
        path = write(tmp_path / "a.csv", "text,label\n")
        with pytest.raises(CorpusError, match=r"/a\.[a-z0-9.]+: .*empty file"):
            texts(path)

    def test_a_needed_column_may_stand_once_only(self, tmp_path):
        path = write(tmp_path / "a.csv", "text,x,x,text\na,b,c,d\n")
        with pytest.raises(CorpusError, match="line 1: expected one column 'text', found 2"):
            texts(path)

    def test_a_field_longer_than_the_limit_of_the_csv_module(self, tmp_path):
        assert texts(write(tmp_path / "a.csv", "text\n" + "x" * 200_000)) == ["x" * 200_000]


class TestPlain:
    def test_spaces_quotes_and_delimiters_stay(self, tmp_path):
        path = write(tmp_path / "a.txt", ' a,"b"\t\r\n{c}\n')
        assert texts(path) == [' a,"b"\t', "{c}"]

    def test_a_carriage_return_inside_a_line_is_refused(self, tmp_path):
        path = write(tmp_path / "a.txt", "a\nbc\rd\n")
        with pytest.raises(CorpusError, match=r"a\.txt, line 2: .*\b3\b"):
            texts(path)

    def test_pairs_cannot_be_required(self, tmp_path):
        with pytest.raises(CorpusError, match="expected a column 'text_pair', found plain text"):
            texts(write(tmp_path / "a.txt", "a\n"), pair="required")


class TestParquet:
    def parquet(self, path, table, **settings):
        pq.write_table(pa.table(table), path, **settings)
        return path

    def test_string_and_label_types(self, tmp_path):
        path = self.parquet(
            tmp_path / "a.parquet",
            {
                "text": pa.array(["a", "b"], pa.large_string()),
                "label": pa.array(["x", "y"]).dictionary_encode(),
                "id": pa.array([3, None], pa.int8()),
                "unused": [[1.5], None],
            },
        )
        documents = [(d.id, d.text, d.label) for d in corpus(path).documents()]
        assert documents == [("3", "a", "x"), ("1", "b", "y")]

    def test_rows_are_counted_across_batches_and_row_groups(self, tmp_path):
        rows = [str(n) for n in range(5000)]
        path = self.parquet(tmp_path / "a.parquet", {"text": rows}, row_group_size=1500)
        assert texts(path) == rows
        path = self.parquet(tmp_path / "b.parquet", {"text": [*rows, None]}, row_group_size=1500)
        with pytest.raises(CorpusError, match=r"b\.parquet, row 5000: .*'text'.*null"):
            texts(path)

    @pytest.mark.parametrize(
        ("column", "found"),
        [
            (pa.array([b"a"]), "found bytes"),
            (pa.array([1.5]), "found float 1.5"),
            (pa.array([["a"]]), "found list"),
            (pa.array([{"a": "b"}]), "found dict"),
        ],
    )
    def test_a_text_of_another_type_is_refused(self, tmp_path, column, found):
        path = self.parquet(tmp_path / "a.parquet", {"text": column})
        with pytest.raises(CorpusError, match=f"a.parquet, row 0: .*'text'.*{found}"):
            texts(path)

    def test_columns(self, tmp_path):
        path = self.parquet(tmp_path / "a.parquet", {"body": ["a"], "y": ["b"]})
        with pytest.raises(CorpusError) as caught:
            texts(path)
        told = str(caught.value)
        assert told.startswith(f"{path}: ") and "'text'" in told
        assert "body, y" in told and "`text_column`" in told and "FILE:text=COLUMN" in told
        table = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])
        pq.write_table(table, path)
        with pytest.raises(CorpusError, match="expected one column 'text', found 2"):
            texts(path)

    def test_no_rows(self, tmp_path):
        path = self.parquet(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
        with pytest.raises(CorpusError, match=r"/a\.[a-z0-9.]+: .*empty file"):
            texts(path)

    def test_invalid_utf8_names_the_row(self, tmp_path):
        bad = pa.array([b"a", b"b\xff"]).view(pa.string())
        path = self.parquet(tmp_path / "a.parquet", {"text": bad})
        with pytest.raises(CorpusError, match=r"row 1: expected UTF-8 .* byte offset 1 of"):
            texts(path)

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "page"])
    def test_a_damaged_file(self, tmp_path, damage):
        path = self.parquet(tmp_path / "a.parquet", {"text": [f"{n} text" for n in range(9000)]})
        content = path.read_bytes()
        content = {
            "cut": content[:-50],
            "empty": b"",
            "text": b"text\nno parquet\n",
            "page": content[:30] + bytes(2000) + content[2030:],
        }[damage]
        write(path, content)
        with pytest.raises(CorpusError, match="expected a readable Parquet file, found"):
            texts(path)


@pytest.mark.parametrize(
    ("name", "package"), [("a.parquet", "pyarrow.parquet"), ("a.jsonl.zst", "zstandard")]
)
def test_what_is_this_machines_alone_is_told_from_a_bad_row(tmp_path, monkeypatch, name, package):
    """A disk that refuses, and a package that is not there."""
    path = write(tmp_path / name, b"")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        with pytest.raises(CorpusUnreadable, match="expected the package"):
            texts(path)

    def refuse(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(SourceFile, "open", refuse)
    with pytest.raises(CorpusUnreadable, match="found: Input/output error"):
        texts(path)


ROWS = "".join(json.dumps({"text": f"document {n} {n * n}"}) + "\n" for n in range(30_000)).encode()


def compress(content, suffix):
    return gzip.compress(content) if suffix == "gz" else zstandard.compress(content)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
class TestCompression:
    def test_several_members_are_one_file(self, tmp_path, suffix):
        cut = len(ROWS) // 3
        content = compress(ROWS[:cut], suffix) + compress(ROWS[cut:], suffix)
        path = write(tmp_path / f"a.jsonl.{suffix}", content)
        plain = write(tmp_path / "a.jsonl", ROWS)
        assert corpus(path).scan() == corpus(plain).scan()

    @pytest.mark.parametrize("kept", [0.001, 0.5, 0.9999])
    def test_a_cut_file_is_refused(self, tmp_path, suffix, kept):
        content = compress(ROWS, suffix)
        path = write(tmp_path / f"a.jsonl.{suffix}", content[: int(len(content) * kept)])
        with pytest.raises(CorpusError, match=f"^{re.escape(str(path))}: expected a readable"):
            texts(path)

    def test_a_file_cut_at_a_line_end_is_refused(self, tmp_path, suffix):
        if suffix == "gz":
            content = gzip.compress(ROWS)[:-8]
        else:
            compressor = zstandard.ZstdCompressor().compressobj()
            flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
            content = compressor.compress(ROWS) + compressor.flush(flush)
        path = write(tmp_path / f"a.jsonl.{suffix}", content)
        with pytest.raises(CorpusError, match=r"/a\.jsonl\.[a-z0-9]+: .*end"):
            texts(path)

    @pytest.mark.parametrize("damage", ["byte", "other format", "tail"])
    def test_a_damaged_file_is_refused(self, tmp_path, suffix, damage):
        content = bytearray(compress(ROWS, suffix))
        if damage == "byte":
            middle = len(content) // 2
            content[middle : middle + 50] = bytes(50)
        elif damage == "tail":
            content += b"no compressed data"
        else:
            content = ROWS
        path = write(tmp_path / f"a.jsonl.{suffix}", bytes(content))
        # gzip finds a changed byte at its end alone: what was unpacked may fail before.
        expected = ", line" if (suffix, damage) == ("gz", "byte") else ": expected a readable"
        with pytest.raises(CorpusError, match=f"^{re.escape(str(path))}{expected}"):
            texts(path)

    def test_an_empty_file_is_refused(self, tmp_path, suffix):
        for content in (b"", compress(b"", suffix)):
            path = write(tmp_path / f"a.jsonl.{suffix}", content)
            with pytest.raises(CorpusError, match=r"/a\.[a-z0-9.]+: .*empty file"):
                texts(path)

    def test_parquet_compressed_as_a_whole(self, tmp_path, suffix):
        inner = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": ["a", "b"]}), inner)
        path = write(tmp_path / f"b.parquet.{suffix}", compress(inner.read_bytes(), suffix))
        assert texts(path) == ["a", "b"]
        assert corpus(path).scan() == corpus(inner).scan()


def test_a_zstd_bomb_is_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_VALUE_BYTES", 1 << 20)
    compressor = zstandard.ZstdCompressor().compressobj()
    pieces = [compressor.compress(b"a" * (1 << 20)) for _ in range(256)]
    content = b"".join((*pieces, compressor.flush()))
    assert len(content) < 32 << 10
    path = write(tmp_path / "a.txt.zst", content)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorpusError, match="at most 1 MiB"):
        texts(path)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 100 << 10
