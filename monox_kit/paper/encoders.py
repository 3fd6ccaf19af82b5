"""Table 1: encoders in English."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from monox_kit.paper.item import Item, nothing_finished, published
from monox_kit.recipes.results import Results
from monox_kit.recipes.systems import TEACHER, by_title, system_of
from monox_kit.report.blocks import Table
from monox_kit.report.rows import cell_of
from monox_kit.report.score_plots import draw_averages
from monox_kit.report.scores import Scores, System


def table1(results: Results) -> Item:
    """Encoders fine-tuned on the same labels, compared in the source language."""
    tested = [one for one in results.teachers if one.evaluation]
    if not tested:
        raise nothing_finished(results, "an encoder that was fine-tuned and evaluated")
    tasks = list(dict.fromkeys(one.task for one in tested))
    source = str((tested[0].evaluation or {})["source_language"])
    names = {one.title: one.encoder for one in tested}
    systems = {
        (title, task): system_of(same, results)
        for task in tasks
        for title, same in by_title(one for one in tested if one.task == task).items()
    }
    rows = [["encoder", *(task or source for task in tasks)]]
    for title, encoder in names.items():
        found = (systems.get((title, task)) for task in tasks)
        cells = (None if one is None else one.languages.get(source) for one in found)
        shown = title.removeprefix(TEACHER).strip()
        rows.append([f"{shown}: {encoder}" if shown else encoder, *map(cell_of, cells)])
    first = {
        title: System(title=title.removeprefix(TEACHER).strip() or title, languages=one.languages)
        for (title, task), one in systems.items()
        if task == tasks[0]
    }
    scores = Scores(
        source_language=source, rows={source: 0}, systems=first, baseline=next(iter(first))
    )
    return Item(
        title=f"Table 1: encoders fine-tuned in {source}",
        said=[],
        tables=[
            Table(rows, f"Accuracy in {source}, in percent, with 95 % intervals.", numeric=True),
            _published_encoders(),
        ],
        caption=f"Accuracy in {source} with 95 % intervals. The axis does not start at 0.",
        draw=partial(draw_averages, scores),
        values={
            "source_language": source,
            "encoders": [
                {"name": title, "encoder": names[title], "task": task, **_plain(one, source)}
                for (title, task), one in systems.items()
            ],
        },
    )


def _published_encoders() -> Table:
    found: Mapping[str, Mapping[str, float]] = published()["table1"]
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [["encoder", *found]]
    rows += [[name, *(f"{values[name]:.2f}" for values in found.values())] for name in names]
    return Table(rows, "The paper's table 1: accuracy in English, in percent.", numeric=True)


def _plain(system: System, language: str) -> dict[str, Any]:
    found = system.languages.get(language)
    if found is None:
        return {"accuracy": None, "interval": None}
    return {"accuracy": found.value, "interval": [found.low, found.high]}
