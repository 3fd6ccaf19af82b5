"""A run's models as systems: each over its seeds, beside the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from monox_kit.evaluation.statistics import over_seeds
from monox_kit.problem import MEASURES
from monox_kit.recipes.results import BASELINE, Model, Results
from monox_kit.report.scores import Estimate, Scores, System

# The name of the teacher among systems.
TEACHER = "teacher"
# The order of the paper's tables; methods of later versions come behind.
_METHODS = (BASELINE, "self-training", "pl", "kd")


def scores_of(results: Results, task: str) -> Scores:
    """The systems of a task that were tested, each over its seeds."""
    students, teachers = _tested(results, task)
    groups = by_title([*teachers, *students])
    plain = chosen((one for one in students if one.method == BASELINE), lambda one: BASELINE)
    baseline = plain[BASELINE][0].title if plain else BASELINE
    systems = {title: system_of(models, results) for title, models in groups.items()}
    return _scores([*students, *teachers], systems, baseline, task)


def chosen_scores(results: Results, task: str) -> Scores:
    """Of each method the students that did best on dev, by method, and the teachers behind them."""
    students, teachers = _tested(results, task)
    best = chosen(students, lambda one: one.method)
    behind = {name for models in best.values() for one in models for name in one.teachers}
    teachers = [one for one in teachers if one.name in behind]
    systems = {
        name: system_of(models, results)
        for name, models in chosen(teachers, lambda one: TEACHER).items()
    }
    for method, models in best.items():
        systems[method] = system_of(models, results, best.get(BASELINE, ()))
    return _scores([*students, *teachers], systems, BASELINE, task)


def _tested(results: Results, task: str) -> tuple[list[Model], list[Model]]:
    """The students and teachers of a task that were tested, students by the order of methods."""
    students = [one for one in results.students if one.task == task and one.evaluation]
    teachers = [one for one in results.teachers if one.task == task and one.evaluation]
    return sorted(students, key=_rank), teachers


def _scores(
    models: Sequence[Model], systems: Mapping[str, System], baseline: str, task: str
) -> Scores:
    evaluations = [one.evaluation for one in models if one.evaluation]
    rows: dict[str, int] = {}
    for evaluation in evaluations:
        for tag, found in evaluation["languages"].items():
            rows.setdefault(tag, found["num_rows"])
    return Scores(
        source_language=str(evaluations[0]["source_language"]),
        rows=rows,
        systems=systems,
        baseline=baseline,
        measure=MEASURES[str(evaluations[0]["measure"])],
        task=task,
    )


def by_title(models: Iterable[Model]) -> dict[str, list[Model]]:
    """Models that differ by their seeds alone, under their common title."""
    groups: dict[str, list[Model]] = {}
    for one in models:
        groups.setdefault(one.title, []).append(one)
    return groups


def system_of(
    models: Sequence[Model], results: Results, baselines: Sequence[Model] | None = None
) -> System:
    """What models that differ by their seeds alone score, on average, and above the baseline.

    Args:
        models: of one title, evaluated.
        results: the run's.
        baselines: what they are compared with, seed by seed; None for the run's baseline that is
            most like them.
    """
    evaluations = [one.evaluation for one in models if one.evaluation is not None]
    measure = str(evaluations[0]["measure"])
    devs = [one.dev for one in models if one.dev is not None]
    if baselines is None:
        baselines = _baselines(models[0], results.students)
    compared = list(_beside(models, baselines, results))
    return System(
        title=models[0].title,
        languages={
            tag: _estimate([one["languages"][tag] for one in evaluations], measure)
            for tag in _common(evaluations)
        },
        average=_optional(evaluations, "target_average"),
        difference=_optional(compared, "target_difference"),
        gains={
            tag: _estimate([one["languages"][tag] for one in compared], "difference")
            for tag in _common(compared)
        },
        is_paired=all(one["is_paired"] for one in compared),
        dev=mean(devs) if devs else None,
        seeds=tuple(one.seed for one in models) if len(models) > 1 else (),
    )


def _common(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The languages that all of some results have: seeds may draw texts of their own."""
    first = found[0]["languages"] if found else ()
    return [tag for tag in first if all(tag in one["languages"] for one in found)]


def _baselines(model: Model, students: Sequence[Model]) -> list[Model]:
    """The baseline with a model's options, or else the one that did best on dev."""
    found = [
        one
        for one in students
        if one.method == BASELINE and one.task == model.task and one.evaluation
    ]
    same = [one for one in found if one.others == model.others]
    return chosen(same or found, lambda one: BASELINE).get(BASELINE, [])


def _beside(
    models: Sequence[Model], baselines: Sequence[Model], results: Results
) -> Iterator[dict[str, Any]]:
    """Each model beside the baseline of its seed; nothing where a seed has none."""
    by_seed = {one.seed: one for one in baselines}
    known = all(one.seed in by_seed and one.name != by_seed[one.seed].name for one in models)
    for model in models if known and models[0].method else ():
        baseline = by_seed[model.seed]
        found = results.comparisons.get((baseline.name, model.name))
        assert model.evaluation is not None and baseline.evaluation is not None
        if found is None:
            yield {**_unpaired(baseline.evaluation, model.evaluation), "is_paired": False}
        else:
            yield {**found, "is_paired": True}


def _unpaired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two evaluations as a comparison that knows nothing of which rows each has right.

    Its intervals take the errors as independent, so they are wider than paired ones.
    """
    measure = str(first["measure"])

    def less(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Any:
        if one[key] is None or other[key] is None:
            return None, None
        (low, high), (least, most) = one[f"{key}_interval"], other[f"{key}_interval"]
        value = other[key] - one[key]
        below = math.hypot(other[key] - least, high - one[key])
        above = math.hypot(most - other[key], one[key] - low)
        return value, (value - below, value + above)

    languages = {}
    for tag in first["languages"].keys() & second["languages"].keys():
        value, interval = less(measure, first["languages"][tag], second["languages"][tag])
        languages[tag] = {"difference": value, "difference_interval": interval}
    value, interval = less("target_average", first, second)
    return {
        "languages": languages,
        "target_difference": value,
        "target_difference_interval": interval,
    }


def chosen(models: Iterable[Model], by: Callable[[Model], Any]) -> dict[Any, list[Model]]:
    """Of each group, the models whose options did best on dev, over their seeds.

    The test languages have no part in it. Options of which a seed is missing that others have are
    no candidates, and equal accuracy is decided by the lower loss.

    Args:
        models: of one task.
        by: the key of a model's group.
    """
    groups: dict[Any, list[Model]] = {}
    for one in models:
        groups.setdefault(by(one), []).append(one)
    best = {}
    for key, group in groups.items():
        variants = list(by_title(group).values())
        most = max(map(len, variants))
        best[key] = max((one for one in variants if len(one) == most), key=_on_dev)
    return best


def _on_dev(models: Sequence[Model]) -> tuple[float, float]:
    """How good models are on dev, for comparison."""
    known = [(one.dev, one.dev_loss) for one in models if one.dev is not None]
    if not known:
        return -1.0, 0.0
    return mean(dev for dev, _ in known), -mean(loss or 0.0 for _, loss in known)


def _rank(model: Model) -> int:
    return _METHODS.index(model.method) if model.method in _METHODS else len(_METHODS)


def _estimate(found: Sequence[Mapping[str, Any]], key: str) -> Estimate:
    values, intervals = [one[key] for one in found], [one[f"{key}_interval"] for one in found]
    return Estimate.of_shares(*over_seeds(values, intervals))


def _optional(found: Sequence[Mapping[str, Any]], key: str) -> Estimate | None:
    """As `_estimate`; None where a seed has no value."""
    if not found or any(one[key] is None for one in found):
        return None
    return _estimate(found, key)
