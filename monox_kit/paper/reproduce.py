"""A table or figure of the paper: its recipe run, or what of it is finished, and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from monox_kit.durable import write_file
from monox_kit.foreign import publishable, stored_name
from monox_kit.paper.config import RECIPES, ReproduceConfig
from monox_kit.paper.encoders import table1
from monox_kit.paper.figures import figure2, figure3
from monox_kit.paper.item import Item, published
from monox_kit.paper.tables import systems_table
from monox_kit.progress import Progress
from monox_kit.recipes.finished import kept_recipe, read_run
from monox_kit.recipes.recipe import Recipe, RunConfig, load_recipe
from monox_kit.recipes.results import Results, merged, read_results
from monox_kit.recipes.run import RunReport, run_recipe
from monox_kit.report.blocks import Block, Command, Items, Paragraph, Plot, Section
from monox_kit.report.drawing import drawn, png_file, svg_element, svg_file
from monox_kit.report.latex import latex
from monox_kit.report.write import write_pages
from monox_kit.results import Result
from monox_kit.stage_call import Stage

_MAKERS: Mapping[str, Callable[[Results], Item]] = {
    "table1": table1,
    "table2": partial(systems_table, number=2),
    "table3": partial(systems_table, number=3),
    "figure2": figure2,
    "figure3": figure3,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction(Result):
    """What was made.

    Attributes:
        item: its name.
        title: of its page.
        recipes: the recipes' files.
        runs: folders of their runs.
        files: what was written.
        rows: the item's table, the header first.
        said: what was found, in plain sentences.
        missing: steps that are not finished, and that the item lacks.
        values: the item's numbers.
    """

    item: str
    title: str
    recipes: Sequence[str]
    runs: Sequence[str]
    files: Sequence[str]
    rows: Sequence[Sequence[str]]
    said: Sequence[str]
    missing: Sequence[str]
    values: Mapping[str, Any]


def reproduce_item(
    config: ReproduceConfig, stages: Mapping[str, Stage], progress: Progress | None = None
) -> Reproduction:
    """Run the recipe of a table or figure, or take what is finished, and write the item.

    Args:
        config: which item, and of what.
        stages: the stages by the names of their calls.
        progress: told of every step.

    Raises:
        ConfigError: the recipe or the run's folder is wrong, or nothing of the item is finished.
        MonoxError: what a step ends in, by kind.
    """
    runs = _runs(config, stages, progress)
    results = merged([read_results(report) for _, report in runs])
    item = _MAKERS[config.item](results)
    files = _put(config, item, results, runs)
    return Reproduction(
        item=config.item,
        title=item.title,
        recipes=[report.recipe for _, report in runs],
        runs=[report.out for _, report in runs],
        files=[str(path) for path in files],
        rows=item.tables[0].rows,
        said=item.said,
        missing=results.missing,
        values=item.values,
    )


def _runs(
    config: ReproduceConfig, stages: Mapping[str, Stage], progress: Progress | None
) -> list[tuple[Recipe, RunReport]]:
    """The recipe, and its run as it ended or as it stands; of several folders each."""
    if config.is_kept:
        recipes = [(kept_recipe(folder), folder) for folder in config.run]
        return [(recipe, read_run(recipe, folder, stages)) for recipe, folder in recipes]
    asked = RunConfig(
        recipe=config.recipe or RECIPES[config.item],
        set=config.set,
        preset=config.preset,
        out=config.run[0] if config.run else None,
    )
    recipe = load_recipe(asked)
    if not config.finished:
        return [(recipe, run_recipe(asked, stages, progress))]
    return [(recipe, read_run(recipe, asked.out or Path("runs") / recipe.name, stages))]


def _put(
    config: ReproduceConfig,
    item: Item,
    results: Results,
    runs: Sequence[tuple[Recipe, RunReport]],
) -> list[Path]:
    """The item as pages, as LaTeX, as numbers and as a picture."""
    name, out = config.item, config.out or Path(runs[0][1].out)
    figure = drawn({name: item.draw})[name]
    svg = svg_file(figure, name)
    values = {
        "item": name,
        "recipes": {
            stored_name(report.recipe): publishable(list(recipe.changes)) for recipe, report in runs
        },
        "missing": list(results.missing),
        "said": list(item.said),
        **item.values,
    }
    paths = write_pages(
        item.title,
        _sections(name, item, results, [recipe for recipe, _ in runs]),
        {name: svg_element(svg, name)},
        values,
        out,
        name=name,
        images={name: f"{name}.svg"},
    )
    tables = [
        latex(table, name if not number else f"{name}-{number}")
        for number, table in enumerate(item.tables)
    ]
    for suffix, content in (
        ("tex", "\n".join(tables).encode()),
        ("svg", svg.encode()),
        ("png", png_file(figure)),
    ):
        paths.append(out / f"{name}.{suffix}")
        write_file(paths[-1], content)
    return paths


def _sections(name: str, item: Item, results: Results, recipes: Sequence[Recipe]) -> list[Section]:
    """The item's page."""
    found = []
    if results.missing:
        text = (
            f"{len(results.missing)} steps are not finished, so that this is a part of the whole: "
            f"{', '.join(results.missing)}."
        )
        found.append(Section("Not finished", [Paragraph(text)]))
    if item.said:
        found.append(Section("In short", [Items(item.said)]))
    numbers: list[Block] = [Plot(name, item.caption), *item.tables]
    if item.notes:
        numbers.append(Items(item.notes))
    found.append(Section("Numbers", numbers))
    made: list[Block] = [Paragraph(f"The paper: {published()['source']}.")]
    for recipe in recipes:
        changed = f", changed by {', '.join(recipe.changes)}" if recipe.changes else ""
        made.append(Paragraph(publishable(f"It was made by the recipe {recipe.name}{changed}:")))
        made.append(Command(publishable(recipe.source.text)))
    found.append(Section("How it was made", made))
    return found
