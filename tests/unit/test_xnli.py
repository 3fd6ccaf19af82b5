"""XNLI and MultiNLI from small files in the released layout, odd and damaged ones among them."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import types
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, CorpusError, CorpusUnreadable
from monox_kit.tasks import members
from monox_kit.tasks.xnli.pairs import LABELS
from monox_kit.tasks.xnli.prepare import XnliConfig, prepare_xnli
from monoxkit_cli.app import main
from tests.task_samples import (
    LANGUAGES,
    MULTINLI_COLUMNS,
    XNLI_COLUMNS,
    jsonl,
    multinli_rows,
    put,
    tsv,
    xnli_files,
    xnli_rows,
    zipped,
)

TRAIN = "multinli_1.0/multinli_1.0_train.txt"
DEV = "XNLI-1.0/xnli.dev.tsv"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_bytes().split(b"\n") if line]


def prepared(source: Path | tuple[Path, ...], out: Path, **settings: Any) -> Path:
    paths = source if isinstance(source, tuple) else (source,)
    prepare_xnli(XnliConfig(source=tuple(map(str, paths)), **settings), out)
    return out


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return put(tmp_path / "release", xnli_files())


def test_writes_the_documented_files_and_splits_a_fifth(release: Path, tmp_path: Path) -> None:
    out = prepared(release, tmp_path / "out")
    targets = [name for name in LANGUAGES if name != "en"]
    tests = [f"test.{name}.jsonl" for name in (*targets, "en")]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            "labelled.jsonl",
            "unlabelled.jsonl",
            "dev.jsonl",
            "labels.json",
            "provenance.json",
            *tests,
        ]
    )
    labelled, unlabelled = rows(out, "labelled.jsonl"), rows(out, "unlabelled.jsonl")
    assert (len(labelled), len(unlabelled)) == (12, 48)
    assert all(list(row) == ["id", "text", "text_pair", "label", "lang"] for row in labelled)
    assert all(list(row) == ["id", "text", "text_pair", "lang"] for row in unlabelled)
    wanted = {row["pairID"]: row for row in multinli_rows(60)}
    for row in labelled + unlabelled:
        assert row["text"] == wanted[row["id"]]["sentence1"]
        assert row["text_pair"] == wanted[row["id"]]["sentence2"]
        assert row.get("label", "neutral") == wanted[row["id"]]["gold_label"] or "label" not in row
    assert {row["id"] for row in labelled + unlabelled} == wanted.keys()
    # A quotation mark that nothing closes is a character of the text.
    assert [row["text"] for row in rows(out, "test.de.jsonl")] == [
        row["sentence1"] for row in xnli_rows(12, ["de"])
    ]
    assert len(rows(out, "dev.jsonl")) == 9 and {r["lang"] for r in rows(out, "dev.jsonl")} == {
        "en"
    }
    labels = LabelSet.read(out / "labels.json")
    documents = read_labelled(CorpusConfig(paths=(str(out / "test.zh.jsonl"),)), labels)
    assert len(documents) == 12 and documents[0].text_pair and documents[0].lang == "zh"


def test_folders_archives_and_both_formats_give_equal_bytes(release: Path, tmp_path: Path) -> None:
    files = xnli_files()
    parts = {
        part: zipped(
            tmp_path / f"{part}.zip", {n: c for n, c in files.items() if n.startswith(f"{part}/")}
        )
        for part in ("XNLI-1.0", "multinli_1.0")
    }
    lines = put(
        tmp_path / "lines", {name: c for name, c in files.items() if name.endswith(".jsonl")}
    )
    plain = prepared(release, tmp_path / "plain")
    for number, source in enumerate([tuple(parts.values()), (lines,)]):
        other = prepared(source, tmp_path / f"other-{number}")
        for path in plain.glob("*.jsonl"):
            assert (other / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_seed_draws_and_a_smaller_draw_is_part_of_a_larger(
    release: Path, tmp_path: Path
) -> None:
    def ids(name: str, **settings: Any) -> set[str]:
        out = prepared(release, tmp_path / name, languages=("de",), **settings)
        return {row["id"] for row in rows(out, "labelled.jsonl")}

    small, large = ids("a", labelled=5), ids("b", labelled=20, unlabelled=7)
    assert len(small) == 5 and small < large and ids("c", labelled=5, seed=2) != small
    assert len(rows(tmp_path / "b", "unlabelled.jsonl")) == 7
    with pytest.raises(ConfigError, match=r"`labelled` 61: the release has 60 pairs"):
        ids("d", labelled=61)


def test_machine_translations_have_the_ids_of_the_english_rows(
    release: Path, tmp_path: Path
) -> None:
    out = prepared(release, tmp_path / "out", languages=("de",), translations=("de",))
    german = {row["id"]: row for row in rows(out, "train.de.jsonl")}
    english = rows(out, "labelled.jsonl") + rows(out, "unlabelled.jsonl")
    assert len(german) == 60
    for row in english:
        assert german[row["id"]]["text"] == row["text"].replace("en ", "de ", 1)
        assert german[row["id"]]["label"] == row.get("label", german[row["id"]]["label"])
    assert "contradictory" not in {row["label"] for row in german.values()}


def test_translations_that_are_left_out_are_counted(tmp_path: Path) -> None:
    files = xnli_files()
    name = "XNLI-MT-1.0/multinli/multinli.train.de.tsv"
    files[name] = with_line(files[name], 3, lambda line: b" \t" + line.split(b"\t", 1)[1])
    config = XnliConfig(
        source=(str(put(tmp_path / "release", files)),), languages=("de",), translations=("de",)
    )
    summary = prepare_xnli(config, tmp_path / "out")
    assert summary.rows["train.de.jsonl"] == 59 and summary.left_out == {"blank text": 1}


def test_odd_rows(tmp_path: Path) -> None:
    """Blank lines, CRLF, a byte order mark, no agreement, blank text, repeated ids, short rows."""
    files = xnli_files()
    train = multinli_rows(12)
    train[0]["gold_label"] = "-"
    train[1]["sentence2"] = " "
    train[3]["pairID"] = train[2]["pairID"]
    text = tsv(MULTINLI_COLUMNS, train, "\r\n").decode()
    text = text.replace("\t\t\t\t\r\n", "\r\n", 1).replace("\r\n", "\r\n\r\n", 3)
    files[TRAIN] = b"\xef\xbb\xbf" + text.encode()
    dev = tsv(XNLI_COLUMNS, xnli_rows(3)).decode()
    files[DEV] = dev.encode("utf-16")  # with its mark
    out = prepared(put(tmp_path / "release", files), tmp_path / "out", labelled_share=1.0)
    labelled = rows(out, "labelled.jsonl")
    assert [row["id"] for row in labelled] == ["2n", "2n#2", *(f"{n}n" for n in range(4, 12))]
    assert not rows(out, "unlabelled.jsonl") and len(rows(out, "dev.jsonl")) == 3
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["left_out"] == {"blank text": 1, "no agreement on the label": 1}
    assert provenance["repeated_ids"] == 1
    assert provenance["labels"]["labelled.jsonl"] == dict(
        Counter(row["label"] for row in labelled).most_common()
    )


def with_line(content: bytes, number: int, change: Any) -> bytes:
    lines = content.split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    return b"\n".join(lines)


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        (TRAIN, lambda c: with_line(c, 7, lambda line: line[: len(line) // 3]), "txt, line 7:"),
        (TRAIN, lambda c: with_line(c, 4, lambda line: line + b"\tmore"), "found 16"),
        (TRAIN, lambda c: with_line(c, 5, lambda c_: c_.replace(b"neut", b"nuet", 1)), "nuet"),
        (TRAIN, lambda c: with_line(c, 9, lambda line: line + b"\xff"), "line 9: expected UTF-8"),
        (TRAIN, lambda c: with_line(c, 6, lambda line: line.replace(b"n", b"\0", 9)), "line 6:"),
        (TRAIN, lambda c: c.replace(b"sentence2\t", b"second\t", 1), "sentence2 or hypo"),
        (TRAIN, lambda c: b"\x1f\x8b" + c, "gzip"),
        (DEV, lambda c: c.replace(b"\nen\t", b"\nxx\t"), r"xnli\.dev\.tsv: expected rows in en"),
    ],
)  # fmt: skip
def test_damage_is_told_by_file_and_line(
    tmp_path: Path, name: str, change: Any, place: str
) -> None:
    files = xnli_files()
    files[name] = change(files[name])
    with pytest.raises(CorpusError, match=place):
        prepared(put(tmp_path / "release", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b'{"gold_label": 1}',
        b'{"gold_label": "neutral"}',
        b'{"gold_label": "neutral", "sentence1": "\\ud800"}',
    ],
)
def test_damaged_json_is_told_by_file_and_line(tmp_path: Path, line: bytes) -> None:
    files = {name: each for name, each in xnli_files().items() if name.endswith(".jsonl")}
    files["multinli_1.0/multinli_1.0_train.jsonl"] = jsonl(multinli_rows(3)) + line + b"\n"
    with pytest.raises(CorpusError, match=r"multinli_1\.0_train\.jsonl, line 4: expected"):
        prepared(put(tmp_path / "release", files), tmp_path / "out")


def test_damaged_archives_and_missing_parts(tmp_path: Path) -> None:
    files = xnli_files()
    whole = zipped(tmp_path / "all.zip", files)
    content = bytearray(whole.read_bytes())
    at = content.find(b"multinli_1.0_train.txt") + 60
    content[at : at + 8] = b"\0" * 8
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-200])
    del files[TRAIN], files["multinli_1.0/multinli_1.0_train.jsonl"]
    del files["XNLI-MT-1.0/multinli/multinli.train.en.tsv"]
    put(tmp_path / "part", files)
    for source, message in (
        ("bad.zip", r"bad\.zip/multinli_1\.0/multinli_1\.0_train\.txt: expected a readable file"),
        ("cut.zip", r"cut\.zip: expected a readable archive"),
        ("part", r"expected multinli_1\.0_train\.txt of MultiNLI 1\.0.*found \d+ other files"),
    ):
        with pytest.raises(CorpusError, match=message):
            prepared(tmp_path / source, tmp_path / "out")
    with pytest.raises(CorpusError, match=r"expected xnli\.dev\.tsv once, found .*all\.zip"):
        prepared((whole, tmp_path / "part"), tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no such folder"):
        prepared(tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_an_archive_without_an_end_is_not_listed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 10)
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as archive:
        for number in range(100):
            info = tarfile.TarInfo(str(number))
            info.type = kind
            archive.addfile(info)
    read: list[str] = []
    frombuf = tarfile.TarInfo.frombuf.__func__  # type: ignore[attr-defined]

    def counted(cls: type[tarfile.TarInfo], *block: Any) -> tarfile.TarInfo:
        info: tarfile.TarInfo = frombuf(cls, *block)
        read.append(info.name)
        return info

    monkeypatch.setattr(tarfile.TarInfo, "frombuf", classmethod(counted))
    with pytest.raises(CorpusUnreadable, match=r"many\.tar\.gz: .*more than 10 members"):
        members.release_files([str(tmp_path / "many.tar.gz")])
    assert len(read) == 11


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, members.MAX_TAR_HEADER_BYTES + 1
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("first"))
        archive.addfile(info, io.BytesIO(b"x" * info.size))
        archive.addfile(tarfile.TarInfo("last"))
    with pytest.raises(CorpusUnreadable, match=r"long\.tar: .*a header of 1,048,577 bytes"):
        members.release_files([str(tmp_path / "long.tar")])


@pytest.mark.parametrize("form", ["old", "1.0"])
def test_the_map_of_a_sparse_file_is_not_read(tmp_path: Path, form: str) -> None:
    info = tarfile.TarInfo("sparse")
    if form == "old":
        info.type = tarfile.GNUTYPE_SPARSE
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        block[482] = 1  # another block of the map follows
        block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
        data = bytes(block) + (b"1".rjust(12, b"0") * 42 + b"\1").ljust(512, b"\0") * 50
    else:
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        info.size = 50 * 512
        data = info.tobuf(tarfile.PAX_FORMAT) + b"100000000\n" + b"1\n" * (25 * 512 - 5)
    (tmp_path / "sparse.tar").write_bytes(data.ljust(len(data) + 1024, b"\0"))
    with pytest.raises(CorpusUnreadable, match=r"sparse\.tar: .*a sparse file"):
        members.release_files([str(tmp_path / "sparse.tar")])


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x" * 5000))
    with pytest.raises(CorpusUnreadable, match="5,000 characters"):
        members.release_files([str(tmp_path / "long.tar")])


def test_members_of_an_archive_are_never_written_to_disk(tmp_path: Path) -> None:
    path = zipped(tmp_path / "all.zip", xnli_files())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.txt", b"x")
    prepared(path, tmp_path / "in" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"all.zip", "in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"out"}


def test_a_finished_folder_is_reused_until_release_or_settings_change(
    release: Path, tmp_path: Path
) -> None:
    config = XnliConfig(source=(str(release),), languages=("de",))
    assert not prepare_xnli(config, tmp_path / "out").reused
    moved = release.rename(tmp_path / "moved")
    config = XnliConfig(source=(str(moved),), languages=("de",))
    again = prepare_xnli(config, tmp_path / "out")
    assert again.reused and again.rows["labelled.jsonl"] == 12
    (moved / TRAIN).write_bytes(tsv(MULTINLI_COLUMNS, multinli_rows(30)))
    assert prepare_xnli(config, tmp_path / "out").rows["labelled.jsonl"] == 6
    (tmp_path / "out" / "mine.txt").write_text("x")
    (moved / TRAIN).write_bytes(tsv(MULTINLI_COLUMNS, multinli_rows(20)))
    with pytest.raises(ConfigError, match=r"mine\.txt"):
        prepare_xnli(config, tmp_path / "out")


def test_a_dataset_of_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("datasets")

    class Dataset(list[dict[str, Any]]):
        features = types.MappingProxyType({"label": types.SimpleNamespace(names=LABELS)})

    def load_dataset(name: str, config: str, *, split: str, streaming: bool) -> Dataset:
        count = {"train": 20, "validation": 4, "test": 6}[split]
        return Dataset(
            {"premise": f"{config} {split} {n}", "hypothesis": f"{n}", "label": n % 3}
            for n in range(count)
        )

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    out = tmp_path / "out"
    prepare_xnli(XnliConfig(source=("hub:xnli",), languages=("de", "zh")), out)
    assert [len(rows(out, f"{n}.jsonl")) for n in ("labelled", "unlabelled", "dev")] == [4, 16, 4]
    german = rows(out, "test.de.jsonl")
    assert german[1] == {
        "id": "1", "text": "de test 1", "text_pair": "1", "label": "neutral", "lang": "de",
    }  # fmt: skip
    assert len(german) == 6
    documents = Corpus(CorpusConfig(paths=("hub:xnli:de@test",), text_column="premise"))
    assert documents.languages == ("de",)


def test_the_command(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["data", "xnli", "--source", str(release), "--languages", "de,fr", "--json"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["test.fr.jsonl"] == 12 and found["release"] == "XNLI 1.0"
    assert main([*line[:4], "--languages", "xx", "--out", str(tmp_path / "no")]) == 3
    assert "expected rows in xx" in capsys.readouterr().err
    assert main(["data", "--json"]) == 0
    listed = {task["name"]: task for task in json.loads(capsys.readouterr().out)["tasks"]}
    assert set(LANGUAGES) == set(listed["xnli"]["languages"].split())
    assert all(all(task.values()) for task in listed.values())
