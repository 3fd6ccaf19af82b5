"""The paper's tables and figures, and a recipe's report, from runs with made-up results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monox_kit.advice.observed import observations, observed
from monox_kit.door import STAGES
from monox_kit.errors import ConfigError
from monox_kit.evaluation.statistics import over_seeds, seeds_half_width
from monox_kit.paper.config import ReproduceConfig
from monox_kit.paper.reproduce import reproduce_item
from monox_kit.recipes.finished import kept_recipe, read_run
from monox_kit.recipes.page import write_page
from monox_kit.recipes.plan import Step, make_plan
from monox_kit.recipes.recipe import Recipe, RunConfig, load_recipe
from monox_kit.recipes.results import read_results
from monox_kit.recipes.run import RunReport
from monox_kit.recipes.source import shipped
from monox_kit.recipes.systems import scores_of
from monox_kit.report.blocks import Table
from monox_kit.report.latex import latex
from monox_kit.report.scores import Estimate
from monoxkit_cli.app import main
from tests import run_samples

METHODS = {"ce": 0.60, "self-training": 0.605, "pl": 0.62, "kd": 0.64}
THREE = ("seed=[1,2,3]",)


def skill(step: Step) -> float:
    """The method's, a little more with a later seed; the teacher is 8 points above `ce`."""
    method = step.given.get("method")
    return 0.68 if method is None else METHODS[method] + 0.001 * step.given["seed"]


def made(run: Path, item: str, out: Path, **more: Any) -> Any:
    config = ReproduceConfig(item=item, run=(run,), finished=True, out=out, **more)
    return reproduce_item(config, STAGES)


def column(rows: Any, name: str) -> dict[str, str]:
    place = rows[0].index(name)
    return {row[0]: row[place] for row in rows[1:]}


def test_the_four_systems_by_language_with_recovery_and_the_papers_numbers(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "four_systems", skill, changes=THREE)
    found = made(run, "table2", tmp_path / "out")
    assert found.rows[0] == [
        "language", "ce (MBERT)", "self-training (MBERT-ST)", "pl (MONOX-PL)", "kd (MONOX-KD)",
    ]  # fmt: skip
    kd = column(found.rows, "kd (MONOX-KD)")
    assert kd["de"].startswith("64.2 [") and kd["en"].startswith("66.2 [")
    assert kd["average"] == "64.9"  # of en, de and fr
    assert kd["minus ce"] == "+4.0 [+3.0, +5.0]"  # seeds do not differ in it
    # The teacher leads by 68.0 - 60.2 points in English, of which 4.0 are recovered.
    assert kd["recovered"] == kd["arrived"] == "51 %"
    assert kd["the paper's average, CLS"] == "85.05"
    assert not found.missing
    assert "kd (MONOX-KD) above ce (MBERT): +4.0 [+3.0, +5.0] points; it holds." in found.said
    assert {Path(path).name for path in found.files} == {
        f"table2.{end}" for end in ("md", "html", "json", "tex", "svg", "png")
    }
    values = json.loads((tmp_path / "out" / "table2.json").read_text())
    kd_values = values["tasks"][0]["systems"]["kd"]
    assert kd_values["difference"]["value"] == pytest.approx(4.0)
    assert kd_values["seeds"] == ["1", "2", "3"]
    tex = (tmp_path / "out" / "table2.tex").read_text()
    assert r"51 \%" in tex and tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 3
    page = (tmp_path / "out" / "table2.md").read_text()
    assert "+51 [" in page.partition("percent of the teacher's lead")[2]
    assert "![" in (tmp_path / "out" / "table2.md").read_text()
    ElementTree.fromstring((tmp_path / "out" / "table2.svg").read_bytes())
    assert (tmp_path / "out" / "table2.png").read_bytes().startswith(b"\x89PNG")


def test_several_rates_are_chosen_on_dev_alone(tmp_path: Path) -> None:
    def by_rate(step: Step) -> float:
        # 2e-4 is best for ce, 4e-4 for the others.
        method, rate = step.given.get("method"), step.given.get("learning_rate")
        worse = method is not None and (rate == 2e-4) == (method != "ce")
        return skill(step) - 0.05 * worse

    changes = (*THREE, "rate=[2e-4,4e-4]")
    run = run_samples.finished(tmp_path / "run", "four_systems", by_rate, changes=changes)
    found = made(run, "table2", tmp_path / "out")
    kd = column(found.rows, "kd (MONOX-KD)")
    assert kd["de"].startswith("64.2 [") and column(found.rows, "ce (MBERT)")["de"][:4] == "60.2"
    # No comparison of the two chosen ones was run: the interval is wider than a paired one.
    value, low, high = map(float, re.findall(r"[-+][\d.]+", kd["minus ce"]))
    assert value == pytest.approx(4.0) and high - low > 2.5
    assert any(
        text.startswith("of ce rate0.0002, ce rate0.0004, ce rate0.0002 did") for text in found.said
    )
    page = (tmp_path / "out" / "table2.md").read_text()
    assert "paired by seed;" in page and "(not paired by document)" in page


def test_a_teacher_behind_has_nothing_to_recover(tmp_path: Path) -> None:
    run = run_samples.finished(
        tmp_path / "run", "four_systems", lambda step: skill(step) - 0.1 * (step.table == "teacher")
    )
    rows = made(run, "table2", tmp_path / "out").rows
    assert "recovered" not in column(rows, "kd (MONOX-KD)")
    assert "teacher's lead in" not in (tmp_path / "out" / "table2.md").read_text()


def test_several_domains_are_averaged(tmp_path: Path) -> None:
    changes = ("source=/tmp", 'domain=["books","music"]')
    run = run_samples.finished(tmp_path / "run", "cls", skill, changes=changes)
    found = made(run, "table2", tmp_path / "out")
    kd = column(found.rows, "kd (MONOX-KD)")
    assert kd["books de"] == kd["music de"] and kd["books de"].startswith("64.1 [")
    low, high = map(float, re.findall(r"[+][\d.]+", kd["minus ce"])[1:])
    assert high - low == pytest.approx(2 / 2**0.5, abs=0.11)  # two tasks of +-1.0 each


def test_a_method_that_a_domain_lacks_recovers_nothing_over_all(tmp_path: Path) -> None:
    changes = ("source=/tmp", 'domain=["books","music"]')
    run = run_samples.finished(
        tmp_path / "run",
        "cls",
        skill,
        changes=changes,
        missing=("student-music-pl", "scores-music-pl"),
    )
    found = made(run, "table2", tmp_path / "out")
    pl, kd = (column(found.rows, name) for name in ("pl (MONOX-PL)", "kd (MONOX-KD)"))
    assert pl["books de"] != "-" == pl["music de"]
    assert pl["average"] == pl["target average"] == "-" != kd["average"]
    assert pl["recovered"] == pl["arrived"] == "-" != kd["recovered"]


def test_what_is_missing_is_named_and_the_rest_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_samples.finished(
        tmp_path / "run", "figure2", skill, missing=("size10-kd-seed2", "size4000"),
        rows=lambda step: int(step.options.get("size", "size0").removeprefix("size")),
    )  # fmt: skip
    line = ["reproduce", "figure2", "--finished", "--run", str(run), "--json"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "student-size10-kd-seed2" in found["missing"]
    assert "2 to 3 seeds" in found["said"][-1]
    assert "store-size4000" in found["missing"] and "data-size10" not in found["missing"]
    assert "student-size10-kd-seed2" in (tmp_path / "out" / "figure2.md").read_text()
    empty = run_samples.finished(
        tmp_path / "empty", "figure2", skill, missing=("student", "scores")
    )
    assert main([*line[:4], str(empty), "--json"]) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "student-size10-ce-seed1" in message and "--run" in message
    assert main([*line[:4], str(tmp_path / "no"), "--json"]) == 2
    assert "recipe.json" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_figure_2_is_by_the_rows_that_the_teacher_learned_from(tmp_path: Path) -> None:
    def by_size(step: Step) -> float:
        size = int(step.options["size"].removeprefix("size"))
        gain = {10: 0.0, 100: 0.06, 1000: 0.03, 4000: 0.02}[size]
        return (
            skill(step)
            - 0.04 * (step.given.get("method") == "kd")
            + (gain if step.given.get("method") == "kd" else 0)
        )

    run = run_samples.finished(
        tmp_path / "run", "figure2", by_size,
        rows=lambda step: int(step.options.get("size", "size0").removeprefix("size")),
    )  # fmt: skip
    found = made(run, "figure2", tmp_path / "out")
    kd = column(found.rows, "kd (MONOX-KD)")
    assert list(kd) == ["10", "100", "1,000", "4,000"]
    assert kd["100"] == "66.2 (66.1 to 66.3)"
    points = found.values["curves"]["kd"]
    assert [point["x"] for point in points] == [10, 100, 1000, 4000]
    assert points[1]["seeds"] == pytest.approx([66.1, 66.2, 66.3])
    said = next(text for text in found.said if text.startswith("kd"))
    assert "gains most with 100 labelled rows: +6.0" in said
    assert "shown with 100, 1,000, 4,000." in said


def test_figure_3_takes_the_baseline_of_another_run(tmp_path: Path) -> None:
    def by_temperature(step: Step) -> float:
        return skill(step) - 0.01 * (step.given.get("temperature") == 10.0)

    run = run_samples.finished(tmp_path / "a", "figure3", by_temperature)
    found = made(run, "figure3", tmp_path / "out")
    dev = column(found.rows, "dev")
    assert dev["0.1"] == "65.2 (65.1 to 65.3)" and dev["10"] == "64.2 (64.1 to 64.3)"
    assert dev["ce (MBERT)"] == "61.2 (61.1 to 61.3)"
    assert "at 6 of 6 temperatures" in found.said[1]
    alone = run_samples.finished(tmp_path / "b", "figure3", skill, missing=("baseline",))
    assert made(alone, "figure3", tmp_path / "out").values["baseline"] is None
    other = run_samples.finished(tmp_path / "c", "debian", skill, changes=THREE)
    config = ReproduceConfig(
        item="figure3", run=(alone, other), finished=True, out=tmp_path / "both"
    )
    assert reproduce_item(config, STAGES).values["baseline"]["value"] == pytest.approx(61.2)
    fewer = run_samples.finished(tmp_path / "d", "debian", skill, rows=lambda step: 10)
    config = ReproduceConfig(
        item="figure3", run=(alone, fewer), finished=True, out=tmp_path / "both"
    )
    assert reproduce_item(config, STAGES).values["baseline"] is None  # of other labels


def test_table_1_is_of_encoders_in_english(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "table1", lambda step: 0.7)
    found = made(run, "table1", tmp_path / "out")
    assert [row[0] for row in found.rows[1:]] == [
        "english_minilm: packaged:minilm-l6", "multilingual_e5: packaged:e5-small",
    ]  # fmt: skip
    assert column(found.rows, "en")["multilingual_e5: packaged:e5-small"] == "72.0 [69.0, 75.0]"
    assert "95.77" in (tmp_path / "out" / "table1.md").read_text()


def test_a_run_that_was_moved_or_made_by_plain_commands_is_read(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "four_systems", skill)
    before = made(run, "table2", tmp_path / "out")
    first = {Path(path).name: Path(path).read_bytes() for path in before.files}
    shutil.move(run, tmp_path / "moved")
    after = made(tmp_path / "moved", "table2", tmp_path / "out")
    assert after.rows == before.rows
    again = {Path(path).name: Path(path).read_bytes() for path in after.files}
    assert again == first  # equal runs, equal bytes
    # What the lines of --print-commands leave: results alone, and models.
    plain = tmp_path / "plain"
    for record in (tmp_path / "moved" / "steps").glob("*.json"):
        if record.name.startswith(("scores", "gain", "teacher-scores")):
            result = json.loads(record.read_text())["result"]
            run_samples.write(plain / "results" / record.name, result)
    by_name = ReproduceConfig(
        item="table2", recipe="four_systems", run=(plain,), finished=True, out=tmp_path / "out"
    )
    found = reproduce_item(by_name, STAGES)
    assert column(found.rows, "kd (MONOX-KD)")["de"] == column(before.rows, "kd (MONOX-KD)")["de"]
    assert "student-kd-rate0.0004-seed1" in found.missing


def test_records_of_other_settings_do_not_count(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "four_systems", skill)
    other = kept_recipe(run)
    changed = load_recipe(RunConfig(recipe="four_systems", set=("steps=3",)))
    states = {step.name: step.state for step in read_run(changed, run, STAGES).steps}
    assert states["student-kd-rate0.0004-seed1"] == "to do" and states["store"] == "finished"
    assert all(step.state == "finished" for step in read_run(other, run, STAGES).steps)


def report_of(run: Path) -> RunReport:
    return read_run(kept_recipe(run), run, STAGES)


def test_a_recipes_report_says_whether_distilling_helped(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "debian", skill, changes=THREE)
    markdown, page, values = write_page(report_of(run), kept_recipe(run), tmp_path / "out")
    text, html = markdown.read_text(), page.read_text()
    assert "kd helped: it is +4.0" in text
    assert "better in de, fr" in text and "a lead of +7.8" in text
    assert html.count("<svg") == 3 and not re.search(r"https?:|<script|xmlns", html)
    found = json.loads(values.read_text())
    assert found["scores"][0]["systems"]["kd"]["seeds"] == ["1", "2", "3"]
    assert len(found["steps"]) == len(report_of(run).steps)
    worse = run_samples.finished(
        tmp_path / "worse", "debian", lambda s: skill(s) - 0.1 * (s.given.get("method") == "kd")
    )
    text = write_page(report_of(worse), kept_recipe(worse), tmp_path / "out")[0].read_text()
    assert "kd did harm: it is -6.0" in text and "worse in de, fr" in text
    same = run_samples.finished(
        tmp_path / "same", "debian", lambda s: 0.6 + 0.005 * (s.given.get("method") == "kd")
    )
    text = write_page(report_of(same), kept_recipe(same), tmp_path / "out")[0].read_text()
    assert "It is not shown that kd helped" in text


def test_a_recipe_without_models_has_a_report_without_plots(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[stages.data]\ncommand = "data debian"\n')
    run = run_samples.finished(tmp_path / "run", str(path), skill)
    page = write_page(report_of(run), kept_recipe(run), tmp_path)[1].read_text()
    assert "<svg" not in page and "1 steps took" in page


def test_seeds_and_documents_are_two_sources_of_noise() -> None:
    # Student's t for 2 and 9 degrees of freedom is 4.3027 and 2.2622.
    assert seeds_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    ten = [float(n) for n in range(10)]
    deviation = (sum((n - 4.5) ** 2 for n in ten) / 9) ** 0.5
    assert seeds_half_width(ten) == pytest.approx(2.262157 * deviation / 10**0.5, rel=1e-6)
    assert seeds_half_width([5.0]) == 0.0
    value, (low, high) = over_seeds([1.0, 2.0, 3.0], [(0.0, 3.0), (1.0, 4.0), (2.0, 5.0)])
    seeds = seeds_half_width([1.0, 2.0, 3.0])
    assert value == 2.0
    assert (low, high) == pytest.approx((2 - (1 + seeds**2) ** 0.5, 2 + (4 + seeds**2) ** 0.5))
    assert over_seeds([0.5], [(0.4, 0.7)]) == (0.5, pytest.approx((0.4, 0.7)))


def test_what_was_observed_is_told_with_its_number() -> None:
    leads = [one.lead for one in observations()]
    assert len(leads) >= 4 and leads == sorted(leads, reverse=True)
    assert "has nothing to hand on" in observed(Estimate(-3.0, -5.0, -1.0))
    assert "is not shown" in observed(Estimate(1.0, -1.0, 3.0))
    assert "Nothing was observed" in observed(Estimate(60.0, 50.0, 70.0))
    near = observed(Estimate(9.0, 7.0, 11.0))
    assert "leads" in near and "one task gained kd +1.4" in near


def papers(name: str) -> Recipe:
    return load_recipe(RunConfig(recipe=name, preset="paper"))


def test_a_preset_goes_before_changes_and_after_the_file() -> None:
    recipe = load_recipe(RunConfig(recipe="xnli", preset="paper", set=("student.batch_size=4",)))
    student, teacher = (recipe.stages[name].settings for name in ("student", "teacher"))
    assert student["learning_rate"] == 5e-6 and student["schedule"] == "constant"
    assert student["model"] == "bert-base-multilingual-cased" and student["batch_size"] == 4
    assert teacher["model"] == "roberta-large" and teacher["eval_every"] == 2500
    assert recipe.values["unlabelled"] == 400000
    for name in shipped():
        made = {step.name: step for step in make_plan(papers(name), Path("r"), STAGES)}
        trained = [one.given for one in made.values() if one.command.startswith("train-")]
        assert trained and all(one["batch_size"] == 8 for one in trained)
    with pytest.raises(ConfigError, match=r"papr is no preset.*paper"):
        load_recipe(RunConfig(recipe="debian", preset="papr"))


def test_several_runs_are_taken_together_only_as_they_stand() -> None:
    with pytest.raises(ConfigError, match="several runs"):
        ReproduceConfig(item="figure3", run=(Path("a"), Path("b")))
    with pytest.raises(ConfigError, match="`set`"):
        ReproduceConfig(item="figure3", run=(Path("a"),), finished=True, set=("steps=3",))


def test_latex_shows_texts_as_they_are() -> None:
    rows = [["a_b & c", "50 %"], ["[x] \\begin{x} $1^2$", "~<>#"]]
    text = latex(Table(rows, "50 % of {all}"), "t")
    assert r"{}a\_b \& c & {}50 \% \\" in text
    assert r"{}[x] \textbackslash{}begin\{x\} \$1\textasciicircum{}2\$" in text
    assert r"\caption{50 \% of \{all\}}" in text


def test_scores_without_a_teacher_or_targets(tmp_path: Path) -> None:
    run = run_samples.finished(tmp_path / "run", "figure3", skill)
    scores = scores_of(read_results(report_of(run)), "")
    assert scores.systems["kd temperature0.1"].difference is not None
    assert scores.systems["ce"].difference is None and scores.baseline == "ce"
    assert next(iter(scores.systems)) == "teacher" and scores.targets == ["de", "fr"]
