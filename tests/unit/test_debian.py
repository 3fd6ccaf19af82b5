"""The Debian corpus from small lists of our own, and apt played by a script."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monox_kit.errors import ConfigError, CorpusError, LabelMismatchError
from monox_kit.tasks.debian.descriptions import resolved
from monox_kit.tasks.debian.lists import DebianLists, read_stanzas
from monox_kit.tasks.debian.prepare import DebianConfig, prepare_debian, write_corpus
from monox_kit.tasks.fields import normalized

SECTIONS = ("games", "mail", "sound")
WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jetty",
    "kayak",
    "lemon",
    "maple",
    "noble",
]
NUM_SOURCES = 240


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def sentence(number: int, language: str) -> str:
    """A sentence of a source that no other source has, long enough to count as shared text."""
    words = [WORDS[(number // len(WORDS) ** power) % len(WORDS)] for power in range(3)]
    return f"{language} " + " ".join(f"{word}{word}" for word in words * 4) + "."


class Index:
    """Stanzas of a small release, written as apt leaves its lists."""

    def __init__(self) -> None:
        self.packages: list[str] = []
        self.descriptions: dict[str, list[str]] = {"en": [], "de": [], "pt_BR": []}

    def add(
        self, name: str, section: str, english: str, source: str = "", **translations: str
    ) -> None:
        head = [f"Package: {name}", f"Source: {source}"] if source else [f"Package: {name}"]
        rest = ["Version: 1", f"Section: {section}", f"Description-md5: {md5(english)}"]
        self.packages.append("\n".join([*head, *rest]))
        for language, value in {"en": english, **translations}.items():
            self.describe(name, language, value, md5(english))

    def describe(self, name: str, language: str, value: str, digest: str) -> None:
        self.descriptions[language].append(
            f"Package: {name}\nDescription-md5: {digest}\nDescription-{language}: {value}"
        )

    def write(self, folder: Path, prefix: str = "") -> DebianLists:
        folder.mkdir(parents=True, exist_ok=True)
        paths = {"Packages": folder / f"{prefix}Packages"}
        paths["Packages"].write_text("\n\n".join(self.packages) + "\n\n")
        for language, stanzas in self.descriptions.items():
            paths[language] = folder / f"{prefix}Translation-{language}"
            paths[language].write_text("\n\n".join(stanzas) + "\n")
        packages = paths.pop("Packages")
        release = {"codename": "testing", "version": "1.0"}
        return DebianLists(release=release, packages=packages, translations=paths)


def small_index() -> Index:
    """Two packages of each source, all translated into German, every second into Portuguese."""
    index = Index()
    for number in range(NUM_SOURCES):
        for kind in ("program", "data"):
            name, section = f"src{number}-{kind}", SECTIONS[number % len(SECTIONS)]
            texts = {
                language: f"{language} summary {name}\n {sentence(number, language)}\n .\n"
                f" {language} {kind} of {WORDS[number % len(WORDS)]}"
                for language in ("en", "de", "pt_BR")
            }
            if number % 2:
                del texts["pt_BR"]
            index.add(name, section, texts.pop("en"), f"src{number} (1.2)", **texts)
    return index


def small_config(**changes: object) -> DebianConfig:
    values: dict[str, object] = {
        "labelled": 40, "unlabelled": 60, "dev": 8, "test_rows": 30,
        "languages": ("de", "pt-BR"), "sections": SECTIONS,
    }  # fmt: skip
    return DebianConfig(**(values | changes))  # type: ignore[arg-type]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def source_of(row: dict[str, str]) -> str:
    return row["id"].rsplit("-", 1)[0]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(small_config(), small_index().write(tmp_path / "lists"), tmp_path / "out")
    return tmp_path / "out"


def test_writes_the_documented_files_and_fields(corpus: Path) -> None:
    assert sorted(path.name for path in corpus.iterdir()) == [
        "dev.jsonl", "labelled.jsonl", "labels.json", "provenance.json",
        "test.de.jsonl", "test.en.jsonl", "test.pt-BR.jsonl", "unlabelled.jsonl",
    ]  # fmt: skip
    assert [len(rows(corpus, f"{name}.jsonl")) for name in ("labelled", "unlabelled", "dev")] == [
        40, 60, 8,
    ]  # fmt: skip
    for name in ("labelled", "dev", "test.en", "test.de", "test.pt-BR"):
        for row in rows(corpus, f"{name}.jsonl"):
            assert list(row) == ["id", "text", "label", "lang"]
            assert row["label"] == SECTIONS[int(source_of(row)[3:]) % len(SECTIONS)]
            assert row["lang"] == (name.split(".")[1] if "." in name else "en")
            assert row["text"].startswith(f"{row['lang'].replace('-', '_')} summary {row['id']}\n")
    assert all(list(row) == ["id", "text", "lang"] for row in rows(corpus, "unlabelled.jsonl"))
    assert json.loads((corpus / "labels.json").read_text())["names"] == list(SECTIONS)


def test_nothing_held_out_is_in_training(corpus: Path) -> None:
    training = rows(corpus, "labelled.jsonl") + rows(corpus, "unlabelled.jsonl")
    assert len({row["id"] for row in training}) == 100
    dev = rows(corpus, "dev.jsonl")
    test = [
        row for tag in ("en", "de", "pt-BR") for row in rows(corpus, f"test.{tag}.jsonl")
    ]  # fmt: skip
    parts = [{source_of(row) for row in part} for part in (training, dev, test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    seen = {normalized(row["text"]) for row in training}
    assert not seen & {normalized(row["text"]) for row in dev + test}


def test_held_out_sets_have_one_row_of_each_source(corpus: Path) -> None:
    for name in ("dev", "test.en", "test.de", "test.pt-BR"):
        sources = [source_of(row) for row in rows(corpus, f"{name}.jsonl")]
        assert len(sources) == len(set(sources))


def test_training_text_that_repeats_a_test_text_or_paragraph_is_left_out(tmp_path: Path) -> None:
    index = small_index()
    plain = write_corpus(small_config(), index.write(tmp_path / "lists"), tmp_path / "plain")
    test = rows(tmp_path / "plain", "test.en.jsonl")[0]
    tail = f" {sentence(int(source_of(test)[3:]), 'en')}"
    for number in range(60):  # of sources in all parts
        index.add(f"alike{number}", "games", f"another summary {number * 'x'}\n{tail}")
        index.add(f"equal{number}", "games", f"Equal text\n in version {number}")
    everything = plain.rows["labelled.jsonl"] + plain.rows["unlabelled.jsonl"]
    summary = write_corpus(
        small_config(labelled=everything, unlabelled=0),
        index.write(tmp_path / "more"),
        tmp_path / "out",
    )
    assert summary.left_out["paragraph shared with held-out text"] > 20
    assert summary.left_out["equal to held-out text"] > 20
    ids = [row["id"] for row in rows(tmp_path / "out", "labelled.jsonl")]
    assert not any(name.startswith(("alike", "equal")) for name in ids)


def test_target_text_is_of_training_rows_under_their_ids(tmp_path: Path, corpus: Path) -> None:
    index = small_index()
    held_out = rows(corpus, "test.de.jsonl")[0]["text"]
    training = rows(corpus, "unlabelled.jsonl")[0]["id"]
    # A translation of a training row that says what a test row says.
    stanzas = [one for one in index.descriptions["de"] if f"Package: {training}\n" not in one]
    (there,) = [one for one in index.descriptions["de"] if f"Package: {training}\n" in one]
    head = there.partition("Description-de: ")[0]
    index.descriptions["de"] = [
        *stanzas,
        f"{head}Description-de: {held_out.replace(chr(10), chr(10) + ' ')}",
    ]
    lists = index.write(tmp_path / "lists")
    out = tmp_path / "target"
    summary = write_corpus(small_config(target_unlabelled=True), lists, out)
    english = {
        row["id"] for name in ("labelled", "unlabelled") for row in rows(out, f"{name}.jsonl")
    }
    for tag in ("de", "pt-BR"):
        found = rows(out, f"unlabelled.{tag}.jsonl")
        assert len(found) > 20
        assert all(list(row) == ["id", "text", "lang"] and row["lang"] == tag for row in found)
        assert {row["id"] for row in found} <= english
        tests = {row["id"] for row in rows(out, f"test.{tag}.jsonl")}
        assert not tests & {row["id"] for row in found}
        assert f"unlabelled.{tag}.jsonl" not in summary.labels
    assert training not in {row["id"] for row in rows(out, "unlabelled.de.jsonl")}
    # All other files are those of a corpus without it.
    for path in corpus.glob("*.jsonl"):
        if path.name != "test.de.jsonl":
            assert (out / path.name).read_bytes() == path.read_bytes()
    config = json.loads((corpus / "provenance.json").read_text())["config"]
    assert "target_unlabelled" not in config


def test_equal_lists_in_another_order_give_equal_bytes(tmp_path: Path, corpus: Path) -> None:
    index = small_index()
    index.packages.reverse()
    for stanzas in index.descriptions.values():
        stanzas.reverse()
    again = tmp_path / "again"
    write_corpus(small_config(), index.write(tmp_path / "reversed"), again)
    for path in corpus.glob("*.jsonl"):
        assert (again / path.name).read_bytes() == path.read_bytes()
    other = tmp_path / "seed2"
    write_corpus(small_config(seed=2), index.write(tmp_path / "reversed"), other)
    assert (other / "labelled.jsonl").read_bytes() != (corpus / "labelled.jsonl").read_bytes()


def test_only_current_translations_of_real_packages_are_used(tmp_path: Path) -> None:
    index = small_index()
    plain = write_corpus(small_config(), index.write(tmp_path / "lists"), tmp_path / "plain")
    assert plain.rows["test.de.jsonl"] == 30
    index.descriptions["de"] = []
    for number in range(NUM_SOURCES):
        english = f"English only {number}\n {sentence(number, 'en')}"
        index.add(f"left{number}", "games", english, f"src{number}", de=english)
        index.add(f"ahead{number}", "mail", f"Transitional package {number}\n to x", de="Leer\n x")
        index.describe(f"src{number}-data", "de", "veraltet\n alter Text", md5("older"))
    with pytest.raises(CorpusError, match=r"20 test rows in de, found 0\."):
        write_corpus(small_config(), index.write(tmp_path / "more"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_texts_are_refused_with_both_numbers(tmp_path: Path) -> None:
    lists = small_index().write(tmp_path / "lists")
    with pytest.raises(CorpusError, match=r"`dev`: expected at most the \d+ .* found 5000\."):
        write_corpus(small_config(dev=5000), lists, tmp_path / "out")
    with pytest.raises(CorpusError, match=r"`labelled` and `unlabelled`: .* \d+ .* found 5060\."):
        write_corpus(small_config(labelled=5000), lists, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"`sections`: .*\(games, mail, sound\), found gaems\."):
        write_corpus(small_config(sections=("games", "gaems")), lists, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": 0}, "`labelled`: expected .* 1, found 0"),
        ({"test_rows": 0}, "`test_rows`: expected .* 1"),
        ({"unlabelled": -1}, "`unlabelled`: expected .* 0"),
        ({"languages": ("de", "de")}, "`languages`: expected each name once, found de repeated"),
        ({"languages": ("de", "en")}, "`languages`: expected languages other than English"),
        ({"languages": ("de fr",)}, "`languages`: expected tags such as de"),
        ({"languages": ()}, "`languages`: expected at least 1"),
        ({"sections": ("games",)}, "`sections`: expected at least 2"),
    ],
)
def test_options_that_cannot_work_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


def test_description_markup_becomes_lines() -> None:
    value = (
        "a  tool\n First line\n second line.\n .\n List:\n  * one\n    and more\n  * two\n"
        " After.\n   verbatim  x\n   verbatim y\n - item\n goes on\n - next"
    )
    assert resolved(value, "en").text.split("\n") == [
        "a tool", "First line second line.", "List:", "* one and more", "* two",
        "After.", "verbatim x", "verbatim y", "- item goes on", "- next",
    ]  # fmt: skip
    assert resolved("x\n 一二\n 三四\n .\n ab\n cd 五", "ja").paragraphs == ("一二三四", "ab cd 五")
    assert resolved("x\n 하나\n 둘", "ko").paragraphs == ("하나 둘",)


def test_normalized_joins_versions_and_case() -> None:
    assert normalized("GCC-12 for\nARM, 1.2.3") == normalized("gcc-9 for arm 4.5")
    assert normalized("gcc for arm") != normalized("gcc for mips")


_VALUES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
_STANZAS = st.lists(
    st.dictionaries(
        st.sampled_from(["Package", "Source", "Other"]),
        st.lists(_VALUES, min_size=1).map("\n ".join),
        min_size=1,
    )
)


@settings(max_examples=60)
@given(stanzas=_STANZAS, blank=st.integers(1, 3))
def test_stanzas_come_back_with_the_wanted_fields(
    tmp_path_factory: pytest.TempPathFactory, stanzas: list[dict[str, str]], blank: int
) -> None:
    path = tmp_path_factory.mktemp("stanzas") / "Packages"
    texts = ["".join(f"{key}: {value}\n" for key, value in s.items()) for s in stanzas]
    path.write_text(("\n" * blank).join(texts))
    wanted = [{key: value for key, value in s.items() if key != "Other"} for s in stanzas]
    assert list(read_stanzas(path, ("Package", "Source"))) == [s for s in wanted if s]


APT = """#!{python}
import os, pathlib, re, sys
conf = pathlib.Path(os.environ["APT_CONFIG"]).read_text()
lists = pathlib.Path(re.search('Dir::State::Lists "(.*)"', conf).group(1))
last = pathlib.Path(re.search('Dir::Etc::Main "(.*)"', conf).group(1))
with open({log!r}, "a") as log:
    print(sys.argv[1], last.read_text().split("Acquire::Languages {{")[1].split("}}")[0], file=log)
if {fail!r} and sys.argv[1] == "update":
    print("Get:1 something")
    sys.exit(print("E: {fail}", "W: harmless", sep="\\n", file=sys.stderr) or 100)
prefix = "mirror_dists_testing_main_"
if sys.argv[1] == "update":
    for path in pathlib.Path({source!r}).iterdir():
        (lists / (prefix + path.name)).write_bytes(path.read_bytes())
    (lists / "mirror_dists_testing_InRelease").write_text(
        "Origin: Debian\\nCodename: testing\\nVersion: 1.0\\nSHA256:\\n"
        " 00 512 main/i18n/Translation-en.xz\\n 00 512 main/i18n/Translation-de.xz\\n"
        " 00 512 main/i18n/Translation-pt_BR.xz\\n 00 32 main/i18n/Translation-ml.xz\\n")
else:
    for path in sorted(lists.glob(prefix + "*")):
        name, _, language = path.name[len(prefix):].partition("-")
        for suite, label in (("testing", "Debian"), ("testing-security", "Debian-Security")):
            print(path, "Debian", label, suite, "main", name.replace("tion", "tions"),
                  language, sep="|")
"""


def play_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str = "") -> Path:
    """Put an `apt-get` on the path that serves the small release; returns its log of calls."""
    small_index().write(tmp_path / "mirror")
    program, log = tmp_path / "bin" / "apt-get", tmp_path / "apt.log"
    program.parent.mkdir(exist_ok=True)
    text = APT.format(
        python=sys.executable, log=str(log), fail=fail, source=str(tmp_path / "mirror")
    )
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def test_prepares_through_apt_once_and_reuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = play_apt(tmp_path, monkeypatch)
    out = tmp_path / "out"
    first = prepare_debian(small_config(), out)
    assert not first.reused and first.release == "testing 1.0"
    calls = log.read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["update", "indextargets"]
    assert calls[0].split(None, 1)[1].strip() == '"en"; "de"; "pt_BR";'

    again = prepare_debian(small_config(languages=("de", "pt_BR")), out)
    assert again.reused and again.rows == first.rows and again.to_json()["labels"] == first.labels
    assert log.read_text().splitlines() == calls
    assert not prepare_debian(small_config(seed=2), out).reused

    labels = (out / "labels.json").read_text()
    (out / "labels.json").write_text('{"names": ["games", "sound", "mail"]}')
    with pytest.raises(LabelMismatchError, match="found label 1 'mail' here and 'sound' there"):
        prepare_debian(small_config(seed=2), out)
    (out / "labels.json").write_text(labels)
    (out / "dev.jsonl").write_text("changed\n")
    with pytest.raises(CorpusError, match=r"dev\.jsonl: expected the content .* found another"):
        prepare_debian(small_config(seed=2), out)


def test_a_folder_of_someone_else_is_never_replaced(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = small_index().write(tmp_path / "lists")
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("mine")
    (corpus / "diary.txt").write_text("mine")
    for folder in (notes, corpus):
        with pytest.raises(ConfigError, match=r"found diary\.txt\. Give another folder"):
            write_corpus(small_config(seed=3), lists, folder)
        assert (folder / "diary.txt").read_text() == "mine"
    monkeypatch.setenv("PATH", "")  # refused before apt is asked
    with pytest.raises(ConfigError, match=r"found diary\.txt\. Give another folder"):
        prepare_debian(small_config(), notes)
    with pytest.raises(ConfigError, match=r": .*file"):
        prepare_debian(small_config(), notes / "diary.txt")


def test_without_apt_the_error_says_what_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match=r"found none\. Pass .*demo --data DIR.*labelled\.jsonl"):
        prepare_debian(small_config(), tmp_path / "out")


def test_a_failing_apt_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_apt(tmp_path, monkeypatch, fail="no route to the mirror")
    with pytest.raises(CorpusError, match=r"'E: no route to the mirror'.*--data DIR"):
        prepare_debian(small_config(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_languages_that_debian_lacks_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_apt(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"Debian testing \(de, pt-BR\), found xx, ml\."):
        prepare_debian(small_config(languages=("xx", "de", "ml")), tmp_path / "out")
