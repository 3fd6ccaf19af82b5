"""Tables 2 and 3: the four systems by language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import mean

from monox_kit.paper.item import Item, named, nothing_finished, published
from monox_kit.recipes.results import BASELINE, Results
from monox_kit.recipes.systems import TEACHER, by_title, chosen, chosen_scores
from monox_kit.report.blocks import Table
from monox_kit.report.rows import ABSENT, cell_of
from monox_kit.report.score_plots import draw_averages, draw_gains
from monox_kit.report.scores import Estimate, Scores, kind_of_intervals


def systems_table(results: Results, number: int) -> Item:
    """The four systems by language and task, paired with the baseline; table 2 or 3."""
    found = [chosen_scores(results, task) for task in results.tasks]
    if not any(scores.systems for scores in found):
        raise nothing_finished(results, "a student that was trained and evaluated")
    methods = list(dict.fromkeys(name for one in found for name in one.systems if name != TEACHER))
    rows = [["language", *map(named, methods)]]
    for scores in found:
        for tag in scores.languages:
            cells = (scores.in_language(name, tag) for name in methods)
            rows.append([f"{scores.task} {tag}".strip(), *map(cell_of, cells)])
    summary = list(_summary(found, methods))
    paper = published().get(f"table{number}", {})
    for corpus, values in paper.items():
        cells = (values.get(name) for name in methods)
        summary.append(
            [f"the paper's average, {corpus}", *(f"{v:.2f}" if v else ABSENT for v in cells)]
        )
    measure = found[0].measure
    caption = (
        f"{measure.capitalize()} in percent, with 95 % intervals over documents and seeds. "
        "average is over all languages, as the paper's is."
    )
    table = Table(rows + summary, caption, numeric=True, num_summary_rows=len(summary))
    is_paired = all(scores.is_paired for scores in found)
    notes = [
        "An interval holds the spread between documents and, with several seeds, between seeds.",
        "minus ce is paired by document and seed."
        if is_paired
        else "minus ce is paired by seed; its interval takes the errors of the two systems on the "
        "documents as independent, which is too wide, for the recipe has no comparison of these "
        "two.",
        f"Recovered is (system - ce) / (teacher - ce) in {found[0].source_language}; arrived is "
        "the gain over the target languages by the same lead. They are left out where the teacher "
        "does not lead.",
    ]
    if not paper:
        notes.append(
            "The paper's own numbers for this table are not shown: they are not known here for "
            "certain."
        )
    return Item(
        title=f"Table {number}: the four systems",
        said=[*_claims(found), *_choices(results)],
        tables=[table, _gains_table(found, methods), *_arrived_table(found, methods)],
        caption=f"Points above the baseline with {kind_of_intervals(found[0].is_paired)}"
        + (f", {found[0].task}." if found[0].task else "."),
        draw=partial(draw_gains if _has_gains(found[0]) else draw_averages, found[0]),
        values={"tasks": [one.to_json() for one in found], "paper": paper},
        notes=notes,
    )


def _summary(found: Sequence[Scores], methods: Sequence[str]) -> Iterator[list[str]]:
    """The rows below the languages."""
    averages, targets, gains = [], [], []
    for name in methods:
        every = [
            each.value
            for scores in found
            for tag in scores.languages
            if (each := scores.in_language(name, tag)) is not None
        ]
        is_whole = len(every) == sum(len(scores.languages) for scores in found)
        averages.append(f"{mean(every):.1f}" if is_whole else ABSENT)
        targets.append(cell_of(over_tasks([scores.average(name) for scores in found])))
        gain = _gain(found, name)
        gains.append(ABSENT if gain is None else gain.signed)
    yield ["average", *averages]
    yield ["target average", *targets]
    yield [f"minus {BASELINE}", *gains]
    leads = [_lead(scores) for scores in found]
    if all(lead is not None and lead > 0 for lead in leads):
        lead = mean(one for one in leads if one is not None)
        yield ["recovered", *(_ratio(_source_gain(found, name), lead) for name in methods)]
        arrived = (None if (one := _gain(found, name)) is None else one.value for name in methods)
        yield ["arrived", *(_ratio(value, lead) for value in arrived)]


def over_tasks(found: Sequence[Estimate | None]) -> Estimate | None:
    """The mean over tasks, whose errors are independent; None where one has no value."""
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    value = mean(one.value for one in known)
    below = math.hypot(*(one.value - one.low for one in known)) / len(known)
    above = math.hypot(*(one.high - one.value for one in known)) / len(known)
    return Estimate(value, value - below, value + above)


def _gain(found: Sequence[Scores], name: str) -> Estimate | None:
    """How far a system is above the baseline, over target languages and tasks."""
    systems = [scores.systems.get(name) for scores in found]
    return over_tasks([None if one is None else one.difference for one in systems])


def _lead(scores: Scores) -> float | None:
    return _less(scores, TEACHER)


def _source_gain(found: Sequence[Scores], name: str) -> float | None:
    gains = [gain for scores in found if (gain := _less(scores, name)) is not None]
    # A mean over some of the tasks has nothing to do with the lead over all of them.
    return mean(gains) if len(gains) == len(found) and name != BASELINE else None


def _less(scores: Scores, name: str) -> float | None:
    """A system less the baseline, in the source language."""
    both = (scores.in_language(each, scores.source_language) for each in (name, BASELINE))
    system, baseline = both
    return None if system is None or baseline is None else system.value - baseline.value


def _ratio(gain: float | None, lead: float) -> str:
    return ABSENT if gain is None else f"{100 * gain / lead:.0f} %"


def _gains_table(found: Sequence[Scores], methods: Sequence[str]) -> Table:
    """Each system less the baseline, by language."""
    others = [name for name in methods if name != BASELINE]
    rows = [["language", *map(named, others)]]
    for scores in found:
        for tag in scores.languages:
            systems = (scores.systems.get(name) for name in others)
            gains = (None if one is None else one.gains.get(tag) for one in systems)
            cells = (ABSENT if gain is None else gain.signed for gain in gains)
            rows.append([f"{scores.task} {tag}".strip(), *cells])
    kind = kind_of_intervals(all(scores.is_paired for scores in found))
    return Table(rows, f"Points above {BASELINE}, with {kind}.", numeric=True)


def _arrived_table(found: Sequence[Scores], methods: Sequence[str]) -> Iterator[Table]:
    """How much of the teacher's lead arrives in each language; nothing where it does not lead."""
    others = [name for name in methods if name != BASELINE]
    rows = [["language", *map(named, others)]]
    for scores in found:
        lead = _lead(scores)
        if lead is None or lead <= 0:
            continue
        for tag in scores.targets:
            systems = (scores.systems.get(name) for name in others)
            gains = [None if one is None else one.gains.get(tag) for one in systems]
            cells = (ABSENT if gain is None else _scaled(gain, 100 / lead) for gain in gains)
            rows.append([f"{scores.task} {tag}".strip(), *cells])
    if len(rows) > 1:
        caption = (
            f"Gain in percent of the teacher's lead in {found[0].source_language}. The intervals "
            "are those of the gains: the lead is taken as it was measured."
        )
        yield Table(rows, caption, numeric=True)


def _scaled(gain: Estimate, by: float) -> str:
    return f"{gain.value * by:+.0f} [{gain.low * by:+.0f}, {gain.high * by:+.0f}]"


def _has_gains(scores: Scores) -> bool:
    return any(one.gains for one in scores.systems.values())


def _claims(found: Sequence[Scores]) -> Iterator[str]:
    """The paper's claims on its systems, each with what was measured."""
    gains = {name: _gain(found, name) for name in ("self-training", "pl", "kd")}
    for name in ("pl", "kd"):
        gain, selftrained = gains[name], gains["self-training"]
        if gain is None:
            continue
        yield f"{named(name)} above {named(BASELINE)}: {gain.signed} points; {_holds(gain)}."
        if selftrained is not None:
            apart = _apart(gain, selftrained)
            yield (
                f"{named(name)} above {named('self-training')}: {apart.signed} points (not "
                f"paired); {_holds(apart)}."
            )
    if (pl := gains["pl"]) is not None and (kd := gains["kd"]) is not None:
        apart = _apart(kd, pl)
        said = "no difference is shown" if apart.holds_0 else "they differ"
        yield f"{named('kd')} about {named('pl')}: {apart.signed} points (not paired); {said}."


def _apart(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two gains, as if their errors were independent."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def _holds(gain: Estimate) -> str:
    if gain.holds_0:
        return "not shown, the interval holds 0"
    return "it holds" if gain.value > 0 else "it does not hold"


def _choices(results: Results) -> Iterator[str]:
    """Which options were chosen on dev, where there were several."""
    for task in results.tasks:
        students = [one for one in results.students if one.task == task and one.evaluation]
        for method, best in chosen(students, lambda one: one.method).items():
            options = list(by_title(one for one in students if one.method == method))
            if len(options) > 1:
                of = f"{task}: " if task else ""
                yield f"{of}of {', '.join(options)}, {best[0].title} did best on dev and is shown."
