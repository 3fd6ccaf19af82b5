"""The demo's report, on numbers like those of a real run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monox_kit.demo.config import DemoConfig
from monox_kit.demo.race import RaceResult
from monox_kit.demo.result import DemoReport
from monox_kit.door import STAGES
from monox_kit.evaluation import EvalReport, LanguageResult
from monox_kit.exporting.candidates import Candidate
from monox_kit.exporting.run import ExportSummary
from monox_kit.foreign import markdown_text
from monox_kit.labelling import LabelSummary
from monox_kit.models.agreement import Agreement
from monox_kit.report import accuracy_rows, fact_rows, write_report
from monox_kit.report.plots import draw_figures, draw_plots
from monox_kit.report.provenance import command_line
from monox_kit.tasks.folder import TaskSummary
from monox_kit.training.summary import TrainingSummary

TARGETS = ("da", "de", "es", "fr", "it", "ja", "ko", "pl", "pt-BR", "ru", "sk", "uk")
# `ce` in percent; the other systems lie above or below by language.
CE = dict(zip(TARGETS, (62, 66.5, 65, 64, 61.5, 57, 55.5, 60, 63.5, 59, 58, 56.5), strict=True))
CE["en"] = 71.5
HOSTILE = '<script>alert("x & y")</script> | `[a](b)` $x$\n# heading'


def language(accuracy: float, num_rows: int = 200) -> LanguageResult:
    half = 1.96 * (accuracy * (1 - accuracy) / num_rows) ** 0.5
    interval = (accuracy - half, min(1.0, accuracy + half))
    return LanguageResult(num_rows, accuracy, interval, accuracy - 0.03, interval)


def evaluation(gain: float, average_half: float = 0.019, step: float = 0.0) -> EvalReport:
    """`ce` plus `gain` points, and `step` more or less in turn from language to language."""
    found = {
        tag: language((CE[tag] + gain + step * (-1) ** position) / 100)
        for position, tag in enumerate(("en", *TARGETS))
    }
    average = sum(found[tag].accuracy for tag in TARGETS) / len(TARGETS)
    interval = (average - average_half, average + average_half)
    return EvalReport("runs/demo/x", "en", found, average, interval)


def training(method: str, dev: float, steps: int, counts: dict[str, int]) -> TrainingSummary:
    half = steps // 2
    return TrainingSummary(
        path=Path("runs/demo") / method,
        method=method,
        counts=counts,
        num_steps=steps,
        dev_accuracy=dev,
        dev_loss=1.01,
        best_step=steps,
        history=[
            {"step": float(half), "accuracy": dev - 0.07, "loss": 1.2},
            {"step": float(steps), "accuracy": dev, "loss": 1.01},
        ],
        precision="bf16",
        trained_s=98.4,
        reused=False,
        stopped_early=False,
        selected_on=["dev"],
        dev_sets={"dev": {"accuracy": dev, "loss": 1.01, "rows": 400.0}},
    )


def race(rows: int, tokens: float, torch: float, onnx: tuple[str, float]) -> dict[str, Any]:
    rows_per_s = {"torch fp32": torch, f"onnx {onnx[0]}": onnx[1]}
    tokens_per_s = {name: rate * tokens for name, rate in rows_per_s.items()}
    return RaceResult(rows, int(rows * tokens), rows_per_s, tokens_per_s).to_json()


def candidate(
    precision: str, found: Agreement, size: int, rate: float, rejected: str | None = None
) -> Candidate:
    return Candidate(
        precision=precision,
        graph="opset23",
        provider="cpu",
        agreement=found,
        model_bytes=size,
        tokens_per_s=rate,
        rejected=rejected,
    )


def export(precision: str, candidates: dict[str, Candidate]) -> dict[str, Any]:
    values = {name: asdict(candidate) for name, candidate in candidates.items()}
    path = Path("runs/demo/x-onnx")
    return ExportSummary(path, precision, precision, 23, "cpu", values).to_json()


def build(**changes: Any) -> DemoReport:
    """A report of a demo run on Debian's texts, with `changes`."""
    same = Agreement(200, 1.0, 3e-6, 9.1, 1e-11)
    close = Agreement(200, 0.985, 0.31, 9.1, 2.1e-3)
    tests = {f"test.{tag}.jsonl": 200 for tag in ("en", *TARGETS)}
    files = {"labelled.jsonl": 1000, "unlabelled.jsonl": 4000, "dev.jsonl": 300, **tests}
    english = EvalReport("runs/demo/teacher", "en", {"en": language(0.75)}, None, None)
    systems = {
        "teacher": english,
        "ce": evaluation(0),
        "pl": evaluation(1.2, step=2),
        "kd": evaluation(4.5, step=1),
        "exported": evaluation(4.1, step=1),
    }
    students = {
        "ce": training("ce", 0.72, 150, {"gold_rows": 1000}),
        "pl": training(
            "pl",
            0.736,
            150,
            {"gold_rows": 1000, "pseudo_labelled_rows": 4000, "store_rows_with_gold_text": 999},
        ),
        "kd": training("kd", 0.75, 150, {"soft_rows": 5000}),
    }
    values: dict[str, Any] = {
        "out": "runs/demo",
        "settings": asdict(DemoConfig()) | {"data": "debian"},
        "corpus": TaskSummary(
            folder="runs/demo/data",
            reused=False,
            release="bookworm 12.11",
            rows=files,
            labels={name: {"games": 40, "science": 160} for name in tests},
            left_out={"transitional": 512, "untranslated": 31},
        ).to_json(),
        "evaluations": {name: each.to_json() for name, each in systems.items()},
        "training": {
            "teacher": training("ce", 0.77, 250, {"gold_rows": 1000}).to_json(),
            **{name: each.to_json() for name, each in students.items()},
        },
        "labelling": LabelSummary(
            store=Path("runs/demo/store"),
            num_rows=5000,
            num_rows_done=5000,
            num_shards=5,
            num_resumed_rows=0,
            labelled_s=14.2,
            rows_per_s=352.11,
            tokens_per_s=16901.3,
            padding_fraction=0.0412,
            num_repeated_rows=12,
            num_recomputed_rows=0,
            provider="cpu",
            complete=True,
            store_digest="d" * 64,
        ).to_json(),
        "best": "kd",
        "exports": {
            "teacher": export("fp32", {"fp32": candidate("fp32", same, 91_000_000, 900.0)}),
            "student": export(
                "int8",
                {
                    "fp32": candidate("fp32", same, 471_000_000, 220.0, "slower than int8 here"),
                    "int8": candidate("int8", close, 118_500_000, 900.0),
                },
            ),
        },
        "agreement": Agreement(650, 0.978, 0.4234, 9.1, 2.9e-3).to_json(),
        "labelling_race": race(256, 48, 210.0, ("fp32", 320.0)),
        "inference_races": {
            tag: race(32, 40 + position, 150 - 4 * position, ("int8", 360 - 11 * position))
            for position, tag in enumerate((*TARGETS, "en"))
        },
        "sizes_bytes": {
            "teacher": 90_888_945,
            "teacher, ONNX": 91_356_567,
            "student (kd)": 471_234_567,
            "student (kd), ONNX": 118_543_210,
        },
        "stage_s": {"data": 21.5, "train-teacher": 130.0, "label": 15.25, "train-student-ce": 99.0},
        "environment": {
            "hardware": {
                "cpu_model": "A processor of 2 cores",
                "cpu_features": ["avx2", "avx512f"],
                "num_cores": 2.0,
                "memory_bytes": 8 * 2**30,
            },
            "python": "3.11.2",
            "monoxkit": "0.1.0",
            "torch": "2.10.0",
        },
    }
    values |= changes
    if "differences" not in changes:
        values["differences"] = differences(values["evaluations"])
    return DemoReport(**json.loads(json.dumps(values)))


def differences(evaluations: dict[str, Any]) -> dict[str, Any]:
    """Each system's average less that of `ce`, 1.3 points in either direction."""
    baseline = evaluations["ce"]["target_average"]
    if baseline is None:
        return {}
    found = {}
    for name in ("pl", "kd", "exported"):
        value = evaluations[name]["target_average"] - baseline
        found[name] = {"value": value, "interval": [value - 0.013, value + 0.013]}
    return found


@pytest.fixture(scope="module")
def report() -> DemoReport:
    return build()


class Page(HTMLParser):
    """Reads a page strictly enough to notice what breaks it."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def written(report: DemoReport, out: Path) -> tuple[str, str, Any]:
    markdown, page, values = write_report(report, out)
    assert [markdown, page, values] == [out / f"report.{end}" for end in ("md", "html", "json")]
    return (
        markdown.read_text("utf-8"),
        page.read_text("utf-8"),
        json.loads(values.read_text("utf-8")),
    )


@pytest.fixture(scope="module")
def files(report: DemoReport, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Any]:
    """The contents of report.md, report.html and report.json."""
    return written(report, tmp_path_factory.mktemp("report"))


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Cells by row and table, by the rules of GitHub's tables."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("| "):
            if not before.startswith("| "):
                tables.append([])
            cells = re.split(r"(?<!\\)\|", line)
            assert cells[0] == cells[-1] == ""
            tables[-1].append([cell.strip() for cell in cells[1:-1]])
        before = line
    return tables


def test_accuracy_by_language_and_system(report: DemoReport) -> None:
    header, *rows = accuracy_rows(report.scores)
    assert header == ["language", "rows", "teacher", "ce", "pl", "kd", "kd int8"]
    assert [row[0] for row in rows[:13]] == ["en", *TARGETS]
    assert rows[0][:4] == ["en", "200", "75.0 [69.0, 81.0]", "71.5 [65.2, 77.8]"]
    german = rows[2]
    assert german[0] == "de" and german[2] == "-"
    assert german[3].startswith("66.5 [") and german[4].startswith("69.7 [")
    assert {len(row) for row in rows} == {7}


def test_average_and_difference_to_ce(report: DemoReport) -> None:
    average, difference, above = accuracy_rows(report.scores)[-3:]
    assert average == [
        "target average", "2,400", "-", "60.7 [58.8, 62.6]", "61.9 [60.0, 63.8]",
        "65.2 [63.3, 67.1]", "64.8 [62.9, 66.7]",
    ]  # fmt: skip
    assert difference == [
        "minus ce",
        "-",
        "-",
        "-",
        "+1.2 [-0.1, +2.5]",
        "+4.5 [+3.2, +5.8]",
        "+4.1 [+2.8, +5.4]",
    ]
    assert above == ["languages above ce", "-", "-", "-", "6 of 12", "12 of 12", "12 of 12"]


def test_a_loss_reads_as_one() -> None:
    evaluations = {**build().evaluations, "kd": evaluation(-6).to_json()}
    worse = build(evaluations=evaluations)
    assert accuracy_rows(worse.scores)[-2][5] == "-6.0 [-7.3, -4.7]"
    fact = dict(fact_rows(worse))["kd against ce"]
    assert fact.startswith(
        "-6.0 [-7.3, -4.7] points on the target average (54.7 % instead of 60.7 %)"
    )
    assert "above it in 0 and below it in 12 of 12 languages" in fact


def test_no_difference_has_no_minus_sign() -> None:
    a_rounding_less = replace(evaluation(0), target_average=evaluation(0).target_average - 1e-9)
    evaluations = {**build().evaluations, "kd": a_rounding_less.to_json()}
    assert accuracy_rows(build(evaluations=evaluations).scores)[-2][5] == "+0.0 [-1.3, +1.3]"


@pytest.mark.parametrize(
    ("low", "high", "noise"), [(0.0, 0.05, True), (0.001, 0.05, False), (-0.05, -0.001, False)]
)
def test_a_difference_whose_interval_holds_0_may_be_noise(
    low: float, high: float, noise: bool
) -> None:
    kd = {"value": (low + high) / 2, "interval": [low, high]}
    changed = build(differences={**build().differences, "kd": kd})
    assert ("may be noise" in dict(fact_rows(changed))["kd against ce"]) == noise


def test_english_alone_has_no_average() -> None:
    english = EvalReport("m", "en", {"en": language(0.7)}, None, None).to_json()
    names = ("teacher", "ce", "pl", "kd", "exported")
    alone = build(
        evaluations=dict.fromkeys(names, english),
        inference_races={"en": build().inference_races["en"]},
    )
    assert [row[0] for row in accuracy_rows(alone.scores)] == ["language", "en"]
    assert "kd against ce" not in dict(fact_rows(alone))
    assert draw_plots(alone).keys() == {"languages", "inference", "training"}


def test_facts(report: DemoReport) -> None:
    facts = dict(fact_rows(report))
    assert {len(row) for row in fact_rows(report)} == {2}
    assert facts["text"] == (
        "1,000 labelled and 4,000 unlabelled rows, 300 for dev; tests of 200 rows in en and "
        "of 200 rows in each of 12 target languages"
    )
    assert facts["pl against ce"].endswith(
        "the interval holds 0, so this may be noise of the test rows"
    )
    assert facts["labelling"] == "5,000 rows, 352 rows per second, 4.1 % of the tokens padding"
    assert facts["labelling, side by side"] == (
        "torch fp32 210 rows per second, onnx fp32 320 rows per second: 1.52 times as fast, "
        "on 256 texts"
    )
    assert facts["exported student"] == (
        "kd in int8, without the tokens that no text here uses; kd ranks first on the English dev "
        "text (accuracy, then loss): ce 72.0 %, pl 73.6 %, kd 75.0 %; fp32 not kept: slower than "
        "int8 here"
    )
    assert facts["exported against PyTorch"] == (
        "same label on 97.8 % of 650 test texts, largest logit difference 0.42, mean KL 0.0029 nats"
    )
    # Median languages: 150 - 4 * 6 = 126 and 360 - 11 * 6 = 294 rows per second.
    assert facts["inference"].startswith(
        "torch fp32 7.94 ms per row, onnx int8 3.40 ms (medians over 13 languages): "
        "2.33 times as fast, 2.24 to 2.40 by language"
    )
    assert "student (kd), ONNX 118.5 MB" in facts["weights on disk"]
    assert facts["training"] == "teacher 1 min 38 s, ce 1 min 38 s, pl 1 min 38 s, kd 1 min 38 s"
    assert facts["all stages"] == "4 min 26 s in 4 stages"
    assert facts["hardware"] == ("A processor of 2 cores, 2 cores, 8.0 GiB of memory, avx2 avx512f")


def test_what_an_earlier_run_did_is_not_timed(report: DemoReport) -> None:
    nothing_left = {
        **report.labelling,
        "rows_per_s": None,
        "tokens_per_s": None,
        "padding_fraction": None,
        "num_resumed_rows": 5000,
    }
    reused = {**report.training["kd"], "trained_s": 0.0, "reused": True}
    again = build(labelling=nothing_left, training={**report.training, "kd": reused})
    facts = dict(fact_rows(again))
    assert facts["labelling"] == "5,000 rows, all labelled by an earlier run: not timed"
    assert facts["training"].endswith("kd by an earlier run, not timed")
    resumed = build(labelling={**report.labelling, "num_resumed_rows": 2048})
    assert "(2,048 of them by an earlier run, not timed)" in dict(fact_rows(resumed))["labelling"]


def test_markdown_tables_are_well_formed(report: DemoReport, files: tuple[str, str, Any]) -> None:
    text, _, _ = files
    tables = markdown_tables(text)
    accuracy = next(table for table in tables if table[0][0] == "language")
    header, rule, *rows = accuracy
    assert [header, *rows] == accuracy_rows(report.scores)
    assert rule[0].strip("-") == "" and all(re.fullmatch("-+:", cell) for cell in rule[1:])
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
        assert all(re.fullmatch("-{2,}[-:]", cell) for cell in table[1])
    facts = next(table for table in tables if table[0] == ["what", "measured"])
    assert facts[2:] == fact_rows(report)


def test_both_pages_say_what_a_reader_needs(
    report: DemoReport, files: tuple[str, str, Any]
) -> None:
    text, html, _ = files
    shown = " ".join(Page(html).text.split())
    for page in (" ".join(text.split()), shown):
        assert "Debian's package descriptions (bookworm 12.11)" in page
        assert "soft targets at temperature 0.1" in page
        assert "confidence is at least 0, which is all of them." in page
        assert "every model was trained once" in page
        assert "always giving the label that is most frequent" in page
        assert "would score 80.0 %." in page
        assert "Trained on 1,000 gold-labelled rows and 4,000 pseudo-labelled rows." in page
        assert "999" not in page
        assert "pl is Polish" in page
        assert "512 transitional, 31 untranslated" in page
        assert "train-teacher" in page and "2.10.0" in page


def test_own_texts_are_not_taken_for_debians(tmp_path: Path) -> None:
    report = build(
        corpus={"folder": "my texts", "rows": build().corpus["rows"]},
        settings={**build().settings, "data": "my texts"},
    )
    text, html, _ = written(report, tmp_path)
    assert "Debian" not in text and "Debian" not in html
    assert "The texts and labels are those of my texts." in text


def test_the_command_gives_the_settings(report: DemoReport) -> None:
    words = shlex.split(command_line(report).replace("\\\n", " "))
    assert words[:4] == ["monoxkit", "demo", "--out", "runs/demo"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--teacher-learning-rate"] == "0.0001"
    assert options["--temperature"] == "0.1"
    assert "--data" not in options and options["--languages"].startswith("da,de,es")
    some = build(settings={**report.settings, "languages": ["de", "pt-BR"]})
    assert "--languages de,pt-BR" in command_line(some)
    own = build(
        corpus={"folder": "a b", "rows": report.corpus["rows"]},
        settings={**report.settings, "data": "a b"},
    )
    assert "--data 'a b'" in command_line(own) and "--labelled" not in command_line(own)


def test_every_setting_is_an_option_of_the_command(report: DemoReport) -> None:
    offered = {one.name for one in STAGES["demo"].parameters()}
    assert report.settings.keys() <= offered


def test_page_parses_and_holds_the_tables(report: DemoReport, files: tuple[str, str, Any]) -> None:
    _, html, values = files
    page = Page(html)
    for row in [*accuracy_rows(report.scores), *fact_rows(report)]:
        assert set(row) <= set(page.cells)
    images = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(images) == 4
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in images)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [found.removeprefix("#") for found in page.values("href")]
    targets += re.findall(r"url\(#([^)]*)\)", html)
    assert targets and set(targets) <= set(ids)
    assert values == json.loads(json.dumps(report.to_json()))


def test_page_loads_nothing(report: DemoReport, files: tuple[str, str, Any]) -> None:
    _, html, _ = files
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "image", "base"}
    assert page.values("src") == []
    assert all(reference.startswith("#") for reference in page.values("href"))
    assert not re.search(r"https?:|//|@import|xmlns", html)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_plots_are_whole(report: DemoReport) -> None:
    for name, svg in draw_plots(report).items():
        root = ElementTree.fromstring(svg)  # no name space is left to declare
        ids = {each.get("id") for each in root.iter() if each.get("id")}
        assert ids and all(str(each).startswith(f"{name}-") for each in ids)
        assert not any(each.tag in {"metadata", "style", "script"} for each in root.iter())


def test_hostile_values_stay_text(tmp_path: Path) -> None:
    plain = build()
    settings = {**plain.settings, "teacher_model": HOSTILE, "student_model": HOSTILE}
    evaluations = json.loads(json.dumps(plain.evaluations).replace('"de":', '"<b>$\\\\frac$":'))
    races = json.loads(json.dumps(plain.inference_races).replace('"de":', '"<b>$\\\\frac$":'))
    environment = {**plain.environment, "<script>": HOSTILE}
    report = build(
        settings=settings, evaluations=evaluations, inference_races=races, environment=environment
    )
    text, html, _ = written(report, tmp_path)
    page = Page(html)
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert HOSTILE in page.cells and "<script>" in page.cells and "<b>$\\frac$" in page.cells
    assert "&lt;script&gt;alert(&quot;x &amp; y&quot;)" in html
    assert not re.search(r"(?<!\\)<", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))
    assert "](" not in re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    # A newline in a value starts no heading, and neither does one in the indented command.
    assert [line for line in text.splitlines() if line.startswith("# ")] == text.splitlines()[:1]
    for table in markdown_tables(text):
        assert {len(row) for row in table} == {len(table[0])}


def test_markdown_escapes() -> None:
    assert markdown_text("a|b <i>\n*c* `d` [e](f) & \\") == (
        "a\\|b \\<i\\> \\*c\\* \\`d\\` [e]\\(f) &amp; \\\\"
    )


def test_equal_reports_equal_bytes(
    report: DemoReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [path.read_bytes() for path in write_report(report, tmp_path / "a")]
    import matplotlib

    # The user's own matplotlib settings change nothing.
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.grid", True)
    second = [path.read_bytes() for path in write_report(build(), tmp_path / "b")]
    assert first == second
    assert matplotlib.rcParams["font.size"] == 20.0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_many_languages_and_long_names_fit() -> None:
    names = [f"{number:02}-a-very-long-language-name" for number in range(40)]
    found = {"en": language(0.7), **{name: language(0.99) for name in names}}
    each = EvalReport("m", "en", found, 0.99, (0.985, 0.995)).to_json()
    plain = build()
    races = dict.fromkeys(found, plain.inference_races["en"])
    systems = {**dict.fromkeys(("ce", "pl", "kd", "exported"), each)}
    systems["teacher"] = plain.evaluations["teacher"]
    for figure in draw_figures(build(evaluations=systems, inference_races=races)).values():
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        box = figure.get_tightbbox()
        assert box.x0 >= 0 and box.x1 * figure.dpi <= width
        assert box.y0 >= 0 and box.y1 * figure.dpi <= height


def test_importing_the_report_stays_light() -> None:
    code = (
        "import sys, monox_kit.report\n"
        "heavy = {'torch', 'onnxruntime', 'transformers', 'matplotlib', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
