"""What a user sees of foreign text: nothing of it commands a terminal, nothing secret is shown."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.data import LabelSet
from monox_kit.errors import CorpusError, MonoxError
from monox_kit.exporting.run import ExportSummary, _card_table
from monox_kit.foreign import (
    markdown_code,
    markdown_text,
    publishable,
    shown,
    shown_json,
    shown_lines,
    stored_name,
    without_credentials,
)
from monox_kit.models.record import published_provenance
from monox_kit.training.card import model_card
from monox_kit.training.origin import Origin, StoreOrigin
from monox_kit.training.summary import TrainingSummary
from monoxkit_cli.app import main
from monoxkit_cli.render import RichProgress, emit
from tests.store_samples import manifest, write_store
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl

# What each would do to a terminal or to a reader's eye.
HOSTILE: Mapping[str, str] = {
    "colour": "\x1b[31mred\x1b[0m",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;aGk=\x07",
    "link": "\x1b]8;;http://evil\x1b\\x",
    "csi in one byte": "\x9b31mred",
    "back": "good\x08\x08\x08\x08evil",
    "return": "good\revil",
    "line": "good\nStoreError: forged",
    "delete": "a\x7fb",
    "nul": "a\x00b",
    "override": "a\u202egnp.exe",
    "isolate": "a\u2066b\u2069",
    "mark": "a\u200fb",
    "zero width": "neg\u200b",
    "byte order": "\ufeffneg",
    "separator": "a\u2028b",
    "tags": "a\U000e0041b",
    "no utf-8": "a\udcffb",
}
MARKUP = ("[red]x[/red]", "[/]", "[link=http://evil]x", ":bug: :warning:", "[bold")

SECRET = "hunter2/S3+cr3t"
URLS = {
    "s3": f"s3://KEY:{SECRET}@bucket/corpus.jsonl",
    "password with at": f"s3://KEY:p@ss{SECRET}@bucket/x.csv",
    "https": f"https://user:{SECRET}@host:8443/x.jsonl",
    "ftp": f"ftp://user:{SECRET}@host/x.jsonl",
    "azure": f"abfs://user:{SECRET}@account/x",
    "upper case": f"HTTPS://user:{SECRET}@host/x",
    "chained": f"simplecache::s3://KEY:{SECRET}@bucket/x",
    "archive": f"zip://a.jsonl::https://user:{SECRET}@host/x.zip",
    "two": f"s3://bucket/a s3://KEY:{SECRET}@bucket/b",
    "quoted": f"'s3://KEY:{SECRET}@bucket/b'",
    "signed": f"https://host/x?X-Amz-Signature={SECRET}&v=1",
    "session": f"https://host/x?v=1&X-Amz-Security-Token={SECRET}",
    "sas": f"https://host/x?sv=1&sig={SECRET}",
    "query": f"https://host/x?access_token={SECRET}#top",
}
OPEN_URLS = (
    "s3://bucket/corpus.jsonl",
    "abfs://container@account.dfs.core.windows.net/x",
    "hdfs://me@namenode:8020/x",
    "https://host:8443/a@b/x.jsonl?version=3",
    "hf://datasets/owner/name@main/x.parquet",
    "mail me@host, see http://host:80",
    "zip://a.jsonl::https://host/x.zip",
    "https://[::1]:8443/x",
)


def is_safe(text: str, allowed: str = "\n") -> bool:
    """No control, format or surrogate character but the joiners and those allowed."""
    return not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or (unicodedata.category(character) == "Cf" and character not in "\u200c\u200d")
        for character in text
        if character not in allowed
    )


class Answer:
    def __init__(self, text: str) -> None:
        self.text = text

    def to_json(self) -> dict[str, Any]:
        return {self.text: [self.text], "n": 1}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table_of(text: str) -> Table:
    table = Table(text, "n", title=text, caption=text)
    table.add_row(text, "1")
    return table


def by_error(text: str, capsys: Any, path: Path) -> str:
    return str(CorpusError(f"{text}: found {text}"))


def by_note(text: str, capsys: Any, path: Path) -> str:
    stream = io.StringIO()
    progress = RichProgress(stream)
    with progress.task(text, 1, "rows") as task:
        task.detail(text)
    progress.note(text)
    assert stream.getvalue().count("\n") == 2, "a foreign line end became a line"
    return stream.getvalue()


def by_table(text: str, capsys: Any, path: Path) -> str:
    emit(Answer(text), False, lambda: table_of(text), notes=shown(text))
    return str(capsys.readouterr().out)


def by_json(text: str, capsys: Any, path: Path) -> str:
    emit(Answer(text), True, lambda: pytest.fail("no table"))
    return str(capsys.readouterr().out)


def by_missing_column(text: str, capsys: Any, path: Path) -> str:
    path.write_bytes(json.dumps({text: 1}).encode() + b"\n")
    with pytest.raises(CorpusError) as caught:
        Corpus(CorpusConfig(paths=(str(path),))).scan()
    return str(caught.value)


def by_label(text: str, capsys: Any, path: Path) -> str:
    path.write_text(json.dumps({"text": "x", "label": text, "id": text}) + "\n")
    with pytest.raises(CorpusError) as caught:
        read_labelled(CorpusConfig(paths=(str(path),)), LabelSet(("a", f"b{text}")))
    return str(caught.value)


def by_argument(text: str, capsys: Any, path: Path) -> str:
    assert main(["store", "info", f"/nowhere/{text}".replace("\0", "")]) == 4
    return str(capsys.readouterr().err)


def by_wrong_option(text: str, capsys: Any, path: Path) -> str:
    assert main(["store", "info", f"--{text}", "--debug"]) == 2
    return str(capsys.readouterr().err)


def by_unexpected(text: str, capsys: Any, path: Path) -> str:
    from monoxkit_cli.ending import end

    assert end(RuntimeError(text), debug=True, as_json=True) == 1
    shown = capsys.readouterr()
    return str(shown.out + shown.err)


WAYS: tuple[Callable[[str, Any, Path], str], ...] = (
    by_error,
    by_note,
    by_table,
    by_json,
    by_missing_column,
    by_label,
    by_argument,
    by_wrong_option,
    by_unexpected,
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_foreign_text_commands_the_terminal(
    name: str, way: Callable[[str, Any, Path], str], capsys: Any, tmp_path: Path
) -> None:
    text = HOSTILE[name]
    if way is by_missing_column and name == "no utf-8":
        pytest.skip("JSON of lone surrogates is refused before its keys are shown")
    assert is_safe(way(text, capsys, tmp_path / "x.jsonl"))


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("nul", "no utf-8")])
def test_a_store_with_such_labels_is_shown(name: str, tmp_path: Path, capsys: Any) -> None:
    labels = LabelSet(("a", "b", HOSTILE[name]))
    fingerprint = {"teacher": HOSTILE[name], "corpus_digest": "1"}
    folder = str(write_store(tmp_path / "s", manifest(labels=labels, fingerprint=fingerprint)))
    for command in ("info", "stats"):
        assert main(["store", command, folder]) == 0
        text = capsys.readouterr().out
        assert is_safe(text) and shown(HOSTILE[name]) in text
        assert main(["store", command, folder, "--json"]) == 0
        text = capsys.readouterr().out
        assert is_safe(text)
        assert HOSTILE[name] in str(json.loads(text)) or repr(HOSTILE[name])[1:-1] in str(
            json.loads(text)
        )


@pytest.mark.parametrize("kind", ["plain", "terminal"])
@pytest.mark.parametrize("text", MARKUP)
def test_markup_of_the_drawing_library_is_text(
    text: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (Terminal(), Terminal()) if kind == "terminal" else (io.StringIO(), io.StringIO())
    monkeypatch.setattr("sys.stdout", out)
    emit(Answer(text), False, lambda: table_of(text), notes=text)
    progress = RichProgress(err)
    with progress.task(text, 1, "rows") as task:
        task.detail(text)
        progress.note(f"note {text}")
    drawn = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", each.getvalue()) for each in (out, err)]
    assert drawn[0].count(text) == 5  # title, header, cell, caption, notes
    assert f"note {text}" in drawn[1]


@given(st.text(st.characters()))
@settings(deadline=None)
def test_what_is_shown_is_safe_and_can_be_written(text: str) -> None:
    assert is_safe(shown(text), allowed="")
    assert is_safe(shown_lines(text), allowed="\n\t")
    shown(text).encode()
    quoted = shown_json(json.dumps(text, ensure_ascii=False))
    assert is_safe(quoted)
    assert json.loads(quoted) == text


@pytest.mark.parametrize("text", ["ok", "日本語 [x]", "می‌خواهم", "👩‍👧", "tab & <b>", "C:\\x"])
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == shown_lines(text) == text


@pytest.mark.parametrize("way", [by_error, by_note, by_table, by_json, by_argument, by_unexpected])
@pytest.mark.parametrize("name", URLS)
def test_no_credentials_are_shown(
    name: str, way: Callable[[str, Any, Path], str], capsys: Any, tmp_path: Path
) -> None:
    text = way(URLS[name], capsys, tmp_path)
    for secret in (SECRET, SECRET.split("/")[1], "hunter2", "KEY:", "user:"):
        assert secret not in text
    assert "bucket" in text or "host" in text or "account" in text


@pytest.mark.parametrize("url", OPEN_URLS)
def test_urls_without_credentials_are_as_they_are(url: str) -> None:
    assert without_credentials(url) == url
    assert str(MonoxError(url)) == url


def test_tokens_of_the_hub_are_cut_wherever_they_stand() -> None:
    token = "hf_" + "AbCd" * 8
    for text in (f"https://{token}@huggingface.co/x", f"401 for {token}", f"x?token={token}"):
        assert token not in shown(text)


def test_a_store_at_a_url_names_no_key(capsys: Any) -> None:
    for command in (["store", "info"], ["store", "stats"], ["store", "verify"]):
        assert main([*command, URLS["s3"], "--json", "--debug"]) != 0
        written = capsys.readouterr()
        assert "hunter2" not in written.out + written.err


def test_an_error_that_travels_between_processes_stays_clean() -> None:
    error = CorpusError(f"\x1b[31m {URLS['https']}")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and is_safe(str(again)) and "hunter2" not in str(again)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("/home/me/data/train.jsonl", "train.jsonl"),
        ("/home/me/data/*.jsonl", "*.jsonl"),
        ("~/train.jsonl", "train.jsonl"),
        ("../../me/train.jsonl", "train.jsonl"),
        ("data/train.jsonl", "data/train.jsonl"),
        ("file:///home/me/train.jsonl", "train.jsonl"),
        ("zip://a.jsonl::/home/me/x.zip", "zip://a.jsonl::x.zip"),
        ("owner/name", "owner/name"),
        ("packaged:e5-small", "packaged:e5-small"),
        ("hub:glue/sst2", "hub:glue/sst2"),
        ("s3://bucket/x.jsonl", "s3://bucket/x.jsonl"),
        (URLS["s3"], "s3://***@bucket/corpus.jsonl"),
    ],
)
def test_names_that_are_stored_tell_no_place(reference: str, name: str) -> None:
    assert stored_name(reference) == name


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "teacher").mkdir()
    monkeypatch.chdir(tmp_path / "teacher")
    assert stored_name(".") == "teacher"


def test_records_keep_names_of_paths_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home of me"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    record = {
        "reason": f"cannot open {home}/runs/.tmp-1/model.onnx: bad",
        f"{os.getcwd()}/x": ["/opt/py/site-packages/torch/x.py", "1 tokens/s", "a/b"],
        "url": URLS["s3"],
    }
    text = json.dumps(publishable(record))
    for secret in (str(tmp_path), os.getcwd(), "/opt/py", "hunter2"):
        assert secret not in text
    for kept in ("model.onnx: bad", "x.py", "tokens/s", "a/b", "s3://***@bucket/corpus.jsonl"):
        assert kept in text


INJECTIONS = (
    "x`\n# Heading\n<img src=http://evil>",
    "x``y`",
    "`",
    "a|b|c",
    "![x](http://evil)",
    "[x](javascript:alert(1))",
    "<script>alert(1)</script>",
    "&lt;b&gt;",
    "\n\n# Heading",
    "---\nlicense: mit\n---",
    "\x1b[31mred",
)


@pytest.mark.parametrize("text", INJECTIONS)
def test_markdown_quotes_are_one_span(text: str) -> None:
    code, line = markdown_code(text), markdown_text(text)
    fence = re.match("`+", code)
    assert fence is not None
    inner = code[len(fence[0]) : -len(fence[0])]
    assert code.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inner), "the text ends its own span"
    for quoted in (code, line):
        assert "\n" not in quoted and is_safe(quoted, allowed="")
    assert not re.search(r"(?<!\\)[<>|`]|\]\(", line)


def card_of(text: str, path: str) -> str:
    """A model card in which every text is `text`."""
    counts = {text: {text: 1}}
    result = {"accuracy": 0.5, "loss": 0.5, "rows": 2.0}
    summary = TrainingSummary(
        path=Path(path),
        method="kd",
        counts={"gold_rows": 2},
        num_steps=4,
        dev_accuracy=0.5,
        dev_loss=0.5,
        best_step=4,
        history=[],
        precision="fp32",
        trained_s=1.0,
        reused=False,
        stopped_early=False,
        selected_on=[text],
        dev_sets={"dev": result, text: result},
        classes=counts,
    )
    store = StoreOrigin(
        digest="1",
        num_rows=2,
        teacher=text,
        teacher_digest=text,
        precision=text,
        corpus_digest=text,
    )
    origin = Origin(
        labelled_name=text,
        num_labelled=2,
        labelled_digest="1",
        dev_names={"dev": text},
        dev_digests={"dev": "1", text: "1"},
        select_on=[text],
        dev_language=text,
        labelled_languages=[text],
        stores=[store],
    )
    return model_card(text, summary, origin, {"setting": text, text: 1})


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_card_quotes_and_runs_nothing(text: str) -> None:
    plain, card = (card_of(each, "/x/m").split("\n") for each in ("plain", text))
    named = card_of(text, f"/x/{text}").split("\n")
    assert len(card) == len(plain) == len(named)
    assert is_safe("\n".join(card))
    for line, ordinary in zip(card, plain, strict=True):
        assert re.match("#*", line)[0] == re.match("#*", ordinary)[0]  # type: ignore[index]
        text_alone = re.sub(r"(?<![`\\])(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", line)
        assert not re.search(r"(?<!\\)[<`]|\]\(", text_alone), line
        if ordinary.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == ordinary.count("|"), line


@pytest.mark.parametrize("text", INJECTIONS)
def test_an_exports_table_quotes_its_reasons(text: str) -> None:
    candidate = {"agreement": None, "tokens_per_s": None, "rejected": text}
    summary = ExportSummary(
        path=Path("x"),
        precision="fp32",
        chosen="fp32",
        opset=23,
        provider="cpu",
        candidates={"fp32": candidate},
    )
    lines = _card_table(summary).split("\n")
    assert len(lines) == 5
    assert len(re.findall(r"(?<!\\)\|", lines[3])) == 6
    assert not re.search(r"(?<!\\)[<`]|\]\(", lines[3])


def test_nothing_that_is_published_names_the_place_it_was_made_in(tmp_path: Path) -> None:
    work = tmp_path / "home of somebody"
    work.mkdir()
    bert_encoder(work / "encoder")
    write_jsonl(work / "train.jsonl", labelled_rows(16, seed=1))
    write_jsonl(work / "dev.en.jsonl", labelled_rows(9, seed=2))
    steps = ["--max-steps", "2", "--batch-size", "4", "--max-length", "16"]
    dev, encoder = str(work / "dev.en.jsonl"), str(work / "encoder")
    data = ["--dev", dev, *steps]
    train = ["train-teacher", "--model", encoder, "--train", str(work / "train.jsonl")]
    assert main([*train, "--out", str(work / "teacher"), *data]) == 0
    bundle = ["export", str(work / "teacher"), "--out", str(work / "bundle"), "--check", dev]
    assert main([*bundle, "--precision", "int8", "--min-agreement", "0.01"]) == 0
    label = ["label", "--model", str(work / "bundle"), "--corpus", str(work / "train.jsonl")]
    assert main([*label, "--store", str(work / "store")]) == 0
    student = ["train-student", "--method", "kd", "--model", encoder]
    stores = ["--store", str(work / "store")]
    assert main([*student, *stores, "--out", str(work / "student"), *data]) == 0
    places = [
        b"home of somebody",
        str(tmp_path).encode(),
        b"site-packages",
        str(Path.home()).encode(),
    ]
    for name in ("teacher", "bundle", "store", "student"):
        for path in sorted((work / name).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                assert not [place for place in places if place + b"/" in content], path
    assert "train.jsonl" in (work / "teacher" / "README.md").read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"names": ' + b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"\xff\xfe",
        b"",
        b"[1]",
        b'{"names": ["a", 1]}',
        b'{"names": ["a"]}',
        b'{"names": ["a", "b"], "problem_type": []}',
    ],
)
def test_a_labels_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(CorpusError):
        LabelSet.read(path)
    with pytest.raises(CorpusError, match="Is a directory"):
        LabelSet.read(tmp_path)


def test_an_export_of_an_older_model_names_no_place_either() -> None:
    run = {"command": "train-teacher", "dev_digest": "1"}
    origin = {
        "labelled_name": f"/home/me/data/train.jsonl, {URLS['s3']}",
        "dev_names": {"dev": "../me/dev.jsonl"},
        "num_labelled": 3,
    }
    older = {"model": "/home/me/encoder", "origin": origin, "run": run, "source": {"model": "~/x"}}
    found = published_provenance(older)
    assert found["model"] == "encoder" and found["source"] == {"model": "x"}
    assert found["origin"]["labelled_name"] == "train.jsonl, s3://***@bucket/corpus.jsonl"
    assert found["origin"]["dev_names"] == {"dev": "dev.jsonl"}
    assert found["run"] == run and found["origin"]["num_labelled"] == 3
    assert older["model"] == "/home/me/encoder", "the record that was read is changed"


@pytest.mark.parametrize("given", [".", "../teacher", "~/teacher"])
def test_a_teacher_goes_by_its_folders_name(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = bert_classifier(tmp_path / "home of me" / "teacher")
    monkeypatch.setenv("HOME", str(tmp_path / "home of me"))
    write_jsonl(folder / "rows.jsonl", labelled_rows(3, seed=1))
    monkeypatch.chdir(folder)
    line = ["label", "--teacher", "torch", "--model", given, "--corpus", "rows.jsonl"]
    assert main([*line, "--store", str(tmp_path / "store")]) == 0
    capsys.readouterr()
    assert main(["store", "info", str(tmp_path / "store"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["fingerprint"]
    assert told["teacher"] == "teacher"
