"""Hostile input files: each is refused by name or read in bounded memory, and nothing else happens.

All cases are read by one process, whose memory is measured after each.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.hostile.canary import Canary

MOST_BYTES = 1 << 30
GOOD = b'{"text": "fine", "label": "a"}\n'


@dataclass(frozen=True)
class Case:
    """One hostile input: how it is written, and what must become of it.

    Attributes:
        write: writes it into a folder and gives its path, or several.
        exit_code: of the refusal; 0 where it is read.
        says: stands in the refusal, or in a note.
        settings: of the corpus.
    """

    write: Callable[[Path, Canary], Any]
    exit_code: int
    says: str = ""
    settings: tuple[tuple[str, Any], ...] = ()


def content(name: str, data: bytes | Callable[[Path, Canary], bytes]) -> Any:
    """Writes a file of these bytes."""

    def write(folder: Path, canary: Canary) -> str:
        path = folder / name
        path.write_bytes(data if isinstance(data, bytes) else data(folder, canary))
        return str(path)

    return write


def given(path: str) -> Any:
    """A path or URL for which nothing is written."""
    return lambda folder, canary: path.replace("FOLDER", str(folder))


def table(name: str, columns: Callable[[], Any], **settings: Any) -> Any:
    """Writes a Parquet file."""

    def write(folder: Path, canary: Canary) -> str:
        pq.write_table(columns(), folder / name, **settings)
        return str(folder / name)

    return write


def gz_of(start: bytes, byte: bytes, count: int, end: bytes = b"") -> bytes:
    return gzip.compress(start + byte * count + end, 1)


def zst_bomb(folder: Path, canary: Canary) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    pieces = [compressor.compress(b"a" * (1 << 20)) for _ in range(1024)]
    return b"".join((*pieces, compressor.flush()))


def class_label(names: Any) -> dict[bytes, bytes]:
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def one_row(label: Any = 0, metadata: dict[bytes, bytes] | None = None) -> Any:
    return pa.table({"text": ["a"], "label": [label]}).replace_schema_metadata(metadata)


def repeated(text: str, count: int) -> Any:
    """A column of one text that a dictionary holds once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def long_list() -> Any:
    values = repeated("x" * 1000, 100_000)
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    return pa.table({"text": ["a"], "label": lists})


def many_elements() -> Any:
    nulls = pa.nulls(12_000_000, pa.int8())
    return pa.table(
        {
            "text": ["a"],
            "label": pa.ListArray.from_arrays(pa.array([0, len(nulls)], pa.int32()), nulls),
        }
    )


def damaged_header(folder: Path, canary: Canary) -> str:
    path = folder / "header.parquet"
    pq.write_table(one_row(), path)
    found = bytearray(path.read_bytes())
    found[4:14] = b"\xff" * 10
    path.write_bytes(found)
    return str(path)


def many_row_groups(folder: Path, canary: Canary) -> str:
    path = folder / "groups.parquet"
    part = pa.table({"text": ["a" * (30 << 20)]})
    with pq.ParquetWriter(path, part.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(40):
            writer.write_table(part)
    assert path.stat().st_size < 1 << 20
    return str(path)


def link_out(folder: Path, canary: Canary) -> str:
    inside = folder / "links"
    inside.mkdir()
    (inside / "a.jsonl").write_bytes(GOOD)
    (inside / "b.jsonl").symlink_to(canary.secret)
    return f"{inside}/*.jsonl"


def folder_out(folder: Path, canary: Canary) -> str:
    inside = folder / "outside"
    inside.mkdir()
    (inside / "d").symlink_to(canary.secret.parent)
    return f"{inside}/*/secret.txt"


def circles(folder: Path, canary: Canary) -> str:
    inside = folder / "circles" / "deep"
    inside.mkdir(parents=True)
    (inside / "a.jsonl").write_bytes(GOOD)
    for number in range(4):
        (inside / f"round{number}").symlink_to(inside.parent)
    return f"{inside.parent}/**/*.jsonl"


def blobs(folder: Path, canary: Canary) -> str:
    """The files of a hub's cache are links to the blobs beside them."""
    cache = folder / "datasets--x"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "blobs" / "123").write_bytes(GOOD)
    (cache / "snapshots" / "abc" / "a.jsonl").symlink_to("../../blobs/123")
    return f"{cache}/snapshots/abc/*.jsonl"


def pipe(folder: Path, canary: Canary) -> str:
    path = folder / "pipe.jsonl"
    if not path.exists():
        os.mkfifo(path)
    return str(path)


def pipe_in_glob(folder: Path, canary: Canary) -> str:
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "a.jsonl")
    return f"{folder}/pipes/*"


def rows(*values: Any) -> bytes:
    return b"".join(json.dumps({"text": "a", "label": value}).encode() + b"\n" for value in values)


DEEP = 100_000
NONE = (("quoting", "none"),)
JSONL: dict[str, Case] = {
    "deep array": Case(content("a.jsonl", b'{"text": ' + b"[" * DEEP), 3, "recursion"),
    "deep object": Case(content("b.jsonl", b'{"text":' * DEEP + b"}" * DEEP), 3, "recursion"),
    "deep array file": Case(content("c.json", b"[" + b'{"a":' * DEEP), 3, "recursion"),
    "long number": Case(content("d.jsonl", b'{"text": ' + b"9" * 5000 + b"}"), 3, "4300 digits"),
    "many objects": Case(
        content("e.jsonl", b'{"text": "a", "x": [' + b"{}," * 10_000_000 + b"0]}\n"),
        3,
        "more than 2,000,000 values",
    ),
    "many objects in an array": Case(
        content("f.json", b'[{"text": "a", "x": [' + b"{}," * 2_000_000 + b"0]}]"), 3, "2,000,000"
    ),
    "array that never ends": Case(
        content("g.json", b'[{"text": [\n' + b"11111111111111111111,\n" * 500_000), 3, "cannot be"
    ),
    "array that is cut": Case(content("h.json", b'[{"text": "a"},'), 3, "line 1: the JSON array"),
    "array and more": Case(content("i.json", b'[{"text": "a"}] x'), 3, "behind the array's end"),
    "line of a bomb": Case(
        content("j.jsonl.gz", gz_of(b'{"text": "', b"x", 300 << 20)), 3, "at most 64 MiB"
    ),
    "zstd bomb": Case(content("k.txt.zst", zst_bomb), 3, "at most 64 MiB"),
    "lone surrogate": Case(content("l.jsonl", rb'{"text": "\ud800"}'), 3, "lone surrogate"),
    "NUL": Case(content("m.jsonl", rb'{"text": "a\u0000b"}'), 3, "NUL character"),
    "unseen text": Case(content("n.jsonl", rb'{"text": "\u200b\u3164\ufe0f"}'), 3, "nobody sees"),
    "labels that look alike": Case(
        content("o.jsonl", rows("neg", "neg\u200b")), 3, r"label 'neg\u200b' looks like label 'neg'"
    ),
    "too many labels": Case(content("p.jsonl", rows(["a"] * 20_000)), 3, "20,000 labels"),
    "escapes in a label": Case(
        content("q.jsonl", rows("a\x1b[2J") + b'{"text": 1}\n'), 3, "found int 1"
    ),
    "escapes in columns": Case(
        content("r.jsonl", json.dumps({"\x1b]0;x\x07": 1}).encode()), 3, r"\x1b]0;x\x07"
    ),
    "escapes in a name": Case(content("\x1b[2J\n.jsonl", b"{}"), 3, r"\x1b[2J"),
    "overlong UTF-8": Case(content("s.jsonl", b'{"text": "\xc0\x80"}'), 3, "0xc0 at byte offset"),
    "endless bad rows": Case(content("t.jsonl", b'{"text": ""}\n' * 100_000), 3, "10,000 rows"),
}
DELIMITED: dict[str, Case] = {
    "open quote": Case(
        content("a.csv.gz", gz_of(b'text\n"', b"x" * 99 + b"\n", 700_000)),
        3,
        "for more than 64 MiB",
    ),
    "a million columns": Case(content("b.csv", b"," * 1_000_000 + b"\nx\n"), 3, "column 'text'"),
    "swallowed rows": Case(
        content("c.csv", b'text,label\n"a,x\nb,y\nc",z\n'), 0, "line 2, 3: 2 lines inside"
    ),
    "not utf-16": Case(content("d.csv", b"\xff\xfet\0e\0\0\xd8"), 3, "expected utf-16"),
    "codec that unpacks": Case(
        content("e.csv", b"text\na\n"), 2, "is none that is read", (("encoding", "zlib"),)
    ),
    "codec that runs long": Case(
        content("f.csv", b"text\na\n"), 2, "is none that is read", (("encoding", "idna"),)
    ),
    "codec of escapes": Case(
        content("g.csv", b"text\na\n"), 2, "is none that is read", (("encoding", "unicode_escape"),)
    ),
    "delimiter of two": Case(
        content("h.csv", b"text\na\n"), 2, "one character", (("delimiter", ";;"),)
    ),
    "delimiter that is a quote": Case(
        content("i.csv", b"text\na\n"), 2, "one character", (("delimiter", '"'),)
    ),
    "column that looks alike": Case(
        content("j.csv", b"text, label\na,b\n"), 3, "column ' label' looks like the column 'label'"
    ),
    "deep array of labels": Case(content("k.csv", b"text,label\na," + b"[" * DEEP + b"]\n"), 0),
}
CONTENT: dict[str, Case] = {
    "gzip": Case(content("g.jsonl", gzip.compress(GOOD)), 3, "gzip data"),
    "zstd": Case(content("z.csv", zstandard.compress(GOOD)), 3, "zstd data"),
    "zip": Case(content("x.csv", b"PK\x03\x04" + bytes(90)), 3, "Office file"),
    "pickle": Case(content("p.jsonl", lambda folder, canary: canary.pickled()), 3, ""),
    "sqlite": Case(content("s.csv", b"SQLite format 3\0" + bytes(90)), 3, "SQLite"),
    "pdf": Case(content("f.txt", b"%PDF-1.7\n"), 3, "a PDF"),
    "page": Case(content("h.csv", b"\n<!DOCTYPE html><html>"), 3, "web page"),
    "lfs": Case(content("l.jsonl", b"version https://git-lfs.github.com/spec/v1\n"), 3, "git lfs"),
    "lfs parquet": Case(
        content("l.parquet", b"version https://git-lfs.github.com/spec/v1\noid x\n"), 3, "git lfs"
    ),
    "parquet as text": Case(content("q.txt", b"PAR1" + bytes(90)), 3, "it holds Parquet"),
    "only a mark": Case(content("b.jsonl", b"\xef\xbb\xbf"), 3, "an empty file"),
    "empty gzip": Case(content("e.jsonl.gz", b""), 3, "an empty file"),
}
PARQUET: dict[str, Case] = {
    "dictionary": Case(
        table(
            "d.parquet",
            lambda: pa.table({"text": repeated("a" * 10_000_000, 120)}),
            compression="zstd",
        ),
        0,
    ),
    "page": Case(
        table(
            "p.parquet",
            lambda: pa.table({"text": ["a" * (60 << 20)] * 5}),
            compression="zstd",
            use_dictionary=False,
        ),
        3,
        "256 MiB are the most",
    ),
    "value": Case(
        table("v.parquet", lambda: pa.table({"text": ["a" * (65 << 20)]}), compression="zstd"),
        3,
        "67,108,864 are the most",
    ),
    "row groups": Case(many_row_groups, 0),
    "elements": Case(table("e.parquet", many_elements, compression="zstd"), 3, "12,000,000 elem"),
    "list": Case(table("l.parquet", long_list, compression="zstd"), 3, "a list of 100,000"),
    "header": Case(damaged_header, 3, "expected a readable Parquet file"),
    "cut": Case(content("c.parquet", b"PAR1" + bytes(50)), 3, "expected a readable Parquet"),
    "names of another type": Case(
        table("n.parquet", lambda: one_row(0, class_label({"a": 1}))), 3, "is damaged"
    ),
    "deep description": Case(
        table("j.parquet", lambda: one_row(0, {b"huggingface": b"[" * DEEP})), 3, "RecursionError"
    ),
    "number of no class": Case(
        table("o.parquet", lambda: one_row(7, class_label(["a", "b"]))), 3, "label 7 is the number"
    ),
    "negative number": Case(
        table("m.parquet", lambda: one_row(-2, class_label(["a", "b"]))), 3, "label -2 is"
    ),
    "unpacked": Case(
        content("u.parquet.gz", gz_of(b"PAR1", b"\0", 300 << 20)), 3, "64 times its size"
    ),
}
PLACES: dict[str, Case] = {
    "link out of a glob": Case(link_out, 3, "out of the folder"),
    "folder out of a glob": Case(folder_out, 3, "out of the folder"),
    "circles": Case(circles, 0),
    "a hub's cache": Case(blobs, 0),
    "pipe": Case(pipe, 3, "pipe or device"),
    "pipe by its URL": Case(
        lambda folder, canary: f"file://{pipe(folder, canary)}", 3, "pipe or device"
    ),
    "pipe in a glob": Case(pipe_in_glob, 3, "pipe or device"),
    "device": Case(given("/dev/zero"), 3, "pipe or device", (("format", "text"),)),
    "device by its URL": Case(given("file:///dev/zero"), 3, "pipe or device"),
    **{
        url: Case(given(url), 2, "expected one of the protocols")
        for url in (
            "reference://x.json",
            "zip://a.csv::file://FOLDER/a.zip",
            "simplecache::file://FOLDER/a.csv",
            "filecache://FOLDER/a.csv",
            "blockcache::file://FOLDER/a.csv",
            "data:text/csv;base64,dGV4dA==://",
            "github://owner:repository@main/a.csv",
            "git://FOLDER:main@a.csv",
            "jupyter://host/a.csv",
            "dask://a.csv",
            "libarchive://a.csv::file://FOLDER/a.zip",
            "smb://host/share/a.csv",
            "ssh://host/a.csv",
            "dbfs://host/a.csv",
            "lazy://x",
        )
    },
}
CASES = {
    f"{group}: {name}": case
    for group, cases in (
        ("jsonl", JSONL),
        ("delimited", DELIMITED),
        ("content", CONTENT),
        ("parquet", PARQUET),
        ("places", PLACES),
    )
    for name, case in cases.items()
}


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    found = Canary(tmp_path_factory.mktemp("corpora") / "canary")
    yield found
    found.close()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, canary: Canary) -> dict[str, dict[str, Any]]:
    """What became of each case, by its name."""
    folder = tmp_path_factory.mktemp("cases")
    cases: list[dict[str, Any]] = []
    for number, (name, case) in enumerate(CASES.items()):
        place = folder / str(number)
        place.mkdir()
        settings = {"paths": [case.write(place, canary)], **dict(case.settings)}
        cases.append({"name": name, "settings": settings})
    (folder / "labels.json").write_bytes(b'{"names": ' + b"[" * DEEP)
    cases.append({"name": "labels", "labels": str(folder / "labels.json")})
    canary.touched()  # links to it were made
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.hostile.corpus_child", str(folder / "cases.json")]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (found[-1:], run.stderr[-2000:])
    return {each["name"]: each for each in found}


@pytest.mark.parametrize("name", CASES)
def test_hostile_input_is_refused_by_name_or_read(
    name: str, answers: dict[str, dict[str, Any]]
) -> None:
    case, answer = CASES[name], answers[name]
    if case.exit_code == 0:
        assert answer["outcome"] == "read", answer
        assert case.says in " ".join(answer["notes"])
    else:
        assert answer["outcome"] == "refused", answer
        assert answer["exit_code"] == case.exit_code, answer
        assert case.says in answer["message"], answer
        assert len(answer["message"]) < 5000
        assert answer["message"].replace("\n", "").isprintable(), answer


def test_deep_labels_are_refused(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["labels"]["exit_code"] == 3
    assert "labels.json" in answers["labels"]["message"]


def test_memory_stays_below_a_gigabyte(answers: dict[str, dict[str, Any]]) -> None:
    most = {name: answer["peak_bytes"] >> 20 for name, answer in answers.items()}
    assert max(most.values()) < MOST_BYTES >> 20, most


def test_no_canary_is_touched(answers: dict[str, dict[str, Any]], canary: Canary) -> None:
    assert answers
    canary.require_untouched()
