"""A run's report: whether distilling helped, by language, and what it took."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from monox_kit.advice.observed import lead_of, observed
from monox_kit.foreign import publishable
from monox_kit.recipes.results import Model, Results, read_results
from monox_kit.recipes.systems import scores_of
from monox_kit.report.accuracy import accuracy_blocks
from monox_kit.report.blocks import Block, Command, Items, Paragraph, Plot, Section, Table
from monox_kit.report.drawing import drawn, svg_element, svg_file
from monox_kit.report.rows import ABSENT, duration
from monox_kit.report.score_plots import draw_averages, draw_gains, draw_languages
from monox_kit.report.scores import Scores, System, kind_of_intervals
from monox_kit.report.write import write_pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from monox_kit.recipes.recipe import Recipe
    from monox_kit.recipes.run import RunReport


def write_page(report: RunReport, recipe: Recipe, out: Path) -> list[Path]:
    """Write `report.md`, `report.html` and `report.json` of a run into its folder.

    Returns:
        The paths of the three files, in that order.

    Raises:
        StorageError: the disk refused.
    """
    results = read_results(report)
    scores = [scores_of(results, task) for task in results.tasks]
    has_plots = importlib.util.find_spec("matplotlib") is not None
    figures = drawn(_drawers(scores)) if has_plots else {}
    files = {name: svg_file(figure, name) for name, figure in figures.items()}
    plots = {name: svg_element(text, name) for name, text in files.items()}
    values = {**publishable(report.to_json()), "scores": [one.to_json() for one in scores]}
    title = f"monoxkit run {recipe.name}"
    sections = _sections(report, recipe, results, scores)
    if scores and not has_plots:  # the steps may have run without the extra that trains
        text = 'The plots are missing: they need matplotlib (pip install "monoxkit[train]").'
        sections.insert(1, Section("Plots", [Paragraph(text)]))
    return write_pages(title, sections, plots, values, out)


def verdicts(scores: Scores) -> Iterator[str]:
    """Whether each system that learned from a teacher is above the baseline, in plain sentences."""
    of = f" on {scores.task}" if scores.task else ""
    for name, system in scores.systems.items():
        gain = system.difference
        if gain is None or name == scores.baseline:
            continue
        above = [tag for tag in scores.targets if _is_above(system, tag)]
        below = [tag for tag in scores.targets if _is_below(system, tag)]
        if gain.low > 0:
            said = f"{name} helped{of}: it is {gain.signed} points above {scores.baseline}"
        elif gain.high < 0:
            said = f"{name} did harm{of}: it is {gain.signed} points from {scores.baseline}"
        else:
            said = (
                f"It is not shown that {name} helped{of}: it is {gain.signed} points from "
                f"{scores.baseline}, and the interval holds 0,"
            )
        alone = ", ".join(
            f"{word} in {', '.join(tags)}"
            for word, tags in (("better", above), ("worse", below))
            if tags
        )
        seeds = f"{len(system.seeds)} seeds" if system.seeds else "one seed"
        yield (
            f"{said} on the average of {len(scores.targets)} target languages ({seeds}). Alone, "
            f"{alone or 'no language shows a difference'}."
        )


def _is_above(system: System, language: str) -> bool:
    return language in system.gains and system.gains[language].low > 0


def _is_below(system: System, language: str) -> bool:
    return language in system.gains and system.gains[language].high < 0


def _drawers(scores: list[Scores]) -> dict[str, Callable[[], Figure]]:
    found: dict[str, Callable[[], Figure]] = {}
    for number, one in enumerate(scores):
        suffix = f"-{number}" if number else ""
        found[f"averages{suffix}"] = partial(draw_averages, one)
        found[f"languages{suffix}"] = partial(draw_languages, one)
        if any(system.gains for system in one.systems.values()):
            found[f"gains{suffix}"] = partial(draw_gains, one)
    return found


def _sections(
    report: RunReport, recipe: Recipe, results: Results, scores: list[Scores]
) -> list[Section]:
    """The report, top to bottom."""
    short = [text for one in scores for text in (*verdicts(one), *_leads(one))]
    seconds = [step.seconds for step in report.steps if step.seconds is not None]
    short.append(f"{len(report.steps)} steps took {duration(sum(seconds))}.")
    found = [Section("In short", [Items(tuple(short))])]
    for number, one in enumerate(scores):
        of = f": {one.task}" if one.task else ""
        suffix = f"-{number}" if number else ""
        notes = tuple(_notes(one))
        found.append(
            Section(f"{one.measure.capitalize()}{of}", accuracy_blocks(one, notes, suffix))
        )
        if any(system.gains for system in one.systems.values()):
            found.append(Section(f"Gain by language{of}", _gains(one, suffix)))
    if results.students or results.teachers:
        found.append(Section("Training", [_training(results)]))
    found.append(Section("Steps", [_steps(report)]))
    found.append(Section("The recipe", list(_recipe(recipe))))
    return found


def _leads(scores: Scores) -> Iterator[str]:
    """How far the teachers lead in the source language, and what gain was seen at such leads."""
    source = scores.source_language
    baseline = scores.in_language(scores.baseline, source)
    for name, system in scores.systems.items():
        teacher = system.languages.get(source)
        if name.startswith("teacher") and teacher is not None and baseline is not None:
            lead = lead_of(teacher, baseline)
            of = f" of {scores.task}" if scores.task else ""
            yield (
                f"In {source}{of}, {name} scores {teacher} % and {scores.baseline} {baseline} %: a "
                f"lead of {lead.signed} points. {observed(lead)}"
            )


def _notes(scores: Scores) -> Iterator[str]:
    seeds = max(len(one.seeds) for one in scores.systems.values())
    if seeds > 1:
        yield (
            f"Numbers are means over the seeds ({seeds} of them at most); their intervals add the "
            "spread between seeds (Student's t) to that between documents."
        )
    else:
        yield (
            "No interval says how far a number would move with another seed: every model was "
            "trained once."
        )
    yield '"-" stands where something was not tested.'


def _gains(scores: Scores, suffix: str) -> list[Block]:
    """Each system less the baseline, by language."""
    systems = [one for one in scores.systems.values() if one.gains]
    rows = [["language", *(one.title for one in systems)]]
    for tag in scores.languages:
        gains = (one.gains.get(tag) for one in systems)
        rows.append([tag, *(ABSENT if gain is None else gain.signed for gain in gains)])
    differences = (one.difference for one in systems)
    rows.append(["target average", *(ABSENT if one is None else one.signed for one in differences)])
    caption = f"Points above {scores.baseline}, with {kind_of_intervals(scores.is_paired)}."
    return [
        Plot(f"gains{suffix}", f"{caption} Where an interval holds 0, nothing is shown."),
        Table(rows, caption, numeric=True, num_summary_rows=1),
        Paragraph(
            "Of twenty languages without any difference, one has an interval without 0 by chance."
        ),
    ]


def _training(results: Results) -> Table:
    rows = [["model", "texts", "seeds", "dev, %", "steps", "time"]]
    groups: dict[tuple[str, str], list[Model]] = {}
    for one in (*results.teachers, *results.students):
        groups.setdefault((one.title, one.task), []).append(one)
    for (title, task), same in groups.items():
        done = [one.training for one in same if one.training is not None]
        devs = [one.dev for one in same if one.dev is not None]
        rows.append(
            [
                title,
                task or ABSENT,
                f"{len(done)} of {len(same)}",
                f"{mean(devs):.1f}" if devs else ABSENT,
                ", ".join(sorted({f"{one['num_steps']:,}" for one in done})) or ABSENT,
                duration(sum(one["trained_s"] for one in done)) if done else ABSENT,
            ]
        )
    caption = (
        "Models by method. dev is the measure on the dev set that chose the weights, a mean over "
        "seeds; the time is that of all seeds together."
    )
    return Table(rows, caption, numeric=True)


def _steps(report: RunReport) -> Table:
    rows = [["step", "command", "state", "time"]]
    rows += [
        [one.name, one.command, one.state, ABSENT if one.seconds is None else duration(one.seconds)]
        for one in report.steps
    ]
    return Table(rows, "The plan in its order; reused steps were done by an earlier run.")


def _recipe(recipe: Recipe) -> Iterator[Block]:
    if recipe.changes:
        yield Paragraph("It was changed by:")
        yield Items(publishable(list(recipe.changes)))
    yield Command(publishable(recipe.source.text))
