"""CLS from small files in the released layout, odd and damaged ones among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import ConfigError, CorpusError
from monox_kit.tasks.cls.prepare import ClsConfig, prepare_cls
from monoxkit_cli.app import main
from tests.task_samples import cls_files, put, review, reviews, tarred

TRAIN = "cls-acl10-unprocessed/en/books/train.review"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_bytes().split(b"\n") if line]


def prepared(source: Path, out: Path, **settings: Any) -> Path:
    prepare_cls(ClsConfig(source=(str(source),), **{"domain": "books", **settings}), out)
    return out


def with_train(tmp_path: Path, content: bytes) -> Path:
    """A release whose English training file is the given one."""
    return put(tmp_path / "release", {**cls_files(), TRAIN: content})


def test_writes_the_documented_files_and_holds_a_fifth_out(tmp_path: Path) -> None:
    out = prepared(put(tmp_path / "release", cls_files()), tmp_path / "out")
    names = ["dev", "labelled", "test.de", "test.en", "test.fr", "test.ja", "unlabelled"]
    assert sorted(path.stem for path in out.glob("*.jsonl")) == names
    sizes = {name: len(rows(out, f"{name}.jsonl")) for name in names}
    assert (sizes["labelled"], sizes["dev"], sizes["unlabelled"], sizes["test.ja"]) == (
        32,
        8,
        30,
        12,
    )
    for row in rows(out, "labelled.jsonl") + rows(out, "dev.jsonl"):
        assert list(row) == ["id", "text", "label", "lang"] and row["lang"] == "en"
        assert row["label"] == ("positive" if row["text"].startswith("sound") else "negative")
        assert " & more\n" in row["text"]
    assert all(list(row) == ["id", "text", "lang"] for row in rows(out, "unlabelled.jsonl"))
    assert {row["lang"] for row in rows(out, "test.ja.jsonl")} == {"ja"}
    assert json.loads((out / "labels.json").read_text())["names"] == ["negative", "positive"]


def test_folder_and_archive_give_equal_bytes_and_the_seed_draws(tmp_path: Path) -> None:
    files = cls_files()
    archive = tarred(tmp_path / "cls-acl10-unprocessed.tar.gz", files)
    plain = prepared(put(tmp_path / "release", files), tmp_path / "plain", unlabelled=7)
    other = prepared(archive, tmp_path / "other", unlabelled=7)
    for path in plain.glob("*.jsonl"):
        assert (other / path.name).read_bytes() == path.read_bytes(), path.name
    drawn = {row["id"] for row in rows(plain, "unlabelled.jsonl")}
    more = {
        row["id"]
        for row in rows(prepared(archive, tmp_path / "more", unlabelled=9), "unlabelled.jsonl")
    }
    assert len(drawn) == 7 and drawn < more
    again = prepared(archive, tmp_path / "again", unlabelled=0, seed=2)
    assert not rows(again, "unlabelled.jsonl")
    assert rows(again, "dev.jsonl") != rows(plain, "dev.jsonl")


def test_odd_items(tmp_path: Path) -> None:
    """Entities, CDATA, items in one line, three stars, blank text, attributes, no last newline."""
    text = (
        "<?xml version='1.0' encoding='utf-8'?>\r\n\r\n<items>\r\n"
        '<item><rating scale="5">4</rating><text lang="en">a &amp; b &quot;c&quot; &#228; &nope; '
        "&lt;item&gt;</text></item><item><text><![CDATA[x &amp; <b>]]> y</text>\r\n"
        "<rating> 1.0 </rating></item>\r\n\r\n"
        "<item><rating>3.0</rating><text>so so</text></item>\r\n"
        "<item><rating>5.0</rating><text> \r\n </text></item>"
        "<item><rating>2</rating><text/></item>"
        "<item><rating>2</rating><text>one\r\ntwo</text></item><item><rating>5</rating>"
        "<text>best</text><summary>Read &#x26; weep</summary></item></items>"
    )
    release = with_train(tmp_path, text.encode())
    out = prepared(release, tmp_path / "out", dev_share=0.15, summary=True)
    found = rows(out, "labelled.jsonl") + rows(out, "dev.jsonl")
    by_id = {row["id"]: (row["text"], row["label"]) for row in found}
    left = json.loads((out / "provenance.json").read_text())["left_out"]
    whole = {
        "en-train-0": ('a & b "c" ä &nope; <item>', "positive"),
        "en-train-1": ("x &amp; <b> y", "negative"),
        "en-train-5": ("one\ntwo", "negative"),
        "en-train-6": ("Read & weep\nbest", "positive"),
    }
    assert by_id == whole
    assert left == {"blank text": 2, "rating of three": 1}


@pytest.mark.parametrize(
    ("encoding", "declared", "told"),
    [
        ("iso-8859-1", 'encoding="ISO-8859-1"', None),
        ("cp1252", "", "cp1252"),
        ("utf-8-sig", 'encoding="UTF-8"', None),
        ("utf-16", 'encoding="UTF-16"', None),
    ],
)
def test_other_encodings(tmp_path: Path, encoding: str, declared: str, told: str | None) -> None:
    head = f'<?xml version="1.0" {declared}?>\n'
    content = reviews(*(review(n, summary="Übel") for n in range(10)), head=head).decode()
    out = tmp_path / "out"
    if told is not None:
        with pytest.raises(CorpusError, match="line 12: expected UTF-8, found byte 0xdc"):
            prepared(with_train(tmp_path, content.encode(encoding)), out)
    others = {n: c for n, c in cls_files().items() if n != TRAIN}
    release = put(tmp_path / "release", {**others, TRAIN: content.encode(encoding)})
    prepared(release, out, summary=True, encoding=told)
    assert all(row["text"].startswith("Übel\n") for row in rows(out, "labelled.jsonl"))


WHOLE = reviews(*(review(number) for number in range(4))).decode()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (WHOLE[: WHOLE.rindex("</item>") - 30], r"line \d+: the item of line 42 ends without"),
        (WHOLE.replace("</items>\n", ""), "line 54: the file ends without </items>"),
        (WHOLE.replace("</item>\n", "", 1), r"line 15: an item begins here.*in line 3 has no end"),
        (WHOLE.replace("</text>", "", 2), r"line 3: .*found no text"),
        (WHOLE.replace("<rating>5.0</rating>", "", 1), "line 16: .*found no rating"),
        (WHOLE.replace("<rating>5.0<", "<rating>many<", 1), "line 16: expected a rating.*'many'"),
        (WHOLE.replace("<rating>5.0<", "<rating>nan<", 1), "line 16: expected a rating"),
        (WHOLE.replace("<items>", '<!DOCTYPE x [<!ENTITY a "b">]>\n<items>'), "line 2: .*DOCTYPE"),
        (WHOLE.replace("</item>\n", "</item>\nstray\n", 1), "line 16: expected an item.*stray"),
        (WHOLE.replace("UTF-8", "EBCDIC-9"), "line 1: it declares the encoding 'EBCDIC-9'"),
    ],
)
def test_damage_is_told_by_file_and_line(tmp_path: Path, content: str, place: str) -> None:
    with pytest.raises(CorpusError, match=rf"books/train\.review, {place}"):
        prepared(with_train(tmp_path, content.encode()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_the_release_and_too_few_reviews(tmp_path: Path) -> None:
    files = cls_files()
    del files["cls-acl10-unprocessed/jp/books/test.review"]
    release = put(tmp_path / "release", files)
    with pytest.raises(CorpusError, match=r"expected jp/books/test\.review, found 35 other"):
        prepared(release, tmp_path / "out")
    assert prepared(release, tmp_path / "out", languages=("de",)).exists()
    with pytest.raises(ConfigError, match="some of de,fr,ja"):
        prepared(release, tmp_path / "out", languages=("it",))
    with pytest.raises(CorpusError, match=r"enough reviews .* found 2"):
        prepared(with_train(tmp_path, reviews(review(0), review(1))), tmp_path / "o2")


def test_the_command_and_its_reuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tarred(tmp_path / "cls-acl10-unprocessed.tar.gz", cls_files())
    line = ["data", "cls", "--source", str(archive), "--domain", "dvd", "--json"]
    for is_reused in (False, True):
        assert main([*line, "--out", str(tmp_path / "out")]) == 0
        assert json.loads(capsys.readouterr().out)["reused"] is is_reused
    assert main(["data", "cls", "--source", str(archive), "--domain", "food", "--out", "x"]) == 2
    assert "--domain" in capsys.readouterr().err
