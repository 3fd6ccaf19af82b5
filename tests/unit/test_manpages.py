"""The manual-page corpus from packages of our own, in the exact layout of Debian's."""

import gzip
import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.errors import ConfigError, CorpusError
from monox_kit.tasks.manpages.packages import package_pages
from monox_kit.tasks.manpages.prepare import ManpagesConfig, prepare_manpages, write_pages
from monox_kit.tasks.manpages.roff import arguments, read_roff

SECTIONS = ("2", "3", "5")
RELEASE = {"codename": "testing", "version": "1.0"}
NUM_PAGES = 90


def deb(path: Path, members: Mapping[str, bytes | str]) -> Path:
    """A package as dpkg-deb writes it: text values are links to a member beside theirs."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz", preset=0) as archive:
        folder = tarfile.TarInfo("./usr/share/man/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
                continue
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", data.getvalue()),
    ]
    content = b"!<arch>\n"
    for name, value in parts:
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(value):<10}`\n".encode()
        content += value + b"\n" * (len(value) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def page(number: int, language: str, heading: str = "NAME") -> bytes:
    """A packed page whose text has a sentence that no other page has."""
    name, section = f"name{number}", SECTIONS[number % 3]
    source = (
        f'.\\" a comment\n.TH {name} {section} 2023-02-05\n.SH {heading}\n'
        f"{name} \\- {language} names it\n.SH SYNOPSIS\n.B {name}\n.SH DESCRIPTION\n"
        f"In {language} the page {'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10]} of kind "
        f"{section} says this.\n"
    )
    return gzip.compress(source.encode(), mtime=0)


def member(number: int, locale: str = "") -> str:
    section = SECTIONS[number % 3]
    return f"usr/share/man/{locale}man{section}/name{number}.{section}.gz"


def small_packages(folder: Path) -> dict[str, Path]:
    """English pages in two packages, all of them in German, every second one in Portuguese."""
    english = {member(number): page(number, "en") for number in range(NUM_PAGES)}
    half = dict(list(english.items())[: NUM_PAGES // 2])
    rest = dict(list(english.items())[NUM_PAGES // 2 :])
    german = {member(number, "de/"): page(number, "de", "BEZEICHNUNG") for number in range(90)}
    brazil = {member(number, "pt_BR/"): page(number, "pt", "NOME") for number in range(0, 90, 2)}
    made = {"manpages": half, "manpages-dev": rest, "manpages-de": german, "manpages-pt-br": brazil}
    return {name: deb(folder / f"{name}_1.0_all.deb", each) for name, each in made.items()}


def small_config(**changes: object) -> ManpagesConfig:
    values: dict[str, object] = {
        "labelled": 20, "languages": ("de", "pt-BR"), "sections": SECTIONS,
    }  # fmt: skip
    return ManpagesConfig(**(values | changes))  # type: ignore[arg-type]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    packages = small_packages(tmp_path / "debs")
    write_pages(small_config(), packages, RELEASE, tmp_path / "out")
    return tmp_path / "out"


def test_writes_the_documented_files_and_fields(corpus: Path) -> None:
    assert sorted(path.name for path in corpus.iterdir()) == [
        "dev.jsonl", "labelled.jsonl", "labels.json", "provenance.json",
        "test.de.jsonl", "test.en.jsonl", "test.pt-BR.jsonl", "unlabelled.jsonl",
    ]  # fmt: skip
    assert len(rows(corpus, "labelled.jsonl")) == 20
    for name in ("labelled", "dev", "test.en", "test.de", "test.pt-BR"):
        for row in rows(corpus, f"{name}.jsonl"):
            assert list(row) == ["id", "text", "label", "lang"]
            assert row["label"] == row["id"][-1] == SECTIONS[int(row["id"][4:-2]) % 3]
            assert row["lang"] == (name.split(".")[1] if "." in name else "en")
            assert row["text"].startswith("SYNOPSIS\n") and "names it" not in row["text"]
    assert all(list(row) == ["id", "text", "lang"] for row in rows(corpus, "unlabelled.jsonl"))
    assert json.loads((corpus / "labels.json").read_text())["names"] == list(SECTIONS)
    provenance = json.loads((corpus / "provenance.json").read_text())
    assert provenance["release"] == RELEASE and len(provenance["packages"]) == 4


def test_no_translation_of_a_training_page_is_tested(corpus: Path) -> None:
    def names(file: str) -> set[str]:
        return {row["id"].rpartition(".")[0] for row in rows(corpus, file)}

    seen = names("labelled.jsonl") | names("unlabelled.jsonl")
    held_out = names("test.en.jsonl")
    assert len(seen) + len(names("dev.jsonl")) + len(held_out) == NUM_PAGES
    assert not seen & names("dev.jsonl") and not (seen | names("dev.jsonl")) & held_out
    assert names("test.de.jsonl") == held_out
    assert names("test.pt-BR.jsonl") == {name for name in held_out if int(name[4:]) % 2 == 0}


def test_a_name_is_in_one_part_in_all_sections(tmp_path: Path) -> None:
    packages = small_packages(tmp_path / "debs")
    english = {
        f"usr/share/man/man{section}/name{number}.{section}.gz": gzip.compress(
            f".SH NAME\nx\n.SH TEXT\nwords of kind {section} and {'x' * number}".encode()
        )
        for number in range(40)
        for section in SECTIONS
    }
    packages["manpages"] = deb(tmp_path / "debs/more.deb", english)
    write_pages(small_config(), packages, RELEASE, tmp_path / "out")
    parts = [
        {row["id"].rpartition(".")[0] for file in files for row in rows(tmp_path / "out", file)}
        for files in (("labelled.jsonl", "unlabelled.jsonl"), ("dev.jsonl",), ("test.en.jsonl",))
    ]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_equal_packages_give_equal_bytes_and_a_seed_others(tmp_path: Path, corpus: Path) -> None:
    again = tmp_path / "again"
    write_pages(small_config(), small_packages(tmp_path / "more"), RELEASE, again)
    for path in corpus.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    write_pages(small_config(seed=2), small_packages(tmp_path / "more"), RELEASE, again)
    assert (again / "labelled.jsonl").read_bytes() != (corpus / "labelled.jsonl").read_bytes()


def test_odd_members_are_left_out_and_counted(tmp_path: Path) -> None:
    packages = small_packages(tmp_path / "debs")
    head = "usr/share/man/man2/"
    english_text = f".SH NAME\nx\n.SH TEXT\n{'left in English ' * 8}\n".encode()
    odd: dict[str, bytes | str] = {
        f"{head}link.2.gz": "name1.3.gz",
        f"{head}redirect.2.gz": gzip.compress(b'.\\" x\n.so man2/name0.2\n'),
        f"{head}empty.2.gz": gzip.compress(b" \n"),
        f"{head}zero.2": b"",
        f"{head}bare.2": b".SH NAME\nbare - has no text\n",
        f"{head}mdoc.2": b".Dd today\n.Dt MDOC 2\n.Sh NAME\n.Nm mdoc\n",
        f"{head}unheaded.2": b".TH X 2\nwords alone\n",
        "usr/share/man/man8/other.8": english_text,
        "usr/share/doc/manpages/README": b"\xff no page",
        f"{head}latin.2": b"'\\\" -*- coding: ISO-8859-1 -*-\n.SH N\nx\n.SH T\nGr\xf6\xdfe\n",
    }
    packages["manpages-xx"] = deb(tmp_path / "debs/odd.deb", odd)
    summary = write_pages(small_config(), packages, RELEASE, tmp_path / "out")
    assert summary.left_out["link to another page"] == 1
    assert summary.left_out["redirect to another page (.so)"] == 1
    assert summary.left_out["empty file"] == 2
    assert summary.left_out["blank text"] == 1
    assert summary.left_out["written with mdoc"] == 1
    assert summary.left_out["no section"] == 1
    found = [
        row["text"]
        for name in ("labelled", "unlabelled", "dev", "test.en")
        for row in rows(tmp_path / "out", f"{name}.jsonl")
    ]
    assert "T\nGröße" in found and not any("left in English" in text for text in found)


def test_pages_left_in_english_are_no_translations(tmp_path: Path) -> None:
    packages = small_packages(tmp_path / "debs")
    sentence = "This sentence was left as it stands in the English page, all of it, and is long."
    both = {
        f"usr/share/man/{locale}man2/long{number}.2": (
            f".SH N\nx\n.SH {head}\n{sentence} {chr(97 + number) * 3}\n".encode()
        )
        for number in range(20)
        for locale, head in (("", "TEXT"), ("de/", "INHALT"))
    }
    packages["both"] = deb(tmp_path / "debs/both.deb", both)
    summary = write_pages(small_config(), packages, RELEASE, tmp_path / "out")
    held_out = [row for row in rows(tmp_path / "out", "test.en.jsonl") if "long" in row["id"]]
    assert summary.left_out["left in English"] == len(held_out) > 0
    assert not [row for row in rows(tmp_path / "out", "test.de.jsonl") if "long" in row["id"]]


def test_damage_is_refused_by_name_and_line(tmp_path: Path) -> None:
    whole = small_packages(tmp_path / "debs")["manpages"]
    content = whole.read_bytes()
    where = "usr/share/man/man2/bad.2"
    packed = gzip.compress(b".SH N\nx\n.SH T\ntext of it\n" * 50)
    cases: list[tuple[bytes | Path, str]] = [
        (content[: len(content) // 2], r"x\.deb: expected [\d,]+ bytes of data\.tar, found [\d,]+"),
        (content[:-200] + b"\0" * 200, r"x\.deb: expected a readable archive"),
        (b"PK\x03\x04" + content, r"x\.deb: expected a Debian package, found another file"),
        (content.replace(b"data.tar", b"date.tar"), r"x\.deb: expected a member data\.tar"),
        (deb(tmp_path / "1.deb", {where: b".SH N\nx\n.SH T\n\xe9t\xe9\n"}),
         r"bad\.2, line 4: expected text in utf-8, found the byte 0xe9"),
        (deb(tmp_path / "2.deb", {where: b"'\\\" -*- coding: KOI-9 -*-\n.SH N\n"}),
         r"bad\.2, line 1: expected a known encoding, found KOI-9"),
        (deb(tmp_path / "3.deb", {f"{where}.gz": packed[:-20]}), r"bad\.2\.gz: expected a page"),
        (deb(tmp_path / "4.deb", {f"{where}.gz": b"plain"}), r"bad\.2\.gz: expected a page packed"),
        (deb(tmp_path / "5.deb", {where: b".SH N\nx\n.SH T\na\0b\n"}), r"bad\.2: .*characters"),
    ]  # fmt: skip
    for given_content, told in cases:
        path = tmp_path / "x.deb"
        path.write_bytes(
            given_content if isinstance(given_content, bytes) else given_content.read_bytes()
        )
        with pytest.raises(CorpusError, match=told):
            write_pages(small_config(), {"manpages": path}, RELEASE, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_too_few_pages_are_told_with_both_numbers(tmp_path: Path) -> None:
    packages = small_packages(tmp_path / "debs")
    with pytest.raises(CorpusError, match=r"`labelled`: .* the \d\d English .* found 500\."):
        write_pages(small_config(labelled=500), packages, RELEASE, tmp_path / "out")
    del packages["manpages-pt-br"]
    with pytest.raises(CorpusError, match=r"translations into pt-BR .* none among 0 pages"):
        write_pages(small_config(), packages, RELEASE, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": 0}, "`labelled`: expected .* 1, found 0"),
        ({"languages": ("de", "de")}, "`languages`: expected each name once, found de repeated"),
        ({"languages": ("de", "en")}, "`languages`: expected languages other than English"),
        ({"languages": ()}, "`languages`: expected languages"),
        ({"sections": ("2",)}, "`sections`: expected at least 2"),
        ({"sections": ("2", "9")}, "`sections`: expected at least 2 of"),
        ({"test_share": 0.6, "dev_share": 0.4}, "`dev_share` and `test_share`: .* found 1.0"),
    ],
)
def test_options_that_cannot_work_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


PAGE = r"""'\" t
.\" -*- coding: UTF-8 -*-
.ie \n(.g .ds Aq \(aq
.el       .ds Aq '
.de Own
macros of a page's own are \\$1
..
.if (\n(rF:(\n(.g==0)) \{\
.    de IX
.    ..
.\}
.TH LS 1 "May 2023" \
"GNU" "User"
.SH NAME
ls \- list
.SH
HOW "IT" IS
.SS "Two words"
The \fBbold\fR \f[I]one\f[] and \f(CWcode\fP, isn\(aqt it\*(Aq.  \" to the end
A second line\c
, glued.
.PP
.BR open "(2), " close (2)
.I "a ""quoted"" word"
.IP \(bu 3
an item: \-a \e n \[u00E9]\['e]\(:A \s-1SMALL\s0 x\ y
.nf
  int  x;
  int y; \\
.fi
.TS
tab(@) allbox;
lb l.
Key@T{
What it
is for
T}
_
A@B
.TE
.if n on a terminal
.if t \{\
printed \{ never \}
.\}
.ie t never
.el else
.UR https://example.org
a link
.UE ,
.MR grep 1 .
.EQ
x over y
.EN
.ig
nothing of this
..
.SH EMPTY
"""


def test_requests_and_escapes_become_lines() -> None:
    found = read_roff(PAGE, "en")
    assert [section[0] for section in found.sections] == ["NAME", 'HOW "IT" IS', "EMPTY"]
    assert found.text is not None
    assert found.text.split("\n") == [
        'HOW "IT" IS', "Two words",
        "The bold one and code, isn't it'. A second line, glued.",
        'open(2), close(2) a "quoted" word',
        "• an item: -a \\ n ééÄ SMALL x y",
        "int x;", "int y; \\",
        "Key What it is for", "A B",
        "on a terminal else a link <https://example.org>, grep(1).",
        "EMPTY",
    ]  # fmt: skip


def test_lines_of_unspaced_scripts_are_joined_without_a_space() -> None:
    assert read_roff(".SH 名前\nx\n.SH 説明\n一二\n三四\n", "ja").text == "説明\n一二三四"
    assert read_roff(".SH N\nx\n.SH T\n하나\n둘\n", "ko").text == "T\n하나 둘"


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=12), max_size=4))
def test_quoted_arguments_come_back(values: list[str]) -> None:
    values = [value.replace("\\", "") for value in values]
    line = " ".join('"' + value.replace('"', '""') + '"' for value in values)
    assert arguments(line) == values


@settings(max_examples=300)
@given(st.text(alphabet=".'\\\"{}()[]*fsnTSHEDBIRPdeigw \n\tx1-;", max_size=200))
def test_any_text_is_read_to_its_end(source: str) -> None:
    marked = f".SH NAME\nx\n.SH A\n{source}\n"
    page = read_roff(marked, "en")
    assert page.sections[0][0] == "NAME"
    assert all("\n" not in line and line == line.strip() for each in page.sections for line in each)


APT = """#!{python}
import os, pathlib, re, shutil, sys
conf = pathlib.Path(os.environ["APT_CONFIG"]).read_text()
lists = pathlib.Path(re.search('Dir::State::Lists "(.*)"', conf).group(1))
with open({log!r}, "a") as log:
    print(*sys.argv[1:2], *(sys.argv[2:] if sys.argv[1] == "download" else ()), file=log)
prefix = "mirror_dists_testing_main_"
if sys.argv[1] == "update":
    (lists / (prefix + "Packages")).write_text("".join(
        "Package: " + name + "\\nSection: doc\\n\\n" for name in {names!r}.split()))
    (lists / "mirror_dists_testing_InRelease").write_text(
        "Origin: Debian\\nCodename: testing\\nVersion: 1.0\\n")
elif sys.argv[1] == "indextargets":
    print(lists / (prefix + "Packages"), "Debian", "Debian", "testing", "main", "Packages", "",
          sep="|")
else:
    for name in sys.argv[2:]:
        if name in {fail!r}.split():
            sys.exit(print("E: Failed to fetch", name, file=sys.stderr) or 100)
        shutil.copy({source!r} + "/" + name + "_1.0_all.deb", ".")
"""
NAMES = "libc6 manpages manpages-dev manpages-de manpages-pt-br manpages-posix manpages-zh-x"


def play_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str = "") -> Path:
    """Put an `apt-get` on the path that serves the small packages; returns its log of calls."""
    small_packages(tmp_path / "mirror")
    program, log = tmp_path / "bin" / "apt-get", tmp_path / "apt.log"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        APT.format(
            python=sys.executable,
            log=str(log),
            names=NAMES,
            fail=fail,
            source=str(tmp_path / "mirror"),
        )
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def test_prepares_through_apt_once_and_reuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = play_apt(tmp_path, monkeypatch)
    first = prepare_manpages(small_config(), tmp_path / "out")
    assert not first.reused and first.release == "testing 1.0"
    calls = log.read_text().splitlines()
    assert calls == [
        "update", "indextargets", "download manpages manpages-de manpages-dev manpages-pt-br",
    ]  # fmt: skip
    again = prepare_manpages(small_config(languages=("de", "pt_BR")), tmp_path / "out")
    assert again.reused and again.rows == first.rows
    assert log.read_text().splitlines() == calls
    (tmp_path / "out" / "dev.jsonl").write_text("changed\n")
    with pytest.raises(CorpusError, match=r"dev\.jsonl: expected the content .* found another"):
        prepare_manpages(small_config(), tmp_path / "out")


def test_what_apt_cannot_give_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_apt(tmp_path, monkeypatch, fail="manpages-de")
    with pytest.raises(ConfigError, match=r"Debian testing \(de, pt-br\), found xx, fr-CA\."):
        prepare_manpages(small_config(languages=("xx", "de", "fr-CA")), tmp_path / "out")
    with pytest.raises(CorpusError, match=r"fetch manpages-de, .*'E: Failed to fetch manpages-de'"):
        prepare_manpages(small_config(languages=("de",)), tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="data manpages: expected apt-get"):
        prepare_manpages(small_config(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_come_in_their_order_and_languages(tmp_path: Path) -> None:
    path = deb(
        tmp_path / "a.deb",
        {
            "usr/share/man/ja/man3/NULL.3const.gz": gzip.compress(".SH 名".encode()),
            "usr/share/man/zh_CN/man1/a.b.1.gz": "../c.1.gz",
            "usr/share/man/man3/x.3.gz": gzip.compress(b""),
        },
    )
    found = [(each.language, each.id, each.name, each.section) for each in package_pages(path)]
    assert found == [
        ("ja", "NULL.3const", "NULL", "3"), ("zh_CN", "a.b.1", "a.b", "1"), ("en", "x.3", "x", "3"),
    ]  # fmt: skip
